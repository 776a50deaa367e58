"""Webhooks: one HTTPS POST a delivery, signed after Standard Webhooks, its body a CloudEvent.

What a receiver does with the connection can harm nobody: its answer is read up to a limit and no further, its headers
likewise, its redirects are followed three times and judged like the first address, and the caller keeps the time.
"""

import asyncio
import email.utils
from collections.abc import Callable, Sequence

import orjson

from latticed import __version__
from latticed.clock import Clock, to_text
from latticed.errors import Invalid
from latticed.hooks.addresses import Network, NotAllowed, Target, parse_url
from latticed.hooks.network import ANSWER_BYTES, Answered, Connections, Names, Resolver, Unreached
from latticed.hooks.signing import BadSecret, Keys, signature
from latticed.models.deliveries import Undelivered
from latticed.models.hooks import OUTPUT_CHARS, Answer, HookFailed, HookSpec, Occasion, WebhookHook, clip
from latticed.secrets import NoSecret

CONTENT_TYPE = b"application/cloudevents+json"
REDIRECTS = 3
JUDGE_SECONDS = 3.0
"""How long it may take to find out where a name is when a webhook is registered."""
IDLE_SECONDS = 15.0
"""How long a connection is kept for the next delivery."""
MOST_IDLE = 32
_TYPES = {"post_run": "latticed.run.finished"}
_SAME_AGAIN = (301, 302, 307, 308)
"""Redirects that are followed with the same method and body (RFC 9110, 15.4); 303 says that the body was taken."""
_OVERLOADED = (429, 502, 504)
"""What says that a receiver has more than it can bear (Standard Webhooks, delivery success and failure)."""
REST_SECONDS = 1.0
"""How long such a receiver is left alone if it does not say."""
_USER_AGENT = f"latticed/{__version__}".encode()
_HEAD = (
    b"content-type: %b\r\ncontent-length: %d\r\nuser-agent: %b\r\naccept: application/json, */*;q=0.5\r\n"
    b"webhook-id: %b\r\nwebhook-timestamp: %d\r\nwebhook-signature: %b\r\n\r\n"
)


class Webhooks:
    """Sends to receivers; the runner of the hooks of this sort."""

    def __init__(
        self, keys: Keys, clock: Clock, private: Sequence[Network], resolve: Resolver | None = None
    ) -> None:  # fmt: skip
        self._keys = keys
        self._clock = clock
        self._resolve = resolve or Names()
        self._targets: dict[str, Target] = {}
        self._connections = self._open(private)
        self._retired: list[Connections] = []

    def _open(self, private: Sequence[Network]) -> Connections:
        return Connections(self._resolve, tuple(private), idle_seconds=IDLE_SECONDS, most_idle=MOST_IDLE)

    def allow(self, private: Sequence[Network]) -> None:
        """From now on these private networks may be called, and no others."""
        self._retired.append(self._connections)
        self._connections = self._open(private)

    async def close_idle(self) -> None:
        """Closes the connections that were not needed for a while."""
        while self._retired:
            self._retired.pop().close()
        self._connections.close_expired()

    async def close(self) -> None:
        """Closes every idle connection."""
        self._connections.close()

    async def judge(self, url: str) -> None:
        """Whether a URL can be called, as far as that can be known soon; a name that nobody knows yet passes.

        Raises:
            Invalid: it cannot.
        """
        target = parse_url(url)
        try:
            async with asyncio.timeout(JUDGE_SECONDS):
                await self._connections.find(target)
        except NotAllowed as error:
            raise Invalid(str(error)) from None
        except (Unreached, TimeoutError):
            return

    def check_secret(self, hook: HookSpec) -> None:
        """Whether what signs a hook's deliveries is there.

        Raises:
            Invalid: it is not, or cannot sign.
        """
        try:
            self._keys.find(hook)
        except (NoSecret, BadSecret) as error:
            raise Invalid(error.detail) from None

    def signing_secret(self, hook: HookSpec) -> str | None:
        """The daemon's own key for a hook, as its receiver needs it; None if the hook has a secret of its own."""
        return self._keys.text(hook)

    async def run(self, hook: HookSpec, payload: bytes, occasion: Occasion, begun: Callable[[], None]) -> Answer:
        """Delivers once, at once.

        Raises:
            Undelivered: the receiver was not reached, or did not answer with a 2xx.
            HookFailed: it did, with what is no answer of a hook at a `pre_*` point.
        """
        begun()
        table = hook.table
        assert isinstance(table, WebhookHook)
        body = cloud_event(hook, payload, occasion)
        timestamp = self._clock.now() // 1_000_000
        try:
            signed = signature(self._keys.find(hook), occasion.delivery_id, timestamp, body)
        except (NoSecret, BadSecret) as error:
            raise Undelivered(error.detail) from None
        fields = (
            CONTENT_TYPE, len(body), _USER_AGENT, occasion.delivery_id.encode(), timestamp, signed.encode()
        )  # fmt: skip
        request = _HEAD % fields + body
        target = self._target(table.url)
        pool = self._connections
        try:
            for _ in range(REDIRECTS + 1):
                head = b"POST %b HTTP/1.1\r\nhost: %b\r\n" % (target.path, target.authority)
                answered = await pool.exchange(target, head + request)
                location = answered.headers.get(b"location")
                if answered.status not in _SAME_AGAIN or location is None:
                    break
                target = target.redirected(location.decode("latin-1"))
            else:
                raise Undelivered(f"it redirects more than {REDIRECTS} times")
        except NotAllowed as error:
            raise Undelivered(str(error), again=False) from None
        except Unreached as error:
            raise Undelivered(str(error)) from None
        return self._judge(hook, answered)

    def _judge(self, hook: HookSpec, answered: Answered) -> Answer:
        status, fields, body, whole = answered
        output = clip(body[: OUTPUT_CHARS * 4].decode("utf-8", "replace"), OUTPUT_CHARS)
        if not 200 <= status < 300:
            wait = self._retry_after(fields.get(b"retry-after"))
            if wait is None and status in _OVERLOADED:
                wait = REST_SECONDS
            raise Undelivered(f"it answered {status}", output, retry_seconds=wait, gone=status == 410)
        if not hook.point.startswith("pre_"):
            return Answer(output=output)
        if not whole:
            raise HookFailed(f"its answer is longer than {ANSWER_BYTES} bytes", output)
        return Answer.read(body, output)

    def _retry_after(self, text: bytes | None) -> float | None:
        """RFC 9110, 10.2.3: seconds or a date."""
        if text is None:
            return None
        if text.isdigit():
            return float(text[:9])
        try:
            moment = email.utils.parsedate_to_datetime(text.decode("latin-1"))
            return max(0.0, moment.timestamp() - self._clock.now() / 1e6)
        except (ValueError, TypeError, OverflowError):
            return None

    def _target(self, url: str) -> Target:
        target = self._targets.get(url)
        if target is None:
            if len(self._targets) > 10_000:
                self._targets.clear()
            try:
                target = self._targets[url] = parse_url(url)
            except Invalid as error:
                raise Undelivered(error.detail, again=False) from None
        return target


def cloud_event(hook: HookSpec, payload: bytes, occasion: Occasion) -> bytes:
    """A delivery as a CloudEvent 1.0 in JSON. It is the same whenever it is sent."""
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": occasion.delivery_id,
            "source": f"/v1/workspaces/{occasion.workspace}",
            "type": _TYPES.get(hook.point, f"latticed.{hook.point}"),
            "subject": occasion.run_id,
            "time": to_text(occasion.at),
            "datacontenttype": "application/json",
            "data": orjson.Fragment(payload),
        }
    )

"""One delivery to every sort of receiver, and to addresses that must not be called."""

import asyncio
import ipaddress
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from latticed.clock import SystemClock
from latticed.errors import Invalid
from latticed.hooks.network import ANSWER_BYTES, Resolver, SocketAddress
from latticed.hooks.signing import Keys
from latticed.hooks.webhook import Webhooks
from latticed.models.deliveries import Undelivered
from latticed.models.hooks import Answer, HookFailed, HookSpec, Occasion, WebhookHook
from latticed.secrets import Secrets
from tests.receiver import Behaviour, Receiver, plain

OCCASION = Occasion("dlv_" + "1" * 32, "default", "run_" + "2" * 32, 1_767_225_600_000_000)
PAYLOAD = b'{"hook":"notify","run":{"id":"run_2"}}'
CHUNKED = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n"
LOOPBACK = (ipaddress.ip_network("127.0.0.1/32"),)

Make = Callable[..., Receiver]
Sender = Callable[..., Webhooks]


@pytest.fixture
def receiver() -> Iterator[Make]:
    """Makes receivers."""
    made: list[Receiver] = []

    def make(behaviour: Behaviour | None = None, *answers: bytes, **where: Any) -> Receiver:
        made.append(Receiver(behaviour or (lambda request, channel: plain()), answers=list(answers), **where))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
async def sender(tmp_path: Path) -> AsyncIterator[Sender]:
    """Makes senders that may call 127.0.0.1 alone; given a resolver, that says where names are."""
    made: list[Webhooks] = []

    def make(resolve: Resolver | None = None, private: tuple[Any, ...] = LOOPBACK) -> Webhooks:
        made.append(Webhooks(Keys(tmp_path / "key", Secrets(None, {})), SystemClock(), private, resolve))
        return made[-1]

    yield make
    for each in made:
        await each.close_idle()
        await each.close()
    await asyncio.sleep(0)  # noqa: TID251  # what was aborted is closed in the loop's next turn


@pytest.fixture
async def webhooks(sender: Sender) -> Webhooks:
    """One that asks the system where names are."""
    return sender()


def hook(url: str, point: Any = "post_run", **more: Any) -> HookSpec:
    return HookSpec("notify", WebhookHook(use="webhook", point=point, url=url, **more))


async def send(webhooks: Webhooks, url: str, point: str = "post_run", seconds: float = 5) -> Answer:
    """One delivery, within the time that the caller keeps."""
    async with asyncio.timeout(seconds):
        return await webhooks.run(hook(url, point), PAYLOAD, OCCASION)


async def refused(webhooks: Webhooks, url: str, seconds: float = 5) -> Undelivered:
    with pytest.raises(Undelivered) as failure:
        await send(webhooks, url, seconds=seconds)
    return failure.value


# What is sent


async def test_a_delivery_is_a_signed_cloud_event(receiver: Make, webhooks: Webhooks, tmp_path: Path) -> None:
    one = receiver()
    assert await send(webhooks, one.url + "?a=b") == Answer(output="")
    [request] = one.requests
    key = Keys(tmp_path / "key", Secrets(None, {})).text(hook(one.url))
    assert key is not None
    checked = Webhook(key).verify(request.body, request.headers)
    assert checked == {
        "specversion": "1.0", "id": OCCASION.delivery_id, "source": "/v1/workspaces/default",
        "type": "latticed.run.finished", "subject": OCCASION.run_id, "time": "2026-01-01T00:00:00.000000Z",
        "datacontenttype": "application/json", "data": {"hook": "notify", "run": {"id": "run_2"}},
    }  # fmt: skip
    assert request.path == "/hook?a=b"
    assert request.headers["content-type"] == "application/cloudevents+json"
    assert request.headers["webhook-id"] == OCCASION.delivery_id
    assert request.headers["host"] == f"127.0.0.1:{one.port}"
    assert request.headers["user-agent"].startswith("latticed/")


async def test_the_type_names_the_point(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver()
    for point in ("on_event", "pre_run"):
        await send(webhooks, one.url, point)
    assert [request.event["type"] for request in one.requests] == ["latticed.on_event", "latticed.pre_run"]


async def test_a_connection_is_kept_for_the_next_delivery(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver()
    for _ in range(5):
        await send(webhooks, one.url)
    assert (len(one.requests), one.connections) == (5, 1)


async def test_one_that_was_closed_meanwhile_is_opened_again(receiver: Make, webhooks: Webhooks) -> None:
    def once(request: Any, channel: socket.socket) -> None:
        channel.sendall(plain())

    one = receiver(once)
    for _ in range(3):
        await send(webhooks, one.url)
    assert len(one.requests) == 3


async def test_many_at_once_share_what_connections_there_are(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver()
    for _ in range(3):
        await asyncio.gather(*(send(webhooks, one.url) for _ in range(20)))
    assert len(one.requests) == 60
    assert one.connections <= 20


# What is answered


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_delivered_and_its_beginning_kept(receiver: Make, webhooks: Webhooks, status: int) -> None:
    one = receiver(None, plain(status, b"" if status == 204 else b"thank you \xff\x00"))
    assert (await send(webhooks, one.url)).output == ("" if status == 204 else "thank you \ufffd\ufffd")


@pytest.mark.parametrize("status", [300, 303, 304, 400, 401, 404, 418, 429, 500, 503, 599])
async def test_anything_else_is_not(receiver: Make, webhooks: Webhooks, status: int) -> None:
    one = receiver(None, plain(status, b"" if status == 304 else b"no"))
    failure = await refused(webhooks, one.url)
    assert str(failure) == f"it answered {status}"
    assert (failure.again, failure.gone, failure.retry_seconds) == (True, False, None)


async def test_gone_is_gone(receiver: Make, webhooks: Webhooks) -> None:
    failure = await refused(webhooks, receiver(None, plain(410)).url)
    assert (failure.gone, failure.again) == (True, False)


async def test_when_to_come_again_is_said_in_seconds_or_as_a_date(receiver: Make, webhooks: Webhooks) -> None:
    said = [
        ("120", 120.0, 120.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 1e9, 1e10),
        ("Sat, 01 Jan 2000 00:00:00 GMT", 0, 0),
    ]
    for text, least, most in said:
        failure = await refused(webhooks, receiver(None, plain(503, b"", f"Retry-After: {text}")).url)
        assert failure.retry_seconds is not None
        assert least <= failure.retry_seconds <= most
    for text in ("soon", "-5", "1e9", "٣"):
        answer = f"HTTP/1.1 503 X\r\ncontent-length: 0\r\nretry-after: {text}\r\n\r\n".encode()
        failure = await refused(webhooks, receiver(None, answer).url)
        assert failure.retry_seconds is None


async def test_before_a_run_the_body_is_the_hooks_answer(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver(None, plain(200, b'{"block": "no"}'), plain(204), plain(200, b'{"tags": {"a": "b"}}'))
    answers = [await send(webhooks, one.url, "pre_run") for _ in range(3)]
    assert [answer.block for answer in answers] == ["no", None, None]
    assert answers[2].changes == {"tags": {"a": "b"}}


@pytest.mark.parametrize(
    "body", [b"ok", b"[]", b'{"block": 1}', b'{"block": "x", "tags": {}}', b" " * ANSWER_BYTES + b"{}"]
)
async def test_before_a_run_what_is_no_answer_is_an_error(receiver: Make, webhooks: Webhooks, body: bytes) -> None:
    with pytest.raises(HookFailed) as failure:
        await send(webhooks, receiver(None, plain(200, body)).url, "pre_run")
    assert "answer" in str(failure.value)


# Receivers that mean no good


def bombs() -> dict[str, Behaviour]:
    """Each floods, or hangs, or breaks off."""

    def flood(head: bytes, part: bytes) -> Behaviour:
        def behave(request: Any, channel: socket.socket) -> None:
            channel.sendall(head)
            while True:
                channel.sendall(part)

        return behave

    return {
        "a body of gigabytes": flood(b"HTTP/1.1 200 X\r\ncontent-length: 9999999999\r\n\r\n", b"x" * 65536),
        "chunks without an end": flood(
            b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n", b"5\r\nxxxxx\r\n" * 999
        ),
        "a body until the end": flood(b"HTTP/1.1 200 X\r\n\r\n", b"x" * 65536),
        "a header without an end": flood(b"HTTP/1.1 200 X\r\nx: ", b"x" * 65536),
        "headers without an end": flood(b"HTTP/1.1 200 X\r\n", b"a: b\r\n" * 999),
        "a name without an end": flood(b"HTTP/1.1 200 X\r\n", b"x" * 65536),
        "a status without an end": flood(b"HTTP/1.1 200 ", b"x" * 65536),
        "continue, continue": flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 99),
        "no HTTP": flood(b"", b"\x00\xff" * 999),
        "a chunk's extension": flood(CHUNKED + b"5;x=", b"y" * 65536),
        "trailers": flood(CHUNKED + b"0\r\n", b"a: b\r\n" * 999),
    }


@pytest.mark.parametrize("name", sorted(bombs()))
async def test_a_flood_ends_at_once(receiver: Make, webhooks: Webhooks, name: str) -> None:
    one = receiver(bombs()[name])
    if "body" in name or "chunks" in name:
        assert len((await send(webhooks, one.url)).output) == 4000
        return
    failure = await refused(webhooks, one.url)
    assert re.match("the head of|it answered with what is no HTTP|its answer is longer|it answers 1xx", str(failure))


@pytest.mark.parametrize(
    "part",
    [b"", b"HTTP/1.1 200 X\r\n", b"HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\nab",
     b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", b"HTTP/1.1 100 Continue\r\n\r\n"],
)  # fmt: skip
async def test_whoever_breaks_off_has_not_answered(receiver: Make, webhooks: Webhooks, part: bytes) -> None:
    def behave(request: Any, channel: socket.socket) -> None:
        channel.sendall(part)

    failure = await refused(webhooks, receiver(behave).url)
    assert str(failure) == "it closed the connection before it had answered"
    assert failure.again


async def test_a_body_without_a_length_ends_with_its_connection(receiver: Make, webhooks: Webhooks) -> None:
    def behave(request: Any, channel: socket.socket) -> None:
        channel.sendall(b"HTTP/1.1 200 X\r\n\r\nall of it")

    assert (await send(webhooks, receiver(behave).url)).output == "all of it"


async def test_whoever_hangs_or_trickles_is_left_when_the_time_is_over(receiver: Make, webhooks: Webhooks) -> None:
    closed = threading.Event()

    def hang(request: Any, channel: socket.socket) -> None:
        if not channel.recv(1):
            closed.set()

    def trickle(request: Any, channel: socket.socket) -> None:
        channel.sendall(b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n")
        while not one.over.wait(0.01):
            channel.sendall(b"x")

    for behaviour in (hang, trickle):
        one = receiver(behaviour)
        with pytest.raises(TimeoutError):
            await send(webhooks, one.url, seconds=0.2)
    assert await asyncio.to_thread(closed.wait, 5), "its connection is closed, too"


async def test_an_upgrade_is_no_answer(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver(None, b"HTTP/1.1 101 X\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n")
    assert "another protocol" in str(await refused(webhooks, one.url))


async def test_what_comes_unasked_ends_the_connection(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver(None, plain() + plain(200, b"smuggled"), plain(200, b"asked"))
    await send(webhooks, one.url)
    assert (await send(webhooks, one.url)).output == "asked"
    assert one.connections == 2


async def test_nobody_there_is_no_connection(webhooks: Webhooks) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/"
    failure = await refused(webhooks, url)
    assert "refused" in str(failure)
    assert failure.again


# Addresses


async def test_what_is_private_is_not_called_however_it_is_written(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver(host="0.0.0.0")
    hosts = ["127.0.0.2", "2130706434", "0x7f.0.0.2", "0177.0.0.2", "127.2", "[::ffff:127.0.0.2]", "0.0.0.0", "0",
             "[::1]", "[::]", "10.0.0.1", "169.254.169.254", "[fd00:ec2::254]", "[fe80::1]"]  # fmt: skip
    for host in hosts:
        for scheme in ("http", "https"):
            url = f"{scheme}://{host}:{one.port}/"
            failure = await refused(webhooks, url)
            assert "private" in str(failure), url
            assert not failure.again
            with pytest.raises(Invalid, match="private"):
                await webhooks.judge(url)
    assert one.connections == 0


async def test_the_address_of_a_name_is_never_told(sender: Sender) -> None:
    async def resolve(host: str, port: int) -> list[SocketAddress]:
        return [(socket.AF_INET, ("10.11.12.13", port))]

    inside = sender(resolve, ())
    failure = await refused(inside, "https://wiki.internal/")
    assert "wiki.internal" in str(failure)
    assert "10.11" not in str(failure)


async def test_http_goes_to_allowed_networks_only(sender: Sender) -> None:
    async def resolve(host: str, port: int) -> list[SocketAddress]:
        return [(socket.AF_INET, ("93.184.216.34", port))]

    outside = sender(resolve)
    failure = await refused(outside, "http://example.org/")
    assert "https only" in str(failure)
    with pytest.raises(Invalid, match="https only"):
        await outside.judge("http://example.org/")


async def test_a_name_is_resolved_once_and_what_was_judged_is_called(receiver: Make, sender: Sender) -> None:
    trap, one = receiver(host="127.0.0.2"), receiver()
    asked: list[str] = []
    lies = ["127.0.0.1", "127.0.0.2", "127.0.0.2"]

    async def resolve(host: str, port: int) -> list[SocketAddress]:
        asked.append(host)
        return [(socket.AF_INET, (lies[len(asked) - 1], one.port if len(asked) == 1 else trap.port))]

    webhooks = sender(resolve)
    await send(webhooks, f"http://rebinding.example:{one.port}/")
    assert (len(one.requests), asked) == (1, ["rebinding.example"])
    assert one.requests[0].headers["host"] == f"rebinding.example:{one.port}"
    await webhooks.close()
    webhooks.allow(LOOPBACK)
    failure = await refused(webhooks, f"http://rebinding.example:{one.port}/")
    assert "private" in str(failure)
    assert trap.connections == 0


async def test_of_several_addresses_those_that_may_be_called_are(receiver: Make, sender: Sender) -> None:
    one = receiver()

    async def resolve(host: str, port: int) -> list[SocketAddress]:
        return [
            (socket.AF_INET6, ("::1", port, 0, 0)),
            (socket.AF_INET, ("10.0.0.1", port)),
            (socket.AF_INET, ("127.0.0.1", port)),
        ]

    webhooks = sender(resolve)
    await send(webhooks, f"http://several.example:{one.port}/")
    assert len(one.requests) == 1


async def test_a_name_that_nobody_knows_may_be_registered_and_is_tried_again(webhooks: Webhooks) -> None:
    await webhooks.judge("https://nobody.invalid/")
    failure = await refused(webhooks, "https://nobody.invalid/", seconds=30)
    assert "cannot be resolved" in str(failure)
    assert failure.again


async def test_a_name_server_that_hangs_holds_up_no_other_name(receiver: Make, sender: Sender) -> None:
    one = receiver()
    forever = asyncio.Event()

    async def resolve(host: str, port: int) -> list[SocketAddress]:
        if host == "slow.example":
            await forever.wait()
        return [(socket.AF_INET, ("127.0.0.1", port))]

    webhooks = sender(resolve)
    slow = asyncio.create_task(refused(webhooks, "http://slow.example/", 0.3))
    await send(webhooks, f"http://quick.example:{one.port}/")
    with pytest.raises(TimeoutError):
        await slow


async def test_a_registration_does_not_call_anybody(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver()
    await webhooks.judge(one.url)
    assert one.connections == 0


# Redirects


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_gets_the_same_delivery(receiver: Make, webhooks: Webhooks, status: int) -> None:
    end = receiver()
    begin = receiver(None, plain(status, b"", f"Location: {end.url}"))
    await send(webhooks, begin.url)
    [first], [last] = begin.requests, end.requests
    assert (first.body, first.id) == (last.body, last.id)


async def test_three_are_followed_and_no_more(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver(lambda request, channel: plain(307, b"", "Location: /round"))
    failure = await refused(webhooks, one.url)
    assert "more than 3 times" in str(failure)
    assert len(one.requests) == 4


async def test_a_redirect_is_judged_like_the_first_address(receiver: Make, webhooks: Webhooks) -> None:
    trap = receiver(host="127.0.0.2")
    for location in (
        trap.url,
        f"https://127.0.0.2:{trap.port}/",
        f"//127.0.0.2:{trap.port}/",
        "http://169.254.169.254/",
    ):
        one = receiver(None, plain(302, b"", f"Location: {location}"))
        failure = await refused(webhooks, one.url)
        assert "private" in str(failure)
        assert not failure.again
    assert trap.connections == 0
    one = receiver(None, plain(307, b"", "Location: file:///etc/passwd"))
    assert "no URL" in str(await refused(webhooks, one.url))


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For `localhost`, signed by itself: key and certificate in one file."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    (folder / "both.pem").write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return folder


class SecureReceiver(Receiver):
    """Speaks TLS."""

    context: ssl.SSLContext

    def _serve(self, channel: socket.socket) -> None:
        try:
            with self.context.wrap_socket(channel, server_side=True) as secured:
                super()._serve(secured)
        except OSError:
            return


async def test_https_checks_who_answers(certificate: Path, sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    SecureReceiver.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    SecureReceiver.context.load_cert_chain(certificate / "both.pem")
    one = SecureReceiver()

    async def resolve(host: str, port: int) -> list[SocketAddress]:
        return [(socket.AF_INET, ("127.0.0.1", port))]

    try:
        url = f"https://localhost:{one.port}/"
        failure = await refused(sender(resolve), url)
        assert "TLS failed" in str(failure)
        assert failure.again
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
        trusting = sender(resolve)
        await send(trusting, url)
        await send(trusting, url)
        assert (len(one.requests), one.connections) == (2, 2)
        failure = await refused(trusting, f"https://another.example:{one.port}/")
        assert "TLS failed" in str(failure)
    finally:
        one.close()

"""Timelines as server-sent events. A subscriber is a cursor, a wake-up and one pending chunk: no queue."""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import structlog
from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from latticed.api.exchange import Call, Reply
from latticed.api.queries import EventsQuery, FeedQuery, capped
from latticed.errors import Invalid, LatticedError
from latticed.models.records import EventRecord

if TYPE_CHECKING:
    from latticed.timelines import Timeline

log = structlog.get_logger(__name__)

CHUNK_BYTES = 64 * 1024
"""Frames that are ready together are sent together, up to about so many bytes."""
SEND_SECONDS = 60.0
"""A reader that takes nothing for so long is dropped; it continues where it was with `Last-Event-ID`."""
GRACE_SECONDS = 2.0
"""How long a stream has to say goodbye once its permit has ended."""
BYE = b"event: bye\nretry: 1000\ndata: {}\n\n"
COME_AGAIN = b"retry: 1000\n\n"
PING = b": ping\n\n"

Frame = Callable[[EventRecord], bytes]
run_frame: Frame = attrgetter("frame")
feed_frame: Frame = attrgetter("feed_frame")


def wants_stream(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the client accepts a stream of events."""
    return b"text/event-stream" in headers.get(b"accept", b"").lower()


def resume_point(headers: Mapping[bytes, bytes]) -> int | None:
    """The number in `Last-Event-ID`; None without one. An empty one is none: it is how a browser forgets its id.

    Raises:
        Invalid: it is no number, or negative.
    """
    raw = headers.get(b"last-event-id", b"").strip()
    if not raw:
        return None
    if not re.fullmatch(rb"[0-9]{1,40}", raw):
        message = "must be the whole, positive number of an event that was seen"
        raise Invalid(f"Last-Event-ID {message}", [{"loc": ["header", "Last-Event-ID"], "msg": message}])
    return capped(int(raw))


class Chunks:
    """What a timeline has to tell, as chunks of frames; the end of a finished run included."""

    def __init__(self, timeline: "Timeline", frame: Frame) -> None:
        self._timeline = timeline
        self._frame = frame
        self._ready: deque[bytes] = deque()
        self._over = False

    def __aiter__(self) -> "Chunks":
        return self

    async def __anext__(self) -> bytes:
        if self._ready:
            return self._ready.popleft()
        if self._over:
            raise StopAsyncIteration
        records = await self._timeline.next()
        if len(records) == 1:
            return self._frame(records[0])
        if not records:
            self._over = True
            if self._timeline.final_status is None:
                return BYE
            return b"event: end\ndata: %b\n\n" % orjson.dumps({"status": self._timeline.final_status})
        return self._join(records)

    def _join(self, records: list[EventRecord]) -> bytes:
        """The frames in chunks of bounded size: the first is returned, the others are ready."""
        part: list[bytes] = []
        size = 0
        for record in records:
            frame = self._frame(record)
            if part and size + len(frame) > CHUNK_BYTES:
                self._ready.append(b"".join(part))
                part, size = [], 0
            part.append(frame)
            size += len(frame)
        self._ready.append(b"".join(part))
        return self._ready.popleft()


class TimelineResponse(EventSourceResponse):
    """A stream of one timeline, with the goodbyes and the guards that sse-starlette leaves to its user.

    What differs from the parent: what ends it is its permit (which the daemon's end ends too) and no process-wide flag
    that is polled; `bye` is said by the stream itself; and the time a send may take is watched by the ping's timer,
    since a timer for every chunk to every reader costs more than the chunk.
    """

    def __init__(self, timeline: "Timeline", frame: Frame, ping_seconds: float, request_id: bytes) -> None:
        super().__init__(
            Chunks(timeline, frame),
            ping=ping_seconds,
            send_timeout=SEND_SECONDS,
            headers={"x-request-id": request_id.decode("latin-1"), "x-content-type-options": "nosniff"},
        )
        self._timeline = timeline
        self._following = anyio.CancelScope()
        self._sending_since: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._now = asyncio.get_running_loop().time
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            # The connection is closed by the server, since the response was not completed.
            log.info("stream_dropped", reason="the reader took nothing", seconds=SEND_SECONDS)
        finally:
            self._timeline.close()

    async def _stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        goodbye = b""
        with self._following:
            try:
                async for chunk in self.body_iterator:
                    self._sending_since = self._now()
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    self._sending_since = None
            except LatticedError as error:
                log.warning("stream_cut", code=error.code, detail=error.detail, exc_info=error.__cause__)
                goodbye = COME_AGAIN
        if self._following.cancelled_caught:
            goodbye = BYE
        self._sending_since = self._now()
        async with self._send_lock:
            self.active = False
            await send({"type": "http.response.body", "body": goodbye, "more_body": False})

    async def _ping(self, send: Send) -> None:
        while self.active:
            await asyncio.sleep(self.ping_interval)
            since = self._sending_since
            if since is None:
                async with self._send_lock:
                    if self.active:
                        await self._send_with_timeout(
                            send, {"type": "http.response.body", "body": PING, "more_body": True}
                        )
            elif self._now() - since > SEND_SECONDS:
                raise SendTimeoutError

    async def _listen_for_exit_signal_with_grace(self) -> None:
        await self._timeline.permit.ended.wait()
        self._following.cancel()
        await asyncio.sleep(GRACE_SECONDS)


async def stream_run(call: Call[EventsQuery, None]) -> Reply:
    """A run's timeline from its first event, from `?after=`, or from where the reader was.

    Raises:
        Invalid: `Last-Event-ID` or `?after=` is no number, or beyond the end.
        NotFound: there is no such run.
    """
    seen = resume_point(call.headers)
    after = call.query.begins if seen is None else seen
    timeline = await call.lattice.open_timeline(
        call.workspace, call.params["run_id"], call.principal, after=after, resumed=seen is not None
    )
    if seen is not None and timeline.ended:
        timeline.close()
        # Makes a browser's EventSource stop.
        return Reply(204)
    return _reply(call, timeline, run_frame)


async def stream_feed(call: Call[FeedQuery, None]) -> Reply:
    """A workspace's feed from now, from `?after=`, or from where the reader was.

    Raises:
        Invalid: `Last-Event-ID` or `?after=` is no number, or beyond the end.
    """
    seen = resume_point(call.headers)
    after = call.query.begins if seen is None else seen
    timeline = await call.lattice.open_feed(
        call.workspace, call.principal, after=after, resumed=seen is not None, types=call.query.wanted(),
        kind=call.query.kind,
    )  # fmt: skip
    return _reply(call, timeline, feed_frame)


def _reply(call: Call[Any, None], timeline: "Timeline", frame: Frame) -> Reply:
    response = TimelineResponse(timeline, frame, call.site.settings.ping_seconds, call.request_id)
    return Reply(200, stream=response)

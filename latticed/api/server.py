"""uvicorn's protocol with one system call an answer in place of two, with limits (on the time that a request takes to
come and its answer to be taken, on the size of a head, on the number of connections), and what is wrong with HTTP
itself told as all errors are."""

import asyncio
import sys
from typing import Any, ClassVar, cast

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from latticed.api.exchange import problem_reply
from latticed.descriptors import most_connections
from latticed.errors import Busy, LatticedError, TooLarge, Unreadable

HEAD_BYTES = 64 * 1024
"""What a request's head may have; more is read only if it comes at once."""
CROWDED_SECONDS = 1.0
"""How long a connection that is one too many may take to ask for something."""


class HeadTooLarge(TooLarge):
    """The head of a request, its address and its headers, is larger than any that is needed."""

    status, title = 431, "Too large"


class JoiningTransport:
    """A transport that holds the head of an answer back until its body comes, or until the loop's next turn.

    uvicorn writes the two one after the other, and each write is a system call here and a wake-up at the client: a
    fifth of what a small answer costs. All but `write` and `close` is the wrapped transport's own.
    """

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """As asyncio's; the head of an answer leaves with what is written next, at the latest in the next turn."""
        if self._held:
            data = self._held + data
            self._held = b""
        elif data.startswith(b"HTTP/1."):
            self._held = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        """As asyncio's: what was written leaves first."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            self._transport.write(data)


class JoiningProtocol(HttpToolsProtocol):
    """What the daemon gives to uvicorn as `http`.

    A request whose head does not come in time is answered 400, a connection on which nothing comes is closed. A body
    is waited for by whoever reads it (`body.py`); once its request has its answer, what is left of it has as long as a
    head to come, and then the connection is closed. So it is where nothing of an answer is taken for `taking_seconds`.
    Beyond `most` connections at once, a request is answered 429.
    """

    head_seconds: float = 30.0
    taking_seconds: ClassVar[float] = 90.0
    most: ClassVar[int] = 1 << 30
    _in_head = True
    _begins = False
    _head_bytes = 0
    _in_body = False
    _patience: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(cast(asyncio.Transport, JoiningTransport(transport, self.loop)))
        if len(self.connections) > self.most:
            self.app = _too_many
            self.head_seconds = min(self.head_seconds, CROWDED_SECONDS)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """As uvicorn's. Most requests come whole, and cost no timer but the connection's first."""
        super().data_received(data)
        self._wait()
        if self._in_head:  # Where one begins, what came before it belongs to others.
            self._head_bytes = 0 if self._begins else self._head_bytes + len(data)
            self._begins = False
            if self._head_bytes > HEAD_BYTES:
                self._refuse(HeadTooLarge(f"the head of a request may have at most {HEAD_BYTES} bytes"))

    def on_message_begin(self) -> None:
        """As uvicorn's."""
        self._in_head = self._begins = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """As uvicorn's."""
        self._in_head, self._in_body = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """As uvicorn's."""
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """As uvicorn's."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's."""
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """As uvicorn's: much of an answer is not taken yet."""
        super().pause_writing()
        self._watch(sys.maxsize)

    def resume_writing(self) -> None:
        """As uvicorn's."""
        self._stop_watching()
        super().resume_writing()

    def _watch(self, before: int) -> None:
        """Looks now and then whether the client takes any of its answer, and lets go of one that does not: to close the
        connection would be to wait for it."""
        left = self.transport.get_write_buffer_size()
        if left < before:
            self._reading = self.loop.call_later(self.taking_seconds, self._watch, left)
        else:
            self.transport.abort()

    def _stop_watching(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _wait(self) -> None:
        """Has a timer run while something is to come that nobody else waits for: a head, or the rest of a body whose
        request has its answer."""
        if not (self._in_head or (self._in_body and self.cycle.response_complete)):
            self._stop_waiting()
        elif self._patience is None:
            self._patience = self.loop.call_later(self.head_seconds, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _too_slow(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # An answer is under way, before which it came.
            self._patience = self.loop.call_later(self.head_seconds, self._too_slow)
        elif self.scope is None or self._in_body:
            self.transport.close()
        else:
            self.send_400_response(f"the head of the request did not come within {self.head_seconds:g} s")

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, in the one shape of errors."""
        self._refuse(Unreadable(msg))

    def _refuse(self, error: LatticedError) -> None:
        """Answers what no application has seen, and closes: where the next request would begin is not known."""
        if self.transport.is_closing():
            return
        reply = problem_reply(error, (b"connection", b"close"), (b"cache-control", b"no-store"))
        fields = [*self.server_state.default_headers, *reply.headers, (b"content-length", b"%d" % len(reply.body))]
        head = b"".join(b"%b: %b\r\n" % field for field in fields)
        self.transport.write(STATUS_LINE[reply.status] + head + b"\r\n" + reply.body)
        self.transport.close()


async def _too_many(scope: Scope, receive: Receive, send: Send) -> None:
    reply = problem_reply(Busy("the daemon has as many connections as it may have; close some, or try again later"))
    headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def protocol(head_seconds: float) -> type[JoiningProtocol]:
    """The protocol with this limit on the time that a request's head may take to come, and with as many connections as
    this process may have."""
    return type("Protocol", (JoiningProtocol,), {"head_seconds": head_seconds, "most": most_connections()})

"""Connections to receivers, and one exchange at a time on each.

The check of the address stands where the connection is made, so that nothing can go round it: a name is resolved once,
its addresses are judged, and one of those that passed is connected to. An exchange is HTTP/1.1, parsed by httptools:
one of httpx2's costs four times as much, and nothing of what else that can do is wanted here.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, cast

import httptools

from latticed.hooks.addresses import Network, NotAllowed, Target, allowed

RESOLVERS = 16
"""Names that can be looked up at a time; one that hangs takes one of these."""
CONNECT_SECONDS = 2.0
"""How long one address gets to be connected to while there are others: one that swallows everything costs no more."""
HEAD_BYTES, HEADERS = 64 * 1024, 200
"""How large the head of an answer may be, and how many fields it may have."""
ANSWER_BYTES = 64 * 1024
"""How much of an answer is read; of a longer one no more, and its connection is closed."""
RECEIVED_BYTES = 512 * 1024
"""How much may come for one answer at all, whatever it is."""
INTERIM = 8
"""How many 1xx may come before the answer."""

SocketAddress = tuple[int, Any]
"""Family and address of a socket."""
Resolver = Callable[[str, int], Awaitable[list[SocketAddress]]]


class Unreached(Exception):
    """There was no answer; the text says why."""


class Answered(NamedTuple):
    """An answer; `whole` says whether that is all of its body."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    whole: bool


class Names:
    """Looks names up in threads of its own, each name once at a time, however many ask for it."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVERS, "resolver")
        self._asked: dict[tuple[str, int], asyncio.Future[list[SocketAddress]]] = {}

    async def __call__(self, host: str, port: int) -> list[SocketAddress]:
        """The addresses of a host.

        Raises:
            OSError: it has none.
        """
        with suppress(socket.gaierror):  # What is an address already needs nobody to be asked.
            return _look_up(host, port, socket.AI_NUMERICHOST)
        key = (host, port)
        future = self._asked.get(key)
        if future is None:
            future = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host, port)
            self._asked[key] = future

            def answered(done: "asyncio.Future[list[SocketAddress]]") -> None:
                del self._asked[key]
                if not done.cancelled():
                    done.exception()  # It may be that nobody waits for it any more.

            future.add_done_callback(answered)
        return await asyncio.shield(future)

    def close(self) -> None:
        """Waits for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, flags: int = 0) -> list[SocketAddress]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(int(family), address) for family, _, _, _, address in found]


UNSENT = "the connection was closed before anything was sent"


class Wire(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Answered] | None = None
        self._reset()
        self._interim = 0
        self._received = 0
        self._why = ""

    def _reset(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._body: list[bytes] = []
        self._left = ANSWER_BYTES
        self._status = 0

    @property
    def heard(self) -> bool:
        """Whether anything came in the latest exchange."""
        return self._received > 0

    async def exchange(self, request: bytes) -> Answered:
        """Sends a request and waits for its answer; the time that may take is the caller's to keep.

        Raises:
            Unreached: the connection broke, or what came is no HTTP.
        """
        if self.closed or self._transport is None:
            raise Unreached(f"{UNSENT}{self._why}")
        self._interim = self._received = 0
        self._answer = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(request)
            return await self._answer
        except BaseException:
            self.abort()
            raise
        finally:
            self._answer = None

    def abort(self) -> None:
        """Closes the connection without waiting for anything."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, reason: str) -> None:
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unreached(reason))
        if self._transport is not None:
            self._transport.abort()

    def _end(self, *, whole: bool) -> None:
        if not whole or not self._parser.should_keep_alive():
            self.closed = True
            if self._transport is not None:
                self._transport.abort()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answered(self._status, self._headers, b"".join(self._body), whole))

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclass

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        if self._answer is None:
            self.abort()  # Nobody has asked for anything.
            return
        self._received += len(data)
        if self._received > RECEIVED_BYTES:
            self._fail(f"its answer is longer than {RECEIVED_BYTES} bytes, and no end of it in sight")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("it wants to speak another protocol")
        except httptools.HttpParserError:
            self._fail("it answered with what is no HTTP")

    def eof_received(self) -> bool:
        self._over()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if isinstance(error, OSError) and error.errno:
            self._why = f": {os.strerror(error.errno).lower()}"
        self._over()

    def _over(self) -> None:
        if self.closed:
            return
        # A body without a length ends with its connection (RFC 9112, 6.3).
        sized = b"content-length" in self._headers or b"transfer-encoding" in self._headers
        if self._status and not sized:
            self._end(whole=True)
        else:
            self._fail("it closed the connection before it had answered")
        self.closed = True

    # httptools' side

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer.done():
            self.abort()
        self._reset()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > HEAD_BYTES or len(self._headers) >= HEADERS:
            self._fail(f"the head of its answer is longer than {HEAD_BYTES} bytes, or has more than {HEADERS} fields")
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self.closed:
            return
        self._body.append(body[: self._left])
        self._left -= len(body)
        if self._left < 0:
            self._end(whole=False)

    def on_message_complete(self) -> None:
        if self.closed:
            return
        if self._status >= 200:
            self._end(whole=True)
        else:
            self._status = 0
            self._interim += 1
            if self._interim > INTERIM:
                self._fail("it answers 1xx again and again")


class Connections:
    """Connections to receivers, kept for the next delivery to the same place."""

    def __init__(
        self, resolve: Resolver, private: Sequence[Network], *, idle_seconds: float, most_idle: int
    ) -> None:  # fmt: skip
        self._resolve = resolve
        self._private = private
        self._idle_seconds, self._most_idle = idle_seconds, most_idle
        self._idle: dict[tuple[str, str, int], list[Wire]] = {}
        self._context: ssl.SSLContext | None = None
        self._closed = False
        self._now = asyncio.get_running_loop().time

    async def find(self, target: Target) -> list[SocketAddress]:
        """The addresses of a target that may be called.

        Raises:
            NotAllowed: it has none of these.
            Unreached: it has none at all.
        """
        host, plain = target.host, target.scheme == "http"
        try:
            found = await self._resolve(host, target.port)
        except (OSError, UnicodeError):
            raise Unreached(f"the name {host!r} cannot be resolved") from None
        passed = [(f, a) for f, a in found if allowed(str(a[0]), self._private, plain=plain)]
        if not passed:
            if plain and any(allowed(str(a[0]), self._private, plain=False) for _, a in found):
                raise NotAllowed(f"{host!r} may be called by https only; http is for what webhooks.allow_private names")
            raise NotAllowed(f"{host!r} is at an address that is private, which webhooks.allow_private does not name")
        return passed

    async def exchange(self, target: Target, request: bytes) -> Answered:
        """Sends a request to a target.

        Raises:
            NotAllowed: it may not be called.
            Unreached: there was no answer.
        """
        wire = self._take(target)
        if wire is not None:
            try:
                return await self._on(wire, target, request)
            except Unreached:
                # A connection that had been idle may have been closed by the other side as it was used.
                if wire.heard:
                    raise
        return await self._on(await self._connect(target), target, request)

    async def _on(self, wire: Wire, target: Target, request: bytes) -> Answered:
        answered = await wire.exchange(request)
        if not wire.closed:
            idle = self._idle.setdefault(target.origin, [])
            if self._closed or len(idle) >= self._most_idle:
                wire.abort()
            else:
                wire.idle_since = self._now()
                idle.append(wire)
        return answered

    def _take(self, target: Target) -> Wire | None:
        idle = self._idle.get(target.origin)
        while idle:
            wire = idle.pop()
            if not wire.closed and self._now() - wire.idle_since < self._idle_seconds:
                return wire
            wire.abort()
        return None

    async def _connect(self, target: Target) -> Wire:
        if target.scheme == "https" and self._context is None:
            # Reading the machine's certificates takes tens of milliseconds.
            self._context = await asyncio.to_thread(ssl.create_default_context)
        reason = "no address"
        found = await self.find(target)
        for number, (family, address) in enumerate(found, 1):
            try:
                async with asyncio.timeout(None if number == len(found) else CONNECT_SECONDS):
                    return await self._open(family, address, target)
            except ssl.SSLError as error:
                reason = f"TLS failed: {getattr(error, 'verify_message', None) or error.reason or 'it was cut'}"
            except OSError as error:
                # asyncio's own text would tell the address.
                reason = (os.strerror(error.errno) if error.errno else type(error).__name__).lower()
        raise Unreached(f"no connection to {target.host!r}: {reason}")

    async def _open(self, family: int, address: Any, target: Target) -> Wire:
        loop = asyncio.get_running_loop()
        channel = socket.socket(family, socket.SOCK_STREAM)
        secured: dict[str, Any] = {}
        if target.scheme == "https":
            secured = {"ssl": self._context, "server_hostname": target.host}
        try:
            channel.setblocking(False)
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(channel, address)
            _, wire = await loop.create_connection(Wire, sock=channel, **secured)
        except BaseException:
            channel.close()
            raise
        return wire

    def close_expired(self) -> None:
        """Closes what nobody has needed for a while."""
        for origin, idle in list(self._idle.items()):
            kept = []
            for wire in idle:
                if wire.closed or self._now() - wire.idle_since >= self._idle_seconds:
                    wire.abort()
                else:
                    kept.append(wire)
            if kept:
                self._idle[origin] = kept
            else:
                del self._idle[origin]

    def close(self) -> None:
        """Closes all that is idle, and what becomes so from now on."""
        self._closed = True
        for idle in self._idle.values():
            for wire in idle:
                wire.abort()
        self._idle.clear()

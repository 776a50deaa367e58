"""Connections to receivers. The check of the address stands where the connection is made, so that nothing can go round
it: a name is resolved once, its addresses are judged, and one of those that passed is connected to."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import httpcore2
from httpcore2 import AsyncNetworkBackend, AsyncNetworkStream, ConnectError, WriteError

from latticed.hooks.addresses import Network, NotAllowed, allowed

RESOLVERS = 16
"""Names that can be looked up at a time; one that hangs takes one of these."""
HELD_BYTES = 128 * 1024
"""What is read of an answer before somebody wants it."""

SocketAddress = tuple[int, Any]
"""Family and address of a socket."""
Resolver = Callable[[str, int], Awaitable[list[SocketAddress]]]


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


def _look_up(host: str, port: int) -> list[SocketAddress]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(int(family), address) for family, _, _, _, address in found]


class Wire(asyncio.Protocol, AsyncNetworkStream):
    """One connection. What is written in one turn of the loop leaves together: a request is one packet, not two."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._held: list[bytes] = []
        self._over = False
        self._news: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclass

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > HELD_BYTES and self._transport is not None:
            self._transport.pause_reading()
        self._tell()

    def eof_received(self) -> bool:
        self._over = True
        self._tell()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._over = True
        self._writable.set()
        self._tell()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # httpcore's side. The time that each takes is kept by the caller, for all together.

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._flush()
        while not self._chunks and not self._over:
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        if not self._chunks:
            return b""
        data, self._chunks, paused = b"".join(self._chunks), [], self._size > HELD_BYTES
        self._size = 0
        if paused and not self._over and self._transport is not None:
            self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._over:
            raise WriteError("the connection is closed")
        self._held.append(buffer)
        if sum(map(len, self._held)) > HELD_BYTES:
            self._flush()
            await self._writable.wait()

    def _flush(self) -> None:
        if self._held and self._transport is not None:
            if not self._over:
                self._transport.write(b"".join(self._held))
            self._held.clear()

    async def aclose(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> AsyncNetworkStream:
        assert self._transport is not None
        try:
            secured = await asyncio.get_running_loop().start_tls(
                self._transport, self, ssl_context, server_hostname=server_hostname
            )
        except (OSError, ssl.SSLError) as error:
            await self.aclose()
            reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or "it was cut"
            raise ConnectError(f"TLS failed: {reason}") from error
        if secured is None:
            raise ConnectError("TLS failed: it was cut")
        self._transport = secured
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # An idle connection on which something comes has ended.
            return self._over or bool(self._chunks)
        if info == "ssl_object" and self._transport is not None:
            return self._transport.get_extra_info("ssl_object")
        return None


class Guard(AsyncNetworkBackend):
    """Makes connections, to addresses that may be called."""

    def __init__(self, resolve: Resolver, private: Sequence[Network], *, plain: bool) -> None:
        self._resolve = resolve
        self._private = private
        self._plain = plain

    async def find(self, host: str, port: int) -> list[SocketAddress]:
        """The addresses of a host that may be called.

        Raises:
            NotAllowed: it has none of these.
            ConnectError: it has none at all.
        """
        try:
            found = await self._resolve(host, port)
        except OSError as error:
            raise ConnectError(f"the name {host!r} cannot be resolved") from error
        passed = [(f, a) for f, a in found if allowed(str(a[0]), self._private, plain=self._plain)]
        if not passed:
            if self._plain and any(allowed(str(a[0]), self._private, plain=False) for _, a in found):
                raise NotAllowed(
                    f"{host!r} may be called by https only; http is for networks of webhooks.allow_private"
                )
            raise NotAllowed(f"{host!r} is at an address that is private, which webhooks.allow_private does not name")
        return passed

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncNetworkStream:  # fmt: skip
        reason: OSError | None = None
        for family, address in await self.find(host, port):
            try:
                return await _connect(family, address)
            except OSError as error:
                reason = error
        raise ConnectError(f"no connection to {host!r}: {_said(reason)}") from reason

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> AsyncNetworkStream:
        raise NotAllowed("a webhook goes to no socket of this machine")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _connect(family: int, address: Any) -> Wire:
    loop = asyncio.get_running_loop()
    channel = socket.socket(family, socket.SOCK_STREAM)
    try:
        channel.setblocking(False)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(channel, address)
        _, wire = await loop.create_connection(Wire, sock=channel)
    except BaseException:
        channel.close()
        raise
    return wire


def _said(error: OSError | None) -> str:
    return (error.strerror or type(error).__name__).lower() if error is not None else "no address"


class Connections:
    """Connections to receivers, kept alive for the next delivery to the same place."""

    def __init__(
        self, resolve: Resolver, private: Sequence[Network], *, idle_seconds: float, most_idle: int
    ) -> None:  # fmt: skip
        self.guards = {
            "http": Guard(resolve, private, plain=True),
            "https": Guard(resolve, private, plain=False),
        }
        self._idle_seconds, self._most_idle = idle_seconds, most_idle
        self._idle: dict[tuple[str, str, int], list[httpcore2.AsyncHTTPConnection]] = {}
        self._context: ssl.SSLContext | None = None
        self._closed = False

    async def take(
        self, origin: tuple[str, str, int], *, fresh: bool = False
    ) -> tuple[httpcore2.AsyncHTTPConnection, bool]:
        """A connection to a place, and whether it was used before. Give it back, or close it."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if not fresh and connection.is_available() and not connection.has_expired():
                return connection, True
            await connection.aclose()
        scheme, host, port = origin
        context = None
        if scheme == "https":
            if self._context is None:
                # Reading the machine's certificates takes tens of milliseconds.
                self._context = await asyncio.to_thread(ssl.create_default_context)
            context = self._context
        where = httpcore2.Origin(scheme.encode(), host.encode(), port)
        guard = self.guards[scheme]
        made = httpcore2.AsyncHTTPConnection(
            where, ssl_context=context, keepalive_expiry=self._idle_seconds, network_backend=guard
        )
        return made, False

    async def give_back(self, origin: tuple[str, str, int], connection: httpcore2.AsyncHTTPConnection) -> None:
        """Keeps a connection for the next one, if it can be used again."""
        idle = self._idle.setdefault(origin, [])
        if connection.is_available() and len(idle) < self._most_idle and not self._closed:
            idle.append(connection)
        else:
            await connection.aclose()
            if not idle:
                self._idle.pop(origin, None)

    async def close_expired(self) -> None:
        """Closes what nobody has needed for a while."""
        for origin, idle in list(self._idle.items()):
            kept = []
            for connection in idle:
                if connection.has_expired():
                    await connection.aclose()
                else:
                    kept.append(connection)
            if kept:
                self._idle[origin] = kept
            else:
                self._idle.pop(origin, None)

    async def close(self) -> None:
        """Closes all that is idle, and what is given back from now on."""
        self._closed = True
        for idle in self._idle.values():
            for connection in idle:
                await connection.aclose()
        self._idle.clear()

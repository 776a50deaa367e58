"""uvicorn's protocol with one system call an answer in place of two."""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


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
    """What the daemon gives to uvicorn as `http`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(cast(asyncio.Transport, JoiningTransport(transport, self.loop)))

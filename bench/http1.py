"""A small HTTP/1.1 client for load: one keep-alive connection, one request at a time, next to no work per answer.

It shares the machine with the server it measures, so it does what the benchmark needs and no more: no redirects, no
decompression, answers with `Content-Length` only. Event streams are in `sse.py`.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

_LENGTH = b"\r\ncontent-length:"


class ProtocolError(Exception):
    """The server's answer is not one that this client understands, or it hung up."""


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def render(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """The bytes of a request; a body is taken for JSON."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body or method != "GET":
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def address(url: str) -> tuple[str, int]:
    """The host and the port of `http://HOST:PORT`."""
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80


class AnswerParser:
    """Turns received bytes into one answer at a time."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Response | None:
        """The answer, once it is whole.

        Raises:
            ProtocolError: an answer without a length, or more bytes than one answer has.
        """
        buffer = self._buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = buffer[: end + 2]
        status = int(head[9:12])
        at = head.lower().find(_LENGTH)
        if at >= 0:
            length = int(head[at + len(_LENGTH) : head.index(b"\r\n", at + 2)])
        elif status in (204, 304):
            length = 0
        else:
            raise ProtocolError(f"no Content-Length in an answer {head[:200]!r}")
        missing = end + 4 + length - len(buffer)
        if missing > 0:
            return None
        if missing < 0:
            raise ProtocolError("bytes after the end of an answer")
        self._buffer = b""
        return Response(status, buffer[end + 4 :])


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self) -> None:
        self._parser = AnswerParser()
        self._waiter: asyncio.Future[Response] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, url: str) -> "Connection":
        """Connects to the host and port of `url`."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, *address(url))
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so

    def data_received(self, data: bytes) -> None:
        try:
            response = self._parser.feed(data)
        except ProtocolError as error:
            self._fail(error)
            return
        if response is not None and self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            if not waiter.done():
                waiter.set_result(response)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(ProtocolError(f"the server closed the connection ({exc})"))

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self._waiter = None

    async def request(self, data: bytes) -> Response:
        """Sends a rendered request and waits for its answer.

        Raises:
            ProtocolError: the connection is closed, or the answer cannot be read.
        """
        if self._transport is None or self._transport.is_closing():
            raise ProtocolError("the connection is closed")
        waiter: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        self._transport.write(data)
        return await waiter

    def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.close()

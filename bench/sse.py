"""Event streams as the benchmark reads them: raw sockets, the time of each arrival, parsing live or afterwards."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from bench.http1 import ProtocolError, address

R = TypeVar("R", bound="Recording")


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream."""

    name: str
    data: bytes
    at: float
    """When the bytes that completed it were read from the socket, in Unix seconds."""

    def json(self) -> Any:
        """The data as JSON."""
        return json.loads(self.data)


class StreamParser:
    """Takes the bytes of an answer (head, chunked body, event stream) apart."""

    def __init__(self) -> None:
        self.status: int | None = None
        self._raw = b""
        self._chunked = False
        self._text = b""

    def feed(self, data: bytes, at: float) -> list[Event]:
        """The events that `data` completes; `at` is when it arrived.

        Raises:
            ProtocolError: a chunk's length cannot be read.
        """
        self._raw += data
        if self.status is None and not self._head():
            return []
        if self._chunked:
            self._chunks()
        else:
            self._text += self._raw
            self._raw = b""
        *blocks, self._text = self._text.replace(b"\r\n", b"\n").split(b"\n\n")
        return [event for block in blocks if (event := _event(block, at)) is not None]

    def _head(self) -> bool:
        end = self._raw.find(b"\r\n\r\n")
        if end < 0:
            return False
        head, self._raw = self._raw[:end].lower(), self._raw[end + 4 :]
        self.status = int(head[9:12])
        self._chunked = b"\r\ntransfer-encoding: chunked" in head
        return True

    def _chunks(self) -> None:
        parts: list[bytes] = []
        start = 0
        while (end := self._raw.find(b"\r\n", start)) >= 0:
            try:
                size = int(self._raw[start:end], 16)
            except ValueError:
                raise ProtocolError(f"not the length of a chunk: {self._raw[start:end][:40]!r}") from None
            if len(self._raw) < end + 2 + size + 2:
                break
            parts.append(self._raw[end + 2 : end + 2 + size])
            start = end + 2 + size + 2
        self._raw = self._raw[start:]
        self._text += b"".join(parts)


def _event(block: bytes, at: float) -> Event | None:
    name, data = "message", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value.decode()
        elif field == b"data":
            data.append(value)
    return Event(name, b"\n".join(data), at) if data else None


def decode(arrivals: Iterable[tuple[float, bytes]]) -> list[Event]:
    """The events of a stream that was kept as it arrived."""
    parser = StreamParser()
    return [event for at, data in arrivals for event in parser.feed(data, at)]


class Recording(asyncio.Protocol):
    """Keeps what arrives with its time and does nothing else, so that hundreds of them delay each other little."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[float, bytes]] = []
        self.opened = asyncio.Event()
        """Set when the first byte of the answer is here."""
        self.closed = asyncio.Event()
        """Set when the server has hung up."""
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.arrivals.append((time.time(), data))
        if len(self.arrivals) == 1:
            self.opened.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.opened.set()
        self.closed.set()

    def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.close()


class Live(Recording):
    """Calls `heard` with each event as it arrives."""

    def __init__(self, heard: Callable[[Event], None]) -> None:
        super().__init__()
        self._heard = heard
        self._parser = StreamParser()

    def data_received(self, data: bytes) -> None:
        self.opened.set()
        for event in self._parser.feed(data, time.time()):
            self._heard(event)


async def listen(url: str, request: bytes, stream: Callable[[], R]) -> R:
    """Opens a stream and returns once its answer has begun."""
    transport, protocol = await asyncio.get_running_loop().create_connection(stream, *address(url))
    transport.write(request)
    await protocol.opened.wait()
    return protocol

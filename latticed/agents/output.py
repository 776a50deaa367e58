"""What a command says, on its way to the timeline: lines cut out of pipes, joined again, told apart, limited.

A line that is a JSON object whose `event` is `progress`, `log`, `text.delta` or `result` is that event; what else it
holds is the event's data (or, if it holds nothing but an object `data`, that). Every other line is `output`, also one
that claims to be `run.finished`.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from latticed.errors import Unwind

LINE_BYTES = 64 << 10
"""What is kept of a line; also what one output event holds at most."""
RESULT_LINE_BYTES = 1 << 20
"""A line that may be a result may be as long as an outcome."""
EVENT_BYTES = 250_000
"""What an event's data may have as JSON, a little less than what `ctx.emit` takes."""
EVENT_KEY = b'"event"'
JOIN_SECONDS = 0.1
RESULT_BYTES = 64 << 10
STDERR_BYTES = 4 << 10
CHUNK_BYTES = 64 << 10
AFTERMATH_BYTES = 1 << 20
"""What is read at most after everybody who may write has ended: as much as a pipe can hold."""
BREATH = 100
"""After how many blocks the event loop gets to turn."""
LEVELS = ("debug", "info", "warning", "error")


class Emit(Protocol):
    """A context's `emit`."""

    def __call__(self, type: str, /, **data: Any) -> Awaitable[Any]: ...


class PipeReader:
    """Reads a pipe when asked and not before, so that who does not keep up slows the writer down."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._left: int | None = None
        self._waiting: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """What has arrived, waiting for something if nothing has; nothing at the end."""
        while self._fd >= 0 and (self._left is None or self._left > 0):
            try:
                chunk = os.read(self._fd, CHUNK_BYTES)
            except BlockingIOError:
                if self._left is not None:
                    break
                await self._readable()
                continue
            if self._left is not None:
                self._left -= len(chunk)
            return chunk
        return b""

    def finish(self) -> None:
        """What is in the pipe now is the last of it, although somebody who escaped may hold it open."""
        self._left = AFTERMATH_BYTES
        self._wake()

    def close(self) -> None:
        """Gives the descriptor back; who waits for more gets the end."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._wake()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        loop.add_reader(self._fd, self._wake)
        try:
            await self._waiting
        finally:
            if self._fd >= 0:
                loop.remove_reader(self._fd)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Lines:
    """Cuts a stream into blocks: a line that may be an event by itself, the plain ones between two such together."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The blocks that are complete with this chunk, without their last line feed."""
        if self._skipping:
            _, found, chunk = chunk.partition(b"\n")
            self._skipping = not found
        complete, found, rest = (self._rest + chunk).rpartition(b"\n")
        blocks = list(_blocks(complete.replace(b"\r\n", b"\n").removesuffix(b"\r"))) if found else []
        if len(rest) > (RESULT_LINE_BYTES if rest.startswith(b"{") else LINE_BYTES):
            blocks.append(rest[:LINE_BYTES])
            rest, self._skipping = b"", True
        self._rest = rest
        return blocks

    def end(self) -> list[bytes]:
        """The last line, if it does not end in a line feed."""
        return self.feed(b"\n") if self._rest else []


def _blocks(complete: bytes) -> Iterator[bytes]:
    if len(complete) <= LINE_BYTES and EVENT_KEY not in complete:
        yield complete
        return
    plain: list[bytes] = []
    for line in complete.split(b"\n"):
        if not (line.startswith(b"{") and EVENT_KEY in line):
            plain.append(line[:LINE_BYTES])
            continue
        if plain:
            yield b"\n".join(plain)
            plain = []
        yield line
    if plain:
        yield b"\n".join(plain)


@dataclass(slots=True)
class _Segment:
    """One event to be: an output with its stream and text, a text.delta with its text, or another with its data."""

    type: str
    stream: str = ""
    text: bytearray = field(default_factory=bytearray)
    data: dict[str, Any] = field(default_factory=dict)
    size: int = 0

    def joins(self, event: "Event") -> bool:
        """Whether an event's text can be added to this one's."""
        alike = self.type == event.type == "text.delta" and self.data.keys() == event.data.keys() == {"text"}
        return alike and self.size + event.size < LINE_BYTES


class _Tail:
    """The last bytes of a stream, whole lines if possible."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = bytearray()
        self._cut = False

    def add(self, block: bytes) -> None:
        self._bytes += block + b"\n"
        if len(self._bytes) > 2 * self._limit:
            del self._bytes[: -self._limit]
            self._cut = True

    def text(self) -> str:
        kept = bytes(self._bytes[:-1])
        if self._cut or len(kept) > self._limit:
            _, found, whole = kept[-self._limit :].partition(b"\n")
            kept = whole if found else kept[-self._limit :]
        return _decode(kept)


class Output:
    """Turns the lines of both streams into events, in the order in which they came, and remembers the result.

    Lines of one stream that arrive within 100 ms are one event, joined by line feeds, as is the text of `text.delta`.
    `limit` bytes of output and as many of events are emitted, then one `log` event says so; the program is read on.
    """

    def __init__(self, emit: Emit, limit: int, on_failure: Callable[[], None]) -> None:
        self.failure: BaseException | None = None
        """Why an event could not be emitted, unless it is that the run unwinds."""
        self._emit = emit
        self._limit = limit
        self._left = {"output": limit, "events": limit}
        self._on_failure = on_failure
        self._muted = False
        self._result: tuple[Any] | None = None
        self._tails = {"stdout": _Tail(RESULT_BYTES), "stderr": _Tail(STDERR_BYTES)}
        self._pending: list[_Segment] = []
        self._pending_bytes = 0
        self._arrived = asyncio.Event()
        self._lock = asyncio.Lock()

    @property
    def result(self) -> Any:
        """The data of the last `result` event, or else the tail of stdout."""
        return self.tail("stdout") if self._result is None else self._result[0]

    def tail(self, stream: str) -> str:
        """The last lines of a stream that were not events."""
        return self._tails[stream].text()

    async def pump(self, pipe: PipeReader, stream: str) -> None:
        """Reads a pipe to its end. An event that cannot be emitted ends the program, not the reading."""
        lines = Lines()
        try:
            while chunk := await pipe.read():
                await self.take(stream, lines.feed(chunk))
                await asyncio.sleep(0)  # a program that writes without pause must not keep the loop
            await self.take(stream, lines.end())
        except Exception as error:
            self._fail(error)

    async def take(self, stream: str, blocks: list[bytes]) -> None:
        """Adds blocks; returns when there is room for more."""
        for number, block in enumerate(blocks):
            if number % BREATH == BREATH - 1:
                await asyncio.sleep(0)
            event = parse_event(block)
            if event is None or (event.size > EVENT_BYTES and event.type != "result"):
                self._tails[stream].add(block)
                self._add_output(stream, block)
            else:
                self._add_event(event)
        if self._pending:
            self._arrived.set()
        if self._pending_bytes >= LINE_BYTES:
            await self.flush()

    async def flush_regularly(self) -> None:
        """Emits what has arrived, 100 ms after the first of it."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(JOIN_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Emits what has arrived."""
        async with self._lock:
            segments, self._pending, self._pending_bytes = self._pending, [], 0
            self._arrived.clear()
            for segment in segments:
                await self._send(segment)

    def _add_output(self, stream: str, block: bytes) -> None:
        if len(block) > LINE_BYTES:  # with a line that might have been a result, which may be longer than others
            block = b"\n".join(line[:LINE_BYTES] for line in block.split(b"\n"))
        left = self._left["output"]
        if left <= 0:
            return
        fits = len(block) < left
        if not fits:
            end = block.rfind(b"\n", 0, left)
            block = block[: end if end >= 0 else left]
        self._left["output"] -= len(block) + 1
        while len(block) > LINE_BYTES:
            end = block.rfind(b"\n", 0, LINE_BYTES + 1)
            self._append_output(stream, block[:end])
            block = block[end + 1 :]
        self._append_output(stream, block)
        if not fits:
            self._cut("output")

    def _append_output(self, stream: str, piece: bytes) -> None:
        last = self._pending[-1] if self._pending else None
        if last and last.stream == stream and len(last.text) + len(piece) < LINE_BYTES:
            last.text += b"\n" + piece
        else:
            self._pending.append(_Segment("output", stream=stream, text=bytearray(piece)))
        self._pending_bytes += len(piece) + 1

    def _add_event(self, event: "Event") -> None:
        if event.type == "result":
            self._result = (event.value,)
        if self._left["events"] <= 0:
            return
        self._left["events"] -= event.size
        last = self._pending[-1] if self._pending else None
        if self._left["events"] <= 0:
            self._cut("events")
        elif event.size > EVENT_BYTES:
            self._say("info", f"a result of {event.size} bytes: too large for an event, it is in the output alone")
        elif last and last.joins(event):
            last.data["text"] += event.data["text"]
            last.size += event.size
        else:
            self._pending.append(_Segment(event.type, data=event.data, size=event.size))
        self._pending_bytes += event.size

    def _cut(self, what: str) -> None:
        self._left[what] = 0
        self._say("warning", f"{what} cut: {self._limit} bytes are kept, what follows is not", limit_bytes=self._limit)

    def _say(self, level: str, message: str, **fields: Any) -> None:
        self._pending.append(_Segment("log", data={"level": level, "message": message, **fields}))

    async def _send(self, segment: _Segment) -> None:
        try:
            if segment.type == "output":
                for line in _pieces(_decode(segment.text)):
                    if not self._muted:
                        await self._emit("output", stream=segment.stream, line=line)
            elif not self._muted:
                await self._emit(segment.type, **segment.data)
        except Unwind:  # the cancel ladder or the drain deals with the program; nothing more is said
            self._muted = True
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._muted = True
        if self.failure is None:
            self.failure = error
            self._on_failure()


@dataclass(frozen=True, slots=True)
class Event:
    """What a line said: an event's type and data, and, of a `result`, the outcome."""

    type: str
    data: dict[str, Any]
    value: Any
    size: int
    """Bytes, as JSON."""


def parse_event(line: bytes) -> Event | None:
    """The event that a line is, or None for one that is output."""
    if not line.startswith(b"{") or EVENT_KEY not in line or b"\n" in line:
        return None
    try:
        found = orjson.loads(line)
        size = len(orjson.dumps(found))  # what nests too deep to be written is output
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    name = found.pop("event", None)
    value = found["data"] if found.keys() == {"data"} else found
    data = value if isinstance(value, dict) else found
    if name == "progress":
        data = {"total": None, "message": "", **data}
        fits = _is_number(data.get("done")) and (data["total"] is None or _is_number(data["total"]))
        fits = fits and isinstance(data["message"], str)
    elif name == "log":
        data = {"level": "info", **data}
        fits = isinstance(data.get("message"), str) and data["level"] in LEVELS
    elif name == "text.delta":
        fits = isinstance(data.get("text"), str)
    else:
        fits = name == "result"
    return Event(name, data, value, size) if fits else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _decode(text: bytes | bytearray) -> str:
    """Bytes that are no UTF-8, and NUL, which not every store can keep, become U+FFFD."""
    return text.decode(errors="replace").replace("\0", "\ufffd")


def _pieces(text: str) -> Iterator[str]:
    """The text at once, if it can be one event; control characters are six bytes each in JSON."""
    if len(orjson.dumps(text)) <= EVENT_BYTES:
        yield text
    else:
        yield from (text[at : at + EVENT_BYTES // 6] for at in range(0, len(text), EVENT_BYTES // 6))

"""An OpenAI-compatible model to test against: HTTP on a free port, in a thread of its own, scripted, and counting.

    endpoint.script("weather", Call("get_weather", city="Oslo"), Say("It rains."))

A conversation belongs to a script by a word `#weather` in its first user message. Which turn is asked for follows from
the messages themselves (how many answers of the model they hold), so that a question that is asked again, by whatever
process, is answered alike, and `endpoint.asked("weather")` tells how often each turn was asked for. What goes before a
turn's answer, such as a refusal, is done once each and in order.
"""

import asyncio
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

PIECE_CHARACTERS = 8


@dataclass(frozen=True)
class Say:
    """An answer in text, by pieces, each after `delay` seconds; `gate` holds it back before piece number `held_at`."""

    text: str
    pieces: int | None = None
    delay: float = 0.0
    gate: "Gate | None" = None
    held_at: int = 0
    tokens: tuple[int, int] = (10, 5)
    newline: str = "\n"


class Call:
    """An answer that calls tools; `Call("t", a=1)` one, `Call.several(("t", {…}), …)` more at once."""

    def __init__(self, tool: str, /, **args: Any) -> None:
        self.calls: list[tuple[str, Any]] = [(tool, args)]
        self.ids: list[str] | None = None
        self.tokens = (10, 5)

    @classmethod
    def several(cls, *calls: tuple[str, Any], ids: list[str] | None = None) -> "Call":
        made = cls(calls[0][0])
        made.calls, made.ids = list(calls), ids
        return made


@dataclass(frozen=True)
class Refuse:
    """An HTTP status in place of an answer."""

    status: int
    message: str = "refused"
    headers: dict[str, str] = field(default_factory=dict)
    code: str | None = None


@dataclass(frozen=True)
class Cut:
    """The connection is cut, after so many pieces of text."""

    after: int = 0


@dataclass(frozen=True)
class Leave:
    """The answer ends as it should, but after so many pieces of a text that is not whole."""

    after: int = 1


@dataclass(frozen=True)
class Endless:
    """Text, and more text."""


@dataclass(frozen=True)
class Nonsense:
    """HTTP 200, and a body that is none."""

    body: str = "<html>it works!</html>"


@dataclass(frozen=True)
class Whole:
    """An answer in one piece of JSON, although a stream was asked for."""

    turn: "Say | Call"


@dataclass(frozen=True)
class Hang:
    """Nothing comes."""


class Gate:
    """Lets through once it is opened, from any thread; `reached` is set when somebody waits at it."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.reached = threading.Event()

    def open(self) -> None:
        self.opened.set()

    async def pass_(self) -> None:
        self.reached.set()
        while not self.opened.is_set():
            await asyncio.get_running_loop().run_in_executor(None, self.opened.wait, 0.05)


@dataclass
class Asked:
    """One request as it came, and how it ended: `done`, or `left` by who asked."""

    script: str
    turn: int
    body: dict[str, Any]
    headers: dict[str, str]
    end: str = "open"


class Endpoint:
    """The server and its scripts."""

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self.most_at_once = 0
        self._scripts: dict[str, tuple[Any, ...]] = {}
        self._before: dict[tuple[str, int], list[Any]] = defaultdict(list)
        self._open = 0
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="endpoint", daemon=True)
        self._thread.start()
        self._started.wait(10)

    # --- for tests ---

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def script(self, name: str, *turns: Any) -> str:
        """What is answered, turn by turn; the goal that belongs to it. What was asked under this name is forgotten."""
        self.requests = [request for request in self.requests if request.script != name]
        self._scripts[name] = turns
        return f"#{name} please"

    def before(self, name: str, turn: int, *happenings: Any) -> None:
        """What happens, one a request, before that turn (from 0) is answered."""
        self._before[name, turn] += happenings

    def of(self, name: str) -> list[Asked]:
        return [request for request in self.requests if request.script == name]

    def asked(self, name: str) -> list[int]:
        """How often each turn was asked for, from the first."""
        turns = [request.turn for request in self.of(name)]
        return [turns.count(turn) for turn in range(max(turns, default=-1) + 1)]

    def told(self, name: str) -> list[str]:
        """What tools told the model, in the last request of a script."""
        messages = self.of(name)[-1].body["messages"]
        return [_text(message["content"]) for message in messages if message["role"] == "tool"]

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    # --- the server ---

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024))
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(Exception):
                await writer.wait_closed()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
        name, turn = _place(body)
        asked = Asked(name, turn, body, headers)
        self.requests.append(asked)
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        answering = asyncio.ensure_future(self._answer(asked, writer))
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                asked.end = "left"
                return False
            goes_on = answering.result()
            asked.end = "done"
            if leaving.done():
                return False
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving
            return goes_on
        finally:
            self._open -= 1
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> bool:
        waiting = self._before[asked.script, asked.turn]
        turns = self._scripts.get(asked.script, ())
        turn = waiting.pop(0) if waiting else turns[min(asked.turn, len(turns) - 1)] if turns else Refuse(404)
        if callable(turn):  # Whoever speaks in many roles decides by what was asked.
            turn = turn(asked)
        match turn:
            case Refuse():
                error = {"message": turn.message, "type": "error", "code": turn.code}
                _plain(writer, turn.status, json.dumps({"error": error}), turn.headers)
            case Nonsense():
                _plain(writer, 200, turn.body, {})
            case Whole():
                _plain(writer, 200, json.dumps(_whole(turn.turn)), {})
            case Leave():
                _begin_stream(writer)
                for _ in range(turn.after):
                    _chunk(writer, {"content": "half a "}, None)
                writer.write(b"0\r\n\r\n")
            case Endless():
                _begin_stream(writer)
                while True:
                    _chunk(writer, {"content": "and so on " * 100}, None)
                    await writer.drain()
            case Hang():
                await asyncio.Event().wait()
            case Cut():
                if turn.after:
                    _begin_stream(writer)
                    for _ in range(turn.after):
                        _chunk(writer, {"content": "half a "}, None)
                    await writer.drain()
                writer.transport.abort()
                return False
            case Say() | Call():
                if asked.body.get("stream"):
                    await _stream(writer, turn)
                else:
                    _plain(writer, 200, json.dumps(_whole(turn)), {})
        await writer.drain()
        return True


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())


def _place(body: dict[str, Any]) -> tuple[str, int]:
    messages = body.get("messages", [])
    first = next((_text(m["content"]) for m in messages if m["role"] == "user"), "")
    found = re.search(r"#([\w-]+)", first)
    return found[1] if found else "", sum(m["role"] == "assistant" for m in messages)


def _plain(writer: asyncio.StreamWriter, status: int, body: str, headers: dict[str, str]) -> None:
    data = body.encode()
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)


def _begin_stream(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")


def _chunk(
    writer: asyncio.StreamWriter, delta: dict[str, Any], finish: str | None, *, newline: str = "\n"
) -> None:  # fmt: skip
    data = {
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "scripted",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }  # fmt: skip
    _send(writer, json.dumps(data), newline)


def _send(writer: asyncio.StreamWriter, data: str, newline: str = "\n") -> None:
    line = f"data: {data}{newline}{newline}".encode()
    writer.write(b"%x\r\n%s\r\n" % (len(line), line))


async def _stream(writer: asyncio.StreamWriter, turn: Say | Call) -> None:
    _begin_stream(writer)
    if isinstance(turn, Say):
        for number, piece in enumerate(_pieces(turn)):
            if turn.gate is not None and number == turn.held_at:
                await writer.drain()
                await turn.gate.pass_()
            if turn.delay:
                await writer.drain()
                await asyncio.sleep(turn.delay)  # noqa: TID251 - a slow model is what is wanted
            _chunk(writer, {"role": "assistant", "content": piece}, None, newline=turn.newline)
        _chunk(writer, {}, "stop", newline=turn.newline)
    else:
        _chunk(writer, {"role": "assistant", "tool_calls": _calls(turn, indexed=True)}, None)
        _chunk(writer, {}, "tool_calls")
    usage = {"prompt_tokens": turn.tokens[0], "completion_tokens": turn.tokens[1], "total_tokens": sum(turn.tokens)}
    data = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "scripted", "choices": []}
    _send(writer, json.dumps({**data, "usage": usage}))
    _send(writer, "[DONE]")
    writer.write(b"0\r\n\r\n")


def _pieces(turn: Say) -> Iterator[str]:
    size = PIECE_CHARACTERS if turn.pieces is None else max(1, -(-len(turn.text) // turn.pieces))
    for start in range(0, len(turn.text), size):
        yield turn.text[start : start + size]


def _calls(turn: Call, *, indexed: bool) -> list[dict[str, Any]]:
    ids = turn.ids or [f"call_{number}" for number in range(len(turn.calls))]
    calls = []
    for number, (id, (tool, args)) in enumerate(zip(ids, turn.calls, strict=True)):
        arguments = args if isinstance(args, str) else json.dumps(args)
        call = {"id": id, "type": "function", "function": {"name": tool, "arguments": arguments}}
        calls.append({"index": number, **call} if indexed else call)
    return calls


def _whole(turn: Say | Call) -> dict[str, Any]:
    if isinstance(turn, Say):
        message: dict[str, Any] = {"role": "assistant", "content": turn.text}
    else:
        message = {"role": "assistant", "content": None, "tool_calls": _calls(turn, indexed=False)}
    finish = "stop" if isinstance(turn, Say) else "tool_calls"
    usage = {"prompt_tokens": turn.tokens[0], "completion_tokens": turn.tokens[1], "total_tokens": sum(turn.tokens)}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {
        "id": "c", "object": "chat.completion", "created": 1, "model": "scripted", "choices": [choice], "usage": usage,
    }  # fmt: skip


@contextmanager
def serving() -> Iterator[Endpoint]:
    """An endpoint, for as long as this lasts."""
    endpoint = Endpoint()
    try:
        yield endpoint
    finally:
        endpoint.close()

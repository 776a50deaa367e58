"""Streamed answers joined as they come off the wire, before a library makes objects of each piece.

A model says a word at a time, some fifty a second, and of each an SDK makes a tree of checked objects. Nobody hears of
single words: text is joined for a moment before it is an event of the run. So it is joined here, where that costs next
to nothing: consecutive chunks of `chat.completion.chunk` that differ in nothing but their text become one. What else
comes passes as it is, in its place.

It is also where it is seen whether a reply was said to its end: a server that goes away in the middle of one may end
its answer as properly as one that has said all. And a server that does not stream, whatever it is asked for, gives the
whole reply in one piece: here it becomes a stream of one chunk.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import orjson

from latticed.errors import OutcomeTooLarge

JOIN_SECONDS, PACE_SECONDS = 0.045, 0.035
"""How long text is held back, and for how long nothing is read once it begins: together, and with what the disk takes,
they stay below 100 ms."""
DRAINED_SECONDS = 0.001
"""Who waited so long for data has read all that there was."""
EVENT_LIMIT = 1 << 22
"""Bytes that a single event may have."""
ERROR_LIMIT = 1 << 18
"""Bytes of an answer that is an error."""
_TEXT_KEYS = {"role", "content", "refusal"}
_LAST_WORD = re.compile(rb'^data: ?\[DONE\]|"(?:finish_reason|stop_reason)" ?: ?"|"message_stop"', re.MULTILINE)
"""What is in the events that end a reply; inside of what a model says, quotes are escaped."""


async def join(response: httpx2.Response) -> None:
    """Joins the events of an answer, makes events of one that has none, and cuts an error; a client's event hook."""
    kind = response.headers.get("content-type", "")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    if not response.is_success:
        response.stream = Beginning(response.stream)
    elif "content-encoding" in response.headers:
        pass
    elif kind.startswith("text/event-stream"):
        response.stream = Joined(response.stream)
    elif kind.startswith("application/json") and _asks_for_stream(response.request):
        response.stream = Whole(response.stream)


class Joined(httpx2.AsyncByteStream):
    """The bytes of an event stream, in fewer events."""

    def __init__(self, source: httpx2.AsyncByteStream) -> None:
        self._source = source
        self._rest = b""
        self._held: dict[str, Any] | None = None
        """The chunk whose text grows."""
        self._timer: asyncio.TimerHandle | None = None
        self._out: list[bytes] = []
        self._more = asyncio.Event()
        self._error: BaseException | None = None
        self._is_over = False
        self._is_said = False
        """Whether the reply has come to its end."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pump = asyncio.ensure_future(self._pump())
        try:
            while not (self._is_over and not self._out):
                await self._more.wait()
                self._more.clear()
                out, self._out = self._out, []
                if out:
                    yield b"".join(out)
            if self._error is not None:
                raise self._error
        finally:
            if self._timer is not None:
                self._timer.cancel()
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def aclose(self) -> None:
        """Ends the connection, or gives it back."""
        await self._source.aclose()

    async def _pump(self) -> None:
        try:
            clock = asyncio.get_running_loop().time
            asked = clock()
            async for data in self._source:
                self._feed(data)
                if self._held is not None and clock() - asked > DRAINED_SECONDS:
                    await asyncio.sleep(PACE_SECONDS)
                asked = clock()
            if self._is_said or _LAST_WORD.search(self._rest):  # Of any other, half an event is none.
                self._take(self._rest)
            self._release()
            if not self._is_said:
                raise httpx2.RemoteProtocolError("the stream ended before the reply did")
        except Exception as error:
            self._release()
            self._error = error
        finally:
            self._is_over = True
            self._more.set()

    def _feed(self, data: bytes) -> None:
        data = self._rest + data
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        *events, self._rest = data.split(b"\n\n")
        for event in events:
            self._take(event)
        if len(self._rest) > EVENT_LIMIT:
            raise OutcomeTooLarge(f"a piece of the reply has more than {EVENT_LIMIT} bytes")

    def _take(self, event: bytes) -> None:
        chunk, held = _textual(event), self._held
        if chunk is not None and held is not None and _differ_in_text_only(held, chunk):
            held["choices"][0]["delta"]["content"] += chunk["choices"][0]["delta"]["content"]
            return
        self._release()
        if chunk is not None:
            self._held = chunk
            self._timer = asyncio.get_running_loop().call_later(JOIN_SECONDS, self._release)
        elif event:
            self._is_said = self._is_said or _LAST_WORD.search(event) is not None
            self._say(event + b"\n\n")

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, None
        if held is not None:
            self._say(b"data: " + orjson.dumps(held) + b"\n\n")

    def _say(self, data: bytes) -> None:
        self._out.append(data)
        self._more.set()


class Beginning(httpx2.AsyncByteStream):
    """As much of an error as anybody reads; the rest stays where it is, and the connection is closed."""

    def __init__(self, source: httpx2.AsyncByteStream) -> None:
        self._source = source

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = ERROR_LIMIT
        async for data in self._source:
            yield data[:left]
            left -= len(data)
            if left <= 0:
                return

    async def aclose(self) -> None:
        """Ends the connection, or gives it back."""
        await self._source.aclose()


class Whole(httpx2.AsyncByteStream):
    """A reply that came as one, as the event stream that it should have been; what is no reply passes as it is."""

    def __init__(self, source: httpx2.AsyncByteStream) -> None:
        self._source = source

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = b""
        async for data in self._source:
            body += data
            if len(body) > EVENT_LIMIT:
                raise OutcomeTooLarge(f"the reply has more than {EVENT_LIMIT} bytes")
        yield _as_events(body)

    async def aclose(self) -> None:
        """Ends the connection, or gives it back."""
        await self._source.aclose()


def _asks_for_stream(request: httpx2.Request) -> bool:
    try:
        asked = orjson.loads(request.content)
    except (orjson.JSONDecodeError, httpx2.RequestNotRead):
        return False
    return isinstance(asked, dict) and asked.get("stream") is True


def _as_events(body: bytes) -> bytes:
    try:
        whole: dict[str, Any] = orjson.loads(body)
        for choice in whole["choices"]:
            choice["delta"] = delta = choice.pop("message")
            for index, call in enumerate(delta.get("tool_calls") or ()):
                call["index"] = index
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return body
    whole["object"] = "chat.completion.chunk"
    return b"data: " + orjson.dumps(whole) + b"\n\n" + b"data: [DONE]\n\n"


def _textual(event: bytes) -> dict[str, Any] | None:
    """The chunk in an event, if it brings text and nothing else."""
    if not event.startswith((b"data: {", b"data:{")) or b"\n" in event:
        return None
    try:
        chunk: dict[str, Any] = orjson.loads(event[5:])
    except orjson.JSONDecodeError:
        return None
    choices = chunk.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or chunk.get("usage") is not None:
        return None
    choice = choices[0]
    if not isinstance(choice, dict) or not isinstance(delta := choice.get("delta"), dict):
        return None
    is_plain = all(value is None for key, value in choice.items() if key not in ("index", "delta"))
    is_text = isinstance(delta.get("content"), str) and delta.keys() <= _TEXT_KEYS and delta.get("refusal") is None
    return chunk if is_plain and is_text else None


def _differ_in_text_only(held: dict[str, Any], chunk: dict[str, Any]) -> bool:
    return held.get("id") == chunk.get("id") and held["choices"][0].get("index") == chunk["choices"][0].get("index")

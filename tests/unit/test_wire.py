"""Streams of text in fewer pieces: joined where nothing is lost by it, as they came where it would be."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latticed.agents.wire import EVENT_LIMIT, Joined
from latticed.errors import OutcomeTooLarge


class Source(httpx2.AsyncByteStream):
    """Gives these bytes; a None is a wait until the gate opens."""

    def __init__(self, pieces: Sequence[bytes | Exception | None]) -> None:
        self.pieces = pieces
        self.gate = asyncio.Event()
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            if piece is None:
                await self.gate.wait()
            else:
                yield piece

    async def aclose(self) -> None:
        self.closed = True


def chunk(text: str | None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None} | more.pop("choice", {})
    return b"data: " + json.dumps({"id": "c", "choices": [choice], **more}).encode() + b"\n\n"


END = b"data: [DONE]\n\n"


async def read(source: Source) -> bytes:
    return b"".join([data async for data in Joined(source)])


def texts(data: bytes) -> list[str]:
    events = [json.loads(event[6:]) for event in data.split(b"\n\n") if event.startswith(b"data: {")]
    return [event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"]]


async def test_text_that_comes_at_once_is_one_event() -> None:
    said = await read(Source([chunk("a"), chunk("b") + chunk("c"), END]))
    assert texts(said) == ["abc"]
    assert said.endswith(b"\n\ndata: [DONE]\n\n")


async def test_what_is_held_back_comes_although_nothing_follows() -> None:
    source = Source([chunk("a"), None, chunk("b") + END])
    stream = aiter(Joined(source))
    assert texts(await anext(stream)) == ["a"]
    source.gate.set()
    assert texts(await anext(stream)) == ["b"]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.parametrize(
    "other",
    [
        chunk("x", choice={"finish_reason": "stop"}),
        chunk(None, choice={"delta": {"tool_calls": [{"index": 0}]}}),
        chunk("x", choice={"delta": {"content": "x", "reasoning_content": "hm"}}),
        chunk("x", choice={"logprobs": {"content": []}}),
        chunk("x", usage={"prompt_tokens": 1}),
        chunk("x", choices=[]),
        b'data: {"choices": 3}\n\n',
        b"event: message_start\ndata: {}\n\n",
        b": a comment\n\n",
        b"data: {not json\n\n",
    ],
)
async def test_whatever_else_comes_passes_as_it_is_in_its_place(other: bytes) -> None:
    said = await read(Source([chunk("a") + chunk("b") + other + chunk("c") + chunk("d") + END]))
    before, found, after = said.partition(other)
    assert found == other
    assert (texts(before), texts(after)) == (["ab"], ["cd"])


@pytest.mark.parametrize("text", ["a", "a\n\nb", "a\r\nb"])
async def test_lines_may_end_as_in_a_form_of_old(text: str) -> None:
    source = Source([chunk(text).replace(b"\n", b"\r\n"), None, END])
    stream = aiter(Joined(source))
    assert texts(await anext(stream)) == [text]
    source.gate.set()
    assert [data async for data in stream] == [END]


async def test_a_line_that_ends_between_two_pieces_ends_once() -> None:
    whole = (chunk("a") + END).replace(b"\n", b"\r\n")
    assert texts(await read(Source([whole[i : i + 1] for i in range(len(whole))]))) == ["a"]


@pytest.mark.parametrize(
    "last",
    [
        END,
        b"data:[DONE]",
        chunk(None, choice={"finish_reason": "stop"}),
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n',
    ],
)
async def test_a_reply_ends_where_it_says_so(last: bytes) -> None:
    assert texts(await read(Source([chunk("a"), last])))[0] == "a"


@pytest.mark.parametrize("cut", [b"", b'data: {"id": "c", "cho', chunk(' "finish_reason": "stop" data: [DONE]')])
async def test_a_stream_that_ends_before_the_reply_does_is_a_cut_connection(cut: bytes) -> None:
    stream = aiter(Joined(Source([chunk("a"), cut])))
    assert texts(await anext(stream))[0].startswith("a")
    with pytest.raises(httpx2.RemoteProtocolError):
        await anext(stream)


async def test_a_piece_that_does_not_end_is_given_up() -> None:
    class Endless(Source):
        read = 0

        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                self.read += 1
                yield b"data: " if self.read == 1 else b"x" * 65_536

    source = Endless([])
    with pytest.raises(OutcomeTooLarge):
        await read(source)
    assert source.read * 65_536 < 2 * EVENT_LIMIT


async def test_a_cut_connection_is_raised_after_what_came_before_it() -> None:
    stream = aiter(Joined(Source([chunk("a"), httpx2.ReadError("cut")])))
    assert texts(await anext(stream)) == ["a"]
    with pytest.raises(httpx2.ReadError):
        await anext(stream)


async def test_what_is_left_early_is_left_without_a_trace() -> None:
    source = Source([chunk("a"), None])
    joined = Joined(source)
    stream = aiter(joined)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    await joined.aclose()
    assert source.closed
    assert len(asyncio.all_tasks()) == 1


@given(st.lists(st.text(max_size=5), max_size=20), st.lists(st.integers(1, 30), max_size=30))
@settings(max_examples=30)
def test_no_text_is_lost_or_changed_wherever_it_is_cut(words: list[str], cuts: list[int]) -> None:
    whole = b"".join(map(chunk, words)) + END
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(whole[at : at + cut])
        at += cut
    pieces.append(whole[at:])
    said = asyncio.run(read(Source([piece for piece in pieces if piece])))
    assert "".join(texts(said)) == "".join(words)

"""Streams: where they begin, how they end, and that nobody's leaving is forgotten."""

import asyncio

import pytest

from latticed.api import sse
from latticed.errors import Unavailable
from tests.unit.api_lattice import RUN_ID, TOKENS, Client, record

RUN = f"/v1/workspaces/default/runs/{RUN_ID}/events"
FEED = "/v1/workspaces/default/events"


def closed(client: Client) -> bool:
    return bool(client.lattice.timelines) and all(timeline.closed for timeline in client.lattice.timelines)


async def test_a_stream_begins_at_the_first_event_and_goes_on() -> None:
    client = Client()
    client.lattice.grow(record(1, "run.queued"), record(2, "run.started"))
    async with client.open(RUN) as stream:
        await stream.until(b"id: 2\n")
        client.lattice.grow(record(3, "progress", done=1))
        await stream.until(b"id: 3\n")
        assert stream.received == b"".join(event.frame for event in client.lattice.events)
        assert not stream.finished
    assert closed(client)
    headers = stream.answer().headers
    assert headers["content-type"].startswith("text/event-stream")
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
    assert headers["x-request-id"]


async def test_the_end_is_told_without_an_id_and_closes() -> None:
    client = Client()
    client.lattice.grow(record(1), final_status="ok")
    answer = await client("GET", RUN, accept="text/event-stream")
    assert answer.body == record(1).frame + b'event: end\ndata: {"status":"ok"}\n\n'
    assert closed(client)


async def test_a_reader_at_the_end_of_a_finished_run_gets_204_only_if_it_says_it_was_there() -> None:
    client = Client()
    client.lattice.grow(record(1), final_status="ok")
    answer = await client("GET", RUN, accept="text/event-stream", last_event_id="1")
    assert (answer.status, answer.body) == (204, b"")
    assert "content-length" not in answer.headers
    asked = await client("GET", RUN + "?after=1", accept="text/event-stream")
    assert (asked.status, asked.body[:10]) == (200, b"event: end")
    assert closed(client)


async def test_last_event_id_beats_after() -> None:
    client = Client()
    client.lattice.grow(record(1), record(2), record(3), final_status="ok")
    answer = await client("GET", RUN + "?after=0", accept="text/event-stream", last_event_id="2")
    assert answer.body.startswith(record(3).frame)
    asked = await client("GET", RUN + "?after=1", accept="text/event-stream")
    assert asked.body.startswith(record(2).frame)
    assert [kwargs for _, _, kwargs in client.lattice.calls] == [
        {"after": 2, "resumed": True},
        {"after": 1, "resumed": False},
    ]


async def test_an_empty_last_event_id_is_none() -> None:
    client = Client()
    client.lattice.grow(record(1), final_status="ok")
    assert (await client("GET", RUN, accept="text/event-stream", last_event_id="")).body.startswith(record(1).frame)


@pytest.mark.parametrize("seen", ["abc", "-1", "1.0", "0x1", "1000000000000000000", "9" * 30, "9" * 3000, "1,2", "²"])
@pytest.mark.parametrize("where", [RUN, FEED])
async def test_a_last_event_id_that_nobody_gave_is_422(where: str, seen: str) -> None:
    client = Client()
    client.lattice.grow(record(1))
    answer = await client("GET", where, accept="text/event-stream", last_event_id=seen)
    assert (answer.status, answer.json["code"]) == (422, "invalid")


@pytest.mark.parametrize("after", ["abc", "-1", "", "1.5", "+1", "1&after=1"])
@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_an_after_that_is_no_number_is_422(accept: str, after: str) -> None:
    answer = await Client()("GET", f"{RUN}?after={after}", accept=accept)
    assert (answer.status, answer.json["errors"][0]["loc"]) == (422, ["query", "after"])


async def test_a_page_far_past_the_end_is_asked_for_within_64_bits() -> None:
    client = Client()
    assert (await client("GET", RUN + "?after=" + "9" * 30 + "&limit=7")).status == 200
    assert client.lattice.calls == [("list_events", ("default", RUN_ID), {"after": 2**63 - 1, "limit": 7})]


async def test_the_feed_begins_now_unless_told() -> None:
    client = Client()
    client.lattice.grow(record(1))
    async with client.open(FEED + "?types=log,x.y&kind=agent") as stream:
        await stream.until(b"")
        client.lattice.grow(record(2))
        await stream.until(b"id: 200\n")
        assert stream.received == record(2).feed_frame
    async with client.open(FEED + "?after=0") as stream:
        await stream.until(record(1).feed_frame)
    async with client.open(FEED, last_event_id="100") as stream:
        await stream.until(record(2).feed_frame)
        assert b"id: 100\n" not in stream.received
    assert [kwargs for _, _, kwargs in client.lattice.calls] == [
        {"after": None, "resumed": False, "types": ["log", "x.y"], "kind": "agent"},
        {"after": 0, "resumed": False, "types": [], "kind": None},
        {"after": 100, "resumed": True, "types": [], "kind": None},
    ]
    assert closed(client)


@pytest.mark.parametrize("types", ["", "a,,b", "a b", "a,", "%00", "x" * 65])
async def test_types_that_cannot_be_are_422(types: str) -> None:
    answer = await Client()("GET", f"{FEED}?types={types}")
    assert (answer.status, answer.json["errors"][0]["loc"]) == (422, ["query", "types"])


async def test_at_shutdown_a_stream_says_bye_and_closes() -> None:
    client = Client()
    client.lattice.grow(record(1))
    async with client.open(RUN) as stream:
        await stream.until(record(1).frame)
        client.lattice.shutdown.set()
        await stream.until(sse.BYE)
        assert stream.received == record(1).frame + sse.BYE
        assert b"id:" not in sse.BYE
        assert b"retry: 1000\n" in sse.BYE
        assert stream.finished
    assert closed(client)


async def test_a_stream_opened_during_shutdown_says_bye_too() -> None:
    client = Client()
    client.lattice.shutdown.set()
    answer = await client("GET", FEED, accept="text/event-stream")
    assert answer.body == sse.BYE
    assert closed(client)


async def test_at_shutdown_a_reader_that_takes_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "GRACE_SECONDS", 0.01)
    client = Client()
    async with client.open(RUN) as stream:
        await stream.until(b"")
        stream.writable.clear()
        client.lattice.grow(record(1))
        client.lattice.shutdown.set()
    assert closed(client)
    assert not stream.finished


async def test_a_reader_that_takes_nothing_for_long_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "SEND_SECONDS", 0.03)
    client = Client(ping_seconds=0.02)
    connection_gone = False
    async with client.open(RUN) as stream:
        await stream.until(b"")
        stream.writable.clear()
        client.lattice.grow(record(1))
        async with asyncio.timeout(5):
            while not closed(client):
                await asyncio.wait({asyncio.create_task(asyncio.Event().wait())}, timeout=0.005)
        connection_gone = not stream.finished
    assert connection_gone


async def test_a_reader_that_is_only_slow_loses_nothing() -> None:
    client = Client()
    async with client.open(RUN) as stream:
        await stream.until(b"")
        stream.writable.clear()
        for seq in range(1, 200):
            client.lattice.grow(record(seq, text="x" * 2000))
        stream.writable.set()
        await stream.until(b"id: 199\n")
        assert stream.received == b"".join(event.frame for event in client.lattice.events)


async def test_a_quiet_stream_is_kept_open_by_comments() -> None:
    client = Client(ping_seconds=0.01)
    async with client.open(RUN) as stream:
        await stream.until(b": ping\n\n: ping\n\n")


async def test_a_store_that_goes_away_ends_the_stream_so_that_the_reader_comes_again() -> None:
    client = Client()
    client.lattice.grow(record(1))
    async with client.open(RUN) as stream:
        await stream.until(record(1).frame)
        client.lattice.trouble = Unavailable("the store is away")
        client.lattice.grow(record(2))
        await stream.until(b"retry: 1000\n\n")
        assert stream.finished
        assert b"event: end" not in stream.received
    assert closed(client)


async def test_a_reader_that_leaves_while_nothing_happens_is_noticed() -> None:
    client = Client()
    async with client.open(FEED) as stream:
        await stream.until(b"")
    assert closed(client)


async def test_frames_that_are_ready_together_are_sent_together_in_bounded_chunks() -> None:
    events = [record(seq, text="x" * 1000) for seq in range(1, 301)]
    client = Client()
    client.lattice.grow(*events, final_status="ok")
    timeline = await client.lattice.open_timeline("default", RUN_ID, TOKENS["viewer"], after=0, resumed=False)
    chunks = [chunk async for chunk in sse.Chunks(timeline, sse.run_frame)]  # type: ignore[arg-type]  # in memory
    assert b"".join(chunks[:-1]) == b"".join(event.frame for event in events)
    assert 4 < len(chunks) < 9
    assert all(len(chunk) <= sse.CHUNK_BYTES for chunk in chunks)


async def test_a_json_page_is_what_anyone_else_gets() -> None:
    client = Client()
    for accept in ("application/json", "*/*", ""):
        answer = await client("GET", RUN, accept=accept, last_event_id="7")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert (await client("GET", RUN, accept=accept, last_event_id="nonsense")).status == 422
    assert {kwargs["after"] for _, _, kwargs in client.lattice.calls} == {0}


@pytest.mark.parametrize("where", [RUN, FEED])
async def test_head_of_a_stream_is_its_head_alone(where: str) -> None:
    client = Client()
    answer = await client("HEAD", where, accept="text/event-stream")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert closed(client)

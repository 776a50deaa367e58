"""Timelines as streams, read by sseclient-py, by curl and byte by byte, from the real daemon."""

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import sseclient

from tests.conftest import Daemon, wait_until

MIB = 1024 * 1024
STREAM = {"Accept": "text/event-stream"}


@contextmanager
def following(live: Daemon, where: str, last_event_id: str | None = None, **params: Any) -> Iterator[Iterator[Any]]:
    """The events of a stream as sseclient-py reads them."""
    headers = {**STREAM, **({} if last_event_id is None else {"Last-Event-ID": last_event_id})}
    with live.client.stream("GET", live.path(where), params=params, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield sseclient.SSEClient(answer.iter_bytes()).events()


def whole(live: Daemon, run_id: str, last_event_id: str | None = None, **params: Any) -> list[Any]:
    with following(live, f"runs/{run_id}/events", last_event_id, **params) as events:
        return list(events)


def test_a_stream_tells_what_the_pages_tell_and_ends(live: Daemon) -> None:
    run = live.run("steps", inputs={"n": 20})
    told = whole(live, run["id"])
    *events, end = told
    assert [json.loads(event.data) for event in events] == live.events(run["id"])
    assert [event.id for event in events] == [str(seq) for seq in range(1, len(events) + 1)]
    assert [event.event for event in events] == [event["type"] for event in live.events(run["id"])]
    assert (end.event, json.loads(end.data), end.id) == ("end", {"status": "ok"}, None)


def test_a_stream_follows_a_run_to_its_end(live: Daemon) -> None:
    run = live.post_run("signaller", inputs={"n": 2})["id"]
    with following(live, f"runs/{run}/events") as events:
        assert next(events).event == "run.queued"
        for index in range(2):
            live.client.post(live.path(f"runs/{run}/signals/go"), json={"data": index})
        told = [event.event for event in events]
    assert told[-2:] == ["run.finished", "end"]


def test_a_reader_continues_at_the_exact_next_event(live: Daemon) -> None:
    run = live.run("steps", inputs={"n": 20})["id"]
    events = whole(live, run)
    for seen in (0, 1, 7, len(events) - 2):
        again = whole(live, run, str(seen))
        assert [event.id for event in again] == [event.id for event in events[seen:]]
        assert [event.data for event in again] == [event.data for event in events[seen:]]


def test_the_header_beats_the_url(live: Daemon) -> None:
    run = live.run("steps")["id"]
    assert whole(live, run, "3", after=0)[0].id == "4"
    assert whole(live, run, after=2)[0].id == "3"


def test_a_reader_at_the_end_of_a_finished_run_is_told_to_stop_coming(live: Daemon) -> None:
    run = live.run("echo")["id"]
    last = len(live.events(run))
    answer = live.client.get(live.path(f"runs/{run}/events"), headers={**STREAM, "Last-Event-ID": str(last)})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers.get_list("cache-control") == ["no-store"]
    assert [event.event for event in whole(live, run, after=last)] == ["end"]


def test_readers_that_join_at_any_time_see_the_same(live: Daemon) -> None:
    run = live.post_run("flood", inputs={"events": 300})["id"]
    early = whole(live, run)
    late = whole(live, run)
    assert [event.data for event in early] == [event.data for event in late]
    assert [event.id for event in early[:-1]] == [str(seq) for seq in range(1, len(early))]


def test_the_feed_begins_now_and_from_the_beginning_on_demand(live: Daemon) -> None:
    before = live.run("reporter")["id"]
    with following(live, "events") as events:
        run = live.post_run("reporter")["id"]
        first = next(events)
        assert json.loads(first.data)["run_id"] != before
        while json.loads(first.data)["run_id"] != run:
            first = next(events)
    data = json.loads(first.data)
    assert (data["type"], data["kind"], str(data["position"])) == ("run.queued", "agent", first.id)
    with following(live, "events", after=0) as events:
        assert any(json.loads(event.data)["run_id"] == before for event in events)
    with following(live, "events", str(data["position"])) as events:
        assert json.loads(next(events).data)["position"] > data["position"]


def test_the_feed_is_filtered_by_type_and_kind(live: Daemon) -> None:
    with following(live, "events", types="progress,x.own", kind="agent") as events:
        run = live.post_run("reporter")["id"]
        told = []
        while len(told) < 2:
            data = json.loads(next(events).data)
            told += [data["type"]] if data["run_id"] == run else []
    assert told == ["progress", "x.own"]


def test_a_workspaces_feed_is_its_own(live: Daemon) -> None:
    live.client.post("/v1/workspaces", json={"name": "quiet"})
    with live.client.stream("GET", live.path("events", "quiet"), headers=STREAM) as answer:
        events = sseclient.SSEClient(answer.iter_bytes()).events()
        loud = live.run("echo")["id"]
        quiet = live.post_run("echo", workspace="quiet")["id"]
        assert json.loads(next(events).data)["run_id"] == quiet != loud


def test_text_of_any_kind_keeps_its_frame(live: Daemon) -> None:
    goal = "one\ntwo\r\nthree\rfour\u2028five\u0085six 🦊\ndata: forged\n\nevent: end\n\n"
    run = live.run("failer", goal)["id"]
    *events, end = whole(live, run)
    assert [json.loads(event.data) for event in events] == live.events(run)
    assert goal in json.loads(events[-1].data)["data"]["error"]["message"]
    assert json.loads(end.data) == {"status": "failed"}


def test_a_quiet_stream_is_kept_open_by_comments(daemon: Callable[..., Daemon]) -> None:
    quick = daemon(config={"server": {"ping_seconds": 0.2}})
    run = quick.post_run("awaiter")["id"]
    with quick.client.stream("GET", quick.path(f"runs/{run}/events"), headers=STREAM) as answer:
        seen = b""
        for part in answer.iter_bytes():
            seen += part
            if seen.count(b": ping\n\n") >= 2:
                break
    assert [line for line in seen.split(b"\n") if line.startswith(b"id:")] != []


def test_at_shutdown_every_stream_says_bye_and_a_reader_goes_on_after_the_restart(
    daemon: Callable[..., Daemon],
) -> None:
    own = daemon()
    run = own.post_run("sleeper")["id"]
    own.wait(run, "waiting")
    with following(own, f"runs/{run}/events") as events, following(own, "events", after=0) as feed:
        told = [next(events) for _ in own.events(run)]
        own.process.terminate()
        rest = list(events)
        assert [(event.event, event.id, event.retry) for event in rest][-1] == ("bye", None, "1000")
        assert [event.event for event in feed][-1] == "bye"
    assert own.wait_exit() == 0
    told += rest[:-1]
    own.start()
    own.stop_run(run)
    told += whole(own, run, told[-1].id)
    assert [event.id for event in told[:-1]] == [str(seq) for seq in range(1, len(told))]
    assert [json.loads(event.data) for event in told[:-1]] == own.events(run)


def opened(live: Daemon, where: str) -> socket.socket:
    """A connection on which a stream was asked for and of which nothing was read."""
    url = urlsplit(live.url)
    connection = socket.create_connection((url.hostname, url.port), timeout=30)
    lines = [f"GET {live.path(where)} HTTP/1.1", "host: x", f"authorization: Bearer {live.token}"]
    connection.sendall("\r\n".join([*lines, "accept: text/event-stream", "", ""]).encode())
    return connection


def unchunked(body: bytes) -> bytes:
    """What chunked transfer coding carried (RFC 9112, 7.1)."""
    plain, at = [], 0
    while at < len(body):
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        plain.append(body[end + 2 : end + 2 + size])
        at = end + 4 + size
    return b"".join(plain)


def test_a_slow_reader_loses_nothing_and_costs_no_memory(live: Daemon) -> None:
    process = psutil.Process(live.process.pid)
    live.run("flood", inputs={"events": 500, "bytes": 4000})
    before = process.memory_info().rss
    run = live.post_run("flood", inputs={"events": 4000, "bytes": 4000})["id"]
    slow = [opened(live, f"runs/{run}/events") for _ in range(20)]
    live.wait(run, "ok", timeout=60)
    grown = process.memory_info().rss - before
    assert grown < 160 * MIB, "20 readers of 16 MB each would be 320 MB if each had a queue"
    said = bytearray()
    while not said.endswith(b"\r\n0\r\n\r\n"):
        part = slow[0].recv(1 << 20)
        assert part, "cut off"
        said += part
    for each in slow:
        each.close()
    plain = unchunked(bytes(said).partition(b"\r\n\r\n")[2])
    seen = [int(line[4:]) for line in plain.split(b"\n") if line.startswith(b"id: ")]
    assert seen == list(range(1, len(live.events(run)) + 1))
    assert plain.endswith(b'event: end\ndata: {"status":"ok"}\n\n')


@pytest.mark.parametrize("where", ["runs/{run}/events", "events?after={position}"])
def test_a_reader_that_takes_nothing_holds_little_of_large_events(live: Daemon, where: str) -> None:
    process = psutil.Process(live.process.pid)
    with following(live, "events", types="run.queued") as feed:
        run = live.run("flood", inputs={"events": 150, "bytes": 200_000})["id"]
        position = next(feed).id
    before = process.memory_info().rss
    with ExitStack() as undo:
        for _ in range(10):
            stalled = undo.enter_context(closing(opened(live, where.format(run=run, position=position))))
            while b"x.flood" not in stalled.recv(65536):
                pass
        grown = process.memory_info().rss - before
    assert grown < 60 * MIB, "10 readers of 30 MB each would be 300 MB if each held all of them"
    assert [event.id for event in whole(live, run)] == [*map(str, range(1, 154)), None]


def test_a_reader_that_goes_away_is_forgotten(live: Daemon) -> None:
    def open_streams() -> float:
        for line in live.client.get("/metrics").text.splitlines():
            if line.startswith("latticed_") and "streams" in line.split("{")[0].split()[0]:
                return float(line.split()[-1])
        raise AssertionError("no figure of open streams")

    run = live.post_run("awaiter")["id"]
    at_first = open_streams()
    readers = [opened(live, f"runs/{run}/events") for _ in range(10)] + [opened(live, "events") for _ in range(10)]
    wait_until(lambda: open_streams() >= at_first + 20)
    for reader in readers:
        reader.close()
    wait_until(lambda: open_streams() <= at_first)
    live.stop_run(run, mode="kill")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl (Debian: apt install curl)")
def test_curl_follows_a_run(live: Daemon) -> None:
    run = live.post_run("sleeper", inputs={"seconds": 0.5})["id"]
    command = [
        "curl",
        "-sS",
        "-N",
        "-D",
        "-",
        "-H",
        f"Authorization: Bearer {live.token}",
        "-H",
        "Accept: text/event-stream",
    ]
    told = subprocess.run(
        [*command, live.url + live.path(f"runs/{run}/events")], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    head, _, body = told.replace("\r\n", "\n").partition("\n\n")
    assert head.startswith("HTTP/1.1 200")
    assert "cache-control: no-store" in head.lower()
    frames = body.strip().split("\n\n")
    assert frames[0].startswith("id: 1\nevent: run.queued\ndata: {")
    assert frames[-1] == 'event: end\ndata: {"status":"ok"}'
    last = len(frames) - 1
    again = subprocess.run(
        [*command, "-H", f"Last-Event-ID: {last}", live.url + live.path(f"runs/{run}/events")],
        capture_output=True, text=True, timeout=30, check=True,
    ).stdout  # fmt: skip
    assert again.startswith("HTTP/1.1 204")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl (Debian: apt install curl)")
@pytest.mark.parametrize("seen", ["abc", "-1", "1000000000000000000"])
def test_curl_is_told_what_is_wrong_with_its_place(live: Daemon, seen: str) -> None:
    run = live.run("echo")["id"]
    told = subprocess.run(
        ["curl", "-sS", "-w", "%{http_code}", "-H", f"Authorization: Bearer {live.token}",
         "-H", "Accept: text/event-stream", "-H", f"Last-Event-ID: {seen}", live.url + live.path(f"runs/{run}/events")],
        capture_output=True, text=True, timeout=30, check=True,
    ).stdout  # fmt: skip
    assert told.endswith("422")
    assert json.loads(told[:-3])["code"] == "invalid"

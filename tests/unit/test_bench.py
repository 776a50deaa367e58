"""The benchmark's arithmetic and its readers: a wrong figure is worse than none."""

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import evidence, machine, peer, recovery, report
from bench.__main__ import arguments, sides
from bench.daemon import CONFIG
from bench.figures import WORKLOADS, Figure
from bench.http1 import AnswerParser, ProtocolError, Response, render
from bench.ours import WORKLOADS as OURS
from bench.profiling import summary
from bench.samples import p50_p99, quantile, spread, times_better
from bench.sse import Event, decode
from latticed.config import RunsConfig, load


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    """`data` in pieces, as a socket might hand it over."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return (data[a:b] for a, b in pairwise(edges))


# --- arithmetic


def test_a_quantile_lies_between_its_two_nearest_samples() -> None:
    assert quantile([3, 1, 2, 4], 0.5) == 2.5
    assert quantile(range(101), 0.99) == 99
    assert quantile([7], 0.99) == 7
    assert quantile([1, 2], 0) == 1
    assert quantile([1, 2], 1) == 2


@pytest.mark.parametrize(("values", "q"), [([], 0.5), ([1.0], 1.5), ([1.0], -0.1)])
def test_a_quantile_of_nothing_or_outside_is_refused(values: list[float], q: float) -> None:
    with pytest.raises(ValueError, match="quantile"):
        quantile(values, q)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_rise_and_stay_among_the_samples(values: list[float], a: float, b: float) -> None:
    low, high = quantile(values, min(a, b)), quantile(values, max(a, b))
    assert min(values) <= low <= high + 1e-9
    assert high <= max(values) + 1e-9


def test_latencies_are_given_in_milliseconds() -> None:
    assert p50_p99("submit", [0.001, 0.002, 0.003]) == pytest.approx({"submit_p50_ms": 2, "submit_p99_ms": 2.98})


def test_a_spread_has_the_median_and_both_ends() -> None:
    of = spread([5, 1, 3])
    assert (of.median, of.low, of.high, of.rounds) == (3, 1, 5, 3)


def test_a_ratio_says_how_many_times_better_ours_is() -> None:
    assert times_better(3000, 150, higher_is_better=True) == 20
    assert times_better(2, 10, higher_is_better=False) == 5
    assert times_better(10, 2, higher_is_better=False) == 0.2
    assert times_better(0, 2, higher_is_better=False) is None
    assert times_better(-1, 2, higher_is_better=False) is None


# --- reading answers

ANSWER = b'HTTP/1.1 202 Accepted\r\ndate: now\r\nContent-Length: 9\r\nx: y\r\n\r\n{"a": 12}'


@given(st.lists(st.integers(0, 1000)))
def test_an_answer_is_read_however_it_is_cut(places: list[int]) -> None:
    parser = AnswerParser()
    *before, last = [parser.feed(piece) for piece in cut(ANSWER, places)]
    assert before == [None] * len(before)
    assert last == Response(202, b'{"a": 12}')
    assert last.json() == {"a": 12}
    assert parser.feed(ANSWER) == last


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\n{}", ANSWER + b"HTTP/1.1 202"])
def test_an_answer_without_a_length_or_with_too_many_bytes_is_refused(answer: bytes) -> None:
    with pytest.raises(ProtocolError):
        AnswerParser().feed(answer)


def test_an_empty_answer_needs_no_length() -> None:
    assert AnswerParser().feed(b"HTTP/1.1 204 No Content\r\n\r\n") == Response(204, b"")


def test_a_request_is_rendered_with_its_length() -> None:
    assert render("POST", "/runs", {"Host": "h"}, b"{}") == (
        b"POST /runs HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert render("GET", "/runs", {"Host": "h"}) == b"GET /runs HTTP/1.1\r\nHost: h\r\n\r\n"


# --- reading streams

_FRAMES = (
    b": ping\r\n\r\n",
    b'id: 1\r\nevent: x.tick\r\ndata: {"t": 1}\r\n\r\n',
    b"event: end\ndata: ok\ndata: more\n\nretry: 1\n\n",
)
_CHUNKED = b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in _FRAMES) + b"0\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + _CHUNKED


@given(st.lists(st.integers(0, 1000)))
def test_a_stream_is_read_however_it_is_cut(places: list[int]) -> None:
    arrivals = [(float(at), piece) for at, piece in enumerate(cut(STREAM, places))]
    heard = decode(arrivals)
    assert [(event.name, event.data) for event in heard] == [("x.tick", b'{"t": 1}'), ("end", b"ok\nmore")]
    assert [event.at for event in heard] == sorted(event.at for event in heard)


def test_an_event_is_dated_by_the_bytes_that_complete_it() -> None:
    middle = STREAM.index(b"x.tick")
    heard = decode([(1.0, STREAM[:middle]), (2.0, STREAM[middle:])])
    assert heard[0] == Event("x.tick", b'{"t": 1}', 2.0)


def test_a_stream_that_is_not_chunked_is_read_too() -> None:
    assert [event.name for event in decode([(0.0, b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(_FRAMES))])] == [
        "x.tick",
        "end",
    ]


# --- recovery


def crossing(lines: str, tmp_path: Path) -> evidence.Log:
    """The log of a crossing, one `place key time` a line."""
    path = tmp_path / "log"
    path.write_text(lines)
    return evidence.read(path)


def test_a_clean_crossing_loses_nothing(tmp_path: Path) -> None:
    log = crossing("entered a 1\nfirst a 1\nheld a 1\nentered a 12.5\nheld a 12.5\nsecond a 13\n", tmp_path)
    expected = {"resumed_s": 2.5, "first_resumed_s": 2.5, "lost": 0, "twice": 0}
    assert recovery.verdict(log, 10, 1, 1) == expected


def test_a_lost_run_and_a_repeated_step_are_counted(tmp_path: Path) -> None:
    log = crossing("entered a 1\nfirst a 1\nentered b 1\nfirst b 1\nentered a 11\nfirst a 11\nsecond a 12\n", tmp_path)
    figures = recovery.verdict(log, 10, 2, 1)
    assert (figures["lost"], figures["twice"]) == (1, 1)
    assert math.isinf(figures["resumed_s"])


def test_a_run_that_is_not_on_record_as_finished_is_lost(tmp_path: Path) -> None:
    log = crossing("entered a 1\nfirst a 1\nentered a 11\nsecond a 12\n", tmp_path)
    assert recovery.verdict(log, 10, 1, 0)["lost"] == 1


def test_a_line_that_is_not_whole_is_not_evidence(tmp_path: Path) -> None:
    assert crossing("entered a 1\nentered b 1", tmp_path)["entered"] == {"a": [1.0]}
    assert not evidence.read(tmp_path / "missing")["entered"]


# --- the report


def test_the_table_has_medians_spreads_goals_and_ratios() -> None:
    results = report.Results(["latticed", "DBOS"])
    for ours, theirs in ((2400, 100), (2600, 110), (3000, 120)):
        results.add("latticed", "throughput", {"runs_per_s": ours})
        results.add("DBOS", "throughput", {"runs_per_s": theirs})
    (row,) = [line for line in report.table(results).splitlines() if "runs/s" in line]
    assert [text.strip() for text in row.strip("|").split("|")] == [
        "submit → terminal, single step, 64 clients",
        "runs/s",
        "2,600 (2,400..3,000)",
        "2,500 / 4,500 reached",
        "110 (100..120)",
        "23.6 ×",
    ]


def test_a_goal_is_met_in_the_right_direction() -> None:
    fast = Figure("rate", "", "", True, 10, 20)
    short = Figure("time", "", "", False, 2, 1)
    assert (fast.meets(10, 10), fast.meets(9, 10), short.meets(2, 2), short.meets(2.1, 2)) == (True, False, True, False)
    assert report.verdict(fast, spread([9])).endswith("MISSED")
    assert report.verdict(short, spread([0.9])).endswith("aim met")


def test_what_never_happened_is_not_a_number() -> None:
    assert report.number(math.inf) == "never"
    assert [report.number(value) for value in (0, 3.14159, 31.4159, 3141.59)] == ["0", "3.14", "31.4", "3,142"]


def test_both_sides_measure_the_same_workloads() -> None:
    apart = {
        "authorise",
        "hooks",
    }  # A library asks nobody who they are, and a peer without hooks is not measured with them.
    assert WORKLOADS.keys() - apart == peer.WORKLOADS.keys()
    assert OURS.keys() == WORKLOADS.keys()
    assert WORKLOADS.keys() >= peer.JOURNAL_MATTERS


def test_a_second_journal_is_measured_only_where_it_matters() -> None:
    args = arguments(["--only", "throughput", "memory"])
    assert sides(args, "throughput") == ["latticed", "DBOS", "DBOS WAL"]
    assert sides(args, "memory") == ["latticed", "DBOS"]
    assert sides(args, "authorise") == ["latticed"]
    assert sides(arguments(["--no-peer"]), "throughput") == ["latticed"]


def test_a_profile_is_one_round_of_ours() -> None:
    args = arguments(["--profile", "cprofile"])
    assert (args.rounds, args.peer, args.only) == (1, False, ["throughput"])


def test_a_directory_in_memory_is_told_from_a_disk(tmp_path: Path) -> None:
    assert machine.filesystem(Path("/proc/self")) == "proc"
    shm = Path("/dev/shm")
    if machine.filesystem(shm) == "tmpfs":
        assert machine.in_memory(shm)
    assert machine.appends_per_s(tmp_path) > 0


def test_the_daemon_is_measured_with_its_defaults(tmp_path: Path) -> None:
    file = tmp_path / "bench.toml"
    file.write_text(CONFIG)
    config = load(file, tmp_path / "state", {}, environ={})
    assert {name: queue.concurrency for name, queue in config.queues.items()} == {"default": 100, "wide": 1000}
    assert config.runs == RunsConfig()
    assert {name for name, agent in config.agents.items() if agent.queue != "default"} == {"crossing"}


def test_a_profile_is_summed_up_by_function() -> None:
    stacks = ["main (a.py:1);work (b.py:2) 3", "main (a.py:9);work (b.py:4) 1", "main (a.py:9) 4"]
    own, below = summary(stacks).split("with what they called")
    assert own.splitlines()[3:5] == ["  50.0%  work (b.py)", "  50.0%  main (a.py)"]
    assert below.splitlines()[1:3] == [" 100.0%  main (a.py)", "  50.0%  work (b.py)"]

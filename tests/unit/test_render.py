"""What latticectl makes of what is typed, and what it shows of what comes back."""

import re
from typing import Any

import pytest

from latticed.cli import arguments
from latticed.cli.events import event_line, event_lines
from latticed.cli.render import Screen, block, columns, plain, short, table, took
from latticed.clock import from_text, to_text
from latticed.errors import Invalid

NOW = from_text("2026-01-01T12:00:00.000000Z")
SCREEN = Screen(now=NOW)


def at(seconds: float) -> str:
    return to_text(NOW + round(seconds * 1_000_000))


# Rendering


def test_columns_are_aligned_whatever_the_letters() -> None:
    rows = [("1", "ok", "plain"), ("2", "failed", "日本"), ("3", "ok", "a\nb\x1b[31m")]
    assert list(table(("ID", "STATUS", "NAME"), rows, SCREEN, "none", status=1)) == [
        "ID  STATUS  NAME", "1   ok      plain", "2   failed  日本", r"3   ok      a\nb\x1b[31m",
    ]  # fmt: skip


def test_a_table_ends_at_the_edge_of_a_terminal() -> None:
    lines = list(table(("A", "B"), [("1", "word " * 50)], Screen(now=NOW, width=30), "none"))
    assert columns(lines[1]) <= 30
    assert lines[1].endswith("…")


def test_colours_are_for_those_who_see_them() -> None:
    assert Screen(now=NOW, colour=True).status("failed") == "\x1b[31mfailed\x1b[0m"
    assert SCREEN.status("failed") == "failed"


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0.0 ms"), (3.21, "3.2 ms"), (12.3, "12 ms"), (999, "999 ms"), (999.9, "1.0 s"), (1234, "1.2 s"),
        (59_949, "59.9 s"), (59_990, "1m"), (184_000, "3m 4s"), (3_600_000, "1h"), (7_500_000, "2h 5m"),
        (86_400_000 * 3 + 3_600_000 * 4, "3d 4h"), (-5, "0.0 ms"),
    ],
)  # fmt: skip
def test_durations_are_said_as_people_say_them(milliseconds: float, text: str) -> None:
    assert took(milliseconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "now"), (-5, "5s ago"), (-200, "3m ago"), (-7300, "2h ago"), (-400_000, "4d ago"), (3700, "in 1h")],
)
def test_times_are_said_from_now(seconds: float, text: str) -> None:
    assert SCREEN.ago(at(seconds)) == text


def test_free_text_cannot_command_a_terminal() -> None:
    assert plain("a\x1b]0;evil\x07b\u202e\ud800") == r"a\x1b]0;evil\x07b\u202e\ud800"
    assert plain("non\u00a0breaking 👩\u200d💻") == "non\u00a0breaking 👩\u200d💻"
    assert list(block("one\r\ntwo\t\x9b2J")) == ["one", "two\t\\x9b2J"]
    assert short("a  \n b" * 100, 10) == "a ba ba b…"


@pytest.mark.parametrize(
    ("kind", "data", "told"),
    [
        ("step.finished", {"name": "fetch", "branch": "", "duration_ms": 12.3}, "step.finished       fetch  (12 ms)"),
        ("step.started", {"name": "f", "branch": "0.1", "attempt": 2}, "step.started        f  in 0.1  attempt 2"),
        ("step.failed", {"name": "f", "error": {"code": "c", "message": "a\nb"}}, "step.failed         f  c: a b"),
        ("run.started", {"epoch": 1, "attempt": 1}, "run.started"),
        ("run.started", {"epoch": 3, "attempt": 2}, "run.started         attempt 2  epoch 3"),
        ("run.finished", {"status": "ok"}, "run.finished        ok"),
        ("run.finished", {"status": "failed", "error": {"code": "c"}}, "run.finished        failed  c:"),
        ("progress", {"done": 1, "total": 3, "message": "half"}, "progress            1/3  half"),
        ("progress", {"done": 1, "total": None, "message": None}, "progress            1"),
        ("log", {"level": "warning", "message": "said", "field": 1}, "log                 warning  said  field=1"),
        ("output", {"stream": "stderr", "line": "\x1b[1mhi"}, r"output              err  \x1b[1mhi"),
        ("text.delta", {"text": "a\n"}, r"text.delta          a\n"),
        ("cancel.escalated", {"rung": 2, "after_ms": 30_000}, "cancel.escalated    cancelled  after 30.0 s"),
        ("approval.requested", {"prompt": "may I?", "approval_id": "ap_1"}, "approval.requested  may I?  ap_1"),
        ("tool.called", {"tool": "add", "args": {"a": 1}}, 'tool.called         add  {"a": 1}'),
        ("tool.returned", {"tool": "add", "result": 42, "duration_ms": 3}, "tool.returned       add  → 42  (3.0 ms)"),
        ("tool.returned", {"tool": "add", "error": "no\nluck"}, "tool.returned       add  no luck"),
        (
            "usage",
            {
                "agent": "a", "input_tokens": 10, "output_tokens": 5,
                "total": {"input_tokens": 20, "output_tokens": 9, "requests": 2, "cost_usd": 0.0412},
            },
            "usage               a  10 + 5 tokens  in all 20 + 9, 2 requests  $0.0412",
        ),
        ("role.started", {"simulation": True, "role": "planner", "retry": 0}, "role.started        planner"),
        (
            "role.finished",
            {"role": "executor", "status": "ok", "retry": 1, "reason": "3 of 3\nsteps"},
            "role.finished       executor  ok  retry 1  3 of 3 steps",
        ),
        ("plan.made", {"plan_id": "plan_1", "source": "me", "steps": [{}, {}]}, "plan.made           2 steps  by me"),
        (
            "plan.reviewed",
            {"plan_id": "plan_1", "outcome": "approve", "reason": "good", "notes": "", "by": "rules"},
            "plan.reviewed       approve  good  by rules",
        ),
        (
            "review.rejected",
            {"review_id": "rev_1", "outcome": "reject", "reason": "no", "notes": "why", "confidence": 0.75},
            "review.rejected     reject  no  why  confidence 0.75",
        ),
        (
            "handoff.created",
            {"handoff_id": "hnd_1", "packet_id": "pkt_1", "source": "planner", "target": "executor", "reason": "go"},
            "handoff.created     planner → executor  go",
        ),
        (
            "retry.requested",
            {"source": "reviewer", "target": "executor", "retry": 1, "reason": "again", "notes": "n"},
            "retry.requested     reviewer → executor  retry 1  again",
        ),
        ("x.own", {"a": 1, "b": "two", "c": None}, "x.own               a=1  b=two"),
    ],
)  # fmt: skip
def test_events_are_told_on_a_line(kind: str, data: dict[str, Any], told: str) -> None:
    line = event_line({"type": kind, "at": at(0), "data": data}, SCREEN)
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.000", line[:12])
    assert line[12:] == f"  {told}"


@pytest.mark.parametrize(
    ("kind", "data", "told"),
    [
        (
            "plan.made",
            {"steps": [{"index": 1, "description": "look"}, {"index": 2, "description": "d" * 100}]},
            ["1. look", f"2. {'d' * 100}"],
        ),
        ("approval.requested", {"prompt": "may I?", "approval_id": "ap_1"}, []),
        (
            "approval.requested",
            {"prompt": 'call drop with {\n  "table": "\x1b[2J"\n}', "approval_id": "ap_1"},
            ["call drop with {", '  "table": "\\x1b[2J"', "}"],
        ),
    ],
)  # fmt: skip
def test_a_plan_and_a_question_are_told_whole(kind: str, data: dict[str, Any], told: list[str]) -> None:
    lines = list(event_lines([{"type": kind, "at": at(0), "data": data}], SCREEN))
    assert lines[1:] == [" " * 14 + line for line in told]


def test_a_new_day_is_marked() -> None:
    days = [{"type": "log", "at": at(n * 86400), "data": {}} for n in (0, 0, 1)]
    lines = list(event_lines(days, SCREEN))
    assert len(lines) == 4
    assert re.fullmatch(r"-- \d{4}-\d\d-\d\d --", lines[2])


# Arguments


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("250ms", 0.25), ("5m", 300), ("2h", 7200), ("30d", 2_592_000)]
)
def test_durations_are_understood(text: str, seconds: float) -> None:
    assert arguments.seconds("--x", text) == seconds


def test_moments_are_understood() -> None:
    assert arguments.moment("--x", "+5m", NOW) == at(300)
    assert arguments.moment("--x", "2026-01-01T13:00:00+01:00", NOW) == at(0)
    assert arguments.moment("--x", "2026-01-01T12:00:00Z", NOW) == at(0)
    assert arguments.moment("--x", "2026-01-01T12:00:00", NOW).endswith("Z")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("true", True), ("null", None), ('"1"', "1"), ("01", "01"), ("NaN", "NaN"), ("", ""), ("{", "{")],
)
def test_an_input_is_json_if_it_can_be(text: str, value: Any) -> None:
    assert arguments.inputs([f"k={text}"], None) == {"k": value}


@pytest.mark.parametrize("text", ["NaN", "{", "", "[1", "hello"])
def test_what_must_be_json_is(text: str) -> None:
    with pytest.raises(Invalid, match="--data is not JSON"):
        arguments.json_value("--data", text)

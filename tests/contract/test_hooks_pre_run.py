"""Hooks before a run: their order, vetoes, changes, and what is on record of them."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Daemon, wait_until
from tests.hooks_for_tests import configuration, python
from tests.timeline import lines, well_ended

Make = Callable[..., Daemon]
EMPTY_ANSWERS: tuple[Any, ...] = (None, {})

HOOKS = {
    "zeta": python("note", "ordered", order=1),
    "alpha": python("note_soon", "ordered", order=2),
    "beta": python("note", "ordered", order=2),
    "last": python("note", "ordered"),
    "off": python("note", "ordered", enabled=False),
    "flows_only": python("note", "ordered", kind="flow"),
    "elsewhere": python("note", "ordered", workspaces=["other"]),
    "here": python("note", "ordered", workspaces=["default"], order=500),
    "first": python("note", "refused", order=1),
    "second": python("refuse", "refused", order=2),
    "third": python("note", "refused", order=3),
    "count_a": python("count", "counted", order=1),
    "vandal": python("vandal", "counted", order=2),
    "count_b": python("count", "counted", order=3),
    "count_again": python("count", "asleep"),
    "says": python("answer", "answered"),
    "moves_a": python("answer", "moved", order=1),
    "moves_b": python("note", "moved", order=2),
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    tables = configuration(HOOKS, queues={"narrow": {"concurrency": 1}}, runs={"park_seconds": 0.05})
    made = Daemon(tmp_path_factory.mktemp("hooks"), config=tables)
    try:
        yield made.start()
    finally:
        made.close()


def rows(one: Daemon, table: str, run_id: str) -> list[dict[str, Any]]:
    """The deliveries, or the audit rows, of a run."""
    column = {"hook_deliveries": "run_id", "audit": "subject"}[table]
    with closing(sqlite3.connect(one.state_dir / "latticed.db")) as database:
        database.row_factory = sqlite3.Row
        found = database.execute(f"SELECT * FROM {table} WHERE {column} = ? ORDER BY id", (run_id,)).fetchall()
    return [dict(row) for row in found]


def told(one: Daemon, run_id: str) -> list[tuple[str, str]]:
    """Which hooks were asked, and how each ended, by the run's timeline and by the table of executions."""
    said = [(e["data"]["hook"], e["data"]["status"]) for e in one.events(run_id, "hook.finished")]
    assert said == [(row["hook"], row["status"]) for row in rows(one, "hook_deliveries", run_id)]
    return said


def test_hooks_are_asked_by_order_and_then_by_name(one: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run = one.run("ordered", inputs={"effects": str(effects)})
    assert run["status"] == "ok"
    assert lines(effects) == ["zeta", "alpha", "beta", "last", "here", "work"]
    assert told(one, run["id"]) == [(name, "ok") for name in ("zeta", "alpha", "beta", "last", "here")]


def test_the_first_block_ends_the_run_as_rejected(one: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run = one.run("refused", "chaos", inputs={"effects": str(effects)})
    well_ended(one, run["id"], "rejected")
    assert run["error"] == {
        "code": "blocked",
        "message": "second: chaos is not wanted",
        "detail": {"hook": "second", "reason": "chaos is not wanted"},
    }
    assert (run["output"], run["attempt"]) == (None, 1)
    assert lines(effects) == ["first", "second"]
    assert told(one, run["id"]) == [("first", "ok"), ("second", "blocked")]
    assert one.events(run["id"])[-1]["data"] == {"status": "rejected", "error": run["error"]}
    [act] = [row for row in rows(one, "audit", run["id"]) if row["action"] != "run.submit"]
    assert (act["workspace"], act["principal"], act["action"]) == ("default", "hook:second", "run.blocked")
    assert json.loads(act["detail"]) == run["error"]["detail"]


def test_an_execution_is_told_and_kept_with_the_same_id(one: Daemon) -> None:
    run_id = one.run("refused", "x" * 3000)["id"]
    event, row = one.events(run_id, "hook.finished")[-1]["data"], rows(one, "hook_deliveries", run_id)[-1]
    assert event.keys() >= {"hook", "point", "sort", "status", "duration_ms", "detail", "output", "delivery_id"}
    assert (event["point"], event["sort"]) == (row["point"], row["sort"]) == ("pre_run", "python")
    assert event["delivery_id"] == row["id"]
    assert 0 <= event["duration_ms"] == row["duration_ms"]
    assert event["detail"] == json.loads(row["detail"]) == "x" * 500
    assert (row["attempts"], row["due_at"], row["workspace"]) == (1, None, "default")
    assert row["finished_at"] >= row["created_at"]


def test_changes_are_seen_by_later_hooks_and_by_the_agent(one: Daemon) -> None:
    run = one.run("counted", inputs={"n": 4}, tags={"team": "a"})
    assert run["inputs"] == run["output"] == {"n": 6}
    assert run["tags"] == {"team": "a", "count_a": "saw 4", "count_b": "saw 5"}
    assert told(one, run["id"]) == [("count_a", "ok"), ("vandal", "ok"), ("count_b", "ok")]
    found = one.client.get(one.path("runs"), params={"tag": "count_b:saw 5"}).json()["items"]
    assert run["id"] in [each["id"] for each in found]


def test_an_answer_is_journalled_and_nobody_is_asked_again_after_a_wait_or_a_retry(one: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run = one.run("asleep", "fail", inputs={"effects": str(effects), "seconds": 0.2}, max_retries=1)
    assert (run["status"], run["attempt"], run["inputs"]["n"]) == ("retried_ok", 2, 1)
    assert lines(effects) == ["count_again", "work"]
    [record] = [step for step in one.steps(run["id"]) if step["kind"] == "hook"]
    assert (record["name"], record["branch"], record["status"]) == ("count_again", "~pre_run", "ok")
    assert record["outcome"]["changes"]["inputs"]["n"] == 1


def test_a_rerun_is_another_run_and_is_judged_anew(one: Daemon) -> None:
    first = one.run("counted", inputs={"n": 1})
    work = next(step for step in one.steps(first["id"]) if step["kind"] == "step")
    for body in ({}, {"from_step": work["id"]}):
        answer = one.client.post(one.path(f"runs/{first['id']}/rerun"), json=body)
        again = one.wait(answer.json()["run"]["id"])
        assert again["inputs"] == {"n": 5}
        assert len(told(one, again["id"])) == 3


@pytest.mark.parametrize("answer", EMPTY_ANSWERS)
def test_an_empty_answer_changes_nothing(one: Daemon, answer: Any) -> None:
    run = one.run("answered", inputs={"answer": answer}, tags={"a": "b"})
    assert (run["status"], run["inputs"], run["tags"]) == ("ok", {"answer": answer}, {"a": "b"})
    assert one.events(run["id"], "hook.finished")[0]["data"]["detail"] is None


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("yes", "its answer is str"),
        ([], "its answer is list"),
        (False, "its answer is bool"),
        ({"goal": "another"}, "changes 'goal'"),
        ({"inputs": None}, "inputs are not a JSON object"),
        ({"inputs": [1]}, "inputs are not a JSON object"),
        ({"tags": {"a": 1}}, "tags are no tags"),
        ({"tags": {"": "x"}}, "tags are no tags"),
        ({"queue": "nowhere"}, "it chose the queue 'nowhere'; there are default, narrow"),
        ({"queue": ["default"]}, "it chose the queue"),
        ({"block": ""}, "a block that is not"),
        ({"block": True}, "a block that is not"),
        ({"block": "why", "inputs": {}}, "a block that is not"),
        ({"inputs": {}, "tags": {"a": 1}}, "tags are no tags"),
    ],
)
def test_a_bad_answer_blocks_and_changes_nothing(one: Daemon, answer: Any, complaint: str) -> None:
    run = one.run("answered", inputs={"answer": answer})
    assert (run["status"], run["error"]["code"]) == ("rejected", "blocked")
    assert complaint in run["error"]["message"]
    assert (run["inputs"], run["tags"]) == ({"answer": answer}, {})
    assert told(one, run["id"]) == [("says", "error")]


def test_a_block_can_be_said_as_json(one: Daemon) -> None:
    run = one.run("answered", inputs={"answer": {"block": " because "}})
    assert run["error"]["detail"] == {"hook": "says", "reason": "because"}


def test_a_hook_can_choose_another_queue(one: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run = one.run("moved", inputs={"effects": str(effects), "answer": {"queue": "narrow"}})
    assert (run["status"], run["queue"], run["epoch"], run["recoveries"]) == ("ok", "narrow", 2, 0)
    types = [event["type"] for event in one.events(run["id"])]
    assert types[:6] == [
        "run.queued", "run.started", "hook.finished", "hook.finished", "run.released", "run.started",
    ]  # fmt: skip
    assert one.events(run["id"], "run.released")[0]["data"] == {"reason": "queue", "queue": "narrow"}
    assert lines(effects) == ["moves_b", "work"]


def test_a_move_to_another_queue_is_no_interruption(one: Daemon) -> None:
    run = one.run("moved", inputs={"answer": {"queue": "narrow"}}, recovery="interrupt")
    assert (run["status"], run["queue"]) == ("ok", "narrow")


def test_in_the_other_queue_its_limit_holds(one: Daemon) -> None:
    inputs = {"answer": {"queue": "narrow"}, "seconds": 0.03}
    runs = [one.post_run("moved", inputs=inputs)["id"] for _ in range(4)]
    assert {one.wait(run_id)["status"] for run_id in runs} == {"ok"}
    spans = sorted(
        (steps[-1]["started_at"], one.get(run_id)["finished_at"]) for run_id in runs if (steps := one.steps(run_id))
    )
    assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:], strict=False))


def test_the_queue_that_a_run_is_in_is_no_move(one: Daemon) -> None:
    run = one.run("moved", inputs={"answer": {"queue": "default"}})
    assert (run["queue"], run["epoch"]) == ("default", 1)


def test_another_workspace_has_its_own_hooks(one: Daemon, tmp_path: Path) -> None:
    one.client.post("/v1/workspaces", json={"name": "other"})
    effects = tmp_path / "effects"
    run_id = one.post_run("ordered", inputs={"effects": str(effects)}, workspace="other", wait=10)["id"]
    assert run_id in effects.read_text()
    assert lines(effects) == ["zeta", "alpha", "beta", "elsewhere", "last", "work"]


def test_hooks_are_frames_of_the_timeline_as_told_to_a_person(one: Daemon) -> None:
    run = one.run("refused", "chaos")
    frames = one.get(run["id"], "replay")["items"]
    [blocked] = [f for f in frames if f["event"] == "hook.finished" and f["output"]["status"] == "blocked"]
    assert (blocked["actor"], blocked["why"]) == ("second", "chaos is not wanted")


def test_a_run_without_hooks_has_no_trace_of_any(one: Daemon) -> None:
    run = one.run("once")
    assert told(one, run["id"]) == []
    assert {step["kind"] for step in one.steps(run["id"])} == {"step"}
    assert wait_until(lambda: one.get(run["id"])["epoch"]) == 1

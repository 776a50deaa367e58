"""Deadlines in every state, and attempts after failed ones."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Daemon, wait_until
from tests.contract.conftest import GRACE, KILL
from tests.timeline import begun, children, lines, rungs, well_ended


def expired(hasty: Daemon, run_id: str) -> dict[str, Any]:
    """The run once its deadline has ended it."""
    run = well_ended(hasty, run_id, "failed")
    assert run["error"] == {"code": "deadline_exceeded", "message": "its deadline has passed", "detail": None}
    assert run["cancel"] is None
    assert hasty.events(run_id)[-1]["data"]["error"]["code"] == "deadline_exceeded"
    return run


def seconds_taken(run: dict[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(run[name]) for name in ("created_at", "finished_at"))
    return (ended - began).total_seconds()


# --- deadlines -------------------------------------------------------------------------------------------------------


def test_what_nobody_runs_expires_in_its_state(hasty: Daemon) -> None:
    kinds: list[tuple[str, dict[str, Any], str]] = [
        ("long_wait", {"inputs": {"what": "sleep"}}, "waiting"),
        ("long_wait", {"inputs": {"what": "signal"}}, "waiting"),
        ("long_wait", {"inputs": {"what": "child"}}, "waiting"),
        ("asker", {}, "awaiting_approval"),
        ("failer", {"max_retries": 5}, "retrying"),
    ]
    begin = [begun(hasty, target, deadline_seconds=0.6, **fields) for target, fields, _ in kinds]
    for run_id, (_, _, status) in zip(begin, kinds, strict=True):
        hasty.wait(run_id, {status, "failed"})
        run = expired(hasty, run_id)
        assert seconds_taken(run) >= 0.6
        assert rungs(hasty, run_id) == []
        assert [hasty.wait(child["id"])["status"] for child in children(hasty, run_id)] in ([], ["cancelled"])


def test_what_is_queued_expires_without_having_run(hasty: Daemon) -> None:
    first = begun(hasty, "awaiter", queue="narrow")
    run = expired(hasty, hasty.post_run("echo", queue="narrow", deadline_seconds=0.3)["id"])
    assert (run["epoch"], run["started_at"]) == (0, None)
    hasty.stop_run(first, mode="now")


def test_what_runs_is_wound_down_rung_by_rung(hasty: Daemon) -> None:
    kinds: dict[str, tuple[list[int], str | None]] = {
        "thread_checks": ([1], None),
        "awaiter": ([1, 2], None),
        "stepper_long": ([1, 2], None),
        "late_returner": ([1, 2], None),
        "swallow": ([1, 2, 3], "task"),
        "thread_never": ([1, 2, 3], "thread"),
    }
    begin = {target: begun(hasty, target, {"seconds": 2.0}, deadline_seconds=0.4) for target in kinds}
    for target, run_id in begin.items():
        run = expired(hasty, run_id)
        assert (rungs(hasty, run_id), run["abandoned"]) == kinds[target]


def test_a_deadline_counts_from_the_time_that_was_asked_for(hasty: Daemon) -> None:
    run_at = (datetime.now(UTC) + timedelta(seconds=0.8)).isoformat()
    assert hasty.run("innocent", run_at=run_at, deadline_seconds=0.7, inputs={"seconds": 0.1})["status"] == "ok"


def test_a_run_in_time_does_not_notice_its_deadline(hasty: Daemon) -> None:
    run = hasty.run("innocent", deadline_seconds=60)
    assert (run["status"], rungs(hasty, run["id"])) == ("ok", [])


def test_a_cancel_beats_the_deadline_whichever_came_first(hasty: Daemon) -> None:
    seconds = GRACE + KILL / 2
    stopped_first = begun(hasty, "thread_never", {"seconds": 2.0}, deadline_seconds=seconds)
    hasty.stop_run(stopped_first)
    expired_first = begun(hasty, "thread_never", {"seconds": 2.0}, deadline_seconds=0.05)
    wait_until(lambda: rungs(hasty, expired_first))
    assert hasty.stop_run(expired_first)["status"] == "cancelling"
    for run_id in (stopped_first, expired_first):
        assert well_ended(hasty, run_id)["error"] is None
        assert rungs(hasty, run_id) == [1, 2, 3]


def test_a_deadline_takes_the_children_along(hasty: Daemon) -> None:
    run_id = begun(hasty, "family", {"child": "awaiter", "n": 2}, deadline_seconds=0.5)
    expired(hasty, run_id)
    assert [hasty.wait(child["id"])["status"] for child in children(hasty, run_id)] == ["cancelled"] * 2


# --- attempts --------------------------------------------------------------------------------------------------------


def test_another_attempt_follows_after_a_backoff_and_keeps_what_is_recorded(hasty: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = begun(hasty, "failer", {"failures": 1, "effects": str(effects)}, max_retries=1)
    hasty.wait(run_id, "retrying")
    run = well_ended(hasty, run_id, "retried_ok")
    assert (run["attempt"], run["output"], run["error"], run["recoveries"]) == (2, "attempt 2", None, 0)
    assert lines(effects) == ["attempt 1"], "the step is recorded and does not run again"
    [retrying] = hasty.events(run_id, "run.retrying")
    first, second = hasty.events(run_id, "run.started")
    assert retrying["data"]["error"]["code"] == "error"
    assert "RuntimeError: goal" in retrying["data"]["error"]["message"]
    assert (first["data"], second["data"]) == ({"epoch": 1, "attempt": 1}, {"epoch": 2, "attempt": 2})
    assert second["at"] >= retrying["data"]["next_at"] > retrying["at"]
    waited = datetime.fromisoformat(retrying["data"]["next_at"]) - datetime.fromisoformat(retrying["at"])
    assert 0.5 <= waited.total_seconds() <= 1.0


def test_the_last_attempts_error_is_the_runs(hasty: Daemon) -> None:
    run = well_ended(hasty, begun(hasty, "failer", max_retries=1), "failed")
    assert (run["attempt"], run["error"]["code"], run["error"]["message"]) == (2, "error", "RuntimeError: goal")


@pytest.mark.parametrize("target", ["not_json", "huge", "forger"])
def test_what_would_fail_again_is_not_tried_again(hasty: Daemon, target: str) -> None:
    run = hasty.run(target, max_retries=5)
    assert (run["status"], run["attempt"]) == ("failed", 1)

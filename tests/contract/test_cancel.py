"""Stopping a run, wherever it is: what is answered, which rungs are taken, what is on record afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latticed import Context
from tests.agents_that_end import leave
from tests.conftest import Daemon, wait_until
from tests.contract.conftest import GRACE, KILL
from tests.timeline import begun, children, lines, rungs, well_ended

# --- where nobody runs it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["graceful", "now", "kill"])
def test_a_run_that_waits_for_its_time_is_cancelled_at_once(hasty: Daemon, mode: str) -> None:
    run_id = hasty.post_run("echo", run_at="2999-01-01T00:00:00Z")["id"]
    answer = hasty.client.post(hasty.path(f"runs/{run_id}/stop"), json={"mode": mode, "reason": "no need"})
    assert answer.status_code == 202
    assert answer.json() == {
        "stopped": True, "run_id": run_id, "status": "cancelled", "cancellation": "immediate", "reason": "no need",
    }  # fmt: skip
    run = well_ended(hasty, run_id)
    assert run["cancel"]["mode"] == mode
    assert run["cancel"]["requested_by"] == "admin"
    assert run["cancel"]["requested_at"] is not None
    assert (run["epoch"], run["started_at"]) == (0, None)
    assert rungs(hasty, run_id) == []


@pytest.mark.parametrize("what", ["sleep", "signal", "child"])
def test_an_unwound_run_is_cancelled_at_once(hasty: Daemon, what: str) -> None:
    run_id = begun(hasty, "long_wait", {"what": what})
    hasty.wait(run_id, "waiting")
    assert hasty.stop_run(run_id)["cancellation"] == "immediate"
    assert well_ended(hasty, run_id)["epoch"] == 1
    for child in children(hasty, run_id):
        assert hasty.wait(child["id"], "cancelled")["cancel"]["requested_by"] == run_id


def test_a_run_that_awaits_a_person_is_cancelled_at_once_and_its_question_closed(hasty: Daemon) -> None:
    run_id = begun(hasty, "asker")
    hasty.wait(run_id, "awaiting_approval")
    assert hasty.stop_run(run_id)["cancellation"] == "immediate"
    well_ended(hasty, run_id)
    questions = hasty.client.get(hasty.path("approvals"), params={"status": "closed"}).json()["items"]
    assert run_id in [question["run_id"] for question in questions]


def test_a_run_between_two_attempts_is_cancelled_at_once(hasty: Daemon) -> None:
    run_id = begun(hasty, "failer", max_retries=5)
    hasty.wait(run_id, "retrying")
    assert hasty.stop_run(run_id, mode="now")["cancellation"] == "immediate"
    assert well_ended(hasty, run_id)["output"] is None


# --- the first rung --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["sleep", "signal", "child", "gather"])
def test_what_waits_in_place_ends_on_the_first_rung(patient: Daemon, what: str) -> None:
    run_id = begun(patient, "long_wait", {"what": what})
    wait_until(lambda: what == "signal" or patient.steps(run_id))
    answer = patient.stop_run(run_id)
    assert (answer["status"], answer["cancellation"]) == ("cancelling", "cooperative")
    well_ended(patient, run_id)
    assert rungs(patient, run_id) == [1]


def test_the_backoff_of_a_step_ends_on_the_first_rung(hasty: Daemon) -> None:
    run_id = begun(hasty, "backoff")
    hasty.wait_event(run_id, "step.failed")
    hasty.stop_run(run_id)
    well_ended(hasty, run_id)
    assert rungs(hasty, run_id) == [1]


def test_the_step_under_way_is_recorded_and_none_follows(hasty: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = begun(hasty, "stepper_slow", {"seconds": 0.2, "effects": str(effects)})
    wait_until(lambda: len(hasty.events(run_id, "step.started")) == 2)
    hasty.stop_run(run_id)
    well_ended(hasty, run_id)
    assert rungs(hasty, run_id) == [1]
    steps = hasty.steps(run_id)
    assert [step["status"] for step in steps] == ["ok"] * len(steps)
    assert len(steps) == len(hasty.events(run_id, "step.started")) == len(hasty.events(run_id, "step.finished"))
    assert len(lines(effects)) == len(steps), "code between the steps goes on until it asks for the next"


def test_a_branch_that_sleeps_does_not_cut_the_step_of_another(hasty: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = begun(hasty, "half_asleep", {"seconds": GRACE / 2, "effects": str(effects)})
    hasty.wait_event(run_id, "step.started")
    hasty.stop_run(run_id)
    well_ended(hasty, run_id)
    assert rungs(hasty, run_id) == [1]
    assert [step["name"] for step in hasty.steps(run_id) if step["status"] == "ok"] == ["slow"]
    assert lines(effects) == []


def test_a_thread_that_asks_ends_on_the_first_rung(hasty: Daemon) -> None:
    run_id = begun(hasty, "thread_checks")
    hasty.stop_run(run_id)
    well_ended(hasty, run_id)
    assert rungs(hasty, run_id) == [1]


def test_a_thread_that_sleeps_by_its_context_ends_on_the_first_rung(patient: Daemon) -> None:
    run_id = begun(patient, "thread_sleeps")
    wait_until(lambda: patient.steps(run_id))
    patient.stop_run(run_id)
    well_ended(patient, run_id)
    assert rungs(patient, run_id) == [1]


# --- the second ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["awaiter", "stepper_long", "thread_awaits"])
def test_what_only_awaits_is_cancelled_after_the_grace(hasty: Daemon, target: str) -> None:
    run_id = begun(hasty, target)
    if target != "awaiter":
        wait_until(lambda: hasty.events(run_id, "step.started"))
    hasty.stop_run(run_id)
    run = well_ended(hasty, run_id)
    first, second = hasty.events(run_id, "cancel.escalated")
    assert (first["data"]["rung"], second["data"]["rung"]) == (1, 2)
    assert first["data"]["after_ms"] < 100
    assert GRACE * 1000 <= second["data"]["after_ms"] < GRACE * 1000 + 300
    assert run["abandoned"] is None


def test_now_does_not_wait(hasty: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = begun(hasty, "awaiter", {"effects": str(effects)})
    hasty.stop_run(run_id, mode="now")
    well_ended(hasty, run_id)
    assert lines(effects) == ["ended"]
    assert [(e["data"]["rung"], e["data"]["after_ms"] < 100) for e in hasty.events(run_id, "cancel.escalated")] == [
        (1, True),
        (2, True),
    ]


def test_code_that_turns_its_cancellation_into_an_output_is_cancelled_all_the_same(hasty: Daemon) -> None:
    run_id = begun(hasty, "late_returner")
    hasty.stop_run(run_id, mode="now")
    assert well_ended(hasty, run_id)["output"] is None


def test_exceptions_that_come_in_groups_are_understood(hasty: Daemon) -> None:
    run_id = begun(hasty, "task_group", {"seconds": 0.2})
    wait_until(lambda: hasty.steps(run_id))
    hasty.stop_run(run_id)
    well_ended(hasty, run_id)
    assert rungs(hasty, run_id) == [1]


# --- the third -------------------------------------------------------------------------------------------------------


def test_what_cannot_be_stopped_is_given_up(hasty: Daemon, tmp_path: Path) -> None:
    kinds = {"thread_never": "thread", "thread_step": "thread", "swallow": "task", "refuser": "task"}
    effects = {target: tmp_path / target for target in kinds}
    seconds = GRACE + KILL + 1.0
    stopped = {target: begun(hasty, target, {"seconds": seconds, "effects": str(effects[target])}) for target in kinds}
    for run_id in stopped.values():
        hasty.stop_run(run_id, reason="for good")
    for target, what in kinds.items():
        run = well_ended(hasty, stopped[target])
        assert (run["abandoned"], run["cancel"]["reason"]) == (what, "for good")
        assert hasty.events(run["id"])[-1]["data"]["abandoned"] == what
        assert rungs(hasty, run["id"]) == [1, 2, 3]
        assert hasty.events(run["id"], "cancel.escalated")[2]["data"]["after_ms"] >= (GRACE + KILL) * 1000
        assert "more" not in lines(effects[target]), "no step begins once a cancel is on record"


def test_what_is_given_up_keeps_its_slot_until_it_ends(hasty: Daemon) -> None:
    stuck = begun(hasty, "thread_never", {"seconds": 1.0}, queue="narrow")
    hasty.stop_run(stuck, mode="kill")
    assert hasty.wait(stuck, "cancelled")["abandoned"] == "thread"
    figures = hasty.client.get("/metrics").text.splitlines()
    [given_up] = [line for line in figures if line.startswith('latticed_abandoned{what="run"}')]
    assert float(given_up.split()[1]) >= 1
    behind = hasty.post_run("echo", queue="narrow")["id"]
    assert hasty.get(behind)["status"] == "queued"
    assert hasty.wait(behind)["status"] == "ok"
    well_ended(hasty, stuck)


def test_a_kill_does_not_give_up_what_can_be_stopped(hasty: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    for target in ("awaiter", "stepper_long", "long_wait"):
        run_id = begun(hasty, target, {"effects": str(effects), "what": "gather"})
        hasty.stop_run(run_id, mode="kill")
        assert well_ended(hasty, run_id)["abandoned"] is None
    assert lines(effects) == ["ended"]


def test_who_comes_back_after_it_was_given_up_changes_nothing(hasty: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = begun(hasty, "slow_to_end", {"seconds": 0.6, "effects": str(effects)})
    hasty.stop_run(run_id, mode="kill")
    assert hasty.wait(run_id, "cancelled")["abandoned"] == "task"
    before = hasty.events(run_id)
    wait_until(lambda: lines(effects) == ["cleaned"])
    assert hasty.run("echo")["status"] == "ok"
    assert hasty.events(run_id) == before


# --- in line for a thread --------------------------------------------------------------------------------------------


def holder(ctx: Context, goal: str, inputs: dict[str, Any]) -> None:
    """Keeps its thread until the file `gate` is there."""
    leave(inputs, f"{ctx.run_id} holds")
    wait_until(Path(inputs["gate"]).exists, timeout=60)


async def in_line(ctx: Context, goal: str, inputs: dict[str, Any]) -> None:
    """A step that needs a thread."""
    await ctx.step("work", leave, inputs, f"{ctx.run_id} worked")


def plain_in_line(ctx: Context, goal: str, inputs: dict[str, Any]) -> None:
    """An agent that needs a thread."""
    leave(inputs, f"{ctx.run_id} entered")


def test_what_waits_for_a_thread_leaves_the_line_once_it_is_to_end(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    agents = {
        name: {"use": "function", "function": f"{__name__}:{name}"} for name in ("holder", "in_line", "plain_in_line")
    }
    one = daemon(config={"runs": {"threads": 1, "grace_seconds": 600.0}, "agents": agents})
    inputs = {"effects": str(tmp_path / "effects"), "gate": str(tmp_path / "gate")}
    held = begun(one, "holder", inputs)
    wait_until(lambda: lines(tmp_path / "effects") == ["holds"])
    asked = {mode: begun(one, "in_line", inputs) for mode in ("graceful", "now", "kill")}
    asked["plain"] = begun(one, "plain_in_line", inputs)
    late = begun(one, "in_line", inputs, deadline_seconds=0.1)
    for mode, run_id in asked.items():
        one.stop_run(run_id, mode="graceful" if mode == "plain" else mode)
    for mode, run_id in asked.items():
        assert well_ended(one, run_id)["abandoned"] is None
        assert rungs(one, run_id)[1:] == [] or mode in ("now", "kill")
    assert well_ended(one, late, "failed")["error"]["code"] == "deadline_exceeded"
    Path(inputs["gate"]).touch()
    well_ended(one, held, "ok")
    well_ended(one, begun(one, "in_line", inputs), "ok")
    assert lines(tmp_path / "effects") == ["holds", "worked"]


def test_a_drain_begins_nothing_that_waits_for_a_thread(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    agents = {name: {"use": "function", "function": f"{__name__}:{name}"} for name in ("holder", "in_line")}
    one = daemon(config={"runs": {"threads": 1, "drain_seconds": 60.0}, "agents": agents})
    inputs = {"effects": str(tmp_path / "effects"), "gate": str(tmp_path / "gate")}
    held = begun(one, "holder", inputs)
    wait_until(lambda: lines(tmp_path / "effects") == ["holds"])
    waits = begun(one, "in_line", inputs)
    one.process.terminate()
    wait_until(lambda: one.client.get("/readyz").status_code == 503)
    Path(inputs["gate"]).touch()
    assert one.wait_exit() == 0
    assert lines(tmp_path / "effects") == ["holds"]
    one.start()
    well_ended(one, held, "ok")
    assert one.wait(waits, "ok")["epoch"] == 2

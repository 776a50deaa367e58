"""Stops that meet something else: another stop, a claim, an end, a shield, children, code that leaves the program."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TERMINAL, Daemon, wait_until
from tests.contract.conftest import GRACE, KILL
from tests.timeline import begun, children, lines, rungs, well_ended

# --- other stops -----------------------------------------------------------------------------------------------------


def test_a_harder_stop_climbs_at_once_and_the_first_reason_stays(patient: Daemon) -> None:
    run_id = begun(patient, "thread_never", {"seconds": 60})
    asked = [("graceful", "first"), ("graceful", "again"), ("now", "harder"), ("graceful", "softer"), ("now", "same")]
    for mode, reason in asked:
        answer = patient.client.post(patient.path(f"runs/{run_id}/stop"), json={"mode": mode, "reason": reason})
        assert answer.status_code == 202
        assert answer.json() == {
            "stopped": True, "run_id": run_id, "status": "cancelling", "cancellation": "cooperative", "reason": "first",
        }  # fmt: skip
    wait_until(lambda: rungs(patient, run_id) == [1, 2])
    assert patient.get(run_id)["cancel"]["mode"] == "now"
    patient.stop_run(run_id, mode="kill", reason="hardest")
    run = well_ended(patient, run_id)
    assert rungs(patient, run_id) == [1, 2, 3]
    assert (run["cancel"]["mode"], run["cancel"]["reason"], run["abandoned"]) == ("kill", "first", "thread")
    assert len(patient.events(run_id, "run.cancelling")) == 1
    late = patient.client.post(patient.path(f"runs/{run_id}/stop"), json={"mode": "kill"})
    assert late.status_code == 200
    assert late.json()["stopped"] is False
    assert (late.json()["reason"], late.json()["status"]) == ("run already finished", "cancelled")


def test_many_stops_at_once_are_one_cancel(patient: Daemon) -> None:
    run_id = begun(patient, "long_wait", {"what": "signal"})
    stop = patient.client.post
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda n: stop(patient.path(f"runs/{run_id}/stop"), json={"reason": str(n)}), range(24))
        )
    won = [answer.json()["reason"] for answer in answers if answer.status_code == 202]
    assert won
    assert {answer.status_code for answer in answers} <= {200, 202}
    assert set(won) == {well_ended(patient, run_id)["cancel"]["reason"]}
    assert rungs(patient, run_id) == [1]


# --- claims and ends -------------------------------------------------------------------------------------------------


def test_a_stop_right_behind_the_submission_is_never_lost(patient: Daemon, tmp_path: Path) -> None:
    def submit_and_stop(number: int) -> str:
        effects = str(tmp_path / str(number))
        run_id: str = patient.post_run("long_wait", inputs={"what": "signal", "effects": effects})["id"]
        assert patient.stop_run(run_id, mode=("graceful", "now", "kill")[number % 3])["stopped"]
        return run_id

    assert patient.client
    with ThreadPoolExecutor(8) as pool:
        stopped = list(pool.map(submit_and_stop, range(80)))
    for run_id in stopped:
        assert well_ended(patient, run_id)["abandoned"] is None


def test_a_stop_and_an_end_that_race_agree_on_the_winner(hasty: Daemon) -> None:
    def submit_and_stop(number: int) -> tuple[str, dict[str, Any]]:
        run_id: str = hasty.post_run("steps", inputs={"n": number % 8})["id"]
        return run_id, hasty.stop_run(run_id, mode=("graceful", "now", "kill")[number % 3])

    assert hasty.client
    with ThreadPoolExecutor(8) as pool:
        raced = list(pool.map(submit_and_stop, range(80)))
    endings = set()
    for run_id, answer in raced:
        run = hasty.wait(run_id)
        endings.add(run["status"])
        assert run["status"] == ("cancelled" if answer["stopped"] else "ok")
        assert (run["cancel"] is not None) == answer["stopped"]
        assert run["abandoned"] is None
        well_ended(hasty, run_id, run["status"])
    assert "cancelled" in endings


# --- shields ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["graceful", "now"])
def test_a_shielded_cleanup_is_let_come_to_its_end(hasty: Daemon, tmp_path: Path, mode: str) -> None:
    effects, seconds = tmp_path / "effects", KILL + 0.4
    run_id = begun(hasty, "shielder", {"effects": str(effects), "seconds": seconds})
    hasty.stop_run(run_id, mode=mode)
    run = well_ended(hasty, run_id)
    assert lines(effects) == ["cleaned"]
    assert [step["status"] for step in hasty.steps(run_id)] == ["ok"]
    assert (run["abandoned"], rungs(hasty, run_id)) == (None, [1, 2])


def test_a_shield_holds_the_cancellation_back_but_is_bounded(hasty: Daemon) -> None:
    run_id = begun(hasty, "long_wait", {"what": "shield", "shield": GRACE + 0.4})
    hasty.stop_run(run_id, mode="now")
    well_ended(hasty, run_id)
    assert hasty.events(run_id, "cancel.escalated")[-1]["data"]["rung"] <= 2
    took = hasty.events(run_id)[-1]["at"], hasty.events(run_id, "run.cancelling")[0]["at"]
    assert took[0] > took[1]


def test_a_shield_does_not_hold_a_kill_back(hasty: Daemon) -> None:
    run_id = begun(hasty, "long_wait", {"what": "shield"})
    hasty.stop_run(run_id, mode="kill")
    assert well_ended(hasty, run_id)["abandoned"] is None


def test_a_shield_that_is_misused_ends_with_its_time(hasty: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = begun(hasty, "shield_abuser", {"shield": 0.3, "effects": str(effects)})
    wait_until(lambda: lines(effects) == ["TimeoutError"] or lines(effects) == ["CancelledError"])
    hasty.stop_run(run_id)
    assert well_ended(hasty, run_id)["abandoned"] == "task"


# --- children --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["graceful", "kill"])
def test_no_child_is_born_after_the_cancel_and_all_get_theirs(hasty: Daemon, mode: str) -> None:
    run_id = begun(hasty, "family", {"n": 50, "child": "family", "child_inputs": {"n": 2, "child": "long_wait",
                                   "child_inputs": {"what": "signal"}}})  # fmt: skip
    wait_until(lambda: children(hasty, run_id), interval=0.001)
    hasty.stop_run(run_id, mode=mode)
    well_ended(hasty, run_id)
    first = wait_until(lambda: children(hasty, run_id))
    for child in first:
        assert hasty.wait(child["id"])["status"] == "cancelled"
        for grandchild in children(hasty, child["id"]):
            assert hasty.wait(grandchild["id"], "cancelled")["cancel"]["requested_by"] == child["id"]
    assert [child["id"] for child in children(hasty, run_id)] == [child["id"] for child in first], "none was born later"
    assert len(first) == len(hasty.events(run_id, "child.started"))


def test_a_child_is_stopped_as_hard_as_its_parent(patient: Daemon) -> None:
    run_id = begun(patient, "long_wait", {"what": "child"})
    [child] = wait_until(lambda: children(patient, run_id))
    patient.wait(child["id"], "running")
    patient.stop_run(run_id, mode="now", reason="all of you")
    well_ended(patient, run_id)
    ended = well_ended(patient, child["id"])
    assert (ended["cancel"]["mode"], ended["cancel"]["requested_by"]) == ("now", run_id)


def test_children_can_be_spared(patient: Daemon) -> None:
    run_id = begun(patient, "long_wait", {"what": "child"})
    [child] = wait_until(lambda: children(patient, run_id))
    patient.wait(child["id"], "running")
    patient.stop_run(run_id, children=False)
    well_ended(patient, run_id)
    assert patient.run("echo")["status"] == "ok"
    assert (patient.get(child["id"])["status"], patient.get(child["id"])["cancel"]) == ("running", None)
    patient.stop_run(child["id"], mode="now")
    well_ended(patient, child["id"])


def test_a_detached_child_is_left_alone(patient: Daemon) -> None:
    run_id = begun(patient, "parent", {"child": "awaiter", "detached": True})
    patient.wait(run_id, "ok")
    [child] = children(patient, run_id)
    patient.wait(child["id"], "running")
    patient.stop_run(child["id"], mode="now")


# --- code that leaves the program ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "where"),
    [("quitter", "agent"), ("quitter", "step"), ("quitter", "gather"), ("quitter", "task"),
     ("quitter", "group"), ("thread_quitter", "agent"), ("thread_quitter", "step")],
)  # fmt: skip
def test_code_that_leaves_the_program_fails_its_run_and_nothing_else(hasty: Daemon, target: str, where: str) -> None:
    pid = hasty.process.pid
    run = hasty.run(target, inputs={"where": where})
    assert run["status"] == "failed"
    assert "SystemExit" in run["error"]["message"]
    assert hasty.running
    assert hasty.process.pid == pid


@pytest.mark.parametrize("leave", ["Cancelled", "Suspended", "CancelledError"])
def test_code_that_feigns_an_unwinding_fails(hasty: Daemon, leave: str) -> None:
    run = hasty.wait(hasty.post_run("feigner", inputs={"leave": leave})["id"], TERMINAL)
    assert (run["status"], run["error"]["message"]) == ("failed", "the agent cancelled itself")


# --- what only looks like an end -------------------------------------------------------------------------------------


def test_cleanups_of_a_run_that_only_waits_take_no_steps(hasty: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run = hasty.run("tidy_sleeper", inputs={"seconds": 0.5, "effects": str(effects)})
    assert (run["status"], run["output"]) == ("ok", "slept")
    assert [step["name"] for step in hasty.steps(run["id"]) if step["kind"] == "step"] == ["work", "cleanup"]
    assert lines(effects).count("cleanup") == 1


def test_code_that_swallows_its_unwinding_waits_all_the_same(hasty: Daemon) -> None:
    run = hasty.run("unwilling", inputs={"seconds": 0.6})
    assert run["output"] == {"slept": True}


def test_a_fact_that_comes_while_the_code_unwinds_is_not_missed(hasty: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = begun(hasty, "slow_signaller", {"seconds": 0.4, "effects": str(effects)})
    wait_until(lambda: "unwinding" in lines(effects))
    answer = hasty.client.post(hasty.path(f"runs/{run_id}/signals/go"), json={"data": 7})
    assert answer.status_code == 202
    assert hasty.wait(run_id)["output"] == 7

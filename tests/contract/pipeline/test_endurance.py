"""Pipelines that are killed, stopped, asked about and done again: nothing is paid for twice, nothing made is lost."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import mcp_server
from tests.conftest import Daemon, wait_until
from tests.contract.pipeline.conftest import Casting
from tests.contract.pipeline.roles import APPROVE, RETRY, Call, Place, Say, playing
from tests.endpoint import Endpoint, Gate

FOUR = {"steps": ["one", "two", "three", "four"]}
ONCE = ("plan.made", "plan.reviewed", "role.started", "role.finished", "retry.requested", "review.approved",
        "handoff.created", "handoff.accepted", "handoff.completed", "handoff.retry_requested")  # fmt: skip


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory, endpoint: Endpoint) -> Iterator[Daemon]:
    """A daemon that tests kill and start again."""
    home = tmp_path_factory.mktemp("mortal")
    with playing(home, endpoint, env={"SALES": str(home / "sales")}) as one:
        yield one.start()


def sold(daemon: Daemon) -> list[str]:
    sales = Path(daemon.env["SALES"])
    return sales.read_text(encoding="utf-8").split() if sales.exists() else []


def pending(daemon: Daemon, run_id: str) -> dict[str, Any]:
    items = daemon.client.get(daemon.path("approvals"), params={"status": "pending"}).json()["items"]
    [mine] = [item for item in items if item["run_id"] == run_id]
    return dict(mine)


def answer(daemon: Daemon, approval: dict[str, Any], decision: str) -> None:
    said = daemon.client.post(daemon.path(f"approvals/{approval['id']}"), json={"decision": decision})
    assert said.status_code == 200, said.text


def broken_off(daemon: Daemon, run: dict[str, Any]) -> None:
    """The run's end took the role at work and the handoff to it with it, and both are told before it."""
    last = [event["type"] for event in daemon.events(run["id"])][-3:]
    assert last == ["handoff.cancelled", "role.finished", "run.finished"]
    told, finished = daemon.events(run["id"], "handoff.cancelled", "role.finished")[-2:]
    handoff = run["handoffs"][-1]
    assert (handoff["status"], handoff["cancelled_at"]) == ("cancelled", told["at"])
    assert told["data"]["handoff_id"] == handoff["handoff_id"]
    assert (finished["data"]["role"], finished["data"]["status"]) == ("executor", "cancelled")


def told_once(daemon: Daemon, run: dict[str, Any]) -> None:
    """Each fact is in the timeline once, and the run shows what the timeline tells."""
    events = daemon.events(run["id"])
    facts = [(e["type"], e["data"].get("handoff_id"), e["data"].get("role"), e["data"].get("retry")) for e in events
             if e["type"] in ONCE]  # fmt: skip
    assert sorted(set(facts), key=str) == sorted(facts, key=str)
    assert [e["data"]["handoff_id"] for e in events if e["type"] == "handoff.created"] == [
        handoff["handoff_id"] for handoff in run["handoffs"]
    ]


# --- kills ---


def test_a_kill_in_the_executors_third_call_pays_for_nothing_twice(mortal: Daemon, cast: Casting) -> None:
    gate = Gate()
    third = Say("did 3", pieces=2, gate=gate, held_at=1)
    play = cast(planner=FOUR, executor=lambda at: third if at.step == 3 else f"did {at.step}")
    run = mortal.post_run("team", play.goal)
    assert gate.reached.wait(20)
    assert mortal.get(run["id"])["current_role"] == "executor"
    mortal.kill()
    gate.open()
    run = mortal.start().wait(run["id"])
    assert run["status"] == "ok", run["error"]
    assert [each["output"] for each in run["output"]["results"]] == ["did 1", "did 2", "did 3", "did 4"]
    assert set(play.paid().values()) == {1}
    assert play.asked().count(Place("executor", 3, 0, 0)) == 2
    assert run["usage"]["requests"] == 7
    told_once(mortal, run)


@pytest.mark.crash_long  # Each of these places is died at in tests/crash too, by all sorts of runs at once.
def test_killed_between_any_two_facts_it_goes_on_where_it_was(mortal: Daemon, cast: Casting) -> None:
    play = cast(reviewer=[RETRY, APPROVE])
    env, run_id = mortal.env, ""
    deaths = ["plan.after_step", "model.after_reply", "review.after"]
    try:
        for failpoint in deaths:
            if mortal.running:
                mortal.stop()
            mortal.env = {**env, "LATTICED_FAILPOINTS": failpoint}
            mortal.launch()
            if not run_id:
                mortal.wait_ready()
                run_id = mortal.post_run("team", play.goal)["id"]
            assert mortal.wait_exit(30) == -9, failpoint
    finally:
        mortal.env = env
        run = mortal.start().wait(run_id)
    assert run["status"] == "retried_ok", run["error"]
    twice = [at for at, times in play.paid().items() if times > 1]
    assert len(twice) <= 1, "a reply is paid for twice only if the process died before it could be recorded"
    assert run["usage"]["requests"] == len(play.paid())
    assert [(h["source"], h["target"], h["status"]) for h in run["handoffs"]] == [
        ("planner", "executor", "completed"), ("executor", "reviewer", "retry_requested"),
        ("reviewer", "executor", "completed"), ("executor", "reviewer", "completed"),
    ]  # fmt: skip
    assert len(run["review_history"]) == 2
    told_once(mortal, run)


def test_a_failure_that_was_recorded_stays_one_although_its_cause_is_gone(mortal: Daemon, cast: Casting) -> None:
    gate = Gate()
    play = cast(reviewer=Say(json.dumps(APPROVE), gate=gate))
    run = mortal.post_run("waiter", play.goal)
    assert gate.reached.wait(20)
    mortal.kill()
    gate.open()
    shutil.copy(Path(mcp_server.__file__), mortal.home / "late.py")
    run = mortal.start().wait(run["id"], timeout=40)
    assert run["status"] == "partial", run["error"]
    assert [step["status"] for step in run["plan"]["steps"]] == ["failed", "skipped"]
    assert "late" in run["plan"]["steps"][0]["note"]
    assert "executor" not in play.roles()
    assert mortal.run("waiter", cast().goal)["status"] == "ok", "who begins now can speak"


def test_a_server_that_is_away_when_a_run_is_entered_again_is_named_as_the_cause(mortal: Daemon, cast: Casting) -> None:
    gate, server = Gate(), mortal.home / "late.py"
    shutil.copy(Path(mcp_server.__file__), server)
    play = cast(reviewer=Say(json.dumps(APPROVE), gate=gate))
    run = mortal.post_run("waiter", play.goal)
    assert gate.reached.wait(20)
    mortal.kill()
    gate.open()
    server.unlink()
    run = mortal.start().wait(run["id"], timeout=40)
    assert (run["status"], run["error"]["code"]) == ("failed", "tool_server_failed")
    assert "late" in run["error"]["message"]
    assert [step["status"] for step in run["plan"]["steps"]] == ["done", "done"], "what was done is still shown"
    assert run["handoffs"][-1]["status"] == "cancelled"


# --- cancels ---


@pytest.mark.parametrize("mode", ["graceful", "now"])
def test_a_cancel_in_the_middle_takes_effect_at_once_and_keeps_what_was_made(
    mortal: Daemon, cast: Casting, mode: str
) -> None:
    gate = Gate()
    play = cast(planner=FOUR, executor=lambda at: Say(f"did {at.step}", gate=gate if at.step == 2 else None))
    run = mortal.post_run("team", play.goal)
    assert gate.reached.wait(20)
    mortal.stop_run(run["id"], mode=mode, reason="enough")
    run = mortal.wait(run["id"], timeout=5)
    gate.open()
    assert run["status"] == "cancelled"
    assert [step["status"] for step in run["plan"]["steps"]] == ["done", "planned", "planned", "planned"]
    assert run["output"]["results"][0]["output"] == "did 1"
    [handoff] = run["handoffs"]
    assert handoff["status"] == "cancelled"
    told = mortal.events(run["id"], "handoff.cancelled", "role.finished", "run.finished")
    assert [(e["type"], e["data"].get("status")) for e in told][-2:] == [
        ("role.finished", "cancelled"), ("run.finished", "cancelled"),
    ]  # fmt: skip
    assert handoff["cancelled_at"] == next(e["at"] for e in told if e["type"] == "handoff.cancelled")
    wait_until(lambda: play.endpoint.of(play.name)[-1].end == "left")
    assert len(play.asked()) == 4, "nobody is asked after it"


def test_a_deadline_leaves_what_was_made(mortal: Daemon, cast: Casting) -> None:
    gate = Gate()
    play = cast(planner=FOUR, executor=lambda at: Say(f"did {at.step}", gate=gate if at.step == 2 else None))
    run = mortal.run("team", play.goal, deadline_seconds=2)
    gate.open()
    assert (run["status"], run["error"]["code"]) == ("failed", "deadline_exceeded")
    assert run["output"]["results"][0]["output"] == "did 1"
    assert run["handoffs"][-1]["status"] == "cancelled"


# --- people ---


def test_a_question_about_a_tool_survives_a_kill_and_the_tool_is_called_once(mortal: Daemon, cast: Casting) -> None:
    play = cast(planner={"steps": ["sell it"]}, executor=(Call("sell", item="house"), "it is sold"))
    run = mortal.wait(mortal.post_run("handy", play.goal)["id"], "awaiting_approval")
    asked = pending(mortal, run["id"])
    assert run["current_role"] == "executor"
    mortal.kill()
    mortal.start()
    assert mortal.get(run["id"])["status"] == "awaiting_approval"
    assert pending(mortal, run["id"])["id"] == asked["id"], "it is the same question"
    assert "house" not in sold(mortal)
    answer(mortal, asked, "approve")
    run = mortal.wait(run["id"])
    assert run["status"] == "ok", run["error"]
    assert sold(mortal).count("house") == 1
    assert set(play.paid().values()) == {1}
    told_once(mortal, run)


def test_a_denial_is_told_to_the_model(mortal: Daemon, cast: Casting) -> None:
    play = cast(planner={"steps": ["sell it"]}, executor=(Call("sell", item="cat"), "it was not allowed"))
    run = mortal.wait(mortal.post_run("handy", play.goal)["id"], "awaiting_approval")
    answer(mortal, pending(mortal, run["id"]), "deny")
    run = mortal.wait(run["id"])
    assert run["status"] == "ok", run["error"]
    assert "cat" not in sold(mortal)
    bodies = [str(each.body["messages"]) for each in play.endpoint.of(play.name)]
    assert any("denied" in body for body in bodies)


def test_a_pipeline_that_waits_for_a_person_is_cancelled_at_once(mortal: Daemon, cast: Casting) -> None:
    play = cast(planner={"steps": ["sell it"]}, executor=(Call("sell", item="dog"), "sold"))
    run = mortal.wait(mortal.post_run("handy", play.goal)["id"], "awaiting_approval")
    said = mortal.stop_run(run["id"])
    assert (said["status"], said["cancellation"]) == ("cancelled", "immediate")
    broken_off(mortal, mortal.get(run["id"]))
    assert "dog" not in sold(mortal)


def test_a_deadline_that_passes_while_a_person_is_waited_for_is_told_to_the_end(mortal: Daemon, cast: Casting) -> None:
    play = cast(planner={"steps": ["sell it"]}, executor=(Call("sell", item="cow"), "sold"))
    run = mortal.run("handy", play.goal, deadline_seconds=2)
    assert (run["status"], run["error"]["code"]) == ("failed", "deadline_exceeded")
    broken_off(mortal, run)


def test_a_run_that_is_over_with_its_daemon_is_told_to_the_end(mortal: Daemon, cast: Casting) -> None:
    gate = Gate()
    play = cast(planner=FOUR, executor=Say("did it", gate=gate))
    run = mortal.post_run("team", play.goal, recovery="interrupt")
    assert gate.reached.wait(20)
    mortal.kill()
    mortal.start()
    gate.open()
    run = mortal.wait(run["id"])
    assert run["status"] == "interrupted"
    broken_off(mortal, run)


# --- again ---


def test_a_rerun_is_a_run_of_its_own_and_one_from_a_step_keeps_what_was_before(mortal: Daemon, cast: Casting) -> None:
    play = cast(planner=FOUR, reviewer=RETRY)
    old = mortal.run("team", play.goal, max_retries=0)
    assert old["error"]["code"] == "retries_exhausted"
    asked = len(play.asked())
    whole = mortal.client.post(mortal.path(f"runs/{old['id']}/rerun"), json={}).json()["run"]
    mortal.wait(whole["id"])
    assert len(play.asked()) == 2 * asked
    review = [step for step in mortal.steps(old["id"]) if step["name"] == "model:reviewer"][-1]
    again = mortal.client.post(mortal.path(f"runs/{old['id']}/rerun"), json={"from_step": review["id"]}).json()["run"]
    again = mortal.wait(again["id"])
    assert play.asked()[2 * asked :] == [Place("reviewer", 0, 0, 0)], "only the review was done again"
    assert [step["status"] for step in again["plan"]["steps"]] == ["done"] * 4
    assert len(again["handoffs"]) == 2

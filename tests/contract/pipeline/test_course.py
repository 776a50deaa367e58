"""The role pipeline from outside: who was asked what, what the run shows, how it ends."""

import json
from itertools import pairwise
from typing import Any

import pytest

from latticed.models.runs import Run, RunSummary
from tests.conftest import Daemon
from tests.contract.pipeline.conftest import Casting
from tests.contract.pipeline.roles import APPROVE, REJECT, RETRY, Refuse, Say

DEFAULT = ["planner", "executor", "reviewer"]


def handoffs(run: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(each["source"], each["target"], each["status"]) for each in run["handoffs"]]


def test_the_default_roles_plan_carry_out_and_review(stage: Daemon, cast: Casting) -> None:
    play = cast()
    run = stage.run("team", play.goal)
    assert run["status"] == "ok", run["error"]
    assert Run.model_validate(run).plan is not None, "it has the shape that is promised"
    assert play.roles() == ["planner", "plan review", "executor", "executor", "reviewer"]
    assert [(s["index"], s["description"], s["status"]) for s in run["plan"]["steps"]] == [
        (1, "look", "done"), (2, "act", "done"),
    ]  # fmt: skip
    review = run["plan_review"]
    assert (review["plan_id"], review["outcome"], review["reason"]) == (run["plan"]["plan_id"], "approve", "fine")
    assert run["plan"]["made_at"] <= review["reviewed_at"]
    assert [each["outcome"] for each in run["review_history"]] == ["approve"]
    assert (run["retry_history"], run["current_role"]) == ([], None)
    assert handoffs(run) == [("planner", "executor", "completed"), ("executor", "reviewer", "completed")]
    assert [each["output"] for each in run["output"]["results"]] == ["result 1.0", "result 2.0"]
    assert run["usage"] == {"input_tokens": 50, "output_tokens": 25, "requests": 5, "cost_usd": 0.0}


def test_each_fact_is_an_event_in_the_order_in_which_it_came(stage: Daemon, cast: Casting) -> None:
    run = stage.run("team", cast(reviewer=[RETRY, APPROVE]).goal)
    told = [e["type"] for e in stage.events(run["id"]) if e["type"].partition(".")[0] in
            ("role", "handoff", "plan", "review", "retry")]  # fmt: skip
    taken = ["handoff.accepted", "handoff.running", "role.started"]
    executed = [*taken, "handoff.completed", "role.finished", "handoff.created"]
    assert told == [
        "role.started", "plan.made", "plan.reviewed", "role.finished", "handoff.created",
        *executed,
        *taken, "review.requested", "handoff.retry_requested", "role.finished", "retry.requested", "handoff.created",
        *executed,
        *taken, "review.requested", "review.approved", "handoff.completed", "role.finished",
    ]  # fmt: skip


def test_a_handoff_is_accepted_when_its_target_starts_and_completed_when_that_ends(
    stage: Daemon, cast: Casting
) -> None:
    run = stage.run("team", cast().goal)
    events = stage.events(run["id"])
    for handoff in run["handoffs"]:
        mine = {e["type"]: e for e in events if e["data"].get("handoff_id") == handoff["handoff_id"]}
        for state in ("created", "accepted", "running", "completed"):
            assert mine[f"handoff.{state}"]["at"] == handoff[f"{state}_at"]
        started = next(e for e in events if e["type"] == "role.started" and e["data"]["role"] == handoff["target"])
        ended = next(e for e in events if e["type"] == "role.finished" and e["data"]["role"] == handoff["target"])
        assert (handoff["accepted_at"], handoff["completed_at"]) == (started["at"], ended["at"])
        work = [e["at"] for e in events if started["seq"] < e["seq"] < ended["seq"] and e["type"] == "usage"]
        assert all(handoff["running_at"] <= at <= handoff["completed_at"] for at in work)


def test_all_roles_from_research_to_release(stage: Daemon, cast: Casting) -> None:
    play = cast(researcher={"items": ["the river is long", "it rains"]})
    run = stage.run("team", play.goal, roles=["researcher", *DEFAULT, "release"])
    assert run["status"] == "ok", run["error"]
    [snapshot] = run["memory_snapshots"]
    assert (snapshot["scope"], snapshot["role"]) == ("short_term", "researcher")
    assert snapshot["items"] == ["the river is long", "it rains"]
    assert "the river is long" in play.prompts("planner")[0]
    assert run["handoffs"][0]["context_packet"]["memory"] == snapshot["items"]
    assert run["output"]["summary"] == "the summary"
    assert [each["target"] for each in run["handoffs"]] == [*DEFAULT, "release"]


def test_a_retry_goes_back_to_the_executor_with_the_notes(stage: Daemon, cast: Casting) -> None:
    play = cast(reviewer=[RETRY, RETRY, APPROVE])
    run = stage.run("team", play.goal)
    assert run["status"] == "retried_ok"
    assert [each["outcome"] for each in run["review_history"]] == ["retry", "retry", "approve"]
    assert [(r["retry"], r["source"], r["target"], r["notes"]) for r in run["retry_history"]] == [
        (1, "reviewer", "executor", "say more"), (2, "reviewer", "executor", "say more"),
    ]  # fmt: skip
    prompts = play.prompts("executor")
    assert ["say more" in prompt for prompt in prompts] == [False, False, True, True, True, True]
    assert [each["output"] for each in run["output"]["results"]] == ["result 1.2", "result 2.2"]
    assert handoffs(run) == [
        ("planner", "executor", "completed"), ("executor", "reviewer", "retry_requested"),
        ("reviewer", "executor", "completed"), ("executor", "reviewer", "retry_requested"),
        ("reviewer", "executor", "completed"), ("executor", "reviewer", "completed"),
    ]  # fmt: skip
    assert run["attempt"] == 1, "the reviewer's retries are no attempts"


@pytest.mark.parametrize(("most", "reviews"), [(0, 1), (1, 2)])
def test_retries_run_out(stage: Daemon, cast: Casting, most: int, reviews: int) -> None:
    play = cast(reviewer=RETRY)
    run = stage.run("team", play.goal, max_retries=most)
    assert (run["status"], run["error"]["code"]) == ("failed", "retries_exhausted")
    assert (len(run["review_history"]), len(run["retry_history"])) == (reviews, most)
    assert [each["output"] for each in run["output"]["results"]] == [f"result {n}.{most}" for n in (1, 2)], "it is kept"


def test_a_rejection_is_the_end(stage: Daemon, cast: Casting) -> None:
    play = cast(reviewer=REJECT)
    run = stage.run("team", play.goal, roles=[*DEFAULT, "release"])
    assert (run["status"], run["error"]["code"]) == ("failed", "review_rejected")
    assert "wrong" in run["error"]["message"]
    assert "release" not in play.roles()
    assert handoffs(run)[-1] == ("executor", "reviewer", "rejected")
    assert stage.events(run["id"], "review.rejected")


@pytest.mark.parametrize("nonsense", ["banana", "approve", '{"outcome": "Approved!"}', '{"approve": true}', "[]",
                                      '{"outcome": "approve", "confidence": 200}'])  # fmt: skip
def test_a_reviewer_that_talks_nonsense_never_approves(stage: Daemon, cast: Casting, nonsense: str) -> None:
    play = cast(reviewer=nonsense)
    run = stage.run("team", play.goal)
    assert (run["status"], run["error"]["code"]) == ("failed", "role_failed")
    assert [each["outcome"] for each in run["review_history"]] == ["failed"]
    assert handoffs(run)[-1] == ("executor", "reviewer", "blocked")
    assert 1 < play.roles().count("reviewer") < 6, "it is told what is wrong, and not for ever"
    [finished] = [e for e in stage.events(run["id"], "role.finished") if e["data"]["role"] == "reviewer"]
    assert finished["data"]["status"] == "failed"


def test_a_reviewer_that_comes_to_its_senses_counts(stage: Daemon, cast: Casting) -> None:
    run = stage.run("team", cast(reviewer=("banana", json.dumps(APPROVE))).goal)
    assert run["status"] == "ok"


def test_a_reviewer_that_crashes_never_approves(stage: Daemon, cast: Casting) -> None:
    run = stage.run("team", cast(reviewer=Refuse(400, "no such luck")).goal)
    assert (run["status"], run["error"]["code"]) == ("failed", "role_failed")
    assert "no such luck" in run["error"]["message"]
    assert run["review_history"][0]["outcome"] == "failed"


def test_without_a_reviewer_it_is_well_if_no_role_failed(stage: Daemon, cast: Casting) -> None:
    well = stage.run("team", cast().goal, roles=["planner", "executor"])
    assert (well["status"], well["review_history"]) == ("ok", [])
    assert (well["plan_review"]["outcome"], well["plan_review"]["by"]) == ("approve", "rules")
    ill = stage.run("team", cast(executor=Refuse(400)).goal, roles=["planner", "executor", "release"])
    assert (ill["status"], ill["error"]["code"]) == ("failed", "role_failed")
    assert [step["status"] for step in ill["plan"]["steps"]] == ["failed", "skipped"]


def test_a_failed_executor_is_judged_by_the_reviewer(stage: Daemon, cast: Casting) -> None:
    mended = cast(executor=[Refuse(400), "well done"], reviewer=[RETRY, APPROVE])
    assert stage.run("team", mended.goal)["status"] == "retried_ok"
    broken = cast(executor=lambda at: Refuse(400) if at.step == 2 else "well")
    run = stage.run("team", broken.goal)
    assert run["status"] == "partial", "an approval does not make whole what is not"
    assert [step["status"] for step in run["plan"]["steps"]] == ["done", "failed"]
    assert handoffs(run)[0] == ("planner", "executor", "blocked")


def test_a_role_of_the_configurations_own(stage: Daemon, cast: Casting) -> None:
    play = cast(editor="edited")
    run = stage.run("editors", play.goal)
    assert run["status"] == "ok", run["error"]
    assert play.roles() == ["executor", "editor", "reviewer"]
    assert run["output"]["roles"] == {"editor": "edited"}
    body = play.endpoint.of(play.name)[1].body
    assert (body["temperature"], body.get("max_completion_tokens", body.get("max_tokens"))) == (0.5, 77)
    assert "edited" in play.prompts("reviewer")[0]


def test_the_whole_output_is_kept_and_only_packets_are_cut(stage: Daemon, cast: Casting) -> None:
    long = "word " * 40_000
    run = stage.run("team", cast(executor=Say(long, pieces=9)).goal)
    assert run["output"]["results"][0]["output"] == long
    for handoff, next_one in pairwise([*run["handoffs"], None]):
        assert handoff is not None
        assert len(json.dumps(handoff["context_packet"])) < 65_536
        assert len(handoff["task_summary"]) <= 500
        assert next_one is None or next_one["created_at"] >= handoff["created_at"]


def test_work_that_cannot_be_recorded_fails_the_step_and_keeps_what_was_there(stage: Daemon, cast: Casting) -> None:
    long = Say("word " * 120_000, pieces=9)
    play = cast(executor=lambda at: "short" if at.step == 1 else long, planner={"steps": ["a", "b", "c"]})
    run = stage.run("team", play.goal, roles=["planner", "executor"])
    assert (run["status"], run["error"]["code"]) == ("failed", "role_failed")
    assert "more than the 1048576 bytes" in run["error"]["message"]
    assert [step["status"] for step in run["plan"]["steps"]] == ["done", "done", "failed"]
    assert [each["output"] and len(each["output"]) for each in run["output"]["results"]] == [5, 600_000, None]


def test_inputs_are_told_to_every_role(stage: Daemon, cast: Casting) -> None:
    play = cast()
    stage.run("team", play.goal, inputs={"river": "the Glomma", "steps": ["one"]})
    for role in ("plan review", "executor", "reviewer"):
        assert "the Glomma" in play.prompts(role)[0]


def test_a_list_of_runs_has_the_usage_and_not_the_story(stage: Daemon, cast: Casting) -> None:
    run = stage.run("team", cast().goal)
    listed = stage.client.get(stage.path("runs"), params={"target": "team", "limit": 1}).json()["items"][0]
    assert listed["id"] == run["id"]
    assert listed["usage"] == run["usage"]
    assert "handoffs" not in listed
    RunSummary.model_validate(listed)

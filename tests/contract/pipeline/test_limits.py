"""What a pipeline refuses, before it begins or on its way, and what it keeps to itself."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import ROOT, Daemon
from tests.contract.pipeline.conftest import Casting
from tests.contract.pipeline.roles import APPROVE, RETRY, Call


def refused(stage: Daemon, target: str = "team", **fields: Any) -> dict[str, Any]:
    answer = stage.client.post(stage.path("runs"), json={"target": target, "goal": "go", **fields})
    assert answer.status_code == 422, answer.text
    told: dict[str, Any] = answer.json()
    assert told["code"] == "invalid"
    return told


# --- at submit ---


@pytest.mark.parametrize(
    ("fields", "where", "says"),
    [({"roles": ["planner", "king"]}, "roles", "unknown role 'king'"), ({"roles": ["editor"]}, "roles", "editor"),
     ({"roles": ["executor", "executor"]}, "roles", "once"), ({"goal": " \n"}, "goal", "blank"),
     ({"max_retries": 6}, "max_retries", "5"), ({"inputs": {"steps": "one"}}, "inputs", "list of steps"),
     ({"inputs": {"steps": []}}, "inputs", "1 to 100"), ({"inputs": {"steps": ["x"] * 10_000}}, "inputs", "10000"),
     ({"inputs": {"steps": [{"description": ""}]}}, "inputs", "no description")],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_and_says_why(stage: Daemon, fields: Any, where: str, says: str) -> None:
    told = refused(stage, **fields)
    assert told["errors"][0]["loc"][:2] == ["body", where]
    assert says in told["errors"][0]["msg"]


def test_a_live_run_without_a_model_is_refused_and_says_what_to_configure(stage: Daemon) -> None:
    told = refused(stage, "dry")
    assert "[models.NAME]" in told["detail"]
    assert "simulation" in told["detail"]


def test_a_role_of_one_agent_is_none_of_another(stage: Daemon, cast: Casting) -> None:
    assert stage.run("editors", cast(editor="x").goal, roles=["editor"])["status"] == "ok"
    assert "editor" in refused(stage, "team", roles=["editor"])["detail"]


# --- simulation ---


def test_a_simulation_says_so_in_the_run_and_in_every_event(stage: Daemon) -> None:
    before = len(stage.client.get(stage.path("runs"), params={"target": "dry"}).json()["items"])
    roles = ["researcher", "planner", "executor", "reviewer", "release"]
    runs = [stage.run("dry", "build a bridge", mode="simulation", roles=roles) for _ in range(2)]
    assert [run["mode"] for run in runs] == ["simulation"] * 2
    assert [run["status"] for run in runs] == ["ok"] * 2
    for run in runs:
        events = stage.events(run["id"])
        assert len(events) > 30
        assert all(event["data"]["simulation"] is True for event in events)
    assert runs[0]["output"]["results"] == runs[1]["output"]["results"], "it says the same each time"
    assert "simulated" in runs[0]["output"]["summary"]
    assert before + 2 == len(stage.client.get(stage.path("runs"), params={"target": "dry"}).json()["items"])


def test_a_live_run_never_says_that_it_is_simulated(stage: Daemon, cast: Casting) -> None:
    run = stage.run("team", cast().goal)
    assert not any("simulation" in event["data"] for event in stage.events(run["id"]))


def test_a_simulation_goes_by_its_script(stage: Daemon) -> None:
    run = stage.run("rehearsed", "build a bridge", mode="simulation")
    assert run["status"] == "retried_ok"
    assert [each["outcome"] for each in run["review_history"]] == ["retry", "approve"]


# --- plans ---


def test_given_steps_are_the_plan_and_nobody_is_asked_for_another(stage: Daemon, cast: Casting) -> None:
    play = cast()
    run = stage.run("team", play.goal, inputs={"steps": ["first", {"description": "then"}]})
    assert run["status"] == "ok"
    assert play.roles() == ["plan review", "executor", "executor", "reviewer"]
    assert run["plan"]["source"] == "inputs"
    assert [step["description"] for step in run["plan"]["steps"]] == ["first", "then"]


def test_an_executor_alone_has_the_goal_as_its_plan(stage: Daemon, cast: Casting) -> None:
    play = cast()
    run = stage.run("team", play.goal, roles=["executor"])
    assert (run["status"], run["plan"]["source"], play.roles()) == ("ok", "goal", ["executor"])
    assert run["plan_review"]["outcome"] == "approve"


def test_a_plan_that_its_review_rejects_is_not_carried_out(stage: Daemon, cast: Casting) -> None:
    play = cast(plan_review={"outcome": "reject", "reason": "it burns the house down"})
    run = stage.run("team", play.goal)
    assert (run["status"], run["error"]["code"]) == ("failed", "plan_rejected")
    assert "burns" in run["error"]["message"]
    assert play.roles() == ["planner", "plan review"]
    assert (run["plan_review"]["outcome"], run["plan_review"]["by"]) == ("reject", "reviewer")
    assert [step["status"] for step in run["plan"]["steps"]] == ["planned", "planned"]


def test_a_plan_that_is_sent_back_is_made_again_with_the_notes(stage: Daemon, cast: Casting) -> None:
    sent_back = RETRY | {"notes": "begin with the roof"}
    play = cast(plan_review=[sent_back, APPROVE], planner=[{"steps": ["walls"]}, {"steps": ["roof"]}])
    run = stage.run("team", play.goal, roles=["researcher", "planner", "executor", "reviewer"])
    assert run["status"] == "retried_ok", run["error"]
    assert play.roles() == ["researcher", "planner", "plan review", "planner", "plan review", "executor", "reviewer"]
    assert "begin with the roof" in play.prompts("planner")[1]
    assert [step["description"] for step in run["plan"]["steps"]] == ["roof"]
    assert [(each["source"], each["target"]) for each in run["retry_history"]] == [("reviewer", "planner")]
    assert run["plan_review"]["outcome"] == "approve"


def test_plans_and_work_share_the_retries(stage: Daemon, cast: Casting) -> None:
    plans = stage.run("team", cast(plan_review=RETRY).goal)
    assert (plans["status"], plans["error"]["code"]) == ("failed", "plan_rejected")
    assert len(plans["retry_history"]) == 2
    both = stage.run("team", cast(plan_review=[RETRY, APPROVE], reviewer=RETRY).goal, max_retries=2)
    assert (both["status"], both["error"]["code"]) == ("failed", "retries_exhausted")
    assert [each["target"] for each in both["retry_history"]] == ["planner", "executor"]


def test_given_steps_that_are_sent_back_are_rejected(stage: Daemon, cast: Casting) -> None:
    run = stage.run("team", cast(plan_review=RETRY).goal, inputs={"steps": ["one"]})
    assert (run["status"], run["error"]["code"]) == ("failed", "plan_rejected")
    assert run["plan_review"]["outcome"] == "reject"


def test_a_plan_review_that_is_nonsense_does_not_approve(stage: Daemon, cast: Casting) -> None:
    play = cast(plan_review="banana")
    run = stage.run("team", play.goal)
    assert (run["status"], run["error"]["code"]) == ("failed", "plan_rejected")
    assert "executor" not in play.roles()


def test_a_plan_of_ten_thousand_steps_is_not_carried_out(stage: Daemon, cast: Casting) -> None:
    play = cast(planner=Call("final_result", steps=[{"description": "again"}] * 10_000))
    run = stage.run("team", play.goal)
    assert (run["status"], run["error"]["code"]) == ("failed", "plan_rejected")
    assert "10000 steps" in run["plan_review"]["reason"]
    assert run["plan_review"]["by"] == "rules"
    assert play.roles() == ["planner"]


@pytest.mark.parametrize("answer", ["banana", {"steps": []}, {"steps": "do it"}, {"plan": ["x"]}])
def test_a_planner_that_makes_no_plan_has_failed(stage: Daemon, cast: Casting, answer: Any) -> None:
    run = stage.run("team", cast(planner=answer).goal)
    assert (run["status"], run["error"]["code"], run["plan"]) == ("failed", "role_failed", None)


def test_a_tool_that_the_executor_lacks_is_found_before_anything_is_done(stage: Daemon, cast: Casting) -> None:
    play = cast(planner={"steps": [{"description": "x", "tool": "hammer"}]})
    run = stage.run("handy", play.goal)
    assert (run["status"], run["error"]["code"]) == ("failed", "plan_rejected")
    assert "'hammer'" in run["plan_review"]["reason"]


def test_a_step_that_names_a_workflow_is_skipped_and_says_why(stage: Daemon, cast: Casting) -> None:
    play = cast(planner={"steps": ["look", {"description": "run it", "workflow": "nightly"}]})
    run = stage.run("team", play.goal)
    assert run["status"] == "partial"
    step = run["plan"]["steps"][1]
    assert step["status"] == "skipped"
    assert "'nightly'" in step["note"]
    assert play.roles().count("executor") == 1


# --- tools ---


def test_the_executor_has_its_tools_and_children_and_others_have_none(stage: Daemon, cast: Casting) -> None:
    calls = Call.several(("weather", {"city": "Oslo"}), ("ask_echo", {"goal": "hello there"}))
    play = cast(executor=(calls, "it is clear"), planner={"steps": [{"description": "look", "tool": "weather"}]})
    run = stage.run("handy", play.goal)
    assert run["status"] == "ok", run["error"]
    told = [e["data"] for e in stage.events(run["id"], "tool.returned")]
    assert sorted(each["tool"] for each in told) == ["ask_echo", "weather"]
    [child] = stage.client.get(stage.path("runs"), params={"parent": run["id"]}).json()["items"]
    assert (child["target"], child["goal"], child["status"]) == ("echo", "hello there", "ok")
    offered = {role: {t["function"]["name"] for t in body.get("tools", [])} for role, body in
               zip(play.roles(), (each.body for each in play.endpoint.of(play.name)), strict=True)}  # fmt: skip
    assert offered["executor"] == {"weather", "ask_echo", "sell"}
    assert offered["reviewer"] == offered["planner"] == {"final_result"}


# --- secrets ---


def test_secrets_are_nowhere(stage: Daemon, cast: Casting) -> None:
    play = cast(
        executor=(Call("weather", city="Oslo"), '{"password": "hidden-by-a-model", "max_tokens": 9}'),
        planner={"steps": ["look"]}, researcher={"items": ['{"secret": "hidden-in-memory"}']},
    )  # fmt: skip
    inputs = {
        "password": "hidden-input",
        "nested": [{"apiKey": "hidden-deep"}],
        "max_tokens": 5,
        "constraints": ["be brief"],
    }
    run = stage.run("handy", play.goal, inputs=inputs, roles=["researcher", "planner", "executor", "reviewer"])
    assert run["status"] == "ok", run["error"]
    assert run["inputs"]["password"] == run["inputs"]["nested"][0]["apiKey"] == "[redacted]"
    assert (run["inputs"]["max_tokens"], run["inputs"]["constraints"]) == (5, ["be brief"])
    for shown in (json.dumps(run), json.dumps(stage.events(run["id"])), json.dumps(stage.steps(run["id"]))):
        assert "hidden" not in shown
    assert '"max_tokens": 9' in json.dumps(run["output"]).replace('\\"', '"').replace('":9', '": 9')
    asked = json.dumps([each.body for each in play.endpoint.of(play.name)])
    assert "hidden-input" not in asked
    assert "hidden-deep" not in asked
    assert "be brief" in asked
    stored = b"".join(path.read_bytes() for path in stage.state_dir.glob("latticed.db*"))
    assert b"hidden-input" not in stored
    assert b"hidden-deep" not in stored


# --- budgets ---


def test_a_budget_of_nothing_pays_for_nothing(stage: Daemon, cast: Casting) -> None:
    play = cast()
    run = stage.run("poor", play.goal)
    assert (run["status"], run["error"]["code"]) == ("failed", "budget_exceeded")
    assert "max_requests" in run["error"]["message"]
    assert play.asked() == []


def test_a_budget_that_is_used_up_ends_the_run_and_keeps_what_was_made(stage: Daemon, cast: Casting) -> None:
    play = cast(reviewer=[RETRY, APPROVE])
    run = stage.run("frugal", play.goal)
    assert (run["status"], run["error"]["code"]) == ("failed", "budget_exceeded")
    assert run["usage"]["requests"] == len(play.asked()) == 3
    assert [step["status"] for step in run["plan"]["steps"]] == ["done", "failed"]
    assert run["output"]["results"][0]["output"] == "result 1.0"
    assert run["handoffs"][-1]["status"] == "blocked"


# --- memory ---


def test_a_researcher_knows_what_earlier_runs_came_to(stage: Daemon, cast: Casting) -> None:
    answer = stage.client.post("/v1/workspaces", json={"name": "memories"})
    assert answer.status_code in (201, 409), answer.text
    mine = {"workspace": "memories", "roles": ["researcher", "executor"]}
    first, second = cast(executor="the bridge holds"), cast()
    stage.workspace = "memories"
    try:
        assert stage.run("team", first.goal, **mine)["status"] == "ok"
        assert stage.run("team", second.goal, **mine)["status"] == "ok"
    finally:
        stage.workspace = "default"
    assert "the bridge holds" not in first.prompts("researcher")[0]
    assert "the bridge holds" in second.prompts("researcher")[0]
    elsewhere = cast()
    assert stage.run("team", elsewhere.goal, roles=["researcher", "executor"])["status"] == "ok"
    assert "the bridge holds" not in elsewhere.prompts("researcher")[0], "what is of another workspace is unknown"


# --- what is shipped ---


def test_the_pipeline_that_is_shipped_runs_as_a_simulation(daemon: Callable[..., Daemon]) -> None:
    one = daemon(args=("--config", str(ROOT / "config" / "latticed.toml")))
    refused(one, "research")
    run = one.run("research", "Compare two bridges", mode="simulation")
    assert run["status"] == "ok", run["error"]
    assert [step["status"] for step in run["plan"]["steps"]] == ["done"] * 3

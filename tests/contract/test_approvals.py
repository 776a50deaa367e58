"""Questions to people: asked once, answered once, in time or not at all."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from latticed.clock import from_text
from latticed.errors import ApprovalExpired, Denied
from tests.agents_for_tests import pause
from tests.conftest import Daemon, wait_until
from tests.contract.test_steps import LONG, ended, left, lines
from tests.contract.test_waits import moves


def asked(one: Daemon, run_id: str) -> dict[str, Any]:
    """The question that the run waits for."""
    [approval_id] = one.wait(run_id, "awaiting_approval")["pause"]["approval_ids"]
    return question(one, approval_id)


def question(one: Daemon, approval_id: str) -> dict[str, Any]:
    pages = one.client.get(one.path("approvals"), params={"limit": 500}).json()["items"]
    found: dict[str, Any] = next(item for item in pages if item["id"] == approval_id)
    return found


def answer(one: Daemon, approval_id: str, decision: str = "approve", **said: Any) -> Any:
    return one.client.post(one.path(f"approvals/{approval_id}"), json={"decision": decision, **said})


async def curious(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    """Asks `n` questions (1), catches what it can if `catch`, and sleeps on it."""
    heard: list[Any] = []
    limits = {key: inputs[key] for key in ("schema", "lanes", "expires_seconds", "expires") if key in inputs}
    for number in range(inputs.get("n", 1)):
        try:
            heard.append(await ctx.ask(f"{goal} {number}", **limits))
        except (Denied, ApprovalExpired) as error:
            if not inputs.get("catch"):
                raise
            heard.append([error.code, error.message])
        await ctx.step("heard", left, ctx, inputs, str(heard[-1]))
    await ctx.sleep(LONG)
    left(ctx, inputs, f"all {heard}")
    return heard


def test_an_answer_wakes_the_run_with_its_data(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = quick.post_run("curious", "may I?", inputs={"n": 2, "effects": str(effects)})["id"]
    for number in range(2):
        ask = wait_until(
            lambda number=number: next(
                (
                    item
                    for item in quick.client.get(quick.path("approvals"), params={"status": "pending"}).json()["items"]
                    if item["run_id"] == run_id and item["prompt"] == f"may I? {number}"
                ),
                None,
            )
        )
        run = quick.wait(run_id, "awaiting_approval")
        assert (run["owner"], run["pause"]["kind"], run["pause"]["approval_ids"]) == (None, "approval", [ask["id"]])
        why = quick.get(run_id, "why")
        assert (why["code"], why["waits_for"]) == ("approval", [f"approval:{ask['id']}"])
        said = answer(quick, ask["id"], data={"n": number}, comment="yes")
        assert said.status_code == 200
        assert (said.json()["status"], said.json()["answer"], said.json()["answered_by"]) == (
            "approved", {"n": number}, "admin",
        )  # fmt: skip
    assert quick.wait(run_id, "ok")["output"] == [{"n": 0}, {"n": 1}]
    assert lines(effects) == ["{'n': 0}", "{'n': 1}", "all [{'n': 0}, {'n': 1}]"]
    requested = quick.events(run_id, "approval.requested")
    assert [event["data"]["prompt"] for event in requested] == ["may I? 0", "may I? 1"], "asked once each"
    assert [e["data"]["decision"] for e in quick.events(run_id, "approval.answered")] == ["approve", "approve"]
    assert moves(quick, run_id)[0] == "run.awaiting_approval"
    assert {(step["kind"], step["status"]) for step in quick.steps(run_id)} == {
        ("ask", "ok"), ("step", "ok"), ("sleep", "ok"),
    }  # fmt: skip


def test_a_denial_that_is_not_caught_rejects_the_run(quick: Daemon) -> None:
    run_id = quick.post_run("curious", max_retries=2)["id"]
    approval = asked(quick, run_id)
    assert answer(quick, approval["id"], "deny", comment="not today").json()["status"] == "denied"
    run = quick.wait(run_id, "rejected")
    assert (run["error"]["code"], run["attempt"]) == ("denied", 1)
    assert "not today" in run["error"]["message"]


def test_a_denial_that_is_caught_is_the_same_on_every_replay(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = quick.post_run("curious", inputs={"catch": True, "effects": str(effects)})["id"]
    answer(quick, asked(quick, run_id)["id"], "deny", comment="no 🦊")
    run = quick.wait(run_id, "ok")
    assert run["output"] == [["denied", "denied: no 🦊"]]
    assert lines(effects) == [str(run["output"][0]), f"all {run['output']}"]


@pytest.mark.parametrize(("catch", "name"), [(True, "expires"), (False, "expires_seconds")])
def test_an_approval_expires_in_its_time(quick: Daemon, catch: bool, name: str) -> None:
    run_id = quick.post_run("curious", inputs={name: 0.6, "catch": catch}, max_retries=2)["id"]
    approval = asked(quick, run_id)
    expires_at = from_text(approval["expires_at"])
    run = quick.wait(run_id)
    if catch:
        assert (run["status"], run["output"][0][0]) == ("ok", "approval_expired")
    else:
        assert (run["status"], run["error"]["code"], run["attempt"]) == ("failed", "approval_expired", 1)
    [expired] = quick.events(run_id, "approval.expired")
    assert expired["data"] == {"approval_id": approval["id"]}
    assert 0 <= from_text(expired["at"]) - expires_at < 2_000_000
    assert question(quick, approval["id"])["status"] == "expired"
    assert answer(quick, approval["id"]).status_code == 409


def test_why_says_until_when_a_question_is_open(quick: Daemon) -> None:
    run_id = quick.post_run("curious", inputs={"expires_seconds": 600})["id"]
    approval = asked(quick, run_id)
    why = quick.get(run_id, "why")
    assert (why["until"], f"until {approval['expires_at']}" in why["reason"]) == (approval["expires_at"], True)
    assert quick.wait(run_id, "awaiting_approval")["pause"]["wake_at"] == approval["expires_at"]
    listed = quick.client.get(quick.path("runs"), params={"target": "curious", "status": "awaiting_approval"}).json()
    assert [run["pause"]["wake_at"] for run in listed["items"] if run["id"] == run_id] == [approval["expires_at"]]
    quick.stop_run(run_id)


def test_of_many_answers_one_wins(quick: Daemon) -> None:
    run_id = quick.post_run("curious")["id"]
    approval_id = asked(quick, run_id)["id"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: answer(quick, approval_id, data={"n": n}), range(16)))
    assert sorted(each.status_code for each in answers) == [200] + [409] * 15
    [won] = [each.json()["answer"] for each in answers if each.status_code == 200]
    assert quick.wait(run_id, "ok")["output"] == [won]


def test_an_answer_must_fit_its_schema(quick: Daemon) -> None:
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    run_id = quick.post_run("curious", inputs={"schema": schema})["id"]
    approval = asked(quick, run_id)
    assert approval["schema"] == schema
    for data in ({}, {"n": "x"}):
        refused = answer(quick, approval["id"], data=data)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
        assert refused.json()["errors"][0]["loc"][:2] == ["body", "data"]
    assert quick.get(run_id)["status"] == "awaiting_approval"
    assert answer(quick, approval["id"], data={"n": 1}).status_code == 200
    assert quick.wait(run_id, "ok")["output"] == [{"n": 1}]


@pytest.mark.parametrize(
    "inputs",
    [{"schema": {"type": 5}}, {"lanes": "legal"}, {"lanes": [1]}, {"lanes": ["a b"]}, {"expires_seconds": -1}],
)
def test_a_question_that_is_none_is_misuse(quick: Daemon, inputs: dict[str, Any]) -> None:
    assert ended(quick, "curious", "failed", inputs=inputs)["error"]["code"] == "misuse"


async def asks_while_working(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    async def asks() -> Any:
        heard = await ctx.ask("well?")
        left(ctx, inputs, "heard")
        return heard

    async def works() -> bool:
        for _ in range(100):
            await ctx.step("work", pause, 0.05)
            if lines(Path(inputs["effects"])):
                return True
        return False

    return await ctx.gather(asks(), works())


def test_an_answer_finds_a_run_that_works_on_in_another_line(quick: Daemon, tmp_path: Path) -> None:
    run_id = quick.post_run("asks_while_working", inputs={"effects": str(tmp_path / "effects")})["id"]
    requested = quick.wait_event(run_id, "approval.requested")
    assert quick.get(run_id)["status"] == "running"
    assert answer(quick, requested["data"]["approval_id"], data={"a": 1}).status_code == 200
    run = quick.wait(run_id, "ok")
    assert (run["output"], run["epoch"]) == ([{"a": 1}, True], 1)
    assert moves(quick, run_id) == []


async def asks_twice(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    return await ctx.gather(ctx.ask("one?"), ctx.ask("two?"), ctx.sleep(LONG))


def test_a_run_may_wait_for_several_answers(quick: Daemon) -> None:
    run_id = quick.post_run("asks_twice")["id"]
    pause_of = wait_until(
        lambda: p if (p := quick.get(run_id)["pause"]) and len(p["approval_ids"]) == 2 and not p["wake_at"] else None
    )
    for approval_id in pause_of["approval_ids"]:
        answer(quick, approval_id, data={"prompt": question(quick, approval_id)["prompt"]})
    assert quick.wait(run_id, "ok")["output"] == [{"prompt": "one?"}, {"prompt": "two?"}, None]
    assert len(quick.events(run_id, "approval.requested")) == 2


def test_a_stopped_run_takes_its_questions_back(quick: Daemon) -> None:
    run_id = quick.post_run("curious")["id"]
    approval_id = asked(quick, run_id)["id"]
    assert quick.stop_run(run_id)["cancellation"] == "immediate"
    assert question(quick, approval_id)["status"] == "closed"
    assert answer(quick, approval_id).status_code == 409


def test_a_question_outlives_the_daemon(doomed: Daemon) -> None:
    run_id = doomed.post_run("asker", "still there?")["id"]
    approval_id = asked(doomed, run_id)["id"]
    doomed.kill()
    doomed.start()
    assert asked(doomed, run_id)["id"] == approval_id
    answer(doomed, approval_id, data={"here": True})
    assert doomed.wait(run_id, "ok")["output"] == {"answer": {"here": True}}

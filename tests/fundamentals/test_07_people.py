"""Lesson 7: asking a person.

`ctx.ask(prompt)` opens an approval and waits, for days if need be, holding nothing. Somebody answers over HTTP, with
data if the question has a schema; the answer is what `ctx.ask` returns. A no is an exception, and so is silence.
"""

from typing import Any

from latticed import Context
from latticed.errors import Denied
from tests.conftest import Daemon

SHARE = {"type": "object", "properties": {"percent": {"type": "integer", "maximum": 100}}, "required": ["percent"]}


async def pay(ctx: Context, goal: str, inputs: dict[str, Any]) -> str:
    answer = await ctx.ask(f"Pay {goal}?", schema=SHARE, lanes=["finance"])
    return str(await ctx.step("pay", lambda: f"paid {answer['percent']} % of {goal}"))


def asked(one: Daemon, run_id: str) -> dict[str, Any]:
    """What the run asks, once it does."""
    one.wait(run_id, "awaiting_approval")
    pending = one.client.get(one.path("approvals"), params={"status": "pending", "lane": "finance"}).json()["items"]
    found: dict[str, Any] = next(approval for approval in pending if approval["run_id"] == run_id)
    return found


def test_a_person_answers(lessons: Daemon) -> None:
    run_id = lessons.post_run("pay", "the bill")["id"]
    approval = asked(lessons, run_id)
    assert (approval["prompt"], approval["schema"]) == ("Pay the bill?", SHARE)

    where = lessons.path(f"approvals/{approval['id']}")
    refused = lessons.client.post(where, json={"decision": "approve", "data": {"percent": 120}})
    assert refused.status_code == 422, "the schema says at most 100"

    answer = lessons.client.post(where, json={"decision": "approve", "data": {"percent": 50}, "comment": "half now"})
    assert answer.status_code == 200
    assert lessons.wait(run_id)["output"] == "paid 50 % of the bill"

    second = lessons.client.post(where, json={"decision": "deny"})
    assert second.status_code == 409, "a question is answered once"


def test_a_no_rejects_the_run(lessons: Daemon) -> None:
    run_id = lessons.post_run("pay", "the bill")["id"]
    approval = asked(lessons, run_id)
    lessons.client.post(lessons.path(f"approvals/{approval['id']}"), json={"decision": "deny", "comment": "not ours"})
    run = lessons.wait(run_id)
    assert (run["status"], run["error"]["code"]) == ("rejected", "denied")
    assert "not ours" in run["error"]["message"]


async def haggle(ctx: Context, goal: str, inputs: dict[str, Any]) -> int:
    for offer in (100, 80, 60):
        try:
            await ctx.ask(f"{goal} for {offer}?", lanes=["finance"])
            return offer
        except Denied:
            continue
    return 0


def test_unless_the_code_has_another_idea(lessons: Daemon) -> None:
    run_id = lessons.post_run("haggle", "a carpet")["id"]
    for decision in ("deny", "deny", "approve"):
        approval = asked(lessons, run_id)
        lessons.client.post(lessons.path(f"approvals/{approval['id']}"), json={"decision": decision})
    assert lessons.wait(run_id)["output"] == 60

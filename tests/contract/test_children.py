"""Children: born once, awaited like anything else, and gone with their parent unless they are on their own."""

from pathlib import Path
from typing import Any

import pytest

from latticed.errors import ChildFailed, RunError
from tests.agents_for_tests import pause
from tests.conftest import TERMINAL, Daemon, wait_until
from tests.contract.conftest import PARK
from tests.contract.test_steps import LONG, ended, left, lines
from tests.contract.test_waits import moves


def children(one: Daemon, run_id: str) -> list[dict[str, Any]]:
    """Oldest first."""
    found: list[dict[str, Any]] = one.client.get(one.path("runs"), params={"parent": run_id, "limit": 500}).json()[
        "items"
    ]
    return found[::-1]


async def child_works(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    await ctx.step("work", pause, inputs.get("seconds", 0))
    left(ctx, inputs, f"child {goal}")
    if inputs.get("fails"):
        raise ValueError(goal)
    return {"did": goal, "workspace": ctx.workspace}


async def has_child(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    given = inputs.get("child", {})
    out = await ctx.run("agent", inputs.get("target", "child_works"), goal=goal, inputs=given, tags={"of": "parent"})
    left(ctx, inputs, f"parent {out}")
    await ctx.sleep(LONG)
    return out


@pytest.mark.parametrize("seconds", [0, PARK * 3])
def test_a_child_gives_its_output(quick: Daemon, seconds: float) -> None:
    run = ended(quick, "has_child", inputs={"child": {"seconds": seconds}})
    assert run["output"] == {"did": "goal", "workspace": "default"}
    [child] = children(quick, run["id"])
    assert (child["parent_run_id"], child["created_by"], child["tags"]) == (run["id"], run["id"], {"of": "parent"})
    [started], [finished] = (quick.events(run["id"], f"child.{what}") for what in ("started", "finished"))
    assert started["data"] == {
        "run_id": child["id"], "kind": "agent", "target": "child_works", "detached": False,
    }  # fmt: skip
    assert finished["data"] == {"run_id": child["id"], "status": "ok", "detached": False}
    [record] = [step for step in quick.steps(run["id"]) if step["kind"] == "child"]
    assert (record["name"], record["status"], record["outcome"]) == ("agent:child_works", "ok", run["output"])
    assert len(moves(quick, run["id"])) == (4 if seconds else 2)


async def child_fails_twice(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    caught = None
    try:
        await ctx.run("agent", "child_works", goal="badly", inputs={"fails": True, "seconds": inputs["seconds"]})
    except ChildFailed as failed:
        caught = [failed.run_id, failed.status, failed.error, failed.message]
        left(ctx, inputs, str(caught))
    await ctx.step("instead", str)
    await ctx.sleep(LONG)
    return caught


@pytest.mark.parametrize("seconds", [0, PARK * 2])
def test_a_child_that_fails_raises_the_same_on_every_replay(quick: Daemon, tmp_path: Path, seconds: float) -> None:
    effects = tmp_path / "effects"
    run = ended(quick, "child_fails_twice", inputs={"seconds": seconds, "effects": str(effects)})
    [child] = children(quick, run["id"])
    error = {"code": "error", "message": "ValueError: badly", "detail": {"type": "ValueError"}}
    assert run["output"][:3] == [child["id"], "failed", error]
    assert child["error"] == error
    first, again = lines(effects)
    assert first == again


def test_an_uncaught_failure_of_a_child_fails_its_parent(quick: Daemon) -> None:
    run = ended(quick, "has_child", "failed", inputs={"child": {"fails": True}})
    [child] = children(quick, run["id"])
    assert (run["error"]["code"], run["error"]["detail"]["run_id"]) == ("child_failed", child["id"])


def test_a_cancelled_child_has_failed_its_parent(quick: Daemon) -> None:
    run_id = quick.post_run("has_child", inputs={"target": "awaiter"})["id"]
    child = wait_until(lambda: children(quick, run_id))[0]
    quick.stop_run(child["id"], mode="now")
    run = quick.wait(run_id, "failed")
    assert (run["error"]["code"], run["error"]["detail"]["status"]) == ("child_failed", "cancelled")


async def tries_children(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    """In each attempt a good child and one that does well in the second only."""
    good = await ctx.run("agent", "child_works", goal="good")
    other = await ctx.run("agent", "child_works", goal="other", inputs={"fails": ctx.attempt == 1})
    return [good["did"], other["did"]]


def test_a_retry_starts_a_failed_child_again_and_keeps_a_good_one(quick: Daemon) -> None:
    run = ended(quick, "tries_children", "retried_ok", max_retries=1)
    assert run["output"] == ["good", "other"]
    assert [(child["goal"], child["status"]) for child in children(quick, run["id"])] == [
        ("good", "ok"), ("other", "failed"), ("other", "ok"),
    ]  # fmt: skip


NO_JSON = [{"inputs": {"deep": [float("nan")]}}, {"inputs": {"set": {1}}}]
"""What cannot come over HTTP."""


async def refused_child(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    refused = []
    for wanted in [*inputs["wanted"], *NO_JSON]:
        try:
            await ctx.run(**{"kind": "agent", "target": "child_works"} | wanted)
        except RunError as error:
            refused.append(error.code)
        await ctx.step("then", str)
    await ctx.sleep(LONG)
    return refused


def test_a_child_that_cannot_be_started_is_refused_now_and_on_every_replay(quick: Daemon) -> None:
    wanted = [{"target": "nobody"}, {"kind": "flow"}, {"kind": "job"}, {"queue": "nowhere"}, {"goal": " "}, {"no": 1},
              {"priority": 101}, {"inputs": [1]}, {"target": ""}]  # fmt: skip
    run = ended(quick, "refused_child", inputs={"wanted": wanted})
    refused = len(wanted) + len(NO_JSON)
    assert run["output"] == ["invalid"] * refused
    assert children(quick, run["id"]) == []
    assert len([step for step in quick.steps(run["id"]) if step["kind"] == "child"]) == refused


async def has_timed_child(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    return (await ctx.run("agent", "child_works", inputs=inputs))["workspace"]


def test_a_child_that_ends_just_when_its_parent_unwinds_is_not_missed(quick: Daemon) -> None:
    many = 80
    runs = [
        quick.post_run("has_timed_child", inputs={"seconds": PARK * (0.7 + 0.6 * index / many)})["id"]
        for index in range(many)
    ]
    assert {quick.wait(run_id)["output"] for run_id in runs} == {"default"}


# --- stopping --------------------------------------------------------------------------------------------------------


async def has_many(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    given = {"child": {"target": "awaiter"}} if inputs.get("deep") else {}
    target = "has_child" if inputs.get("deep") else "awaiter"
    lone = await ctx.run("agent", "awaiter", goal="detached", detached=True)
    await ctx.gather(
        *(ctx.run("agent", target, inputs={"target": "awaiter"} | given) for _ in range(3)), ctx.step("hang", pause, 60)
    )
    return lone


def test_attached_children_are_cancelled_with_their_parent_and_detached_ones_are_not(quick: Daemon) -> None:
    run_id = quick.post_run("has_many")["id"]
    born = wait_until(lambda: found if len(found := children(quick, run_id)) == 4 else None)
    for child in born:
        quick.wait_event(child["id"], "run.started")
    quick.stop_run(run_id, mode="now", reason="enough")
    quick.wait(run_id, "cancelled")
    lone, *attached = born
    for child in attached:
        cancel = quick.wait(child["id"], "cancelled")["cancel"]
        assert (cancel["requested_by"], run_id in cancel["reason"]) == (run_id, True)
    assert quick.get(lone["id"])["status"] == "running"
    quick.stop_run(lone["id"], mode="now")
    quick.wait(lone["id"], "cancelled")


async def leaves_child(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    """Ends, one way or the other, while its child still runs."""

    async def ends() -> None:
        await ctx.step("wait", pause, 0.1)
        raise ValueError("the parent fails")

    await ctx.gather(ctx.run("agent", "awaiter"), ends())


def test_a_parent_that_fails_takes_its_children_with_it(quick: Daemon) -> None:
    run = ended(quick, "leaves_child", "failed")
    [child] = children(quick, run["id"])
    assert quick.wait(child["id"])["status"] == "cancelled"


async def grandparent(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    return await ctx.run(
        "agent", "has_child", goal="generation", inputs={"target": "has_child", "child": {"target": "awaiter"}}
    )


def test_a_stop_goes_down_the_generations(quick: Daemon) -> None:
    run_id = quick.post_run("grandparent")["id"]
    line = [run_id]
    while len(line) < 4:
        line.append(wait_until(lambda: children(quick, line[-1]))[0]["id"])
    quick.stop_run(run_id)
    for each in line[:3]:
        assert quick.wait(each)["status"] == "cancelled"
    assert quick.wait(line[3])["status"] == "cancelled"


def test_a_stop_may_leave_the_children_alone(quick: Daemon) -> None:
    run_id = quick.post_run("has_child", inputs={"child": {"seconds": 0.5}})["id"]
    child = wait_until(lambda: children(quick, run_id))[0]
    quick.stop_run(run_id, mode="now", children=False)
    quick.wait(run_id, "cancelled")
    assert quick.wait(child["id"])["status"] == "ok"


# --- slots and numbers -----------------------------------------------------------------------------------------------


async def nests(ctx: Any, goal: str, inputs: dict[str, Any]) -> int:
    depth = inputs["depth"]
    return 1 + (await ctx.run("agent", "nests", inputs={"depth": depth - 1}, queue="one") if depth else 0)


def test_parents_that_wait_leave_their_slots_to_their_children(narrow: Daemon) -> None:
    runs = [narrow.post_run("nests", queue="one", inputs={"depth": depth})["id"] for depth in (4, 1, 1)]
    assert [narrow.wait(run_id, TERMINAL)["output"] for run_id in runs] == [5, 2, 2]


async def fans_out(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    many = range(inputs["n"])
    outs = await ctx.gather(*(ctx.run("agent", "child_works", goal=str(index)) for index in many))
    return [out["did"] for out in outs]


def test_many_children_at_once_give_their_outputs_in_order(quick: Daemon) -> None:
    run = ended(quick, "fans_out", inputs={"n": 150})
    assert run["output"] == [str(index) for index in range(150)]
    assert len(children(quick, run["id"])) == 150


async def lets_go(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    ids = [await ctx.run("agent", "child_works", goal=str(i), inputs=inputs, detached=True) for i in range(3)]
    await ctx.sleep(LONG)
    return ids


def test_detached_children_are_known_by_their_ids_and_born_once(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run = ended(quick, "lets_go", inputs={"effects": str(effects)})
    assert [child["id"] for child in children(quick, run["id"])] == run["output"]
    for child in run["output"]:
        quick.wait(child, "ok")
    assert sorted(lines(effects)) == ["child 0", "child 1", "child 2"]

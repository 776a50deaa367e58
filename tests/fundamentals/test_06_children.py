"""Lesson 6: runs that start runs.

`ctx.run("agent", target, …)` starts a child and waits for its output; the parent gives its slot back if that takes
long. A child is a run like any other, with its own journal and timeline. It is stopped when its parent is, unless it
is `detached`: then the parent gets its id and goes on.
"""

from typing import Any

from latticed import Context
from latticed.errors import ChildFailed
from tests.agents_for_tests import forever
from tests.conftest import Daemon, wait_until


async def square(ctx: Context, goal: str, inputs: dict[str, Any]) -> int:
    if inputs["number"] < 0:
        raise ValueError("no negative numbers, please")
    return int(inputs["number"]) ** 2


async def sum_of_squares(ctx: Context, goal: str, inputs: dict[str, Any]) -> int:
    return sum(await ctx.gather(*(ctx.run("agent", "square", inputs={"number": n}) for n in inputs["numbers"])))


def children(one: Daemon, run_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = one.client.get(one.path("runs"), params={"parent": run_id}).json()["items"]
    return found


def test_a_parent_gets_what_its_children_return(lessons: Daemon) -> None:
    run = lessons.run("sum_of_squares", inputs={"numbers": [1, 2, 3]})
    assert run["output"] == 14
    assert sorted(child["output"] for child in children(lessons, run["id"])) == [1, 4, 9]
    assert {event["data"]["status"] for event in lessons.events(run["id"], "child.finished")} == {"ok"}


async def square_or_zero(ctx: Context, goal: str, inputs: dict[str, Any]) -> Any:
    try:
        return await ctx.run("agent", "square", inputs=inputs)
    except ChildFailed as failed:
        return [0, failed.status, failed.error and failed.error["message"]]


def test_a_child_that_fails_is_an_exception_in_its_parent(lessons: Daemon) -> None:
    run = lessons.run("square_or_zero", inputs={"number": -1})
    assert run["output"] == [0, "failed", "ValueError: no negative numbers, please"]


async def endless(ctx: Context, goal: str, inputs: dict[str, Any]) -> None:
    await forever()


async def two_children(ctx: Context, goal: str, inputs: dict[str, Any]) -> None:
    await ctx.run("agent", "endless", goal="on its own", detached=True)
    await ctx.run("agent", "endless", goal="attached")


def test_a_child_is_stopped_with_its_parent_unless_it_is_detached(lessons: Daemon) -> None:
    run_id = lessons.post_run("two_children")["id"]
    wait_until(lambda: len(children(lessons, run_id)) == 2)
    attached, detached = children(lessons, run_id)  # newest first
    lessons.wait(attached["id"], "running")

    lessons.stop_run(run_id, mode="now", reason="enough")
    lessons.wait(run_id, "cancelled")
    assert lessons.wait(attached["id"])["status"] == "cancelled"
    assert lessons.get(detached["id"])["status"] == "running"
    lessons.stop_run(detached["id"], mode="now")

"""Lesson 5: several things at once.

`ctx.gather(…)` takes coroutines and runs each as a line of its own, with its own place in the journal. Its results
come in the order in which you named them; the first line that fails ends the others. (`asyncio.gather` would have two
steps in one line of the journal, and nobody could tell in which order they come; it is refused.)
"""

import asyncio
from typing import Any

from latticed import Context
from tests.agents_for_tests import pause
from tests.conftest import Daemon


async def weigh(thing: str) -> int:
    await pause(0.1)
    return len(thing)


async def weigh_all(ctx: Context, goal: str, inputs: dict[str, Any]) -> int:
    return sum(await ctx.gather(*(ctx.step("weigh", weigh, thing) for thing in goal.split())))


def test_lines_run_at_the_same_time(lessons: Daemon) -> None:
    run = lessons.run("weigh_all", "pears apples figs")
    assert run["output"] == 15
    records = lessons.steps(run["id"])
    assert [(record["branch"], record["outcome"]) for record in records] == [("0.0/", 5), ("0.1/", 6), ("0.2/", 4)]
    told = [event["type"] for event in lessons.events(run["id"]) if event["type"].startswith("step.")]
    assert told == ["step.started"] * 3 + ["step.finished"] * 3


async def errands(ctx: Context, goal: str, inputs: dict[str, Any]) -> list[Any]:
    async def errand(name: str, seconds: float) -> str:
        """A line may be as long as it likes."""
        await ctx.step("go", weigh, name)
        await ctx.sleep(seconds)
        return str(await ctx.step("return", lambda: f"{name} is done"))

    return await ctx.gather(errand("bread", 0.5), errand("milk", 0.1), errand("news", 1.0))


def test_a_line_may_sleep_while_others_work(lessons: Daemon) -> None:
    run = lessons.run("errands")
    assert run["output"] == ["bread is done", "milk is done", "news is done"]
    assert len(lessons.steps(run["id"])) == 9


async def hasty(ctx: Context, goal: str, inputs: dict[str, Any]) -> Any:
    return await asyncio.gather(ctx.step("one", weigh, "one"), ctx.step("two", weigh, "two"))


def test_asyncios_own_gather_is_refused(lessons: Daemon) -> None:
    run = lessons.run("hasty")
    assert run["error"]["code"] == "misuse"
    assert "use ctx.gather" in run["error"]["message"]

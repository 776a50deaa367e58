"""Lesson 10: doing things once.

The journal makes sure that a recorded step never runs again. One case is left to you: the daemon dies after a step has
touched the world and before it is recorded. Nobody can know from inside, so the step runs again. There are two ways:

- Give the other side `ctx.step_key`, which is the same whenever this step runs again, so that it can tell.
- Say `retry_on_crash=False`: then it is not run again, and the code is told by `StepInterrupted`.
"""

from pathlib import Path
from typing import Any

from latticed import Context
from latticed.errors import StepInterrupted
from tests.agents_for_tests import pause
from tests.conftest import Daemon, wait_until
from tests.fundamentals.test_02_steps import note


async def order(ctx: Context, goal: str, inputs: dict[str, Any]) -> str:
    async def place() -> str:
        note(inputs["notes"], ctx.step_key)  # As if it were sent to a shop, which knows an order by this key.
        await pause(inputs["seconds"])
        return "ordered"

    return str(await ctx.step("order", place))


def test_a_step_has_a_key_that_stays_the_same(mortal: Daemon, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    run_id = mortal.post_run("order", inputs={"notes": str(notes), "seconds": 1})["id"]
    wait_until(notes.exists)
    mortal.kill()
    mortal.start()
    assert mortal.wait(run_id)["output"] == "ordered"
    first, second = notes.read_text().splitlines()
    assert first == second


async def launch(ctx: Context, goal: str, inputs: dict[str, Any]) -> str:
    async def ignite() -> str:
        note(inputs["notes"], "ignition")
        await pause(60)
        return "lift-off"

    try:
        return str(await ctx.step("ignite", ignite, retry_on_crash=False))
    except StepInterrupted:
        if goal == "carelessly":
            raise
        return "better look at it before anything else happens"


def test_a_step_that_must_not_run_twice_does_not(mortal: Daemon, tmp_path: Path) -> None:
    notes = {goal: tmp_path / goal for goal in ("carefully", "carelessly")}
    runs = {goal: mortal.post_run("launch", goal, inputs={"notes": str(file)})["id"] for goal, file in notes.items()}
    wait_until(lambda: all(file.exists() for file in notes.values()))
    mortal.kill()
    mortal.start()
    assert mortal.wait(runs["carefully"])["output"] == "better look at it before anything else happens"
    assert mortal.wait(runs["carelessly"])["status"] == "interrupted"
    assert [file.read_text() for file in notes.values()] == ["ignition\n"] * 2

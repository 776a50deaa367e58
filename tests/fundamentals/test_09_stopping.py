"""Lesson 9: being stopped.

A stop is on record before it is answered, and nothing revives a run that has one. It climbs a ladder. First the run is
asked: the step that is under way ends and is recorded, and the next call of the context raises. After a grace, or at
once with `"mode": "now"`, its task is cancelled. What still runs after that is given up. A cleanup that must not be
disturbed asks for a shield, which is bounded.
"""

from pathlib import Path
from typing import Any

from latticed import Context
from tests.agents_for_tests import forever, pause
from tests.conftest import Daemon
from tests.fundamentals.test_02_steps import note


async def count(ctx: Context, goal: str, inputs: dict[str, Any]) -> None:
    number = 0
    while True:
        number = await ctx.step("count", add_one, number)


async def add_one(number: int) -> int:
    await pause(0.2)
    return number + 1


def test_a_stop_lets_the_step_under_way_end(lessons: Daemon) -> None:
    run_id = lessons.post_run("count")["id"]
    lessons.wait_event(run_id, "step.finished")
    answer = lessons.stop_run(run_id, reason="that will do")
    assert (answer["stopped"], answer["cancellation"]) == (True, "cooperative")

    run = lessons.wait(run_id)
    assert (run["status"], run["cancel"]["reason"]) == ("cancelled", "that will do")
    assert {step["status"] for step in lessons.steps(run_id)} == {"ok"}, "each step that began has ended"
    told = [event["type"] for event in lessons.events(run_id)]
    assert told[-1] == "run.finished"
    assert told.count("step.started") == told.count("step.finished")


async def cook(ctx: Context, goal: str, inputs: dict[str, Any]) -> None:
    try:
        await ctx.step("cook", forever)
    finally:
        async with ctx.shield(5):
            await ctx.step("turn off the stove", note, inputs["notes"], "off")


def test_a_cleanup_under_a_shield_is_let_end(lessons: Daemon, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    run_id = lessons.post_run("cook", inputs={"notes": str(notes)})["id"]
    lessons.wait_event(run_id, "step.started")
    lessons.stop_run(run_id, mode="now")
    assert lessons.wait(run_id)["status"] == "cancelled"
    assert notes.read_text() == "off\n"


def search(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    """A thread cannot be cancelled from outside. It looks for itself now and then, or is given up in the end."""
    while True:
        ctx.check_cancelled()
        sum(range(1000))


def test_a_thread_has_to_look_for_itself(lessons: Daemon) -> None:
    run_id = lessons.post_run("search")["id"]
    lessons.wait_event(run_id, "run.started")
    lessons.stop_run(run_id)
    run = lessons.wait(run_id)
    assert (run["status"], run["abandoned"]) == ("cancelled", None)


def test_a_run_that_is_over_cannot_be_stopped(lessons: Daemon) -> None:
    run = lessons.run("greet")
    answer = lessons.stop_run(run["id"])
    assert (answer["stopped"], answer["reason"], answer["status"]) == (False, "run already finished", "ok")

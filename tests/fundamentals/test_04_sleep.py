"""Lesson 4: sleeping.

`ctx.sleep(seconds)` notes when to wake and, unless that is soon, leaves the code altogether: the run holds no slot, no
thread and no memory while it sleeps, be it for a year. When the time has come the code is entered again from the top,
and this time the sleep is over. The wake time is on disk, so that it survives the daemon.
"""

import time
from pathlib import Path
from typing import Any

from latticed import Context
from tests.conftest import Daemon, wait_until
from tests.fundamentals.test_02_steps import note


async def nap(ctx: Context, goal: str, inputs: dict[str, Any]) -> str:
    note(inputs["notes"], "entered")
    await ctx.step("lie down", note, inputs["notes"], "lies down")
    await ctx.sleep(inputs["seconds"])
    await ctx.step("get up", note, inputs["notes"], "gets up")
    return "rested"


def test_a_sleeping_run_is_only_a_row_on_disk(lessons: Daemon, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    run_id = lessons.post_run("nap", inputs={"notes": str(notes), "seconds": 1.0})["id"]
    asleep = lessons.wait(run_id, "waiting")
    assert asleep["owner"] is None
    assert asleep["pause"]["kind"] == "timer"
    assert lessons.get(run_id, "why")["until"] == asleep["pause"]["wake_at"]

    assert lessons.wait(run_id)["output"] == "rested"
    assert notes.read_text().splitlines() == ["entered", "lies down", "entered", "gets up"]
    told = [event["type"] for event in lessons.events(run_id)]
    assert told == [
        "run.queued", "run.started", "step.started", "step.finished", "run.waiting",
        "run.woken", "run.started", "step.started", "step.finished", "run.finished",
    ]  # fmt: skip


def test_what_falls_due_while_the_daemon_is_down_happens_at_its_start(mortal: Daemon, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    run_id = mortal.post_run("nap", inputs={"notes": str(notes), "seconds": 0.5})["id"]
    mortal.wait(run_id, "waiting")
    mortal.kill()
    due = time.monotonic() + 0.5
    wait_until(lambda: time.monotonic() > due)
    assert "gets up" not in notes.read_text()

    mortal.start()
    assert mortal.wait(run_id)["output"] == "rested"

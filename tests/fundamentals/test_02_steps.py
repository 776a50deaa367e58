"""Lesson 2: steps, or how a run survives the daemon.

`ctx.step(name, function, …)` calls the function once and records what it returned. If the daemon dies, the run is
entered again *from the top*: steps that are recorded return their record without being called, and so the code gets to
where it was. What is not in a step may therefore happen more than once; what touches the world belongs into a step.
"""

from pathlib import Path
from typing import Any

from latticed import Context
from tests.agents_for_tests import pause
from tests.conftest import Daemon, wait_until


def note(file: str, line: str) -> str:
    """An effect on the world: a line in a file."""
    with open(file, "a", encoding="utf-8") as notes:
        notes.write(line + "\n")
    return line


async def note_slowly(file: str, line: str) -> str:
    note(file, f"{line} begins")
    await pause(2)
    return note(file, f"{line} ends")


async def bake(ctx: Context, goal: str, inputs: dict[str, Any]) -> list[str]:
    file = inputs["notes"]
    done = [await ctx.step("knead", note, file, "knead")]
    done.append(await ctx.step("rest", note_slowly, file, "rest"))
    done.append(await ctx.step("bake", note, file, "bake"))
    return done


def test_each_step_is_recorded(lessons: Daemon, tmp_path: Path) -> None:
    run = lessons.run("knead_only", inputs={"notes": str(tmp_path / "notes")})
    [step] = lessons.steps(run["id"])
    assert (step["name"], step["status"], step["outcome"]) == ("knead", "ok", "knead")
    assert [event["type"] for event in lessons.events(run["id"])][2:-1] == ["step.started", "step.finished"]


async def knead_only(ctx: Context, goal: str, inputs: dict[str, Any]) -> Any:
    return await ctx.step("knead", note, inputs["notes"], "knead")


def test_a_daemon_that_is_killed_goes_on_where_it_was(mortal: Daemon, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    run_id = mortal.post_run("bake", inputs={"notes": str(notes)})["id"]
    wait_until(lambda: notes.exists() and "rest begins" in notes.read_text())

    mortal.kill()  # kill -9, in the middle of the second step
    mortal.start()

    run = mortal.wait(run_id, "ok")
    assert run["output"] == ["knead", "rest ends", "bake"]
    assert notes.read_text().split("\n")[:-1] == [
        "knead",  # recorded, so not done again
        "rest begins",  # it was under way: nobody knows how far it had come …
        "rest begins",  # … so it is done again
        "rest ends",
        "bake",
    ]
    assert (run["recoveries"], run["epoch"]) == (0, 2)
    recovered = mortal.events(run_id, "run.recovered")
    assert [event["data"] for event in recovered] == [{"policy": "resume", "from_epoch": 1}]


async def capricious(ctx: Context, goal: str, inputs: dict[str, Any]) -> None:
    """Asks for another step each time it is entered, which is what code must not do."""
    note(inputs["notes"], "entered")
    entries = Path(inputs["notes"]).read_text().count("entered")
    await ctx.step(f"number {entries}", str)
    await ctx.sleep(0.5)  # long enough to leave the code and to enter it again


def test_the_code_must_ask_for_its_steps_in_the_same_order_each_time(lessons: Daemon, tmp_path: Path) -> None:
    run = lessons.run("capricious", inputs={"notes": str(tmp_path / "notes")})
    assert (run["status"], run["error"]["code"]) == ("failed", "conflict")
    assert "step 'number 2'" in run["error"]["message"]
    assert "step 'number 1'" in run["error"]["message"]

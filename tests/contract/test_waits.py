"""Waiting: in place for a little while, unwound for longer, woken when it is time, and nothing of it lost."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from latticed.clock import from_text
from tests.agents_for_tests import pause
from tests.conftest import Daemon, wait_until
from tests.contract.conftest import PARK
from tests.contract.test_steps import LONG, ended, left, lines

MOVES = ("run.waiting", "run.woken", "run.awaiting_approval")


def moves(one: Daemon, run_id: str) -> list[str]:
    return [event["type"] for event in one.events(run_id, *MOVES)]


# --- sleeping --------------------------------------------------------------------------------------------------------


async def naps(ctx: Any, goal: str, inputs: dict[str, Any]) -> str:
    for seconds in inputs["seconds"]:
        await ctx.sleep(seconds)
    return left(ctx, inputs, "awake")


def test_a_short_sleep_is_awaited_in_place(quick: Daemon) -> None:
    run = ended(quick, "naps", inputs={"seconds": [0, PARK / 2, PARK / 2]})
    assert moves(quick, run["id"]) == []
    took = from_text(run["finished_at"]) - from_text(run["started_at"])
    assert took >= PARK * 1_000_000
    assert [step["status"] for step in quick.steps(run["id"])] == ["ok"] * 3


def test_a_longer_sleep_unwinds_and_wakes_at_its_time(quick: Daemon) -> None:
    run_id = quick.post_run("naps", inputs={"seconds": [1.0]})["id"]
    asleep = quick.wait(run_id, "waiting")
    [sleep] = quick.steps(run_id)
    assert (asleep["owner"], sleep["kind"], sleep["status"]) == (None, "sleep", "waiting")
    assert asleep["pause"] == {"kind": "timer", "facts": [], "wake_at": asleep["pause"]["wake_at"], "approval_ids": []}
    wake_at = from_text(asleep["pause"]["wake_at"])
    assert 0 <= wake_at - from_text(sleep["started_at"]) - 1_000_000 < 200_000
    why = quick.get(run_id, "why")
    assert (why["code"], why["until"]) == ("timer", asleep["pause"]["wake_at"])
    run = quick.wait(run_id, "ok")
    assert moves(quick, run_id) == ["run.waiting", "run.woken"]
    [woken] = quick.events(run_id, "run.woken")
    assert woken["data"] == {"by": "timer"}
    assert 0 <= from_text(woken["at"]) - wake_at < 1_000_000
    assert run["epoch"] == 2


def test_a_sleep_that_is_long_unwinds_at_once(live: Daemon) -> None:
    run_id = live.post_run("sleeper")["id"]
    waiting = from_text(live.wait_event(run_id, "run.waiting")["at"])
    assert waiting - from_text(live.steps(run_id)[-1]["started_at"]) < 1_000_000, "and not after `park_seconds`"
    live.stop_run(run_id)


async def until(ctx: Any, goal: str, inputs: dict[str, Any]) -> str:
    await ctx.sleep_until(datetime.fromisoformat(inputs["at"]))
    return left(ctx, inputs, "awake")


def test_a_sleep_until_a_time_that_has_passed_is_over(quick: Daemon) -> None:
    for moment in (datetime(1970, 1, 2, tzinfo=UTC), datetime.now(UTC)):
        run = ended(quick, "until", inputs={"at": moment.isoformat()})
        assert moves(quick, run["id"]) == []
    moment = datetime.now(UTC) + timedelta(seconds=LONG)
    run = ended(quick, "until", inputs={"at": moment.isoformat()})
    assert from_text(run["finished_at"]) >= from_text(moment.isoformat())


@pytest.mark.parametrize("seconds", [-1, "1", None])
def test_a_sleep_that_is_none_is_misuse(quick: Daemon, seconds: Any) -> None:
    run = ended(quick, "naps", "failed", inputs={"seconds": [seconds]})
    assert run["error"]["code"] == "misuse"


def test_a_sleep_until_a_time_without_an_offset_is_misuse(quick: Daemon) -> None:
    run = ended(quick, "until", "failed", inputs={"at": "2026-01-01T00:00:00"})
    assert run["error"]["code"] == "misuse"


def test_an_endless_sleep_is_a_long_one(quick: Daemon) -> None:
    run_id = quick.post_run("naps", inputs={"seconds": [1e300]})["id"]
    assert quick.wait(run_id, "waiting")["pause"]["wake_at"] > "2200"
    quick.stop_run(run_id)
    assert quick.get(run_id)["status"] == "cancelled"


def test_wake_times_survive_a_restart_and_what_fell_due_fires_at_start(doomed: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    soon = doomed.post_run("naps", inputs={"seconds": [0.5], "effects": str(effects)})["id"]
    later = doomed.post_run("naps", inputs={"seconds": [3600]})["id"]
    in_place = doomed.post_run("naps", inputs={"seconds": [PARK / 2] * 40})["id"]
    doomed.wait(soon, "waiting")
    before = doomed.wait(later, "waiting")["pause"]
    wait_until(lambda: len(doomed.steps(in_place)) > 3)
    due = time.monotonic() + 0.5
    doomed.kill()
    wait_until(lambda: time.monotonic() > due)
    assert not effects.exists()
    doomed.start()
    doomed.wait(soon, "ok")
    assert lines(effects) == ["awake"]
    assert (doomed.get(later)["status"], doomed.get(later)["pause"]) == ("waiting", before)
    assert doomed.wait(in_place, "ok")["recoveries"] == 0, "only crashes in a row without a new record count"
    assert len(doomed.steps(in_place)) == 40
    doomed.stop_run(later)


# --- several things at once ------------------------------------------------------------------------------------------


async def busy_and_asleep(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    async def works() -> str:
        for _ in range(3):
            await ctx.step("work", pause, 0.2)
        return "worked"

    async def sleeps() -> str:
        await ctx.sleep(1.2)
        return "slept"

    return await ctx.gather(sleeps(), works())


def test_a_run_is_not_unwound_while_anything_in_it_runs(quick: Daemon) -> None:
    run = ended(quick, "busy_and_asleep")
    assert run["output"] == ["slept", "worked"]
    types = [event["type"] for event in quick.events(run["id"]) if event["type"] in (*MOVES, "step.finished")]
    assert types == ["step.finished"] * 3 + ["run.waiting", "run.woken"]


async def inner_ends(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    """A line whose own gather ends while all others sleep goes on at once, not when they wake."""

    async def nested() -> None:
        await ctx.gather(ctx.sleep(PARK / 4), ctx.step("inner", str))
        await ctx.step("outer", left, ctx, inputs, "outer")

    await ctx.gather(ctx.sleep(3600), nested())


def test_a_line_whose_own_gather_ends_goes_on_before_the_run_unwinds(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = quick.post_run("inner_ends", inputs={"effects": str(effects)})["id"]
    quick.wait(run_id, "waiting")
    assert lines(effects) == ["outer"]
    assert moves(quick, run_id) == ["run.waiting"]
    quick.stop_run(run_id)


async def ladder_of_sleeps(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    async def line(index: int) -> int:
        await ctx.sleep(LONG * (index + 1))
        return int(await ctx.step("after", lambda: index))

    return await ctx.gather(*(line(index) for index in range(3)))


def test_each_of_several_sleepers_wakes_at_its_own_time(quick: Daemon) -> None:
    run = ended(quick, "ladder_of_sleeps")
    assert run["output"] == [0, 1, 2]
    assert moves(quick, run["id"]) == ["run.waiting", "run.woken"] * 3
    began = from_text(quick.events(run["id"])[0]["at"])
    times = [(from_text(e["at"]) - began) / 1e6 for e in quick.events(run["id"], "step.finished")]
    assert all(LONG * (i + 1) <= at for i, at in enumerate(times))


async def gather_fails(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    async def fails() -> None:
        await ctx.step("fine", str)
        raise ValueError("this line")

    async def goes_on() -> None:
        try:
            await ctx.step("long", pause, 60)
        finally:
            left(ctx, inputs, "ended")

    try:
        await ctx.gather(goes_on(), ctx.sleep(3600), ctx.wait_signal("never"), fails())
    except ValueError as error:
        return [str(error), await ctx.gather(ctx.step("after", lambda: "after")), await ctx.gather()]


def test_the_first_failure_of_a_gather_ends_the_other_lines(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run = ended(quick, "gather_fails", inputs={"effects": str(effects)})
    assert run["output"] == ["this line", ["after"], []]
    assert lines(effects) == ["ended"]
    assert run["epoch"] == 1


async def wide(ctx: Any, goal: str, inputs: dict[str, Any]) -> int:
    async def line(index: int) -> int:
        await ctx.step("one", lambda: leave_it(index))
        await ctx.sleep(LONG)
        return int(await ctx.step("two", leave_it, index))

    async def leave_it(index: int) -> int:
        return index

    return sum(await ctx.gather(*(line(index) for index in range(inputs["n"]))))


def test_a_gather_of_many_lines(quick: Daemon) -> None:
    run = ended(quick, "wide", inputs={"n": 500})
    assert run["output"] == sum(range(500))
    assert len(quick.events(run["id"], "step.finished")) == 1000


# --- beside asyncio's own --------------------------------------------------------------------------------------------


async def grouped(ctx: Any, goal: str, inputs: dict[str, Any]) -> str:
    """The waits go through what asyncio wraps around them."""
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.sleep(LONG))
    async with asyncio.timeout(60):
        await ctx.sleep(LONG)
    await asyncio.wait_for(ctx.sleep(LONG), 60)
    await asyncio.create_task(ctx.step("task", str))
    await asyncio.gather(ctx.sleep(LONG))
    try:
        await ctx.sleep(LONG)
    finally:
        left(ctx, inputs, "passed")
    return "through"


def test_waits_pass_through_what_asyncio_has(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run = ended(quick, "grouped", inputs={"effects": str(effects)})
    assert run["output"] == "through"
    assert lines(effects) == ["passed", "passed"], "once unwinding, once for good"
    assert run["epoch"] == 6


async def left_behind(ctx: Any, goal: str, inputs: dict[str, Any]) -> str:
    """Leaves a task of its own behind when it is first unwound, and takes its time over that."""

    async def background() -> None:
        await pause(0.6)
        left(ctx, inputs, "tries")
        await ctx.step("background", left, ctx, inputs, "background")

    first = not lines(Path(inputs["effects"]))
    task = asyncio.create_task(background()) if first else None
    try:
        await ctx.wait_signal("go")
    finally:
        if first:
            left(ctx, inputs, "unwinding")
            await pause(0.3)
    await ctx.step("front", pause, 0.6)
    return f"entered again: {task is None}"


def test_what_an_entry_left_behind_can_do_nothing(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = quick.post_run("left_behind", inputs={"effects": str(effects)})["id"]
    wait_until(lambda: lines(effects))
    quick.client.post(quick.path(f"runs/{run_id}/signals/go"), json={})
    run = quick.wait(run_id, "ok")
    assert (run["output"], run["epoch"]) == ("entered again: True", 1), "entered again at once, with the same claim"
    assert lines(effects) == ["unwinding", "tries"]
    assert [step["name"] for step in quick.steps(run_id)] == ["go", "front"]


# --- under a shield --------------------------------------------------------------------------------------------------


async def slow_cleanup(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    try:
        await pause(60)
    finally:
        async with ctx.shield(10):
            await ctx.sleep(PARK * 3)
            await ctx.step("cleanup", left, ctx, inputs, "cleaned")


def test_a_shielded_cleanup_may_wait_for_longer_than_it_would_park(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = quick.post_run("slow_cleanup", inputs={"effects": str(effects)})["id"]
    quick.wait_event(run_id, "run.started")
    quick.stop_run(run_id, mode="now")
    quick.wait(run_id, "cancelled")
    assert lines(effects) == ["cleaned"]
    assert moves(quick, run_id) == []

"""What code tells, it tells once, however often it is entered."""

import asyncio
from contextlib import suppress
from typing import Any

from latticed.errors import StepFailed
from tests.conftest import Daemon, wait_until
from tests.contract.conftest import PARK
from tests.contract.test_steps import LONG, ended


async def teller(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    async def say(what: str) -> None:
        await ctx.emit("x.inside", what=what)

    async def line(index: int) -> None:
        await ctx.log(f"line {index}")
        await ctx.step("line", say, f"line {index}")
        await ctx.progress(index, 2, "line")
        await ctx.sleep(LONG * (1 + index))
        await ctx.log(f"line {index} ends")

    await ctx.log("first")
    await ctx.step("one", say, "one")
    await ctx.progress(1, 3, "one is done")
    await ctx.sleep(LONG)
    await ctx.log("slept")
    await ctx.gather(line(0), line(1))
    await ctx.log("waits")
    await ctx.wait_signal("go")
    await ctx.log("last")


def test_replay_emits_no_events(quick: Daemon) -> None:
    run_id = quick.post_run("teller")["id"]
    wait_until(lambda: (quick.get(run_id)["pause"] or {}).get("facts") == ["signal:go"])
    quick.client.post(quick.path(f"runs/{run_id}/signals/other"), json={})
    quick.client.post(quick.path(f"runs/{run_id}/signals/go"), json={})
    run = quick.wait(run_id)
    assert (run["status"], run["epoch"]) == ("ok", 5), "it was entered several times"
    told = [event["data"]["message"] for event in quick.events(run_id, "log")]
    assert sorted(told) == sorted(
        ["first", "slept", "line 0", "line 1", "line 0 ends", "line 1 ends", "waits", "last"]
    )  # fmt: skip
    assert [event["data"]["message"] for event in quick.events(run_id, "progress")] == ["one is done", "line", "line"]
    assert sorted(e["data"]["what"] for e in quick.events(run_id, "x.inside")) == ["line 0", "line 1", "one"]
    assert len(quick.events(run_id, "step.started")) == len(quick.events(run_id, "step.finished")) == 3


async def only_tells(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    """Lines that end, and have no step after what they tell, while another makes the run wait."""

    async def tells(what: str) -> str:
        await ctx.log(what)
        return what

    async def nests() -> None:
        await ctx.gather(tells("nested"))

    async def gives_up() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(ctx.sleep(PARK / 2), PARK / 20)
        await ctx.log("gave up")

    return (await ctx.gather(tells("alone"), nests(), gives_up(), ctx.sleep(2 * LONG), ctx.sleep(LONG)))[0]


def test_a_line_that_only_tells_tells_once(quick: Daemon) -> None:
    run = ended(quick, "only_tells")
    assert (run["output"], run["epoch"]) == ("alone", 3)
    told = [event["data"]["message"] for event in quick.events(run["id"], "log")]
    assert sorted(told) == ["alone", "gave up", "nested"]
    assert {step["kind"] for step in quick.steps(run["id"])} == {"sleep"}


async def tells_in_each_attempt(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    def fails() -> None:
        if ctx.attempt == 1:
            raise RuntimeError("not yet")

    try:
        await ctx.step("fails", fails)
    except StepFailed:
        await ctx.step("instead", str)
        raise
    await ctx.log("after the step")
    await ctx.sleep(LONG)
    await ctx.log("awake")
    await ctx.sleep(LONG)


def test_another_attempt_tells_once_what_follows_a_step_that_it_made_anew(quick: Daemon) -> None:
    run = ended(quick, "tells_in_each_attempt", "retried_ok", max_retries=1)
    assert [event["data"]["message"] for event in quick.events(run["id"], "log")] == ["after the step", "awake"]

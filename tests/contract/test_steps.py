"""Steps and the journal: once, in order, the same on every entry, and what of it survives a failed attempt."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latticed.errors import StepFailed
from tests.agents_for_tests import leave, pause
from tests.conftest import Daemon, wait_until
from tests.contract.conftest import configuration

LONG = 0.25
"""Seconds of a sleep that unwinds."""


def lines(path: Path) -> list[str]:
    """What agents left behind there, without the run's id."""
    return [line.partition(" ")[2] for line in path.read_text().splitlines()] if path.exists() else []


def left(ctx: Any, inputs: dict[str, Any], text: str) -> str:
    leave(inputs, f"{ctx.run_id} {text}")
    return text


def ended(one: Daemon, target: str, status: str = "ok", inputs: dict[str, Any] | None = None, **fields: Any) -> Any:
    """A run of that agent, which must have ended so."""
    run = one.post_run(target, inputs=inputs or {}, wait=30, **fields)
    assert run["status"] == status, run["error"]
    return run


# --- outcomes --------------------------------------------------------------------------------------------------------


async def round_trip(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    value = {"tuple": (1, 2), "none": None, "deep": [{"é": "🦊\0"}], "n": 2**63, "f": 0.1}
    first = await ctx.step("value", lambda: value)
    same = first is value["deep"]
    await ctx.sleep(LONG)
    return {"first": first, "same": same, "entered": left(ctx, inputs, "entered")}


def test_the_first_entry_sees_what_a_later_one_will(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run = ended(quick, "round_trip", inputs={"effects": str(effects)})
    assert run["output"]["first"] == {"tuple": [1, 2], "none": None, "deep": [{"é": "🦊\0"}], "n": 2**63, "f": 0.1}
    step, sleep = quick.steps(run["id"])
    assert step["outcome"] == run["output"]["first"]
    assert (sleep["kind"], sleep["status"]) == ("sleep", "ok")


async def kinds_of_functions(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    async def coroutine(*args: int) -> list[int]:
        return list(args)

    class Callable:
        async def __call__(self) -> str:
            return "object"

    return [
        await ctx.step("coroutine", coroutine, 1, 2),
        await ctx.step("function", lambda *args: [*args, threading.current_thread() is threading.main_thread()], 3),
        await ctx.step("around", lambda: coroutine(4)),
        await ctx.step("object", Callable()),
        await ctx.step("nothing", lambda: None),
    ]


def test_a_step_is_any_function_and_a_plain_one_runs_in_a_thread(quick: Daemon) -> None:
    assert ended(quick, "kinds_of_functions")["output"] == [[1, 2], [3, False], [4], "object", None]


# --- keys ------------------------------------------------------------------------------------------------------------


async def keyed(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    async def line() -> Any:
        return [await ctx.step("a", lambda: left(ctx, inputs, ctx.step_key)) for _ in range(2)]

    async def flaky() -> str:
        left(ctx, inputs, ctx.step_key)
        if len(lines(Path(inputs["effects"]))) % 2:
            raise RuntimeError("once more")
        return str(ctx.step_key)

    flaked = await ctx.step("flaky", flaky, retry={"attempts": 2, "backoff_seconds": 0})
    found = [await line(), *await ctx.gather(line(), line()), *await ctx.gather(line())]
    keys = [flaked, *itertools.chain(*found)]
    keys.append(await ctx.step("0.0/a", lambda: ctx.step_key))
    await ctx.sleep(LONG)
    return keys


def test_a_step_key_is_of_its_step_alone_and_the_same_in_each_attempt(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run = ended(quick, "keyed", inputs={"effects": str(effects)})
    keys = run["output"]
    assert len(set(keys)) == len(keys) == 10
    assert all(key.startswith(run["id"]) for key in keys)
    assert lines(effects)[:2] == [keys[0], keys[0]]
    assert sorted(lines(effects)[2:]) == sorted(keys[1:9]), "each ran once"
    records = [(step["branch"], step["name"], step["occurrence"]) for step in quick.steps(run["id"])]
    assert len(set(records)) == len(records) == 11
    assert {branch for branch, _, _ in records} == {"", "0.0/", "0.1/", "1.0/"}


# --- events ----------------------------------------------------------------------------------------------------------


async def flaking(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    tries = 0

    async def work() -> int:
        nonlocal tries
        tries += 1
        if tries <= inputs["failures"]:
            raise ValueError(f"try {tries}")
        return tries

    return await ctx.step("work", work, retry={"attempts": inputs["attempts"], "backoff_seconds": 0.01})


def test_each_attempt_of_a_step_is_told(quick: Daemon) -> None:
    run = ended(quick, "flaking", inputs={"failures": 2, "attempts": 3})
    assert run["output"] == 3
    told = [(e["type"], e["data"]) for e in quick.events(run["id"]) if e["type"].startswith("step.")]
    place = {"name": "work", "branch": "", "occurrence": 0}
    assert [(type, data["attempt"]) for type, data in told] == [
        ("step.started", 1), ("step.failed", 1), ("step.started", 2), ("step.failed", 2), ("step.started", 3),
        ("step.finished", 3),
    ]  # fmt: skip
    for type, data in told:
        assert place.items() <= data.items()
        assert (data["duration_ms"] is None) == (type == "step.started")
    failed = [data for type, data in told if type == "step.failed"]
    assert [data["final"] for data in failed] == [False, False]
    assert failed[0]["error"] == {"code": "error", "message": "ValueError: try 1", "detail": {"type": "ValueError"}}


def test_a_step_that_uses_up_its_attempts_fails_the_run(quick: Daemon) -> None:
    run = ended(quick, "flaking", "failed", inputs={"failures": 9, "attempts": 2})
    assert run["error"]["code"] == "error"
    assert "'work'" in run["error"]["message"]
    assert "try 2" in run["error"]["message"]
    [step] = quick.steps(run["id"])
    assert (step["status"], step["error"]["message"]) == ("failed", "ValueError: try 2")
    assert [event["data"]["final"] for event in quick.events(run["id"], "step.failed")] == [False, True]


# --- failures --------------------------------------------------------------------------------------------------------


async def catcher(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    def fails() -> None:
        left(ctx, inputs, "ran")
        raise TimeoutError("too slow")

    caught = None
    try:
        await ctx.step("fails", fails)
    except StepFailed as failed:
        caught = [failed.name, failed.code, failed.message, str(failed)]
        left(ctx, inputs, f"caught {caught}")
    await ctx.step("instead", str)
    await ctx.sleep(LONG)
    return caught


def test_a_failed_step_raises_the_same_on_every_replay(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run = ended(quick, "catcher", inputs={"effects": str(effects)})
    ran, first, again = lines(effects)
    assert ran == "ran"
    assert first == again
    assert run["output"][:2] == ["fails", "timeout"]


async def on_its_way(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    """In its first attempt a step fails, it goes another way, and fails; in its second the step does well."""

    def first_fails() -> str:
        if ctx.attempt == 1:
            raise RuntimeError("not yet")
        return left(ctx, inputs, "works")

    async def line(name: str) -> None:
        await ctx.step(name, lambda: left(ctx, inputs, name))

    await ctx.step("before", lambda: left(ctx, inputs, "before"))
    try:
        await ctx.step("works", first_fails)
        await ctx.gather(line("well"))
        await ctx.step("after", lambda: left(ctx, inputs, "after"))
    except StepFailed:
        await ctx.gather(line("ill"))
        await ctx.step("instead", lambda: left(ctx, inputs, "instead"))
        raise
    await ctx.sleep(LONG)
    left(ctx, inputs, "entered")
    await ctx.step("end", lambda: left(ctx, inputs, "end"))


def test_a_retry_keeps_ok_steps_runs_failed_ones_again_and_may_go_another_way(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run = ended(quick, "on_its_way", "retried_ok", inputs={"effects": str(effects)}, max_retries=1)
    assert lines(effects) == ["before", "ill", "instead", "works", "well", "after", "entered", "end"]
    assert run["attempt"] == 2


async def disorderly(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    names = ["one", "two"] if not lines(Path(inputs["effects"])) else inputs["then"]
    left(ctx, inputs, "entered")
    for name in names:
        await ctx.step(name, str)
    await ctx.sleep(LONG)


@pytest.mark.parametrize(
    ("then", "named"),
    [(["two", "one"], ["step 'two'", "step 'one'"]), (["one"], ["sleep 'sleep'", "step 'two'"]),
     (["one", "new", "two"], ["step 'new'", "step 'two'"]), (["one", "two", "two"], ["step 'two'", "sleep 'sleep'"])],
)  # fmt: skip
def test_another_order_is_a_conflict_that_names_both(
    quick: Daemon, tmp_path: Path, then: list[str], named: list[str]
) -> None:
    inputs = {"effects": str(tmp_path / "effects"), "then": then}
    run = ended(quick, "disorderly", "failed", inputs=inputs, max_retries=1)
    assert run["error"]["code"] == "conflict"
    assert all(name in run["error"]["message"] for name in named)
    assert run["attempt"] == 1, "another attempt could do no better"


# --- time ------------------------------------------------------------------------------------------------------------


async def timed(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    async def awaits() -> None:
        await pause(60)

    def blocks() -> None:
        threading.Event().wait(1.5)

    function = awaits if inputs["what"] == "awaits" else blocks
    caught = []
    for name in ("a", "b"):
        try:
            await ctx.step(name, function, timeout_seconds=0.05, retry={"attempts": 2, "backoff_seconds": 0.01})
        except StepFailed as failed:
            caught.append(failed.code)
    return caught


@pytest.mark.parametrize("what", ["awaits", "blocks"])
def test_each_attempt_of_a_step_has_its_time(quick: Daemon, what: str) -> None:
    run = ended(quick, "timed", inputs={"what": what})
    assert run["output"] == ["timeout", "timeout"]
    assert len(quick.events(run["id"], "step.failed")) == 4


async def impatient(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    """Gives up a step, and a signal, by itself; entered again it must find its place."""
    how = []
    for ask in (lambda: ctx.step("slow", pause, 60), lambda: ctx.wait_signal("never")):
        try:
            async with asyncio.timeout(0.05):
                await ask()
        except TimeoutError:
            how.append("too slow")
    await ctx.step("instead", lambda: left(ctx, inputs, "instead"))
    await ctx.sleep(LONG)
    left(ctx, inputs, "woken")
    return how


def test_a_step_that_the_code_itself_gave_up_has_its_place_in_the_journal(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run = ended(quick, "impatient", inputs={"effects": str(effects)})
    assert run["output"] == ["too slow", "too slow"]
    assert lines(effects) == ["instead", "woken"]


async def in_thread(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    await ctx.step("thread", lambda: threading.Event().wait(0.4) or "done")
    await ctx.step("more", str)


def test_a_thread_that_ends_after_the_task_was_cancelled_is_recorded(quick: Daemon) -> None:
    run_id = quick.post_run("in_thread")["id"]
    quick.wait_event(run_id, "step.started")
    quick.stop_run(run_id, mode="now")
    run = quick.wait(run_id)
    assert (run["status"], run["abandoned"]) == ("cancelled", None)
    [step] = quick.steps(run_id)
    assert (step["status"], step["outcome"]) == ("ok", "done")


# --- crashes and reruns ----------------------------------------------------------------------------------------------


async def fragile(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    from latticed.errors import StepInterrupted

    async def once() -> None:
        left(ctx, inputs, "once")
        await pause(60)

    async def again() -> str:
        left(ctx, inputs, f"again {ctx.step_key}")
        if len([line for line in lines(Path(inputs["effects"])) if line.startswith("again")]) == 1:
            await pause(60)
        return "again"

    try:
        await ctx.gather(ctx.step("again", again), ctx.step("once", once, retry_on_crash=False))
    except StepInterrupted:
        if not inputs["catch"]:
            raise
    return "caught"


def test_a_step_under_way_at_a_crash_runs_again_unless_it_must_not(doomed: Daemon, tmp_path: Path) -> None:
    one = doomed
    effects = {catch: tmp_path / str(catch) for catch in (True, False)}
    runs = {
        catch: one.post_run("fragile", inputs={"catch": catch, "effects": str(path)})["id"]
        for catch, path in effects.items()
    }
    wait_until(lambda: all(len(lines(path)) == 2 for path in effects.values()))
    assert all(
        step["status"] == "started"
        for run_id in runs.values()
        for step in wait_until(lambda run_id=run_id: one.steps(run_id))
    )
    one.kill()
    one.start()
    assert one.wait(runs[True], "ok")["output"] == "caught"
    error = one.wait(runs[False], "interrupted")["error"]
    assert error["code"] == "step_interrupted"
    for path in effects.values():
        assert lines(path).count("once") == 1
        again = [line for line in lines(path) if line.startswith("again")]
        assert len(set(again)) == 1, "the same key"


async def in_line(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    """A step that must not run twice waits for a thread, beside one that needs none."""
    once = ctx.step("once", left, ctx, inputs, "once", retry_on_crash=False)
    return await ctx.gather(once, ctx.step("beside", pause, 0.01))


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_step_that_waits_for_a_thread_has_not_begun(daemon: Callable[..., Daemon], tmp_path: Path, end: str) -> None:
    effects = tmp_path / "effects"
    one = daemon(config=configuration(threads=1, drain_seconds=0.1, kill_seconds=0.1))
    holder = one.post_run("thread_never", recovery="interrupt")["id"]
    one.wait(holder, "running")
    run_id = one.post_run("in_line", inputs={"effects": str(effects)})["id"]
    wait_until(lambda: one.events(run_id, "step.finished"))
    assert [event["data"]["name"] for event in one.events(run_id, "step.started")] == ["beside"]
    getattr(one, end)()
    one.start()
    one.wait(run_id, "ok")
    assert lines(effects) == ["once"]
    assert [event["data"]["name"] for event in one.events(run_id, "step.started")] == ["beside", "once"]

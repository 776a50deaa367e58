"""Function agents that do, or misdo, one thing each. Every function whose first parameter is `ctx` is one.

A daemon started by the fixtures has each under its own name, those of `agents_that_end` too.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

from tests.agents_that_end import (
    Inputs,
    asker,
    backoff,
    bare_gather,
    blocker,
    echo,
    failer,
    failing_step,
    family,
    flood,
    forever,
    forger,
    gatherer,
    huge,
    keys,
    leave,
    not_json,
    nothing,
    once,
    parent,
    pause,
    poison,
    reorder,
    reporter,
    signaller,
    sleeper,
    step_not_json,
    steps,
    steps_in_thread,
)

if TYPE_CHECKING:
    from latticed import Context


# --- that do not end by themselves -----------------------------------------------------------------------------------


async def awaiter(ctx: Context, goal: str, inputs: Inputs) -> None:
    """Awaits for ever, in no step; leaves `RUN ended` in its finally."""
    try:
        await forever()
    finally:
        leave(inputs, f"{ctx.run_id} ended")


async def hurried(ctx: Context, goal: str, inputs: Inputs) -> str:
    """Works until the file `gate` is there, gives up while the outcome is being recorded, and sleeps."""

    async def work() -> str:
        leave(inputs, f"{ctx.run_id} works")
        while not os.path.exists(inputs["gate"]):
            await pause(0.01)
        limit.reschedule(asyncio.get_running_loop().time() + 0.1)
        return "worked"

    try:
        async with asyncio.timeout(None) as limit:
            await ctx.step("work", work)
    except TimeoutError:
        leave(inputs, f"{ctx.run_id} gave up")
    await ctx.sleep(0.3)
    return str(await ctx.step("more", lambda: "more"))


async def stepper_long(ctx: Context, goal: str, inputs: Inputs) -> None:
    """A step that awaits for ever, after one that ends."""
    await ctx.step("short", lambda: "done")
    await ctx.step("long", forever)


async def stepper_slow(ctx: Context, goal: str, inputs: Inputs) -> None:
    """Steps of `seconds` (0.2) each, without end: what a cooperative cancel waits for."""
    index = 0
    while True:
        await ctx.step("slow", pause, inputs.get("seconds", 0.2))
        leave(inputs, f"{ctx.run_id} slow {index}")
        index += 1


async def careful(ctx: Context, goal: str, inputs: Inputs) -> str:
    """A step that must not run twice and awaits for ever; with `catch` its interruption is the output."""
    from latticed.errors import StepInterrupted

    try:
        leave(inputs, f"{ctx.run_id} entered")
        await ctx.step("only_once", forever, retry_on_crash=False)
    except StepInterrupted:
        if not inputs.get("catch"):
            raise
    return "interrupted"


async def swallow(ctx: Context, goal: str, inputs: Inputs) -> None:
    """Swallows every cancellation."""
    while True:
        try:
            await forever()
        except asyncio.CancelledError:
            leave(inputs, f"{ctx.run_id} swallowed")


async def shielder(ctx: Context, goal: str, inputs: Inputs) -> None:
    """Awaits for ever; cleans up in a step of `seconds` (0.1) under a shield of `shield` seconds (5)."""
    try:
        await forever()
    finally:
        async with ctx.shield(inputs.get("shield", 5)):
            await ctx.step("cleanup", pause, inputs.get("seconds", 0.1))
            leave(inputs, f"{ctx.run_id} cleaned")


def thread_checks(ctx: Context, goal: str, inputs: Inputs) -> None:
    """A thread that loops and asks at every turn whether it is cancelled."""
    turn = threading.Event()
    while True:
        ctx.check_cancelled()
        turn.wait(0.01)


def thread_never(ctx: Context, goal: str, inputs: Inputs) -> None:
    """A thread that blocks for `seconds` (3600) and never asks."""
    threading.Event().wait(inputs.get("seconds", 3600))


# --- that make it hard to stop them ----------------------------------------------------------------------------------


async def long_wait(ctx: Context, goal: str, inputs: Inputs) -> None:
    """Waits for what `what` names: sleep, signal, child, gather, backoff or shield, without end."""
    what = inputs["what"]
    if what == "sleep":
        await ctx.sleep(inputs.get("seconds", 3600))
    elif what == "signal":
        await ctx.wait_signal("never")
    elif what == "child":
        await ctx.run("agent", "awaiter", inputs={"effects": inputs.get("effects")})
    elif what == "gather":
        await ctx.gather(ctx.sleep(3600), ctx.wait_signal("never"))
    elif what == "shield":
        async with ctx.shield(inputs.get("shield", 3600)):
            await forever()


async def half_asleep(ctx: Context, goal: str, inputs: Inputs) -> list[Any]:
    """One branch sleeps, the other takes a step of `seconds` (0.5) and then another."""

    async def busy() -> None:
        await ctx.step("slow", pause, inputs.get("seconds", 0.5))
        await ctx.step("next", lambda: leave(inputs, f"{ctx.run_id} next"))

    return list(await ctx.gather(ctx.sleep(3600), busy()))


async def thread_step(ctx: Context, goal: str, inputs: Inputs) -> None:
    """A step in a thread that blocks for `seconds` (3600) and never asks, then another step."""
    await ctx.step("block", lambda: threading.Event().wait(inputs.get("seconds", 3600)))
    await ctx.step("next", lambda: leave(inputs, f"{ctx.run_id} next"))


def thread_sleeps(ctx: Any, goal: str, inputs: Inputs) -> None:
    """A thread that sleeps by the context."""
    ctx.sleep(3600)


def thread_awaits(ctx: Any, goal: str, inputs: Inputs) -> None:
    """A thread in a step that awaits for ever."""
    ctx.step("forever", forever)


async def refuser(ctx: Context, goal: str, inputs: Inputs) -> Any:
    """Swallows every cancellation and asks for a step whenever it has."""
    while True:
        try:
            await forever()
        except BaseException as error:
            leave(inputs, f"{ctx.run_id} {type(error).__name__}")
        try:
            await ctx.step("more", lambda: leave(inputs, f"{ctx.run_id} more"))
        except BaseException as error:
            leave(inputs, f"{ctx.run_id} {type(error).__name__}")


async def late_returner(ctx: Context, goal: str, inputs: Inputs) -> str:
    """Turns its cancellation into an output."""
    try:
        await forever()
    except asyncio.CancelledError:
        return "as if nothing had happened"
    return "never"


async def slow_to_end(ctx: Context, goal: str, inputs: Inputs) -> None:
    """Needs `seconds` (0.5) to clean up once it is cancelled, without a shield."""
    try:
        await forever()
    finally:
        await pause(inputs.get("seconds", 0.5))
        leave(inputs, f"{ctx.run_id} cleaned")


async def task_group(ctx: Context, goal: str, inputs: Inputs) -> None:
    """Sleeps in a task of an `asyncio.TaskGroup`, which wraps what is raised there in a group of exceptions."""
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.sleep(inputs.get("seconds", 3600)))


async def quitter(ctx: Context, goal: str, inputs: Inputs) -> None:
    """Raises SystemExit in `where`: agent, step, gather, task, group; or, with it, ends the event loop."""

    def leave_program() -> None:
        raise SystemExit(3)

    async def line() -> None:
        leave_program()

    if inputs["where"] == "step":
        await ctx.step("exit", leave_program)
    elif inputs["where"] == "gather":
        await ctx.gather(ctx.step("fine", lambda: 1), line())
    elif inputs["where"] == "task":
        await asyncio.create_task(line())
    elif inputs["where"] == "group":
        async with asyncio.TaskGroup() as group:
            group.create_task(forever())
            group.create_task(line())
    elif inputs["where"] == "loop":
        asyncio.get_running_loop().call_soon(leave_program)
        await forever()
    leave_program()


def thread_quitter(ctx: Any, goal: str, inputs: Inputs) -> None:
    """The same in a thread."""

    def leave_program() -> None:
        raise SystemExit(3)

    if inputs["where"] == "step":
        ctx.step("exit", leave_program)
    leave_program()


async def shield_abuser(ctx: Context, goal: str, inputs: Inputs) -> None:
    """Swallows the end of its shield of `shield` seconds and stays inside."""
    async with ctx.shield(inputs["shield"]):
        while True:
            try:
                await forever()
            except BaseException as error:
                leave(inputs, f"{ctx.run_id} {type(error).__name__}")


async def feigner(ctx: Context, goal: str, inputs: Inputs) -> None:
    """Raises `leave` (Cancelled, Suspended, CancelledError) of its own accord."""
    import latticed

    raise {
        "Cancelled": latticed.Cancelled,
        "Suspended": latticed.Suspended,
        "CancelledError": asyncio.CancelledError,
    }[inputs["leave"]]


async def tidy_sleeper(ctx: Context, goal: str, inputs: Inputs) -> str:
    """Sleeps `seconds` and works, with a cleanup in its finally that is a step."""
    try:
        await ctx.sleep(inputs["seconds"])
        await ctx.step("work", lambda: leave(inputs, f"{ctx.run_id} work"))
        return "slept"
    finally:
        async with ctx.shield(5):
            await ctx.step("cleanup", lambda: leave(inputs, f"{ctx.run_id} cleanup"))


async def unwilling(ctx: Context, goal: str, inputs: Inputs) -> Any:
    """Swallows whatever its sleep of `seconds` raises and returns whether it slept."""
    try:
        await ctx.sleep(inputs["seconds"])
    except BaseException:
        return {"slept": False}
    return {"slept": True}


async def slow_signaller(ctx: Context, goal: str, inputs: Inputs) -> Any:
    """Waits for the signal `go`; takes `seconds` to unwind."""
    try:
        return await ctx.wait_signal("go")
    finally:
        leave(inputs, f"{ctx.run_id} unwinding")
        await pause(inputs["seconds"])


async def work_then_hang(ctx: Context, goal: str, inputs: Inputs) -> None:
    """Takes the step `work`, which leaves a line, and hangs in the step `hang`."""
    await ctx.step("work", lambda: leave(inputs, f"{ctx.run_id} work"))
    await ctx.step("hang", forever)


async def innocent(ctx: Context, goal: str, inputs: Inputs) -> str:
    """One step of `seconds` (0.2), which leaves a line when it is through."""
    await ctx.step("work", pause, inputs.get("seconds", 0.2))
    leave(inputs, f"{ctx.run_id} worked")
    return "innocent"


async def exiter(ctx: Context, goal: str, inputs: Inputs) -> None:
    """Ends the daemon's process from inside its second step, without a signal."""
    await ctx.step("work", str)
    await ctx.step("exit", lambda: os._exit(3))


async def half_parent(ctx: Context, goal: str, inputs: Inputs) -> None:
    """A child that awaits for ever, beside a step that does."""
    await ctx.gather(ctx.run("agent", "awaiter"), ctx.step("hang", forever))

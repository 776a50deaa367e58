"""Function agents that end: those that do one thing, and those that fail or do what is not allowed.

What an effect leaves behind goes to the file named by `inputs["effects"]`, a line each, so that a test can count from
outside what really ran.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latticed import Context

Inputs = dict[str, Any]


def leave(inputs: Inputs, line: str) -> None:
    """Appends a line to the run's file of effects, if it names one."""
    if path := inputs.get("effects"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


async def forever() -> None:
    """Awaits what never comes; only a cancellation ends it."""
    await asyncio.Event().wait()


async def pause(seconds: float) -> None:
    """Takes that long inside a step, with the loop turning."""
    try:
        await asyncio.wait_for(forever(), seconds)
    except TimeoutError:
        return


# --- that end well ---------------------------------------------------------------------------------------------------


async def echo(ctx: Context, goal: str, inputs: Inputs) -> Any:
    """Gives back what it was given."""
    return {"goal": goal, "inputs": inputs}


async def nothing(ctx: Context, goal: str, inputs: Inputs) -> None:
    """Returns None, which is an output like any other."""


async def once(ctx: Context, goal: str, inputs: Inputs) -> Any:
    """One trivial step."""
    return await ctx.step("once", lambda: goal)


async def steps(ctx: Context, goal: str, inputs: Inputs) -> list[int]:
    """`n` steps of one name in a row (3), each leaving `RUN step I` and taking `seconds` (0)."""

    async def work(index: int) -> int:
        leave(inputs, f"{ctx.run_id} step {index}")
        if inputs.get("seconds"):
            await pause(inputs["seconds"])
        return index

    return [await ctx.step("work", work, index) for index in range(inputs.get("n", 3))]


def steps_in_thread(ctx: Any, goal: str, inputs: Inputs) -> list[int]:
    """The same in a plain function: every call blocks."""

    def work(index: int) -> int:
        leave(inputs, f"{ctx.run_id} step {index}")
        return index

    return [ctx.step("work", work, index) for index in range(inputs.get("n", 3))]


async def keys(ctx: Context, goal: str, inputs: Inputs) -> list[str]:
    """The idempotency keys of two steps, as seen inside them."""
    return [await ctx.step(name, lambda: ctx.step_key) for name in ("one", "two")]


async def sleeper(ctx: Context, goal: str, inputs: Inputs) -> str:
    """Sleeps `seconds` (60) between two steps."""
    await ctx.step("before", lambda: leave(inputs, f"{ctx.run_id} before"))
    await ctx.sleep(inputs.get("seconds", 60))
    await ctx.step("after", lambda: leave(inputs, f"{ctx.run_id} after"))
    return "slept"


async def asker(ctx: Context, goal: str, inputs: Inputs) -> Any:
    """Asks a person; `schema`, `lanes`, `expires_seconds` as given. Returns the answer's data."""
    limits = {key: inputs[key] for key in ("schema", "lanes", "expires_seconds") if key in inputs}
    return {"answer": await ctx.ask(goal, **limits)}


async def signaller(ctx: Context, goal: str, inputs: Inputs) -> Any:
    """Waits for the signal `signal` (go), `n` times (1); `timeout_seconds` and `schema` as given."""
    limits = {key: inputs[key] for key in ("schema", "timeout_seconds") if key in inputs}
    return [await ctx.wait_signal(inputs.get("signal", "go"), **limits) for _ in range(inputs.get("n", 1))]


async def parent(ctx: Context, goal: str, inputs: Inputs) -> list[Any]:
    """`n` children (1) of the agent `child` (echo), one after the other, with the inputs `child_inputs`.

    With `detached` it returns their ids. Each is preceded by `RUN child I` in the effects, which is not a step.
    """
    ended = []
    for index in range(inputs.get("n", 1)):
        leave(inputs, f"{ctx.run_id} child {index}")
        child = ctx.run(
            "agent",
            inputs.get("child", "echo"),
            goal=f"{goal} {index}",
            inputs=inputs.get("child_inputs", {}),
            detached=inputs.get("detached", False),
        )
        ended.append(await child)
    return ended


async def gatherer(ctx: Context, goal: str, inputs: Inputs) -> list[Any]:
    """`n` branches (3) at once: each takes a step, sleeps `seconds` (0) and takes another."""

    async def branch(index: int) -> str:
        await ctx.step("first", lambda: leave(inputs, f"{ctx.run_id} first {index}"))
        await ctx.sleep(inputs.get("seconds", 0))
        return str(await ctx.step("second", lambda: f"{goal} {index}"))

    return list(await ctx.gather(*(branch(index) for index in range(inputs.get("n", 3)))))


async def family(ctx: Context, goal: str, inputs: Inputs) -> list[Any]:
    """`n` children (3) of the agent `child` (echo) at once."""
    child, given = inputs.get("child", "echo"), inputs.get("child_inputs", {})
    wanted = (ctx.run("agent", child, goal=f"{goal} {index}", inputs=given) for index in range(inputs.get("n", 3)))
    return list(await ctx.gather(*wanted))


async def flood(ctx: Context, goal: str, inputs: Inputs) -> int:
    """`events` events (1000) of type `x.flood`, numbered, with `bytes` (0) of ballast each."""
    count, ballast = inputs.get("events", 1000), "x" * inputs.get("bytes", 0)
    for index in range(count):
        await ctx.emit("x.flood", index=index, ballast=ballast)
    return int(count)


async def reporter(ctx: Context, goal: str, inputs: Inputs) -> str:
    """One of each event that user code may emit."""
    await ctx.progress(1, 2, "half")
    await ctx.log("said", level="warning", field=1)
    await ctx.emit("text.delta", text="a")
    await ctx.emit("x.own", value=1)
    return "reported"


# --- that fail, or do what is not allowed ----------------------------------------------------------------------------


async def failer(ctx: Context, goal: str, inputs: Inputs) -> str:
    """Raises in its first `failures` attempts (all), after a step that ends."""
    await ctx.step("before", lambda: leave(inputs, f"{ctx.run_id} attempt {ctx.attempt}"))
    if ctx.attempt <= inputs.get("failures", 99):
        raise RuntimeError(goal)
    return f"attempt {ctx.attempt}"


async def failing_step(ctx: Context, goal: str, inputs: Inputs) -> str:
    """A step that fails its first `failures` times (99), with `attempts` (1) and `backoff_seconds` (0.01)."""
    tries = 0

    async def work() -> str:
        nonlocal tries
        tries += 1
        leave(inputs, f"{ctx.run_id} try {tries}")
        if tries <= inputs.get("failures", 99):
            raise RuntimeError(goal)
        return f"try {tries}"

    retry = {"attempts": inputs.get("attempts", 1), "backoff_seconds": inputs.get("backoff_seconds", 0.01)}
    return str(await ctx.step("work", work, retry=retry))


async def backoff(ctx: Context, goal: str, inputs: Inputs) -> str:
    """A step that always fails and waits a minute between its attempts."""
    return await failing_step(ctx, goal, {"attempts": 9, "backoff_seconds": 60.0} | inputs)


async def not_json(ctx: Context, goal: str, inputs: Inputs) -> Any:
    """Returns what is not JSON."""
    return {"a", "set"}


async def step_not_json(ctx: Context, goal: str, inputs: Inputs) -> Any:
    """A step returns what is not JSON."""
    return await ctx.step("bad", lambda: object())


async def huge(ctx: Context, goal: str, inputs: Inputs) -> str:
    """Returns `bytes` (2 MiB) of text."""
    return "x" * int(inputs.get("bytes", 2 << 20))


async def forger(ctx: Context, goal: str, inputs: Inputs) -> str:
    """Emits an event that only the daemon may: `type` (run.finished)."""
    await ctx.emit(inputs.get("type", "run.finished"), status="ok")
    return "forged"


async def reorder(ctx: Context, goal: str, inputs: Inputs) -> str:
    """Asks for its steps in another order in its second attempt."""
    for name in ("one", "two") if ctx.attempt == 1 else ("two", "one"):
        await ctx.step(name, str, name)
    raise RuntimeError("the first attempt fails")


async def bare_gather(ctx: Context, goal: str, inputs: Inputs) -> Any:
    """Two steps of one branch at once, which must be told to use `ctx.gather`."""
    return await asyncio.gather(ctx.step("one", pause, 0.05), ctx.step("two", pause, 0.05))


async def blocker(ctx: Context, goal: str, inputs: Inputs) -> str:
    """Blocks the event loop for `seconds` (1), as code that does not belong into an `async def` does."""
    threading.Event().wait(inputs.get("seconds", 1))
    return "blocked"


async def poison(ctx: Context, goal: str, inputs: Inputs) -> None:
    """Takes the daemon down with it."""
    leave(inputs, f"{ctx.run_id} poison")
    os.kill(os.getpid(), signal.SIGKILL)

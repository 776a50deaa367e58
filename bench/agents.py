"""The function agents that the daemon runs while it is measured; each body is as trivial as its workload allows."""

import asyncio
import time
from typing import Any

from bench import evidence
from latticed import Context

Inputs = dict[str, Any]
_gate = evidence.Gate()


async def _now() -> float:
    return time.time()


async def _echo(i: int) -> int:
    return i


async def _note(place: str, key: str) -> None:
    evidence.note(place, key)


def look(payload: dict[str, Any]) -> None:
    """A hook that looks at a run, in a thread, and has nothing to say."""
    if not payload["run"]["goal"]:
        raise ValueError("a run without a goal")


async def one(ctx: Context, goal: str, inputs: Inputs) -> float:
    """One step; gives the time at which it began."""
    began: float = await ctx.step("one", _now)
    return began


async def ten(ctx: Context, goal: str, inputs: Inputs) -> str:
    """Ten steps, one after the other."""
    for i in range(10):
        await ctx.step("ten", _echo, i)
    return goal


async def awaiting(ctx: Context, goal: str, inputs: Inputs) -> None:
    """Awaits for ten minutes in a step; notes when its coroutine has ended."""
    try:
        await ctx.step("began", _now)
        await ctx.step("await", asyncio.sleep, 600)
    finally:
        evidence.note("ended", goal)


async def ticking(ctx: Context, goal: str, inputs: Inputs) -> None:
    """Waits for the signal `go`, then emits `ticks` events, each with the time at which it was emitted."""
    await ctx.wait_signal("go")
    for _ in range(inputs["ticks"]):
        await asyncio.sleep(inputs["gap_seconds"])
        await ctx.emit("x.tick", t=time.time())


async def sleeping(ctx: Context, goal: str, inputs: Inputs) -> None:
    """A step, ten minutes of durable sleep, a step."""
    await ctx.step("before", _now)
    await ctx.sleep(600)
    await ctx.step("after", _now)


async def crossing(ctx: Context, goal: str, inputs: Inputs) -> None:
    """A step, a wait at the gate in between (no slot is given back), a step; notes each place it passes."""
    evidence.note("entered", goal)
    await ctx.step("first", _note, "first", goal)
    evidence.note("held", goal)
    await _gate.wait()
    await ctx.step("second", _note, "second", goal)

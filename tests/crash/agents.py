"""Agents whose every effect can be counted from outside.

`scripted` does what `inputs["plan"]` says: a list of operations, each a list of its name and arguments. What a step
does is to append one line to the file of effects and to return the nonce in it, so that the journal, the run's output
and the file can be compared: the last line of a step must be the one that is recorded.

| operation | what it does | its result |
|---|---|---|
| `step` / `slow S` / `thread` | a step: at once / that takes S seconds / in a thread | the nonce |
| `fragile S` | a step with `retry_on_crash=False` | the nonce |
| `flaky N` | a step that fails N times and is retried | the last nonce |
| `broken` | a step that fails for good, which the run catches | null |
| `sleep S` / `emit` | sleeps; tells something | null |
| `ask` / `signal` | waits for a person; waits for the signal `go` | the data |
| `child TARGET INPUTS DETACHED` | a child | its output, or its id |
| `both PLANS` | the plans at the same time | a list of their results |
| `fail K` | raises in the first K attempts | null |
| `hang` | awaits for ever | |
| `deaf S` | ignores every cancel for S seconds | null |
| `cling S` | sleeps, and stays whenever it is to leave | null |
"""

import asyncio
import inspect
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latticed import Context
from latticed.engine.entry import step_key
from latticed.errors import StepFailed

Inputs = dict[str, Any]

PLANNED = "planned to fail"
COMMAND = Path(__file__).with_name("command.sh")
COMMANDS: dict[str, Any] = {
    "command": {"use": "command", "argv": ["/bin/sh", str(COMMAND), "{inputs.effects}", "{inputs.seconds}"]},
    "stubborn": {"use": "command", "argv": ["/bin/sh", str(COMMAND), "{inputs.effects}", "{inputs.seconds}", "deaf"]},
}
APPROVES = '{"outcome": "approve", "reason": "good"}'
SENDS_BACK = '{"outcome": "retry", "reason": "thin", "notes": "again"}'
PIPELINES: dict[str, Any] = {
    "pipeline": {
        "use": "pipeline",
        "tools": ["leave"],
        "roles": {
            "executor": {"simulation": [[{"tool": "leave", "args": {}}, "left"]]},
            "reviewer": {"simulation": [APPROVES, SENDS_BACK, APPROVES]},
        },
    }
}
"""One whose reviewer sends the work back once, and whose executor calls a tool at each step."""
TOOLS = {"leave": {"use": "function", "function": "tests.crash.agents:leave_by_tool"}}
FUNCTIONS = ("scripted", "scripted_plain")
AGENTS = COMMANDS | {name: {"use": "function", "function": f"tests.crash.agents:{name}"} for name in FUNCTIONS}
AGENTS["judged"] = AGENTS["scripted"]
"""The same under a name that hooks are asked about."""


def leave(ctx: Context | None, inputs: Inputs, key: str = "") -> str:
    """Appends one line, in one write: `TIME_NS KEY NONCE`; the nonce."""
    nonce = uuid.uuid4().hex
    file = os.open(inputs["effects"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        key = key or (ctx.step_key if ctx is not None else "")
        os.write(file, f"{time.time_ns()} {key} {nonce}\n".encode())
    finally:
        os.close(file)
    return nonce


async def leave_by_tool() -> str:
    """As `leave`, as a tool; the file is the one of this daemon."""
    key = step_key.get()
    assert key is not None
    return leave(None, {"effects": os.environ["EFFECTS"]}, key)


async def pause(seconds: float) -> None:
    """Takes that long."""
    try:
        await asyncio.wait_for(asyncio.Event().wait(), seconds)
    except TimeoutError:
        return


class Failing:
    """A step that fails so often, telling its nonce each time."""

    def __init__(self, ctx: Context, inputs: Inputs, times: int) -> None:
        self._ctx, self._inputs, self._left = ctx, inputs, times

    def __call__(self) -> str:
        nonce = leave(self._ctx, self._inputs)
        self._left -= 1
        if self._left >= 0:
            raise RuntimeError(f"{PLANNED} {nonce}")
        return nonce


async def scripted(ctx: Context, goal: str, inputs: Inputs) -> list[Any]:
    """Carries out `inputs["plan"]`."""

    async def quick() -> str:
        return leave(ctx, inputs)

    async def slow(seconds: float) -> str:
        nonce = leave(ctx, inputs)
        await pause(seconds)
        return nonce

    async def flaky(times: int) -> Any:
        retry = {"attempts": times + 1, "backoff_seconds": 0.05}
        return await ctx.step("flaky", Failing(ctx, inputs, times), retry=retry)

    async def broken() -> None:
        try:
            await ctx.step("broken", Failing(ctx, inputs, 99))
        except StepFailed:
            return

    async def deaf(seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                await pause(left)
            except asyncio.CancelledError:
                continue

    async def cling(seconds: float) -> None:
        while True:
            try:
                return await ctx.sleep(seconds)
            except BaseException:
                continue

    async def both(plans: list[Any]) -> list[Any]:
        return list(await ctx.gather(*(follow(plan) for plan in plans)))

    async def fail(attempts: int) -> None:
        if ctx.attempt <= attempts:
            raise RuntimeError(PLANNED)

    operations: dict[str, Callable[..., Any]] = {
        "step": lambda: ctx.step("step", quick),
        "slow": lambda seconds: ctx.step("slow", slow, seconds),
        "thread": lambda: ctx.step("thread", leave, ctx, inputs, ""),
        "fragile": lambda seconds: ctx.step("fragile", slow, seconds, retry_on_crash=False),
        "flaky": flaky,
        "broken": broken,
        "sleep": ctx.sleep,
        "emit": lambda: ctx.emit("x.said", nonce=uuid.uuid4().hex),
        "ask": lambda: ctx.ask("go on?"),
        "signal": lambda: ctx.wait_signal("go"),
        "child": lambda target, given, detached: ctx.run("agent", target, inputs=given, detached=detached),
        "both": both,
        "fail": fail,
        "hang": lambda: asyncio.Event().wait(),
        "deaf": deaf,
        "cling": cling,
    }

    async def follow(plan: list[Any]) -> list[Any]:
        results = []
        for name, *arguments in plan:
            result = operations[name](*arguments)
            results.append(await result if inspect.isawaitable(result) else result)
        return results

    return await follow(inputs["plan"])


def scripted_plain(ctx: Any, goal: str, inputs: Inputs) -> list[Any]:
    """The same in a plain function, with fewer operations."""

    def fail(attempts: int) -> None:
        if ctx.attempt <= attempts:
            raise RuntimeError(PLANNED)

    def slow(seconds: float) -> str:
        nonce = leave(ctx, inputs)
        threading.Event().wait(seconds)
        return nonce

    operations: dict[str, Callable[..., Any]] = {
        "step": lambda: ctx.step("step", leave, ctx, inputs, ""),
        "slow": lambda seconds: ctx.step("slow", slow, seconds),
        "fragile": lambda seconds: ctx.step("fragile", slow, seconds, retry_on_crash=False),
        "sleep": ctx.sleep,
        "emit": lambda: ctx.emit("x.said", nonce=uuid.uuid4().hex),
        "ask": lambda: ctx.ask("go on?"),
        "signal": lambda: ctx.wait_signal("go"),
        "child": lambda target, given, detached: ctx.run("agent", target, inputs=given, detached=detached),
        "fail": fail,
        "deaf": lambda seconds: threading.Event().wait(seconds) and None,
    }
    return [operations[name](*arguments) for name, *arguments in inputs["plan"]]

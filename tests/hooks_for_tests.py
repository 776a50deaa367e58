"""Hooks that do, or misdo, one thing each; and how a daemon is configured with them.

A hook of these tests is asked about the runs of one target, which is named like it: the agent behind every such name
gives its inputs back.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from latticed import Block
from tests.agents_that_end import leave, pause
from tests.wait import wait_until

if TYPE_CHECKING:
    from latticed import Context

Payload = dict[str, Any]


async def given(ctx: Context, goal: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """The agent behind every target: a step, and its inputs."""
    if seconds := inputs.get("seconds"):
        await ctx.sleep(seconds)
    if goal == "fail" and ctx.attempt == 1:
        raise RuntimeError("as it was told to")
    await ctx.step("work", lambda: leave(inputs, f"{ctx.run_id} work"))
    return inputs


def configuration(hooks: dict[str, Any], **tables: Any) -> dict[str, Any]:
    """A daemon's tables: these hooks, and an agent for each of their targets."""
    targets = {target for hook in hooks.values() for target in hook.get("targets", ())}
    agents = {target: {"use": "function", "function": "tests.hooks_for_tests:given"} for target in targets}
    return {"hooks": hooks, "agents": agents, **tables}


def python(function: str, target: str, **more: Any) -> dict[str, Any]:
    """The table of a `pre_run` hook of this file."""
    path = f"tests.hooks_for_tests:{function}"
    return {"use": "python", "point": "pre_run", "function": path, "targets": [target], **more}


def command(script: str, target: str, **more: Any) -> dict[str, Any]:
    """The table of a `pre_run` hook that is a script of the shell, with the arguments that follow."""
    argv = ["/bin/sh", "-c", script, "hook"]
    return {"use": "command", "point": "pre_run", "argv": argv, "targets": [target], **more}


# --- hooks -----------------------------------------------------------------------------------------------------------


def note(payload: Payload) -> None:
    """Leaves its name."""
    leave(payload["run"]["inputs"], f"{payload['run']['id']} {payload['hook']}")


async def note_soon(payload: Payload) -> None:
    """The same, in the event loop."""
    note(payload)


def refuse(payload: Payload) -> Block:
    """Says no."""
    note(payload)
    return Block(f"{payload['run']['goal']} is not wanted")


def vandal(payload: Payload) -> None:
    """Does to its payload what it can, and answers nothing."""
    payload["run"]["inputs"]["planted"] = True
    payload["run"].clear()


def count(payload: Payload) -> dict[str, Any]:
    """Adds one to the input `n`, and says in a tag what it saw."""
    run = payload["run"]
    note(payload)
    n = run["inputs"].get("n", 0)
    return {"inputs": {**run["inputs"], "n": n + 1}, "tags": {**run["tags"], payload["hook"]: f"saw {n}"}}


def answer(payload: Payload) -> Any:
    """Answers what the input `answer` says."""
    return payload["run"]["inputs"]["answer"]


def strange(payload: Payload) -> Any:
    """Answers what no JSON is."""
    return {
        "text": "no",
        "true": True,
        "bytes": {"inputs": {"b": b"\xff"}},
        "nan": {"inputs": {"n": float("nan")}},
        "keys": {"inputs": {1: 2}},
        "deep": {"inputs": {"huge": "x" * (2 << 20)}},
    }[payload["run"]["goal"]]


def crash(payload: Payload) -> None:
    """Raises, in a thread; `exit`: SystemExit."""
    if payload["run"]["goal"] == "exit":
        raise SystemExit(3)
    raise RuntimeError("the hook is broken")


async def crash_soon(payload: Payload) -> None:
    """The same in the event loop; `cancel`: cancels itself."""
    if payload["run"]["goal"] == "cancel":
        raise asyncio.CancelledError
    crash(payload)


async def hang(payload: Payload) -> None:
    """Awaits for ever; leaves a line as it begins and when it is cancelled."""
    inputs, run_id = payload["run"]["inputs"], payload["run"]["id"]
    leave(inputs, f"{run_id} hangs")
    try:
        await asyncio.Event().wait()
    finally:
        leave(inputs, f"{run_id} left")


async def deaf(payload: Payload) -> None:
    """Swallows its cancellation and goes on for a while."""
    leave(payload["run"]["inputs"], f"{payload['run']['id']} hangs")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await pause(5)


async def stubborn(payload: Payload) -> None:
    """Swallows every cancellation, for ever."""
    leave(payload["run"]["inputs"], f"{payload['run']['id']} hangs")
    while True:
        with suppress(BaseException):
            await asyncio.Event().wait()


def hold(payload: Payload) -> None:
    """Blocks a thread until there is the file that the input `release` names."""
    inputs = payload["run"]["inputs"]
    leave(inputs, f"{payload['run']['id']} holds")
    wait_until(lambda: os.path.exists(inputs["release"]), 120)


def hang_in_thread(payload: Payload) -> None:
    """Blocks a thread for some seconds."""
    leave(payload["run"]["inputs"], f"{payload['run']['id']} hangs")
    threading.Event().wait(4)


def kill_the_daemon(payload: Payload) -> None:
    """The daemon dies while it is asked, unless the run says otherwise by a file that is there."""
    inputs = payload["run"]["inputs"]
    note(payload)
    if not os.path.exists(inputs["survive"]):
        os.kill(os.getpid(), 9)

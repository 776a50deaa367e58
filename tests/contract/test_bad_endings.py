"""Code that ends as it must not: its run ends with an error that says so, and nobody else notices."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.agents_for_tests import forever, pause
from tests.conftest import Daemon
from tests.contract.test_steps import LONG, ended

pytestmark = pytest.mark.usefixtures("unharmed")


# --- errors that are hard to tell ------------------------------------------------------------------------------------


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Unmentionable(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class OutOfThisWorld(BaseException):
    pass


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1)


RAISES: dict[str, tuple[Callable[[], Any], str]] = {
    "unspeakable": (lambda: raising(Unspeakable()), "Unspeakable: (its text cannot be had)"),
    "unmentionable": (lambda: raising(Unmentionable()), "Unmentionable: (its text cannot be had)"),
    "silent": (lambda: raising(ValueError()), "ValueError: (no message)"),
    "surrogates": (lambda: raising(ValueError("\ud800 🦊 \0")), "ValueError: ? 🦊 \0"),
    "long": (lambda: raising(ValueError("x" * 10**6)), "ValueError: xxx"),
    "recursion": (recurse, "RecursionError: "),
    "exit": (lambda: sys.exit("enough"), "SystemExit: enough"),
    "interrupt": (lambda: raising(KeyboardInterrupt()), "KeyboardInterrupt: "),
    "group": (lambda: raising(ExceptionGroup("both", [ValueError("one"), ValueError("two")])), "ValueError: one"),
    "stop": (lambda: next(iter(())), "StopIteration"),
    "assertion": (lambda: raising(AssertionError("no")), "AssertionError: no"),
}


def raising(error: BaseException) -> None:
    raise error


async def raises(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    function = RAISES[goal][0]

    async def awaits() -> None:
        function()

    if inputs["where"] == "step":
        await ctx.step("raises", function)
    elif inputs["where"] == "async step":
        await ctx.step("raises", awaits)
    elif inputs["where"] == "gather":
        await ctx.gather(ctx.step("fine", str), awaits())
    function()


def raises_in_thread(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    function = RAISES[goal][0]
    if inputs["where"] == "step":
        ctx.step("raises", function)
    elif inputs["where"] == "gather":
        ctx.gather(lambda: ctx.step("fine", str), function)
    function()


@pytest.mark.parametrize(
    ("target", "where"),
    [("raises", "agent"), ("raises", "step"), ("raises", "async step"), ("raises", "gather"),
     ("raises_in_thread", "agent"), ("raises_in_thread", "step"), ("raises_in_thread", "gather")],
)  # fmt: skip
def test_whatever_code_raises_is_its_runs_error(quick: Daemon, target: str, where: str) -> None:
    begun = {what: quick.post_run(target, what, inputs={"where": where})["id"] for what in RAISES}
    for what, run_id in begun.items():
        error = quick.wait(run_id, "failed")["error"]
        assert error["code"] == "error", what
        assert RAISES[what][1] in error["message"]
        assert len(error["message"]) < 2500


async def out_of_this_world(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    async def leaves() -> None:
        raise OutOfThisWorld("of its own kind")

    if goal == "step":
        await ctx.step("leaves", leaves)
    if goal == "gather":
        await ctx.gather(leaves(), ctx.step("fine", str))
    await leaves()


@pytest.mark.parametrize("where", ["agent", "step", "gather"])
def test_an_error_outside_of_all_kinds_fails_the_run(quick: Daemon, where: str) -> None:
    run = ended(quick, "out_of_this_world", "failed", goal=where)
    assert "OutOfThisWorld" in run["error"]["message"]


async def cancels_itself(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    async def gives_up() -> None:
        raise asyncio.CancelledError

    if goal == "step":
        await ctx.step("gives up", gives_up)
    elif goal == "gather":
        await ctx.gather(gives_up(), ctx.step("fine", str))
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await pause(1)


@pytest.mark.parametrize("where", ["agent", "step", "gather"])
def test_code_that_cancels_itself_has_failed(quick: Daemon, where: str) -> None:
    run = ended(quick, "cancels_itself", "failed", goal=where)
    assert run["error"]["code"] == "error"
    assert ("'gives up'" in run["error"]["message"]) == (where == "step"), "a step that does so is a failed step"


# --- that does not take a hint ---------------------------------------------------------------------------------------


async def deaf_sleeper(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    """Swallows everything and asks again, for ever."""
    asks: dict[str, Callable[[], Any]] = {
        "sleep": lambda: ctx.sleep(60),
        "signal": lambda: ctx.wait_signal("never"),
        "step": lambda: ctx.step("more", forever),
        "emit": lambda: ctx.emit("x.more"),
        "gather": lambda: ctx.gather(ctx.sleep(60), ctx.sleep(60)),
    }
    while True:
        try:
            await asks[goal]()
        except BaseException:
            continue


@pytest.mark.parametrize("what", ["sleep", "signal", "step", "gather"])
def test_code_that_swallows_everything_blocks_nobody(quick: Daemon, what: str) -> None:
    run_id = quick.post_run("deaf_sleeper", goal=what)["id"]
    quick.wait_event(run_id, "run.started")
    for _ in range(20):
        began = time.monotonic()
        assert quick.client.get("/healthz").status_code == 200
        assert time.monotonic() - began < 2
    if what != "step":  # With a step under way it does not wait.
        quick.wait(run_id, "waiting")
    quick.stop_run(run_id, mode="kill")
    assert quick.wait(run_id, "cancelled")["abandoned"] == ("task" if what == "step" else None)


def deaf_thread(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    for _ in range(20_000):
        try:
            ctx.sleep(LONG)
            return
        except BaseException:
            if threading.Event().wait(0.001):
                return


def test_a_thread_that_swallows_everything_blocks_nobody(quick: Daemon) -> None:
    run_id = quick.post_run("deaf_thread")["id"]
    quick.wait_event(run_id, "run.started")
    quick.stop_run(run_id, mode="kill")
    assert quick.wait(run_id)["abandoned"] == "thread"

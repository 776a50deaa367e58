"""Plain `def` agents: the same names, blocking, in a thread."""

import threading
from pathlib import Path
from typing import Any

import pytest

from latticed.errors import Misuse, StepFailed
from tests.agents_for_tests import forever, pause
from tests.conftest import Daemon, wait_until
from tests.contract.test_steps import LONG, ended, left, lines


def plain_all(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    """Everything a context has."""

    async def coroutine(n: int) -> int:
        await pause(0.01)
        return n

    def line(index: int) -> Any:
        ctx.step("line", left, ctx, inputs, f"line {index}")
        ctx.sleep(LONG)
        return [index, ctx.step("second", lambda: ctx.step_key)]

    here = threading.get_ident()
    ctx.log("begins", level="info", field=1)
    found = {
        "thread": ctx.step("thread", threading.get_ident) == here,
        "coroutine": ctx.step("coroutine", coroutine, 5),
        "around": ctx.step("around", lambda: coroutine(6)),
        "timed": ctx.step("timed", lambda: ctx.step_key.endswith(":timed/0"), timeout_seconds=5),
        "who": [ctx.run_id, ctx.workspace, ctx.attempt, ctx.cancelled],
        "lines": ctx.gather(lambda: line(0), lambda: line(1)),
        "child": ctx.run("agent", "echo", "a goal", {"n": 1})["inputs"],
        "signal": ctx.wait_signal("go", None, 30),
    }
    ctx.check_cancelled()
    with ctx.shield(5):
        ctx.step("shielded", left, ctx, inputs, "shielded")
    ctx.progress(1, 2, "half")
    ctx.emit("x.own", n=1)
    return found


def test_a_plain_agent_has_the_same_names_and_they_block(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = quick.post_run("plain_all", inputs={"effects": str(effects)})["id"]
    quick.client.post(quick.path(f"runs/{run_id}/signals/go"), json={"data": "went"})
    run = quick.wait(run_id, "ok")
    out = run["output"]
    keys = [f"{run_id}/0.{index}/:second/0" for index in range(2)]
    assert out == {
        "coroutine": 5, "around": 6, "timed": True, "who": [run_id, "default", 1, False],
        "lines": [[0, keys[0]], [1, keys[1]]], "child": {"n": 1}, "signal": "went",
        "thread": out["thread"],  # Entered again, it is another thread than the one that was recorded.
    }  # fmt: skip
    assert run["epoch"] > 1
    assert sorted(lines(effects)) == ["line 0", "line 1", "shielded"]
    types = [event["type"] for event in quick.events(run_id)]
    assert [types.count(type) for type in ("log", "progress", "x.own", "child.finished")] == [1, 1, 1, 1]


def plain_thread(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    here = threading.get_ident()
    return [ctx.step("in it", threading.get_ident) == here, ctx.step("not", threading.get_ident, timeout_seconds=5)]


def plain_steps(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    return [
        ctx.step("quick", lambda: 1),
        ctx.step("timed", lambda: 2, timeout_seconds=20),
        *ctx.gather(*(lambda: ctx.step("line", lambda: 3) for _ in range(3))),
    ]


def test_plain_agents_that_hold_all_threads_still_take_their_steps(narrow: Daemon) -> None:
    runs = [narrow.post_run("plain_steps")["id"] for _ in range(8)]
    assert [narrow.wait(run_id)["output"] for run_id in runs] == [[1, 2, 3, 3, 3]] * 8
    assert narrow.run("plain_thread")["output"][0] is True, "a step runs in the thread that waits for it"


def plain_awaits(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    try:
        ctx.step("forever", forever)
    finally:
        with ctx.shield(5):
            ctx.step("cleanup", left, ctx, inputs, "cleaned")


def test_what_a_plain_agent_awaits_is_cancelled_and_it_can_clean_up(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = quick.post_run("plain_awaits", inputs={"effects": str(effects)})["id"]
    quick.wait_event(run_id, "step.started")
    quick.stop_run(run_id, mode="now")
    run = quick.wait(run_id, "cancelled")
    assert (run["abandoned"], lines(effects)) == (None, ["cleaned"])


def plain_gather_fails(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    """One line fails; the others, wherever they are, end with it."""

    def waits() -> None:
        ctx.step("waits", forever)

    def loops() -> None:
        try:
            while True:
                ctx.check_cancelled()
                threading.Event().wait(0.01)
        finally:
            left(ctx, inputs, "looped")

    def fails() -> None:
        threading.Event().wait(0.1)
        raise ValueError("this one")

    try:
        ctx.gather(waits, loops, fails)
    except ValueError as error:
        return str(error)
    return "no"


def test_a_plain_gather_ends_with_its_first_failure(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    assert ended(quick, "plain_gather_fails", inputs={"effects": str(effects)})["output"] == "this one"
    assert lines(effects) == ["looped"]


def plain_in_loop(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    """A coroutine function calls what blocks: in the event loop, which would wait for itself."""

    async def blocks() -> None:
        ctx.log("never")

    try:
        ctx.step("blocks", blocks)
    except StepFailed as failed:
        return failed.code
    return "no"


def plain_own_thread(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    """Calls the context from a thread that is none of the run's."""
    caught: list[str] = []

    def other() -> None:
        try:
            ctx.step("other", str)
        except Misuse as error:
            caught.append(error.message)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    return caught


@pytest.mark.parametrize(("target", "found"), [("plain_in_loop", "misuse"), ("plain_own_thread", None)])
def test_a_blocking_context_in_the_wrong_place_says_so(quick: Daemon, target: str, found: Any) -> None:
    output = ended(quick, target)["output"]
    assert output == found or "another thread" in output[0]


def plain_fails(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    try:
        ctx.step("fails", lambda: next(iter(())), retry={"attempts": 2, "backoff_seconds": 0})
    except StepFailed as failed:
        ctx.sleep(LONG)
        return [failed.code, failed.reason]
    return "no"


def test_a_plain_step_fails_as_any(quick: Daemon) -> None:
    run = ended(quick, "plain_fails")
    assert run["output"] == ["error", "RuntimeError: the function raised StopIteration"]
    assert len(quick.events(run["id"], "step.failed")) == 2


def plain_stuck(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    with ctx.shield(0.3):
        left(ctx, inputs, "stuck")
        threading.Event().wait(60)


def test_a_shield_in_a_thread_ends_with_its_time(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = quick.post_run("plain_stuck", inputs={"effects": str(effects)})["id"]
    wait_until(lambda: lines(effects))
    quick.stop_run(run_id, mode="now")
    assert quick.wait(run_id, "cancelled")["abandoned"] == "thread"

"""Code that does what it must not: its run ends with an error that says so, and nobody else notices."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest

from tests.agents_for_tests import pause
from tests.conftest import Daemon
from tests.contract.test_steps import ended

pytestmark = pytest.mark.usefixtures("unharmed")


def all_ended(one: Daemon, target: str, status: str, goals: Iterable[str], **inputs: Any) -> dict[str, dict[str, Any]]:
    """A run for each goal, all at once; each must have ended so."""
    begun = {goal: one.post_run(target, goal, inputs=inputs, max_retries=1)["id"] for goal in goals}
    runs = {goal: one.wait(run_id) for goal, run_id in begun.items()}
    for goal, run in runs.items():
        assert run["status"] == status, f"{goal}: {run['error']}"
    return runs


# --- what is not JSON ------------------------------------------------------------------------------------------------


class Colour(StrEnum):
    RED = "red"


@dataclass
class Point:
    x: int = 0


def loop() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


ODD: dict[str, Callable[[], Any]] = {
    "set": lambda: {1, 2},
    "object": object,
    "bytes": lambda: b"x",
    "nan": lambda: {"deep": [1.0, float("nan")]},
    "infinity": lambda: float("-inf"),
    "huge int": lambda: 2**64,
    "surrogate": lambda: "a\ud800b",
    "surrogate key": lambda: {"\udfff": 1},
    "int key": lambda: {1: 1},
    "endless": loop,
    "deep": lambda: nested(2000),
    "dataclass": Point,
    "function": lambda: print,
    "generator": lambda: (i for i in ()),
}


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


GOOD: dict[str, tuple[Callable[[], Any], Any]] = {
    "nothing": (lambda: None, None),
    "nul": (lambda: "a\0b", "a\0b"),
    "emoji": (lambda: {"👩‍👩‍👧": "🦊"}, {"👩‍👩‍👧": "🦊"}),
    "line separators": (lambda: "\u2028\u2029\r\n", "\u2028\u2029\r\n"),
    "largest int": (lambda: [2**64 - 1, -(2**63)], [2**64 - 1, -(2**63)]),
    "counter": (lambda: Counter("aab"), {"a": 2, "b": 1}),
    "default dict": (lambda: defaultdict(int, a=1), {"a": 1}),
    "tuple": (lambda: (1, (2,)), [1, [2]]),
    "enum": (lambda: Colour.RED, "red"),
    "null text": (lambda: ["null", None, 0.5], ["null", None, 0.5]),
    "time": (lambda: datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
    "nested": (lambda: nested(200), nested(200)),
}


async def returns_odd(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    make = ODD[goal] if goal in ODD else GOOD[goal][0]
    if inputs["where"] == "output":
        return make()
    if inputs["where"] == "event":
        return await ctx.emit("x.odd", value=make())
    return await ctx.step("odd", make, retry={"attempts": 3, "backoff_seconds": 0.01})


@pytest.mark.parametrize("where", ["output", "step", "event"])
def test_what_is_not_json_fails_the_run_and_says_so(quick: Daemon, where: str) -> None:
    for what, run in all_ended(quick, "returns_odd", "failed", ODD, where=where).items():
        assert run["error"]["code"] == "not_json", what
        assert "is not JSON" in run["error"]["message"]
        assert run["attempt"] == 1, "another attempt could do no better"
        assert len(quick.events(run["id"], "step.failed")) == (where == "step")


@pytest.mark.parametrize("where", ["output", "step"])
def test_what_is_json_is_kept_as_it_is(quick: Daemon, where: str) -> None:
    for what, run in all_ended(quick, "returns_odd", "ok", GOOD, where=where).items():
        assert run["output"] == GOOD[what][1], what


async def returns_much(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    much = "x" * inputs["bytes"]
    if goal == "step":
        return await ctx.step("much", lambda: much)
    if goal == "event":
        await ctx.emit("x.much", much=much)
    return much if goal == "output" else None


@pytest.mark.parametrize(("where", "limit"), [("output", 1 << 20), ("step", 1 << 20), ("event", 1 << 18)])
def test_what_is_too_large_fails_the_run_and_says_what_to_do(quick: Daemon, where: str, limit: int) -> None:
    ended(quick, "returns_much", goal=where, inputs={"bytes": limit - 32})
    for size in (limit, 2 << 20):
        run = ended(quick, "returns_much", "failed", goal=where, inputs={"bytes": size}, max_retries=1)
        assert (run["error"]["code"], run["attempt"]) == ("too_large", 1)
        assert "reference" in run["error"]["message"]


# --- events and names ------------------------------------------------------------------------------------------------


async def emits(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    await ctx.emit(inputs["type"], status="ok")


@pytest.mark.parametrize(
    "type",
    ["run.finished", "run.started", "step.finished", "cancel.escalated", "approval.answered", "usage", "", "x.",
     "x.a b", "x.\n", "X.own", "x." + "a" * 61, "log ", "end", "bye"],
)  # fmt: skip
def test_nobody_forges_an_event(quick: Daemon, type: str) -> None:
    run = ended(quick, "emits", "failed", inputs={"type": type})
    assert run["error"]["code"] == "misuse"
    assert [event["type"] for event in quick.events(run["id"])] == ["run.queued", "run.started", "run.finished"]


async def logs(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    await ctx.log(**inputs)


def test_a_log_line_has_its_own_shape(quick: Daemon) -> None:
    run = ended(quick, "logs", inputs={"message": "m\0 🦊", "self": 1, "type": "t", "level": "warning"})
    [said] = quick.events(run["id"], "log")
    assert said["data"] == {"message": "m\0 🦊", "level": "warning", "self": 1, "type": "t"}
    assert ended(quick, "logs", "failed", inputs={"message": "m", "level": "loud"})["error"]["code"] == "misuse"


async def names_step(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    name = {"nul": "a\0", "surrogate": "\ud800", "lines": "a\nb", "none": None, "empty": ""}.get(goal, goal)
    if inputs.get("signal"):
        return await ctx.wait_signal(name, timeout_seconds=0)
    return await ctx.step(name, lambda: ctx.step_key)


@pytest.mark.parametrize("name", ["nul", "surrogate", "lines", "none", "empty", "x" * 201])
def test_a_step_needs_a_decent_name(quick: Daemon, name: str) -> None:
    for inputs in ({}, {"signal": True}):
        assert ended(quick, "names_step", "failed", goal=name, inputs=inputs)["error"]["code"] == "misuse"


@pytest.mark.parametrize("name", ["🦊", "é ü", "../../etc", "'; DROP TABLE steps; --", "x" * 200, "漢字"])
def test_a_step_may_have_any_decent_name(quick: Daemon, name: str) -> None:
    run = ended(quick, "names_step", goal=name)
    assert run["output"] == f"{run['id']}/:{name}/0"
    assert quick.steps(run["id"])[0]["name"] == name


# --- at once, inside each other, in another way ----------------------------------------------------------------------


async def at_once(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    one = lambda: ctx.step("one", pause, 0.05)  # a new coroutine each time
    two = lambda: ctx.step("two", pause, 0.05)

    async def inside() -> Any:
        return await ctx.step("inner", str)

    async def gathers() -> Any:
        return await ctx.gather(one(), two())

    async def sleeps() -> Any:
        await ctx.sleep(0.01)

    if goal == "gather":
        return await asyncio.gather(one(), two())
    if goal == "group":
        async with asyncio.TaskGroup() as group:
            group.create_task(one())
            group.create_task(two())
    if goal == "task":
        task = asyncio.create_task(one())
        await pause(0.01)
        try:
            return await two()
        finally:
            task.cancel()
    if goal == "beside a gather":
        return await asyncio.gather(gathers(), sleeps())
    if goal == "gather beside":
        return await asyncio.gather(one(), gathers())
    if goal == "tasks of its own":
        return await ctx.gather(asyncio.create_task(one()), asyncio.create_task(two()))
    kinds = {"nested": inside, "nested gather": gathers, "nested sleep": sleeps}
    return await ctx.step("outer", kinds[goal])


@pytest.mark.parametrize("how", ["gather", "group", "task", "beside a gather", "gather beside", "tasks of its own"])
def test_two_at_once_in_one_branch_are_told_to_use_gather(quick: Daemon, how: str) -> None:
    run = ended(quick, "at_once", "failed", goal=how)
    assert run["error"]["code"] == "misuse"
    assert "ctx.gather" in run["error"]["message"]
    assert "under way" in run["error"]["message"]


@pytest.mark.parametrize("how", ["nested", "nested gather", "nested sleep"])
def test_a_step_cannot_ask_for_others(quick: Daemon, how: str) -> None:
    run = ended(quick, "at_once", "failed", goal=how)
    assert run["error"]["code"] == "misuse"
    assert "'outer'" in run["error"]["message"]


async def called(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    if goal == "key":
        return ctx.step_key
    if goal == "call":
        return await ctx.step("called", pause(0))
    if goal == "retry":
        return await ctx.step("retry", str, retry=inputs["retry"])
    if goal == "forgotten":
        ctx.step("never awaited", str).close()
    return "fine"


@pytest.mark.parametrize(
    ("goal", "retry"),
    [("key", None), ("call", None), ("retry", {"attempts": 0}), ("retry", {"tries": 3}), ("retry", {"attempts": "x"}),
     ("retry", {"backoff_seconds": -1})],
)  # fmt: skip
def test_a_context_that_is_used_wrongly_says_so(quick: Daemon, goal: str, retry: Any) -> None:
    run = ended(quick, "called", "failed", goal=goal, inputs={"retry": retry}, max_retries=1)
    assert (run["error"]["code"], run["attempt"]) == ("misuse", 1)


Call = Callable[[Any], Any]
WRONG: dict[str, tuple[Call, str]] = {
    "until": (lambda ctx: ctx.sleep_until("text"), "a datetime"),
    "until when": (lambda ctx: ctx.sleep_until(datetime(2030, 1, 1)), "an offset"),  # noqa: DTZ001  # that is it
    "emit": (lambda ctx: ctx.emit(None), "may emit log"),
    "emit list": (lambda ctx: ctx.emit(["log"]), "may emit log"),
    "timeout": (lambda ctx: ctx.step("s", str, timeout_seconds="a"), "a number of seconds"),
    "short timeout": (lambda ctx: ctx.step("s", str, timeout=-1), "a number of seconds"),
    "done": (lambda ctx: ctx.progress("a"), "numbers"),
    "total": (lambda ctx: ctx.progress(1, "a"), "numbers"),
    "message": (lambda ctx: ctx.progress(1, 2, None), "a text"),
}


async def wrong(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    await WRONG[goal][0](ctx)


def plain_wrong(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    WRONG[goal][0](ctx)


async def wrong_shield(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    async with ctx.shield("a"):
        pass


def plain_wrong_shield(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    with ctx.shield("a"):
        pass


@pytest.mark.parametrize("sort", ["", "plain_"])
def test_a_call_with_the_wrong_kind_of_value_is_told_what_is_wanted(quick: Daemon, sort: str) -> None:
    for goal, (_, wanted) in WRONG.items():
        error = ended(quick, f"{sort}wrong", "failed", goal=goal, max_retries=1)["error"]
        assert (error["code"], wanted in error["message"]) == ("misuse", True), error
    error = ended(quick, f"{sort}wrong_shield", "failed")["error"]
    assert (error["code"], "a number of seconds" in error["message"]) == ("misuse", True), error


async def hurried_step(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    await ctx.step("slow", pause, 60, timeout=0.01)


def test_a_steps_timeout_has_a_shorter_name(quick: Daemon) -> None:
    assert ended(quick, "hurried_step", "failed")["error"]["code"] == "timeout"

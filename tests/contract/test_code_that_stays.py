"""Code that does not leave when it is to wait: its run waits without it, and what it does then is done for nobody."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agents_for_tests import forever, pause
from tests.beside import agents_in
from tests.conftest import Daemon, wait_until
from tests.contract.test_steps import left, lines
from tests.timeline import begun, rungs, well_ended

GRACE = KILL = 0.3


def configuration(**runs: float) -> dict[str, Any]:
    """Quick to lose its patience; `runs` are changes to that table."""
    hasty = {"grace_seconds": GRACE, "kill_seconds": KILL, "park_seconds": 0.05, "drain_seconds": 0.1}
    return {"runs": hasty | runs, "queues": {"narrow": {"concurrency": 1}}, "agents": agents_in(__name__)}


@pytest.fixture(scope="module")
def brisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    one = Daemon(tmp_path_factory.mktemp("brisk"), config=configuration())
    try:
        yield one.start()
        assert not [line for line in one.log_lines if line["event"] == "executor_failed"]
    finally:
        one.close()


def figure(one: Daemon, name: str) -> float:
    """A figure of /metrics."""
    found = [line for line in one.client.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(found[0].split()[1])


def given_up(one: Daemon) -> float:
    return figure(one, 'latticed_abandoned{what="run"}')


def told(one: Daemon, run_id: str, type: str) -> list[Any]:
    """What the events of this type say about code that was left behind."""
    return [event["data"].get("abandoned") for event in one.events(run_id, type)]


def waits_for(what: str) -> dict[str, Any]:
    return {"sleep": {"seconds": 2.0}, "signal": {"signal": "go"}, "ask": {"ask": "well?"}}[what]


def wait_in(ctx: Any, inputs: dict[str, Any]) -> Any:
    if "seconds" in inputs:
        return ctx.sleep(inputs["seconds"])
    return ctx.wait_signal(inputs["signal"]) if "signal" in inputs else ctx.ask(inputs["ask"])


async def clings(ctx: Any, goal: str, inputs: dict[str, Any]) -> str:
    """Swallows whatever its wait raises and asks again, until it has passed."""
    while True:
        try:
            await wait_in(ctx, inputs)
        except BaseException:
            continue
        return str(await ctx.step("after", left, ctx, inputs, "passed"))


def thread_clings(ctx: Any, goal: str, inputs: dict[str, Any]) -> str:
    while True:
        try:
            wait_in(ctx, inputs)
        except BaseException:
            continue
        return str(ctx.step("after", left, ctx, inputs, "passed"))


@pytest.mark.parametrize("target", ["clings", "thread_clings"])
@pytest.mark.parametrize("what", ["sleep", "signal", "ask"])
def test_a_run_whose_code_stays_waits_without_it(brisk: Daemon, target: str, what: str, tmp_path: Path) -> None:
    effects, before = tmp_path / "effects", given_up(brisk)
    run_id = begun(brisk, target, waits_for(what) | {"effects": str(effects)}, queue="narrow")
    status, type = ("awaiting_approval", "run.awaiting_approval") if what == "ask" else ("waiting", "run.waiting")
    asleep = brisk.wait(run_id, status)
    assert (asleep["owner"], asleep["abandoned"]) == (None, None), "its code is left behind, the run is not"
    assert told(brisk, run_id, type) == ["thread" if target == "thread_clings" else "task"]
    assert brisk.run("echo", queue="narrow")["status"] == "ok", "it holds no slot"
    assert given_up(brisk) == before + 1
    assert run_id in {line.get("run") for line in brisk.log_lines if line["event"] == "abandoned"}
    if what == "signal":
        brisk.client.post(brisk.path(f"runs/{run_id}/signals/go"), json={})
    elif what == "ask":
        [approval_id] = asleep["pause"]["approval_ids"]
        brisk.client.post(brisk.path(f"approvals/{approval_id}"), json={"decision": "approve"})
    run = well_ended(brisk, run_id, "ok")
    assert (run["output"], run["epoch"], run["abandoned"]) == ("passed", 2, None)
    assert lines(effects) == ["passed"]
    assert [(step["kind"], step["status"]) for step in brisk.steps(run_id)] == [(what, "ok"), ("step", "ok")]


async def slips_back(ctx: Any, goal: str, inputs: dict[str, Any]) -> str:
    """When it is first unwound, goes on as soon as the effects say so, with whatever may be written."""
    first = not lines(Path(inputs["effects"]))
    try:
        await ctx.wait_signal("go")
    except BaseException:
        left(ctx, inputs, "stays")
        while first and "loose" not in lines(Path(inputs["effects"])):
            try:
                await pause(0.02)
            except asyncio.CancelledError:
                continue
        for attempt in (
            lambda: ctx.step("after", str), lambda: ctx.sleep(0), lambda: ctx.run("agent", "echo"),
            lambda: ctx.emit("x.stray"), lambda: ctx.ask("stray?"), lambda: ctx.wait_signal("more"),
            lambda: ctx.gather(ctx.step("line", str)),
        ):  # fmt: skip
            try:
                await attempt()
            except BaseException as error:
                left(ctx, inputs, type(error).__name__)
        return "stray"
    await ctx.step("long", forever)
    return "never"


def thread_slips_back(ctx: Any, goal: str, inputs: dict[str, Any]) -> str:
    first, turn = not lines(Path(inputs["effects"])), threading.Event()
    try:
        ctx.wait_signal("go")
    except BaseException:
        left(ctx, inputs, "stays")
        while first and "loose" not in lines(Path(inputs["effects"])):
            turn.wait(0.02)
        for attempt in (
            lambda: ctx.step("after", str), lambda: ctx.sleep(0), lambda: ctx.run("agent", "echo"),
            lambda: ctx.emit("x.stray"), lambda: ctx.ask("stray?"), lambda: ctx.wait_signal("more"),
            lambda: ctx.gather(lambda: ctx.step("line", str)),
        ):  # fmt: skip
            try:
                attempt()
            except BaseException as error:
                left(ctx, inputs, type(error).__name__)
        return "stray"
    ctx.step("long", forever)
    return "never"


@pytest.mark.parametrize("target", ["slips_back", "thread_slips_back"])
@pytest.mark.parametrize("when", ["while it waits", "while it runs again"])
def test_what_is_left_behind_writes_nothing(brisk: Daemon, target: str, when: str, tmp_path: Path) -> None:
    effects, before = tmp_path / "effects", given_up(brisk)
    run_id = begun(brisk, target, {"effects": str(effects)})
    brisk.wait(run_id, "waiting")
    if when == "while it runs again":
        brisk.client.post(brisk.path(f"runs/{run_id}/signals/go"), json={})
        brisk.wait_event(run_id, "step.started")
    kept = brisk.events(run_id), brisk.steps(run_id)
    left_behind = brisk.get(run_id)
    with effects.open("a") as file:
        file.write("- loose\n")
    wait_until(lambda: given_up(brisk) == before)
    assert lines(effects)[2:] == ["Suspended"] * 7
    assert (brisk.events(run_id), brisk.steps(run_id)) == kept
    assert brisk.get(run_id) == left_behind
    brisk.stop_run(run_id, mode="now")
    well_ended(brisk, run_id)
    assert figure(brisk, "latticed_slots_taken") == 0, "a slot is given back once"


async def deaf(ctx: Any, goal: str, inputs: dict[str, Any]) -> str:
    """When it is first unwound, does not notice anything any more."""
    first = not lines(Path(inputs["effects"]))
    while True:
        try:
            if first and lines(Path(inputs["effects"])):
                await forever()
            return str(await ctx.wait_signal("go"))
        except BaseException:
            left(ctx, inputs, "stays")


@pytest.mark.parametrize("recovery", ["resume", "requeue", "interrupt"])
def test_what_comes_before_it_is_given_up_is_not_missed(brisk: Daemon, recovery: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = begun(brisk, "deaf", {"effects": str(effects)}, recovery=recovery)
    wait_until(lambda: lines(effects))
    brisk.client.post(brisk.path(f"runs/{run_id}/signals/go"), json={"data": 7})
    run = well_ended(brisk, run_id, "ok")
    assert (run["output"], run["epoch"], run["recoveries"]) == ("7", 2, 0)
    [released] = brisk.events(run_id, "run.released")
    assert released["data"] == {"reason": "abandoned", "abandoned": "task"}


def test_a_stop_or_a_deadline_finds_code_that_stays(brisk: Daemon, tmp_path: Path) -> None:
    effects = {name: tmp_path / name for name in ("stopped", "killed", "late")}
    inputs = {name: {"effects": str(path)} for name, path in effects.items()}
    stopped, killed = begun(brisk, "deaf", inputs["stopped"]), begun(brisk, "deaf", inputs["killed"])
    late = begun(brisk, "deaf", inputs["late"], deadline_seconds=0.2)
    wait_until(lambda: all(map(lines, effects.values())))
    brisk.stop_run(stopped)
    brisk.stop_run(killed, mode="kill")
    for run_id, status in ((stopped, "cancelled"), (killed, "cancelled"), (late, "failed")):
        run = brisk.wait(run_id, status)
        assert (run["abandoned"], rungs(brisk, run_id)) == ("task", [1, 2, 3])
        assert brisk.events(run_id, "run.waiting") == []


async def tidies(ctx: Any, goal: str, inputs: dict[str, Any]) -> str:
    """Needs its time to leave; under a shield, if it is given the seconds of one."""
    try:
        await ctx.sleep(1.5)
    except BaseException:
        try:
            if "shield" in inputs:
                async with ctx.shield(inputs["shield"]):
                    await pause(GRACE * 2)
            else:
                await forever()
            left(ctx, inputs, "tidied")
        except asyncio.CancelledError:
            left(ctx, inputs, "cut short")
            raise
        raise
    return "slept"


def test_code_that_is_slow_to_leave_is_cancelled_but_not_under_a_shield(brisk: Daemon, tmp_path: Path) -> None:
    for inputs, expected in (({}, "cut short"), ({"shield": 5}, "tidied")):
        effects = tmp_path / expected
        run_id = begun(brisk, "tidies", inputs | {"effects": str(effects)})
        assert well_ended(brisk, run_id, "ok")["output"] == "slept"
        assert lines(effects) == [expected]
        assert told(brisk, run_id, "run.waiting") == [None]


async def cancelled_and_entered_again(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    """Swallows its cancellation and leaves; entered again at once, has a step that cancels itself."""
    first = not lines(Path(inputs["effects"]))

    async def gives_up() -> None:
        raise asyncio.CancelledError

    try:
        await ctx.wait_signal("go")
    except BaseException:
        left(ctx, inputs, "stays")
        try:
            await forever()
        except asyncio.CancelledError:
            left(ctx, inputs, "cancelled")
        return
    assert not first
    await ctx.step("gives up", gives_up)


def test_code_that_was_made_to_leave_is_entered_again_as_if_nothing_had_been(brisk: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = begun(brisk, "cancelled_and_entered_again", {"effects": str(effects)})
    wait_until(lambda: lines(effects))
    brisk.client.post(brisk.path(f"runs/{run_id}/signals/go"), json={})
    run = well_ended(brisk, run_id, "failed")
    assert (run["epoch"], "'gives up'" in run["error"]["message"]) == (1, True), run["error"]
    assert lines(effects) == ["stays", "cancelled"]


async def never_learns(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    """Goes from one sleep to the next and swallows what they raise."""
    while True:
        try:
            await ctx.sleep(0.5)
        except BaseException:
            left(ctx, inputs, "stays")


def test_a_run_leaves_three_pieces_of_code_behind_and_no_more(brisk: Daemon) -> None:
    run_id = begun(brisk, "never_learns")
    run = well_ended(brisk, run_id, "failed")
    assert (run["error"]["code"], run["epoch"], run["abandoned"]) == ("misuse", 4, "task")
    assert "Suspended" in run["error"]["message"]
    assert told(brisk, run_id, "run.waiting") == ["task"] * 3


def test_a_drain_lets_a_run_wait_whose_code_stays(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    one = daemon(config=configuration(grace_seconds=600.0))
    run_id = begun(one, "deaf", {"effects": str(effects)}, recovery="interrupt")
    wait_until(lambda: lines(effects))
    assert one.stop() == 0
    one.start()
    assert (one.get(run_id)["status"], told(one, run_id, "run.waiting")) == ("waiting", ["task"])
    one.client.post(one.path(f"runs/{run_id}/signals/go"), json={"data": 7})
    assert well_ended(one, run_id, "ok")["output"] == "7"


async def line_clings(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    """Lines that say something before and after they wait, and return when they are unwound."""

    async def line() -> None:
        await ctx.emit("x.before")
        try:
            await ctx.gather(ctx.sleep(0.5))
        except BaseException:
            return
        await ctx.emit("x.after")

    await ctx.gather(line(), ctx.gather(line()))


def test_a_line_that_swallows_its_unwinding_has_not_ended(brisk: Daemon) -> None:
    run_id = begun(brisk, "line_clings")
    well_ended(brisk, run_id, "ok")
    said = [event["type"] for event in brisk.events(run_id, "x.before", "x.after")]
    assert said == ["x.before", "x.before", "x.after", "x.after"]

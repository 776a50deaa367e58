"""Signals: kept until they are asked for, taken once and in order, and never missed, whenever they come."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from latticed.errors import RunError, SignalTimeout
from tests.agents_for_tests import pause
from tests.conftest import Daemon, wait_until
from tests.contract.conftest import PARK
from tests.contract.test_steps import LONG, ended, left, lines
from tests.contract.test_waits import moves


def send(one: Daemon, run_id: str, name: str = "go", data: Any = None) -> Any:
    return one.client.post(one.path(f"runs/{run_id}/signals/{name}"), json={"data": data})


async def listener(ctx: Any, goal: str, inputs: dict[str, Any]) -> list[Any]:
    """Waits for `n` signals (1) named go, each after a step if there is time for one."""
    heard = []
    for _ in range(inputs.get("n", 1)):
        heard.append(await ctx.wait_signal("go"))
        await ctx.step("heard", left, ctx, inputs, str(heard[-1]))
    return heard


def test_signals_are_kept_and_come_in_order(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = quick.post_run("naps_first", inputs={"n": 5, "effects": str(effects)})["id"]
    for number in range(5):
        answer = send(quick, run_id, "go", {"number": number})
        assert answer.status_code == 202
        send(quick, run_id, "other", "not this")
    run = quick.wait(run_id, "ok")
    assert [data["number"] for data in run["output"]] == list(range(5))
    kinds = [(step["kind"], step["status"]) for step in quick.steps(run_id)]
    assert kinds == [("sleep", "ok")] + [("signal", "ok")] * 5


async def naps_first(ctx: Any, goal: str, inputs: dict[str, Any]) -> list[Any]:
    await ctx.sleep(LONG)
    return [await ctx.wait_signal("go") for _ in range(inputs["n"])]


async def takes_and_works(ctx: Any, goal: str, inputs: dict[str, Any]) -> list[Any]:
    heard = [await ctx.wait_signal("go"), await ctx.wait_signal("go")]
    left(ctx, inputs, "heard")
    await ctx.step("works", pause, 0 if len(lines(Path(inputs["effects"]))) > 1 else 60)
    return heard


def test_a_run_that_begins_anew_gets_its_signals_again(doomed: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    asked = {"inputs": {"effects": str(effects)}, "recovery": "requeue"}
    run_id = doomed.post_run("takes_and_works", **asked)["id"]
    for number in (1, 2):
        send(doomed, run_id, "go", number)
    wait_until(lambda: lines(effects) == ["heard"])
    send(doomed, run_id, "go", 3)
    doomed.kill()
    doomed.start()
    assert doomed.wait(run_id, "ok")["output"] == [1, 2]
    assert lines(effects) == ["heard", "heard"]
    assert [event["data"]["policy"] for event in doomed.events(run_id, "run.recovered")] == ["requeue"]


def test_a_run_that_waits_for_a_signal_is_unwound_and_woken(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = quick.post_run("listener", inputs={"n": 2, "effects": str(effects)})["id"]
    for number in range(2):
        waiting = wait_until(lambda: r if (r := quick.get(run_id))["status"] == "waiting" else None)
        assert (waiting["pause"]["facts"], waiting["owner"]) == (["signal:go"], None)
        why = quick.get(run_id, "why")
        assert (why["code"], why["waits_for"]) == ("signal", ["signal:go"])
        send(quick, run_id, "other")
        assert quick.get(run_id)["status"] == "waiting", "another one wakes nobody"
        send(quick, run_id, "go", number)
        wait_until(lambda number=number: len(lines(effects)) == number + 1)
    assert quick.wait(run_id, "ok")["output"] == [0, 1]
    assert lines(effects) == ["0", "1"], "each was taken once"
    assert [event["data"]["by"] for event in quick.events(run_id, "run.woken")] == ["signal:go"] * 2


def test_a_signal_that_comes_soon_finds_the_run_in_place(live: Daemon) -> None:
    run_id = live.post_run("signaller", inputs={"n": 3})["id"]
    for number in range(3):
        wait_until(lambda number=number: [s["status"] for s in live.steps(run_id)] == ["ok"] * number + ["waiting"])
        send(live, run_id, "go", number)
    assert live.wait(run_id, "ok")["output"] == [0, 1, 2]
    assert moves(live, run_id) == []


def test_a_signal_is_not_missed_at_whatever_moment_it_comes(quick: Daemon) -> None:
    """From before the first look until after the run is unwound, some at each moment."""
    count, gap = 40, Event()

    def signalled(number: int) -> str:
        run_id: str = quick.post_run("listener", inputs={"n": 2})["id"]
        for turn in range(2):
            gap.wait(PARK * 1.6 * number / count)
            assert send(quick, run_id, "go", [number, turn]).status_code == 202
        return run_id

    assert quick.client
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(signalled, range(count)))
    for number, run_id in enumerate(runs):
        assert quick.wait(run_id)["output"] == [[number, 0], [number, 1]]


async def two_lines(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    async def line(name: str) -> Any:
        heard = await ctx.wait_signal(name)
        await ctx.step("heard", left, ctx, inputs, f"{name} {heard}")
        return heard

    return await ctx.gather(line("go"), line("go"), line("stop"))


def test_lines_that_wait_for_one_name_get_one_each(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = quick.post_run("two_lines", inputs={"effects": str(effects)})["id"]
    quick.wait(run_id, "waiting")
    for number in (1, 2):
        send(quick, run_id, "go", number)
    wait_until(lambda: len(lines(effects)) == 2)
    assert wait_until(lambda: (quick.get(run_id)["pause"] or {}).get("facts")) == ["signal:stop"]
    send(quick, run_id, "stop", 3)
    run = quick.wait(run_id, "ok")
    assert sorted(run["output"]) == [1, 2, 3]
    assert len(lines(effects)) == 3


async def hurried(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    """Waits `seconds` for a signal, and tells how that went, after a sleep."""
    try:
        heard = await ctx.wait_signal("go", timeout_seconds=inputs["seconds"])
    except SignalTimeout as timeout:
        heard = timeout.code
    await ctx.step("then", left, ctx, inputs, str(heard))
    await ctx.sleep(LONG)
    return heard


@pytest.mark.parametrize("seconds", [0, PARK / 3, LONG])
def test_a_signal_that_does_not_come_in_time_times_out_once(quick: Daemon, tmp_path: Path, seconds: float) -> None:
    effects = tmp_path / "effects"
    run_id = quick.post_run("hurried", inputs={"seconds": seconds, "effects": str(effects)})["id"]
    wait_until(lambda: lines(effects))
    send(quick, run_id, "go", "too late")
    assert quick.wait(run_id, "ok")["output"] == "signal_timeout"
    assert lines(effects) == ["signal_timeout"]
    signal = quick.steps(run_id)[0]
    assert (signal["kind"], signal["status"], signal["error"]["code"]) == ("signal", "failed", "signal_timeout")


def test_a_signal_in_time_beats_its_timeout(quick: Daemon, tmp_path: Path) -> None:
    run_id = quick.post_run("hurried", inputs={"seconds": 30})["id"]
    assert quick.wait(run_id, "waiting")["pause"]["wake_at"] is not None
    send(quick, run_id, "go", "in time")
    assert quick.wait(run_id, "ok")["output"] == "in time"


def test_an_uncaught_timeout_fails_the_run(quick: Daemon) -> None:
    run = ended(quick, "signaller", "failed", inputs={"timeout_seconds": 0.05})
    assert run["error"]["code"] == "signal_timeout"


@pytest.mark.parametrize("seconds", [-1, "soon"])
def test_a_timeout_that_is_none_is_misuse(quick: Daemon, seconds: Any) -> None:
    assert ended(quick, "hurried", "failed", inputs={"seconds": seconds})["error"]["code"] == "misuse"


async def choosy(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    """Waits until the data fits."""
    refused = []
    while True:
        try:
            return [refused, await ctx.wait_signal("go", {"type": "integer", "minimum": 3})]
        except RunError as error:
            refused.append(error.code)


def test_data_that_does_not_fit_is_told_to_the_code(quick: Daemon) -> None:
    run_id = quick.post_run("choosy")["id"]
    for data in ("x", 2, {"a": 1}, 3):
        send(quick, run_id, "go", data)
    assert quick.wait(run_id, "ok")["output"] == [["invalid_signal"] * 3, 3]


def test_a_schema_that_is_none_is_misuse(quick: Daemon) -> None:
    run = ended(quick, "signaller", "failed", inputs={"schema": {"type": "nonsense"}})
    assert run["error"]["code"] == "misuse"


@pytest.mark.parametrize("name", ["a/b", "..", ".", "", "a\nb", "x" * 201])
def test_a_signal_that_nobody_could_send_is_not_waited_for(quick: Daemon, name: str) -> None:
    assert ended(quick, "signaller", "failed", inputs={"signal": name})["error"]["code"] == "misuse"


def test_a_run_that_is_over_takes_no_signals(quick: Daemon) -> None:
    run = quick.run("echo")
    answer = send(quick, run["id"])
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")

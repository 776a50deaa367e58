"""A hook's time begins with its turn; and one that does not end, whatever is done to it, keeps nobody from anything."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latticed.hooks.functions import MOST_LOST, THREADS
from tests.conftest import Daemon, wait_until
from tests.hooks_for_tests import configuration, python
from tests.timeline import lines, well_ended

Make = Callable[..., Daemon]


def deliveries(one: Daemon, hook: str) -> list[dict[str, Any]]:
    answer = one.client.get(one.path("hooks/deliveries"), params={"hook": hook, "limit": 500})
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def abandoned(one: Daemon) -> float:
    """The calls of hooks that were given up and have not come back."""
    [line] = [line for line in one.client.get("/metrics").text.splitlines() if line.startswith(FIGURE)]
    return float(line.removeprefix(FIGURE))


FIGURE = 'latticed_abandoned{what="hook"} '


def test_waiting_for_a_thread_takes_nothing_of_a_hooks_time(daemon: Make, tmp_path: Path) -> None:
    effects, release = tmp_path / "effects", tmp_path / "release"
    hooks = {
        "holds": python("hold", "holds", timeout_seconds=60.0),
        "quick": python("note", "quick", timeout_seconds=0.3),
        "clock": python("hang", "clock", timeout_seconds=0.4),
    }
    one = daemon(config=configuration(hooks))
    inputs = {"effects": str(effects), "release": str(release)}
    holding = [one.post_run("holds", inputs=inputs)["id"] for _ in range(THREADS)]
    wait_until(lambda: len(lines(effects)) == THREADS)
    waiting = one.post_run("quick")["id"]
    assert one.run("clock")["status"] == "rejected"  # Longer than the other may take has gone by.
    assert one.get(waiting)["status"] == "running"
    release.touch()
    for run_id in (waiting, *holding):
        one.wait(run_id, "ok")


def test_a_function_that_does_not_come_back_holds_up_no_other(daemon: Make, tmp_path: Path) -> None:
    release = tmp_path / "release"
    hooks = {
        "holds": python("hold", "told", point="post_run", timeout_seconds=0.1),
        "quick": python("note", "quick", timeout_seconds=5.0),
    }
    one = daemon(config=configuration(hooks))
    for _ in range(THREADS + 8):
        one.run("told", inputs={"release": str(release)})
    said = wait_until(lambda: all(each["detail"] for each in deliveries(one, "holds")) and deliveries(one, "holds"))
    details = [each["detail"] for each in said]
    lost = details.count("no answer within 0.1 s")
    assert MOST_LOST <= lost == abandoned(one) < THREADS
    assert f"{lost} calls of it have not come back" in details
    assert one.run("quick")["status"] == "ok"
    release.touch()
    wait_until(lambda: abandoned(one) == 0)
    one.run("told", inputs={"release": str(release)})
    wait_until(lambda: deliveries(one, "holds")[0]["status"] == "ok")


@pytest.mark.parametrize("mode", ["graceful", "now", "kill"])
def test_a_cancel_does_not_wait_for_a_hook_that_swallows_it(daemon: Make, mode: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    hooks = {"deaf": python("stubborn", "deaf", timeout_seconds=60.0)}
    one = daemon(config=configuration(hooks, runs={"grace_seconds": 60.0}))
    run_id = one.post_run("deaf", inputs={"effects": str(effects)})["id"]
    wait_until(lambda: lines(effects))
    began = time.monotonic()
    one.stop_run(run_id, mode=mode)
    well_ended(one, run_id)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("point", ["pre_run", "post_run"])
def test_a_drain_does_not_wait_for_a_hook_that_swallows_its_end(daemon: Make, point: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    one = daemon(config=configuration({"deaf": python("stubborn", "deaf", point=point, timeout_seconds=60.0)}))
    run_id = one.post_run("deaf", inputs={"effects": str(effects)})["id"]
    wait_until(lambda: f"{run_id} hangs" in effects.read_text() if effects.exists() else False)
    assert one.stop(timeout=2 + 1 + 5) == 0
    one.configure(configuration({"deaf": python("note", "deaf", point=point)}))
    one.start()
    one.wait(run_id, "ok")
    wait_until(lambda: "ok" in [each["status"] for each in deliveries(one, "deaf")])

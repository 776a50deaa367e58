"""SIGKILL, and what the next start makes of every run."""

import os
import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from latticed import Context
from tests.conftest import TERMINAL, Daemon, wait_until
from tests.timeline import begun, children, lines, processes, well_ended

Make = Callable[..., Daemon]
COMMAND = "echo up; trap '' INT TERM; while :; do sleep 0.05; done"


def hanging(one: Daemon, target: str = "work_then_hang", effects: Path | None = None, **fields: Any) -> str:
    """A run with one step recorded and one under way."""
    run_id = begun(one, target, {} if effects is None else {"effects": str(effects)}, **fields)
    wait_until(lambda: len(one.events(run_id, "step.started")) == 2)
    return run_id


def test_every_run_is_dealt_with_as_its_state_and_policy_say(daemon: Make, tmp_path: Path) -> None:
    effects = {policy: tmp_path / policy for policy in ("resume", "requeue", "interrupt")}
    careless = {"use": "function", "function": "agents_for_tests:work_then_hang", "recovery": "interrupt"}
    one = daemon(config={"runs": {"park_seconds": 0.1, "grace_seconds": 60.0}, "agents": {"careless": careless}})
    owned = {policy: hanging(one, effects=effects[policy], recovery=policy) for policy in effects}
    by_default = hanging(one, "careless")
    overruled = hanging(one, "careless", recovery="resume")
    once = begun(one, "careful")
    one.wait_event(once, "step.started")
    caught = begun(one, "careful", {"catch": True})
    one.wait_event(caught, "step.started")
    parent = begun(one, "half_parent", recovery="requeue")
    [child] = wait_until(lambda: children(one, parent))
    one.wait_event(parent, "step.started")
    stopped = begun(one, "thread_never")
    one.stop_run(stopped, reason="before the crash")
    asleep = {
        "queued": one.post_run("echo", run_at="2999-01-01T00:00:00Z")["id"],
        "waiting": begun(one, "long_wait", {"what": "sleep"}),
        "awaiting_approval": begun(one, "asker"),
        "retrying": begun(one, "failer", {"failures": 1}, max_retries=1),
    }
    for status, run_id in asleep.items():
        one.wait(run_id, status)
    before = {run_id: one.events(run_id) for run_id in asleep.values()}
    done = one.run("echo")
    overdue = [begun(one, "awaiter", deadline_seconds=0.7), begun(one, "asker", deadline_seconds=0.7)]

    assert one.kill() == -9
    over = datetime.now(UTC) + timedelta(seconds=0.7)
    wait_until(lambda: datetime.now(UTC) > over)
    one.start()

    for policy in ("resume", "requeue"):
        run_id = owned[policy]
        wait_until(lambda run_id=run_id: one.events(run_id, "step.started")[2:])
        run = one.wait(run_id, "running")
        assert (run["epoch"], run["recoveries"] <= 1, run["attempt"]) == (2, True, 1)
        [recovered] = one.events(run_id, "run.recovered")
        assert recovered["data"] == {"policy": policy, "from_epoch": 1}
        kinds = [event["type"] for event in one.events(run_id)]
        assert kinds.index("run.recovered") == kinds.index("run.started", 3) - 1
        assert one.events(run_id, "run.started")[1]["data"]["epoch"] == 2
    assert lines(effects["resume"]) == ["work"], "what is recorded does not run again"
    assert one.get(owned["resume"])["recoveries"] == 1
    wait_until(lambda: lines(effects["requeue"]) == ["work", "work"])

    for run_id in (owned["interrupt"], by_default):
        run = well_ended(one, run_id, "interrupted")
        assert (run["error"]["code"], run["epoch"]) == ("interrupted", 1)
    assert lines(effects["interrupt"]) == ["work"]
    assert one.wait(overruled, "running")["epoch"] == 2

    assert well_ended(one, once, "interrupted")["error"]["code"] == "step_interrupted"
    assert well_ended(one, caught, "ok")["output"] == "interrupted"

    run = well_ended(one, stopped)
    assert (run["cancel"]["reason"], run["epoch"], run["recoveries"]) == ("before the crash", 1, 0)
    assert one.wait(child["id"])["cancel"]["reason"] == "its parent begins anew"
    wait_until(lambda: len(children(one, parent)) == 2)

    for status, run_id in asleep.items():
        if status != "retrying":
            assert one.get(run_id)["status"] == status
            assert one.events(run_id) == before[run_id]
    assert one.wait(asleep["retrying"], "retried_ok")["attempt"] == 2
    assert one.get(done["id"]) == done
    for run_id in overdue:
        run = well_ended(one, run_id, "failed")
        assert (run["error"]["code"], run["epoch"]) == ("deadline_exceeded", 1)


def test_a_newly_recorded_step_ends_the_count_of_crashes(daemon: Make) -> None:
    one = daemon(config={"runs": {"max_recoveries": 2}})
    stuck, moving = hanging(one), begun(one, "stepper_slow", {"seconds": 0.05})
    wait_until(lambda: one.events(moving, "step.finished"))
    one.kill()
    one.start()
    assert one.get(stuck)["recoveries"] == 1
    wait_until(lambda: one.get(moving)["recoveries"] == 0)
    one.kill()
    one.start()
    run = well_ended(one, stuck, "interrupted")
    assert (run["error"]["code"], run["recoveries"], run["epoch"]) == ("max_recoveries", 2, 2)
    assert "2 times" in run["error"]["message"]
    assert one.wait(moving, "running")["epoch"] == 3


def lived(one: Daemon, runs: list[str]) -> bool:
    """Waits until every run is over, or the daemon is."""

    def outcome() -> str:
        if not one.running:
            return "died"
        try:
            return "lived" if one.url and all(one.get(run_id)["status"] in TERMINAL for run_id in runs) else ""
        except httpx2.TransportError:
            return ""

    said = wait_until(outcome, timeout=30)
    if said == "died":
        one.wait_exit()
    return said == "lived"


@pytest.mark.parametrize("recovery", ["resume", "requeue"])
def test_a_run_that_takes_the_daemon_down_takes_no_innocents_with_it(
    daemon: Make, tmp_path: Path, recovery: str
) -> None:
    effects = tmp_path / "effects"
    one = daemon()
    together = {"run_at": (datetime.now(UTC) + timedelta(seconds=1.0)).isoformat(), "inputs": {"effects": str(effects)}}
    targets = ["innocent", "innocent", "exiter", "innocent"]
    runs = {one.post_run(target, recovery=recovery, **together)["id"]: target for target in targets}
    lives = 1
    while not lived(one, list(runs)):
        assert lives < 8
        one.launch()
        lives += 1
    for run_id, target in runs.items():
        run = one.get(run_id)
        if target == "innocent":
            assert (run["status"], run["output"]) == ("ok", "innocent")
            continue
        assert (run["status"], run["error"]["code"], run["recoveries"]) == ("interrupted", "max_recoveries", 3)
    assert lines(effects).count("worked") == targets.count("innocent")
    assert lives == 4, "twice all together, once alone"


def test_an_event_loop_that_user_code_ends_is_a_crash_like_any_other(daemon: Make) -> None:
    one = daemon()
    innocents = [hanging(one), begun(one, "thread_never"), begun(one, "awaiter")]
    run_id = one.post_run("quitter", inputs={"where": "loop"}, recovery="interrupt")["id"]
    assert one.wait_exit() == 70
    last = one.log.splitlines()[-1]
    assert last.startswith("latticed: ")
    assert last.endswith("SystemExit: 3")
    one.start()
    well_ended(one, run_id, "interrupted")
    for innocent in innocents:
        wait_until(lambda innocent=innocent: len(one.events(innocent, "run.started")) == 2)
        assert (one.get(innocent)["status"], one.get(innocent)["recoveries"]) == ("running", 1)


def test_a_command_of_a_dead_daemon_is_gone_and_does_not_keep_the_lock(daemon: Make) -> None:
    one = daemon(config={"agents": {"command": {"use": "command", "argv": ["bash", "-c", COMMAND]}}})
    run_id = begun(one, "command")
    one.wait_event(run_id, "output")
    lock, locked_out = str(one.state_dir / "latticed.db.lock"), daemon(state_dir=one.state_dir, start=False)
    family = psutil.Process(one.process.pid).children(recursive=True)
    assert [file.path for child in family for file in child.open_files() if file.path == lock] == []
    address = one.url
    assert locked_out.launch().wait_exit() == 75
    last = locked_out.log.splitlines()[-1]
    assert last.startswith("latticed: ")
    assert str(one.process.pid) in last
    (one.state_dir / "address").write_text(address + "\n")  # which the fixture takes away at each launch
    assert one.client.get("/readyz").status_code == 200

    old = processes(run_id)
    guardians = psutil.Process(one.process.pid).children()
    for guardian in guardians:
        guardian.suspend()  # It cannot end its group, so that the next start has to.
    one.kill()
    assert [process for process in old if process.is_running()]
    one.start()
    wait_until(lambda: len(one.events(run_id, "output")) == 2)
    left = [process for process in (*old, *guardians) if process.is_running() and process.status() != "zombie"]
    assert left == []
    assert one.get(run_id)["epoch"] == 2
    one.stop_run(run_id, mode="kill")
    well_ended(one, run_id)
    assert processes(run_id) == []


async def forker(ctx: Context, goal: str, inputs: dict[str, Any]) -> int:
    """Forks off a process that stays, as a worker of multiprocessing does, and gives its id."""

    def fork() -> int:
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
        return child

    return int(await ctx.step("fork", fork))


def test_what_user_code_has_forked_off_keeps_nothing_of_a_dead_daemon(daemon: Make) -> None:
    forking = {"use": "function", "function": f"{__name__}:forker"}
    one = daemon(config={"agents": {"forker": forking, "command": {"use": "command", "argv": ["bash", "-c", COMMAND]}}})
    command = begun(one, "command")
    one.wait_event(command, "output")
    forked = psutil.Process(one.post_run("forker", wait=10)["output"])
    old, port = processes(command), int(one.url.rpartition(":")[2])
    one.kill()
    assert forked.is_running()
    wait_until(lambda: not any(process.is_running() and process.status() != "zombie" for process in old))
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", port))
        door.listen()
    one.start()
    wait_until(lambda: one.get(command)["epoch"] == 2)
    forked.kill()
    one.stop_run(command, mode="kill")
    well_ended(one, command)

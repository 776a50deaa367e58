"""Stopping a command: each rung is a signal to its group, and nothing that it started is left."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import Daemon, wait_until
from tests.timeline import printed, processes, rungs, well_ended

OBEDIENT = """
import os, signal, sys
known = {signal.SIGINT: "int", signal.SIGTERM: "term"}
signal.pthread_sigmask(signal.SIG_BLOCK, known)
os.write(1, b"up\\n")
while True:
    said = known[signal.sigwait(known)]
    os.write(1, f"got {said}\\n".encode())
    if said == sys.argv[1]:
        os._exit(0)
"""
OBEYS_NOBODY = """
trap '' INT TERM HUP
(while :; do sleep 1; done) &
setsid bash -c "trap '' INT TERM; (setsid sleep 3600 &); while :; do sleep 1; done" &
echo up
while :; do sleep 0.05; done
"""


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with commands that differ in what they obey."""
    programs = {
        "obeys_int": [sys.executable, "-c", OBEDIENT, "int"],
        "obeys_term": [sys.executable, "-c", OBEDIENT, "term"],
        "obeys_nobody": ["bash", "-c", OBEYS_NOBODY],
        "short": ["true"],
    }
    agents = {name: {"use": "command", "argv": argv} for name, argv in programs.items()}
    runs = {"grace_seconds": 0.4, "kill_seconds": 1.5}
    daemon = Daemon(tmp_path_factory.mktemp("commands"), config={"runs": runs, "agents": agents})
    try:
        yield daemon.start()
    finally:
        daemon.close()


def up(one: Daemon, target: str) -> str:
    """A command that runs and has said so."""
    run_id: str = one.post_run(target)["id"]
    wait_until(lambda: "up" in printed(one, run_id))
    return run_id


@pytest.mark.parametrize(
    ("target", "mode", "taken", "said"),
    [
        ("obeys_int", "graceful", [1], ["got int"]),
        ("obeys_term", "graceful", [1, 2], ["got int", "got term"]),
        ("obeys_term", "now", [1, 2], ["got int", "got term"]),
        ("obeys_nobody", "graceful", [1, 2, 3], []),
        ("obeys_nobody", "kill", [1, 2, 3], []),
    ],
)
def test_a_command_gets_a_signal_a_rung(one: Daemon, target: str, mode: str, taken: list[int], said: list[str]) -> None:
    run_id = up(one, target)
    assert processes(run_id)
    one.stop_run(run_id, mode=mode)
    run = well_ended(one, run_id)
    assert processes(run_id) == []
    assert (rungs(one, run_id), run["abandoned"]) == (taken, None)
    assert [line for line in printed(one, run_id) if line.startswith("got")] == said
    assert run["output"] is None


def test_a_command_that_is_killed_takes_its_grandchildren_along(one: Daemon) -> None:
    run_id = up(one, "obeys_nobody")
    family = wait_until(lambda: len(found := processes(run_id)) >= 6 and found)
    one.stop_run(run_id, mode="kill")
    well_ended(one, run_id)
    assert [process for process in family if process.is_running() and process.status() != "zombie"] == []


def test_commands_that_are_stopped_while_they_start_leave_nothing(one: Daemon) -> None:
    def start_and_stop(number: int) -> str:
        run_id: str = one.post_run(("obeys_nobody", "obeys_int", "short")[number % 3])["id"]
        one.stop_run(run_id, mode=("now", "kill")[number % 2])
        return run_id

    assert one.client
    with ThreadPoolExecutor(4) as pool:
        stopped = list(pool.map(start_and_stop, range(12)))
    for run_id in stopped:
        assert one.wait(run_id)["status"] in ("cancelled", "ok")
        assert processes(run_id) == []

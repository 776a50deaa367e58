"""Commands: what becomes of a program whose daemon or guardian is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psutil

from latticed.agents.orphans import kill_orphans
from tests.unit.command.rig import alive, marked
from tests.wait import wait_until

DAEMON = """
import asyncio, sys
from pathlib import Path
from tests.unit.command.rig import STUBBORN, FakeContext, config
from latticed.agents.command import CommandAgent

class Telling(FakeContext):
    async def emit(self, type, /, **data):
        print(data["line"], flush=True)

asyncio.run(CommandAgent(config("sh", "-c", STUBBORN), "a", Path(sys.argv[1])).run(Telling(sys.argv[2]), "g", {}))
"""


@contextmanager
def daemon(tmp_path: Path, run_id: str, **environment: str) -> "Iterator[subprocess.Popen[str]]":
    """A process that runs the stubborn command and passes on what it says."""
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(tmp_path), run_id],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, **environment},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said_pids(process: "subprocess.Popen[str]") -> list[int]:
    assert process.stdout is not None
    return [int(process.stdout.readline().split()[1]) for _ in range(4)]


def test_no_process_survives_a_daemon_that_is_killed(tmp_path: Path) -> None:
    with daemon(tmp_path, f"run_{uuid4()}") as process:
        pids = said_pids(process)
        assert all(map(alive, pids))
    wait_until(lambda: not any(map(alive, pids)))


def test_the_failpoint_after_the_start_leaves_no_process_either(tmp_path: Path) -> None:
    run_id = f"run_{uuid4()}"
    with daemon(tmp_path, run_id, LATTICED_FAILPOINTS="command.started") as process:
        assert process.wait() == -signal.SIGKILL
    wait_until(lambda: not marked(run_id))


def test_a_killed_guardian_takes_its_program_along_without_help(tmp_path: Path) -> None:
    run_id = f"run_{uuid4()}"
    with daemon(tmp_path, run_id) as process:
        pids = said_pids(process)
        (guardian,) = psutil.Process(process.pid).children()
        (program,) = [pid for pid in pids if os.getpgid(pid) == pid and os.getsid(pid) == guardian.pid]
        process.send_signal(signal.SIGSTOP)
        guardian.kill()
        wait_until(lambda: not alive(program))
    assert kill_orphans([run_id])
    for pid in filter(alive, pids):  # the one without environment, of which nobody is left who knows
        os.kill(pid, signal.SIGKILL)


def test_a_guardian_gets_to_do_its_work_before_orphans_are_killed(tmp_path: Path) -> None:
    run_id = f"run_{uuid4()}"
    with daemon(tmp_path, run_id) as process:
        pids = said_pids(process)
        (guardian,) = psutil.Process(process.pid).children()
        guardian.suspend()
    kill_orphans([run_id])
    assert not any(map(alive, [*pids, guardian.pid]))


def test_orphans_are_found_by_their_run(tmp_path: Path) -> None:
    def start(run_id: str) -> "subprocess.Popen[str]":
        script = "(setsid sh -c 'echo $$; exec sleep 1000' &) ; echo $$; exec sleep 1000"
        environment = {"PATH": os.environ["PATH"], "LATTICED_RUN_ID": run_id}
        return subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, env=environment)

    run_id, other_id = f"run_{uuid4()}", f"run_{uuid4()}"
    with start(run_id) as dead, start(other_id) as other:
        assert dead.stdout is not None
        assert other.stdout is not None
        pids = [int(dead.stdout.readline()) for _ in range(2)]
        others = [int(other.stdout.readline()) for _ in range(2)]
        assert kill_orphans([]) == []
        assert kill_orphans(["run_unknown"]) == []
        assert sorted(kill_orphans({run_id, "run_unknown"})) == sorted((pid, run_id) for pid in pids)
        assert not any(map(alive, pids))
        assert all(map(alive, others))
        kill_orphans([other_id])

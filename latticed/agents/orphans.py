"""Finds and ends what commands left running, by the run id in their environment.

A guardian leaves nothing behind as long as it lives. This is for what is left when it did not: called at start,
before the door opens, for the runs of a dead daemon, and by a command agent whose guardian was killed.
"""

import os
import select
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path

RUN_ID = b"LATTICED_RUN_ID="
GUARDIAN = b"LATTICED_GUARDIAN="
ROUND_SECONDS = 0.1
"""How long what was signalled gets to end before everybody is looked for again."""
GUARDIAN_SECONDS = 2.0
"""How long a guardian, whose daemon is dead, gets to end its group by itself."""
PATIENCE_SECONDS = 5.0

PROC = Path("/proc")


def kill_orphans(run_ids: Collection[str]) -> list[tuple[int, str]]:
    """Kills every process that carries one of these run ids, and what it forks meanwhile, until none is found.

    Blocks for a few milliseconds when there is nothing to do and at most about five seconds otherwise. What may not be
    read or killed (another user's) is passed over, and where there is no /proc nothing is found.

    Returns:
        The pid and run id of each process that was killed, in the order of their deaths.
    """
    wanted = {run_id.encode() for run_id in run_ids}
    killed: dict[int, str] = {}
    begun = time.monotonic()
    while wanted and (spent := time.monotonic() - begun) < PATIENCE_SECONDS:
        signalled = []
        found = list(_marked(wanted))
        for pid, marker, run_id in found:
            process = _pin(pid, marker + run_id)
            if process is None:
                continue
            signalled.append(process)
            if marker == GUARDIAN and spent < GUARDIAN_SECONDS:
                _send(process, signal.SIGTERM)
                _send(process, signal.SIGCONT)  # should somebody have stopped it
                continue
            if marker == GUARDIAN:
                _send(process, signal.SIGSTOP)  # while it lives, and does not reap, its session's number is its own
                killed |= dict.fromkeys(kill_session(pid), run_id.decode())
            if _send(process, signal.SIGKILL) and marker == RUN_ID:
                killed[pid] = run_id.decode()
        _await_ends(signalled)
        if not found:
            break
    return list(killed.items())


def kill_session(leader: int) -> list[int]:
    """Kills the processes of the session that `leader` began, except the leader itself.

    The caller holds the leader, alive or not yet reaped, so that its number cannot have become somebody else's.
    """
    killed = []
    for pid in _pids():
        if pid != leader and _session(pid) == leader:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
            killed.append(pid)
    return killed


def _pids() -> Iterator[int]:
    try:
        names = os.listdir(PROC)
    except OSError:
        return
    own = os.getpid()
    yield from (pid for pid in map(int, filter(str.isdecimal, names)) if pid != own)


def _marked(wanted: Collection[bytes]) -> Iterator[tuple[int, bytes, bytes]]:
    """The pid, the variable and the run id of each process with one of these run ids. A zombie has no environment."""
    for pid in _pids():
        for entry in _environment(pid):
            for marker in (RUN_ID, GUARDIAN):
                if entry.startswith(marker) and entry.removeprefix(marker) in wanted:
                    yield pid, marker, entry.removeprefix(marker)


def _environment(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _session(pid: int) -> int | None:
    try:
        return int((PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[3])
    except (OSError, IndexError):
        return None


def _pin(pid: int, entry: bytes) -> int | None:
    """A descriptor of exactly the process that was seen: its environment is read again with its number held."""
    try:
        process = os.pidfd_open(pid)
    except (OSError, AttributeError):  # it has ended; or this is not Linux
        return None
    if entry in _environment(pid):
        return process
    os.close(process)
    return None


def _send(process: int, number: int) -> bool:
    try:
        signal.pidfd_send_signal(process, number)
    except OSError:
        return False
    return True


def _await_ends(processes: list[int]) -> None:
    """Gives them some time to end, and lets go of them."""
    deadline = time.monotonic() + ROUND_SECONDS
    for process in processes:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        os.close(process)

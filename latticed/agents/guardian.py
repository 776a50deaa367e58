"""Runs one program and leaves nothing of it behind, whatever happens to whom.

    python -I -S guardian.py REPORT_FD ORDERS_FD PROGRAM [ARGUMENT...]

The daemon starts a guardian in a session of its own, the guardian starts the program in a process group of its own
and adopts (as Linux's "child subreaper") whatever the program's descendants orphan, be it double-forked or in
another session. It is a script that imports next to nothing because one is started for every command.

- ORDERS_FD, read: `i` and `t` send SIGINT and SIGTERM to the group; `k`, the end of the pipe (the daemon is gone) or a
  SIGTERM to the guardian itself end everything.
- REPORT_FD, written, one line each: `started PID`, or `refused ERRNO` when the program could not be executed; then
  `exited CODE` or `signaled NUMBER` once nothing is left, or `survived COUNT` for what even SIGKILL did not end.
- Once the program has ended, what it left running is killed. If the guardian is killed, the kernel kills the program
  (PR_SET_PDEATHSIG), and the daemon and its successor look for the rest (`orphans.py`).

The program gets the guardian's environment with `LATTICED_GUARDIAN` renamed `LATTICED_RUN_ID`, so that who sweeps up
after a dead daemon can tell a guardian, which still has work to do, from what it guards.
"""

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
ORDERS = {ord("i"): signal.SIGINT, ord("t"): signal.SIGTERM}
ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
PATIENCE_SECONDS = 3.0
"""How long what was killed may take to vanish; a process in an uninterruptible call can take for ever."""


def _prctl() -> Callable[[int, int], object]:
    """Linux's prctl; elsewhere something that does nothing, and then only the group is ended."""
    try:
        call = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return lambda option, value: None
    return lambda option, value: call(option, ctypes.c_ulong(value), 0, 0, 0)


def _environment() -> dict[bytes, bytes]:
    """What the daemon gave, and nothing else: the interpreter adds an LC_CTYPE to its own when there is no locale."""
    try:
        with open("/proc/self/environ", "rb") as block:
            entries = [entry.partition(b"=") for entry in block.read().split(b"\0") if b"=" in entry]
    except OSError:
        return dict(os.environb)
    return {name: value for name, _, value in entries}


def _start(program: list[str], prctl: Callable[[int, int], object]) -> tuple[int, int]:
    """Forks the program. Returns its pid and 0, or its pid and the errno for which it could not be executed."""
    environment = _environment()
    environment[b"LATTICED_RUN_ID"] = environment.pop(b"LATTICED_GUARDIAN", b"")
    refusal_r, refusal_w = os.pipe()  # close-on-exec: its end without a word is the news that the program runs
    guardian = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guardian:
                os._exit(127)
            signal.set_wakeup_fd(-1)
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_DFL)  # also what the daemon was started to ignore
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.execvpe(program[0], program, environment)
        except OSError as error:
            os.write(refusal_w, b"%d" % (error.errno or 0))
        finally:
            os._exit(127)
    try:
        os.setpgid(pid, pid)  # by both sides, so that it holds whichever runs first
    except OSError:
        pass
    os.close(refusal_w)
    refusal = os.read(refusal_r, 16)
    os.close(refusal_r)
    return pid, int(refusal or 0)


def _has_ended(pid: int) -> bool:
    """Reaps what was adopted and has ended; tells whether the program has too.

    The program itself is left a zombie: as long as it is one, its group's number cannot become somebody else's.
    """
    while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
        if found.si_pid == pid:
            return True
        os.waitpid(found.si_pid, os.WNOHANG)
    return False


def _wait(pid: int, orders: int, wake: int) -> None:
    """Passes signals on until the program has ended or everything is to end."""
    poll = select.poll()
    poll.register(orders, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while not _has_ended(pid):
        for fd, _ in poll.poll():
            if fd == wake:
                if any(number in ENDINGS for number in os.read(wake, 512)):
                    return
                continue
            received = os.read(orders, 64)
            for order in received:
                if order not in ORDERS:
                    return
                _signal_group(pid, ORDERS[order])
                _signal_group(pid, signal.SIGCONT)  # who is stopped could not obey
            if not received:
                return


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except OSError:  # nobody is left in it, or somebody who has become another user
        pass


def _descendants() -> list[int]:
    """The pids of everything below this process, parents first."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if entry.isdecimal():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry))
    below: list[int] = [os.getpid()]
    for pid in below:
        below += children.get(pid, [])
    return below[1:]


def _end(pid: int, wake: int) -> tuple[int | None, int]:
    """Kills the group and all descendants until none is left. Returns the program's wait status and the survivors."""
    status: int | None = None
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        if status is None:
            _signal_group(pid, signal.SIGKILL)
        try:
            while True:
                reaped, how = os.waitpid(-1, os.WNOHANG)
                if reaped == pid:
                    status = how
                if reaped == 0:
                    break
        except ChildProcessError:
            return status, 0
        survivors = _descendants()
        for survivor in survivors:
            try:
                os.kill(survivor, signal.SIGKILL)
            except OSError:
                pass
        if time.monotonic() > deadline:
            return status, len(survivors)
        if poll.poll(20):
            os.read(wake, 512)


def main(arguments: list[str]) -> int:
    """Runs the program to its end. Returns 0 when nothing of it is left."""
    report, orders, program = int(arguments[0]), int(arguments[1]), arguments[2:]
    os.set_inheritable(report, False)
    os.set_inheritable(orders, False)
    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_r, False)
    os.set_blocking(wake_w, False)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *ENDINGS):
        signal.signal(number, lambda number, frame: None)  # it is read from the wake-up pipe

    def tell(line: str) -> None:
        try:
            os.write(report, line.encode() + b"\n")
        except OSError:  # the daemon is gone; the orders pipe says so too
            pass

    prctl = _prctl()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    pid, refusal = _start(program, prctl)
    if refusal:
        os.waitpid(pid, 0)
        tell(f"refused {refusal}")
        return 0
    tell(f"started {pid}")
    _wait(pid, orders, wake_r)
    status, survivors = _end(pid, wake_r)
    if survivors or status is None:
        tell(f"survived {survivors}")
        return 1
    code = os.waitstatus_to_exitcode(status)
    tell(f"exited {code}" if code >= 0 else f"signaled {-code}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

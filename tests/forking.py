"""Daemons that are forked off a process which has imported already what every daemon imports.

A start is imports for the most part, half a second of them, and two more with agents on models; the tests start
hundreds. A forked daemon differs from one that was executed in what nobody should look at: its parent, its command line
and environment as /proc shows them, and that hashes of strings are those of its siblings. All else is made as an exec
would: session, directory, environment, descriptors. It has neither a thread nor a loop from before the fork.

`python -m tests.forking FD KIND` is that process. It takes requests from a socket until the other end is closed.
"""

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PATHS = f"{ROOT / 'tests'}:{ROOT}"
"""Where a daemon of the tests imports from."""
ONLY_AT_AN_EXEC = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_")
"""Beginnings of the names of variables that are read as a process begins."""
LARGEST_REQUEST = 200_000

PLAIN, ON_MODELS = "plain", "models"
MODULES = {
    PLAIN: [
        "latticed.daemon",
        "latticed.agents.command",
        "latticed.agents.function",
        "latticed.agents.digest",
        "latticed.engine.plain",
        "latticed.hooks.command",
        "aiosqlite",
        "uvicorn.lifespan.off",
    ],
    ON_MODELS: [
        "latticed.agents.ready",
        "latticed.agents.servers",
        "latticed.agents.shell",
        "latticed.agents.workbench",
        "latticed.agents.pipeline.agent",
        "latticed.agents.pipeline.speaking",
    ],
}
"""What is loaded, beside the command line, before anybody asks."""

_starting = threading.Lock()


class Forked:
    """A daemon's process, which is another's child: as much of `subprocess.Popen` as the tests need."""

    def __init__(self, news: int) -> None:
        """`news` is a pipe that tells its pid, and in the end its exit code, a line each."""
        self._news = os.fdopen(news, "rb", buffering=0)
        self.returncode: int | None = None
        self.pid = self._read()

    def _read(self) -> int:
        line = b""
        while not line.endswith(b"\n"):
            more = self._news.read(1)
            assert more, "the process that daemons are forked off is no more"
            line += more
        return int(line)

    def poll(self) -> int | None:
        """The exit code once it has ended, negative for a signal."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end; the exit code.

        Raises:
            subprocess.TimeoutExpired: it has not ended by then.
        """
        if self.returncode is None:
            if not select.select([self._news], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("latticed serve", timeout or 0)
            self.returncode = self._read()
            self._news.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def can_fork(environment: Mapping[str, str]) -> bool:
    """Whether a fork does with these changes to the environment, on this system."""
    return hasattr(os, "pidfd_open") and not any(name.startswith(ONLY_AT_AN_EXEC) for name in environment)


def fork(kind: str, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path, output: int) -> Forked:
    """Starts `latticed` with these arguments; `output` takes its stdout and stderr. It leads a session when this
    returns."""
    news, tell = os.pipe()
    request = json.dumps({"arguments": arguments, "environment": dict(environment), "cwd": str(cwd)}).encode()
    try:
        with _starting:
            server = _server(kind)
        socket.send_fds(server, [request], [output, tell])
    finally:
        os.close(tell)
    return Forked(news)


@cache
def _server(kind: str) -> socket.socket:
    """The way to ask the process of this kind; it is started at first use and ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LATTICED_")}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.forking", str(theirs.fileno()), kind],
            env=environment | {"PYTHONPATH": PATHS},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.wait(10)

    atexit.register(end)
    return ours


# --- the process that is forked ---


def _load(kind: str) -> None:
    import latticed.cli.daemon

    for name in MODULES[PLAIN] + (MODULES[ON_MODELS] if kind == ON_MODELS else []):
        importlib.import_module(name)
    if kind == ON_MODELS:
        from latticed.agents import warming

        warming._warm_up()
    gc.collect()
    gc.freeze()  # The collector would touch, and so copy, every page that is shared with the children.
    assert len(os.listdir("/proc/self/task")) == 1, "a fork takes one thread along, and the locks of all"
    assert latticed.cli.daemon.app


def _take(requests: socket.socket) -> dict[str, Any]:
    """Forks at every request. Returns in the children only, which have the request; the process itself ends here."""
    ends: dict[int, tuple[int, int]] = {}  # pidfd → pid, and the pipe on which its end is told
    ready = select.poll()
    ready.register(requests, select.POLLIN)
    while True:
        for descriptor, _ in ready.poll():
            if descriptor != requests.fileno():
                pid, tell = ends.pop(descriptor)
                ready.unregister(descriptor)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with suppress(BrokenPipeError):
                    os.write(tell, b"%d\n" % code)
                os.close(descriptor)
                os.close(tell)
                continue
            message, given, _, _ = socket.recv_fds(requests, LARGEST_REQUEST, 2)
            if not message:
                for pid, _ in ends.values():  # Whoever asked for them is gone, and perhaps not in good order.
                    os.kill(pid, signal.SIGKILL)
                sys.exit()
            output, tell = given
            pid = os.fork()
            if pid == 0:
                os.setsid()
                os.write(tell, b"%d\n" % os.getpid())
                os.dup2(output, 1)
                os.dup2(output, 2)
                requests.detach()
                os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
                asked: dict[str, Any] = json.loads(message)
                return asked
            os.close(output)
            descriptor = os.pidfd_open(pid)
            ends[descriptor] = pid, tell
            ready.register(descriptor, select.POLLIN)


def _become(asked: dict[str, Any]) -> None:
    """Makes this process what an exec would have made it."""
    import latticed.cli.daemon
    from latticed import failpoints

    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    time.tzset()
    sys.argv = [latticed.cli.daemon.__file__, *asked["arguments"]]
    sys.path[0] = asked["cwd"]
    importlib.invalidate_caches()
    failpoints.arm(os.environ.get("LATTICED_FAILPOINTS", ""))
    latticed.cli.daemon.main()


if __name__ == "__main__":
    _load(sys.argv[2])
    _become(_take(socket.socket(fileno=int(sys.argv[1]))))

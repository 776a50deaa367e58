"""The peer: DBOS Transact on SQLite, from its package, in a venv of its own, each workload in a fresh process."""

import contextlib
import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench import evidence, recovery, venvs
from bench.figures import Sizes
from bench.samples import median

VERSION = "3.4.0"
"""Of the package `dbos`."""
Journal = Literal["delete", "wal"]
"""SQLite's journal: `delete` is what DBOS comes with, `wal` is the same file switched once beforehand. Both FULL."""
_PATIENCE_SECONDS = 600


class PeerError(Exception):
    """The peer did not do its workload."""


def set_up() -> Path:
    """The Python of the peer's venv, made at the first call.

    Raises:
        NotInstalled: the package cannot be had.
    """
    return venvs.python_with(f"dbos-{VERSION}", f"dbos=={VERSION}", "uvloop")


@dataclass(frozen=True, slots=True)
class Peer:
    """One database file in a directory, and the processes that drive it."""

    directory: Path
    sizes: Sizes
    journal: Journal
    python: Path

    def drive(self, workload: str, n: int, width: int = 1) -> dict[str, float]:
        """Runs one of the driver's workloads in a process of its own and gives its figures.

        Raises:
            PeerError: it failed or took more than ten minutes.
        """
        self._fresh()
        process = self.spawn(workload, n, width)
        try:
            out, _ = process.communicate(timeout=_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise PeerError(f"{workload} took more than {_PATIENCE_SECONDS} s") from None
        if process.returncode:
            raise PeerError(f"{workload} ended with {process.returncode}: {self._log.read_text()[-2000:]}")
        figures: dict[str, float] = json.loads(out)
        return figures

    def spawn(self, workload: str, n: int, width: int = 1) -> subprocess.Popen[bytes]:
        """Starts the driver."""
        command = [str(self.python), "-m", "bench.dbos_driver", workload, "--db", str(self._database)]
        command += ["-n", str(n), "--width", str(width)]
        env = {name: value for name, value in os.environ.items() if not name.startswith("DBOS_")}
        env |= {
            "PYTHONPATH": str(venvs.CHECKOUT),
            evidence.LOG_VARIABLE: str(self.directory / "evidence.log"),
            evidence.GATE_VARIABLE: str(self.directory / "gate"),
        }
        with self._log.open("ab") as log:
            return subprocess.Popen(command, cwd=self.directory, env=env, stdout=subprocess.PIPE, stderr=log)

    def starts(self) -> dict[str, float]:
        """Process start → first run done, on a database that holds runs."""
        self.drive("populate", 100)
        took = []
        for _ in range(self.sizes.starts):
            begun = time.time()
            took.append(self.drive("first_run", 1)["done_at"] - begun)
        return {"first_run_s": median(took)}

    def count(self, *statuses: str) -> int:
        """How many workflows are on record in one of the states."""
        query = f"select count(*) from workflow_status where status in ({','.join('?' * len(statuses))})"
        with contextlib.closing(sqlite3.connect(self._database, timeout=30)) as connection:
            (count,) = connection.execute(query, statuses).fetchone()
        return int(count)

    def _fresh(self) -> None:
        """Makes the database's file where there is none; DBOS fills it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.journal == "wal" and not self._database.exists():
            with contextlib.closing(sqlite3.connect(self._database)) as connection:
                connection.execute("pragma journal_mode=wal")

    @property
    def _database(self) -> Path:
        return self.directory / "dbos.db"

    @property
    def _log(self) -> Path:
        return self.directory / "driver.log"


class _Crossing:
    """The peer as `recovery.cross` wants it."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._process: subprocess.Popen[bytes] | None = None
        self.evidence = peer.directory / "evidence.log"
        self.gate = peer.directory / "gate"

    def load(self, runs: int) -> None:
        self._peer.drive("populate", 1)
        self._process = self._peer.spawn("hold", runs)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def again(self) -> float:
        begun = time.time()
        self._process = self._peer.spawn("hold", 0)
        return begun

    def succeeded(self) -> int:
        deadline = time.monotonic() + 60
        while (under_way := self._peer.count("PENDING", "ENQUEUED")) and time.monotonic() < deadline:
            time.sleep(0.1)
        return self._peer.count("SUCCESS") - 1 if not under_way else 0

    end = kill


WORKLOADS: dict[str, Callable[[Peer], dict[str, float]]] = {
    "throughput": lambda peer: peer.drive("throughput", peer.sizes.runs, peer.sizes.clients),
    "latency": lambda peer: peer.drive("latency", peer.sizes.singles),
    "steps": lambda peer: peer.drive("steps", peer.sizes.tens, peer.sizes.bursts),
    "cancel": lambda peer: peer.drive("cancel", peer.sizes.cancels),
    "events": lambda peer: peer.drive("events", peer.sizes.ticks, peer.sizes.subscribers),
    "recovery": lambda peer: recovery.cross(_Crossing(peer), peer.sizes.in_flight),
    "memory": lambda peer: peer.drive("memory", peer.sizes.sleeping),
    "start": Peer.starts,
}

JOURNAL_MATTERS = frozenset({"throughput", "latency", "steps"})
"""The workloads that are measured with both journals."""

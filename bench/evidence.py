"""What the measured code leaves behind for the benchmark to read, kept outside both systems.

Runs append one line each time they pass a place (`O_APPEND`, one write a line, so lines of a killed process are whole)
and may wait at a gate, which is a file that the benchmark makes. Both sides use it. Standard library only.
"""

import asyncio
import functools
import os
import time
from collections import defaultdict
from pathlib import Path

LOG_VARIABLE = "BENCH_LOG"
GATE_VARIABLE = "BENCH_GATE"
_GATE_POLL_SECONDS = 0.05

Log = dict[str, dict[str, list[float]]]
"""place -> key of the run -> when it was passed, in Unix seconds, in order."""


@functools.cache
def _descriptor() -> int:
    return os.open(os.environ[LOG_VARIABLE], os.O_APPEND | os.O_WRONLY | os.O_CREAT, 0o600)


def note(place: str, key: str) -> None:
    """Appends that the run `key` passed `place` now. Neither may hold a blank."""
    os.write(_descriptor(), f"{place} {key} {time.time():.6f}\n".encode())


def read(path: Path) -> Log:
    """Everything noted so far; an empty log where there is no file yet. A last line that is not whole is left out."""
    log: Log = defaultdict(lambda: defaultdict(list))
    try:
        text = path.read_text()
    except FileNotFoundError:
        return log
    for line in text[: text.rfind("\n") + 1].splitlines():
        place, key, at = line.split(" ")
        log[place][key].append(float(at))
    return log


class Gate:
    """Lets every run of this process wait for one file, with a single look at the disk for all of them."""

    def __init__(self) -> None:
        self._opened: asyncio.Event | None = None
        self._watch: asyncio.Task[None] | None = None

    async def wait(self) -> None:
        """Returns when the file named by `BENCH_GATE` exists."""
        if self._opened is None:
            self._opened = asyncio.Event()
            self._watch = asyncio.create_task(self._look(self._opened, Path(os.environ[GATE_VARIABLE])))
        await self._opened.wait()

    async def _look(self, opened: asyncio.Event, path: Path) -> None:
        while not path.exists():
            await asyncio.sleep(_GATE_POLL_SECONDS)
        opened.set()

"""What a figure depends on besides the code: the machine, its disk and the versions."""

import os
import platform
import sqlite3
import tempfile
import time
from pathlib import Path

_PROBE_SECONDS = 0.3
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def scratch(directory: Path) -> Path:
    """Makes a directory that git leaves alone."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ".gitignore").write_text("*\n")
    return directory


def filesystem(path: Path) -> str:
    """The type of the file system that holds `path`; empty where the system does not tell."""
    found, kind = "", ""
    try:
        mounts = Path("/proc/self/mounts").read_text()
    except OSError:
        return ""
    resolved = str(path.resolve())
    for line in mounts.splitlines():
        _, at, of_type, *_ = line.split(" ")
        inside = resolved == at or resolved.startswith(at.rstrip("/") + "/")
        if inside and len(at) >= len(found):
            found, kind = at, of_type
    return kind


def in_memory(path: Path) -> bool:
    """Whether what is written there never reaches a disk, which would make every figure too good."""
    return filesystem(path) in _IN_MEMORY


def appends_per_s(directory: Path) -> float:
    """How many times a second 100 bytes can be appended and fsync'd, one after the other."""
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        count, begun = 0, time.perf_counter()
        while (took := time.perf_counter() - begun) < _PROBE_SECONDS:
            file.write(b"x" * 100)
            os.fsync(file.fileno())
            count += 1
    return count / took


def describe(directory: Path) -> dict[str, str]:
    """The machine in a few lines."""
    load = os.getloadavg()[0]
    return {
        "system": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, load {load:.2f} before",
        "python": f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "disk": f"{filesystem(directory) or 'unknown'}, {appends_per_s(directory):,.0f} fsync'd appends/s",
    }

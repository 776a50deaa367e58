"""Puts the daemon under a profiler, from outside: nothing in the daemon knows of it."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench import venvs

PROFILERS = ("cprofile", "py-spy")
PY_SPY = "0.4.3"
"""Version of the package `py-spy`."""
_RATE_HZ = 250
_LINES = 40
_LINE = re.compile(r":\d+\)$")


@dataclass(frozen=True, slots=True)
class Profile:
    """A profiler and the directory that its findings go to, which is made."""

    profiler: str
    directory: Path

    def wrapper(self) -> tuple[str, ...]:
        """What to put before `latticed.cli.daemon serve …`; empty if the profiler is not started that way."""
        if self.profiler != "cprofile":
            return ()
        return (sys.executable, "-m", "bench.profiled", str(self.directory))

    def attach(self, pid: int) -> "Sampling | None":
        """Looks at a running process from outside, if the profiler works that way."""
        if self.profiler != "py-spy":
            return None
        self.directory.mkdir(parents=True, exist_ok=True)
        python = venvs.python_with(f"py-spy-{PY_SPY}", f"py-spy=={PY_SPY}")
        stacks = self.directory / "stacks.txt"
        command = [str(python.with_name("py-spy")), "record", "--pid", str(pid), "--output", str(stacks)]
        command += [
            "--format",
            "raw",
            "--rate",
            str(_RATE_HZ),
            "--duration",
            "3600",
            "--threads",
            "--gil",
            "--nonblocking",
        ]
        with (self.directory / "py-spy.log").open("w") as log:
            return Sampling(subprocess.Popen(command, stdout=log, stderr=log), stacks)


@dataclass(frozen=True, slots=True)
class Sampling:
    """A sampler at work; it ends with the process it looks at."""

    process: subprocess.Popen[bytes]
    stacks: Path

    def finish(self) -> None:
        """Waits until the stacks are written and sums them up beside them, in `report.txt`."""
        self.process.wait(60)
        if self.stacks.exists():
            (self.stacks.parent / "report.txt").write_text(summary(self.stacks.read_text().splitlines()))


def summary(stacks: Iterable[str]) -> str:
    """The functions that were seen at work most, with their share of all samples: by themselves, and with what they
    called. `stacks` are lines of `outer;inner count`.
    """
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        frames = [_LINE.sub(")", frame) for frame in stack.split(";")]
        own[frames[-1]] += int(count)
        for frame in set(frames):
            below[frame] += int(count)
    total = own.total() or 1
    lines = [f"{total} samples of threads that held the GIL, {_RATE_HZ} a second"]
    for title, counts in (("by themselves", own), ("with what they called", below)):
        lines += ["", title, *(f"{count / total:7.1%}  {frame}" for frame, count in counts.most_common(_LINES))]
    return "\n".join([*lines, ""])

"""One thousand runs in flight, `kill -9`, start again: the same course for both sides, judged from outside.

Each run notes `entered`, runs its first step, notes `held` and awaits the gate. When all are held (their first step is
on record) the process is killed and started again; a run is resumed when it is entered the second time. Then the
gate opens and they finish. Lost is what never ran its second step or is not on record as finished; twice is what ran a
recorded step again.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bench import evidence

_LOOK_SECONDS = 0.2
"""The times come from the log, so looking seldom costs no precision and leaves the machine to the process."""
_PATIENCE_SECONDS = 120


class Subject(Protocol):
    """A process that can be killed."""

    evidence: Path
    gate: Path

    def load(self, runs: int) -> None:
        """Starts the process and hands it the runs."""

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""

    def again(self) -> float:
        """Starts the process once more and gives the time it was started at, in Unix seconds."""

    def succeeded(self) -> int:
        """How many runs are on record as finished well, once no more are under way."""

    def end(self) -> None:
        """Ends it for good."""


class NotHeld(Exception):
    """The runs did not all get to where they were to be killed."""


def cross(subject: Subject, runs: int) -> dict[str, float]:
    """Goes through the course once.

    Raises:
        NotHeld: not all runs were held within two minutes.
    """
    try:
        subject.load(runs)
        if not _until(lambda: len(evidence.read(subject.evidence)["held"]) >= runs):
            raise NotHeld(f"{len(evidence.read(subject.evidence)['held'])} of {runs} runs are held")
        subject.kill()
        begun = subject.again()
        _until(lambda: len(resumptions(evidence.read(subject.evidence), begun)) >= runs)
        subject.gate.touch()
        _until(lambda: len(evidence.read(subject.evidence)["second"]) >= runs)
        succeeded = subject.succeeded()
        time.sleep(1)  # for a second execution that should not be
        return verdict(evidence.read(subject.evidence), begun, runs, succeeded)
    finally:
        subject.end()


def resumptions(log: evidence.Log, begun: float) -> list[float]:
    """How long after `begun` each run was entered again, in seconds; runs that were not are left out."""
    entries = ([at for at in times if at >= begun] for times in log["entered"].values())
    return [min(again) - begun for again in entries if again]


def verdict(log: evidence.Log, begun: float, runs: int, succeeded: int) -> dict[str, float]:
    """The figures of a crossing. Not all resumed: the time is infinite."""
    resumed = resumptions(log, begun)
    steps = [times for place in ("first", "second") for times in log[place].values()]
    return {
        "resumed_s": max(resumed) if len(resumed) == runs else float("inf"),
        "first_resumed_s": min(resumed, default=float("inf")),
        "lost": runs - min(len(log["second"]), succeeded),
        "twice": sum(len(times) > 1 for times in steps),
    }


def _until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(_LOOK_SECONDS)
    return False

"""Waiting in place, and when to stop doing so.

A run waits in place while anything in it still runs, or while what it waits for may come soon. Once all that is left
are waits that would take longer, all of them are told to unwind, and the run gives its slot back.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from latticed.clock import Clock
from latticed.errors import Misuse, Suspended, Unwind

_MOST_SECONDS = 1e10


def micros(seconds: Any, what: str) -> int:
    """A length of time in microseconds; one that is too long for any clock is cut.

    Raises:
        Misuse: it is none.
    """
    if not isinstance(seconds, int | float) or not seconds >= 0:
        raise Misuse(f"{what} needs a number of seconds, 0 or more")
    return int(min(seconds, _MOST_SECONDS) * 1_000_000)


@dataclass(eq=False, slots=True)
class Wait:
    """One thing a branch waits for: a fact, a time, or whichever comes first. Times are microseconds."""

    in_place_until: int
    fact: str | None = None
    wake_at: int | None = None
    future: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Waits:
    """What a run's branches wait for in one entry of its code. `running` counts those that do not wait."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.open: set[Wait] = set()
        self.running = 1
        self.delivered = 0
        """How many facts have come; to be looked at around reading whether one is there."""
        self.unwound: list[Wait] = []
        """What was waited for when the run was unwound; not empty from then on."""
        self.missed = False
        """Whether one of the facts that the unwound run waits for has come since."""

    async def wait(self, wait: Wait) -> None:
        """Returns once the fact has come or the time is there (look again which).

        Raises:
            Suspended: the run is to be unwound.
            Cancelled: the run is being cancelled.
        """
        timer = None
        if wait.wake_at is not None:
            seconds = max(0.0, (wait.wake_at - self._clock.now()) / 1e6)
            timer = self._loop.call_later(seconds, _resolve, wait.future)
        self.open.add(wait)
        self.leave()
        try:
            await wait.future
        finally:
            if timer is not None:
                timer.cancel()
            self.open.discard(wait)
            self.running += 1

    def leave(self) -> None:
        """A branch has ended, or begins to wait."""
        self.running -= 1
        self.consider()

    def consider(self) -> None:
        """Unwinds if all wait and none may be over soon; else looks again when that could be so."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.running > 0 or not self.open or any(wait.future.done() for wait in self.open):
            return  # A wait that is over counts as running already, although its branch has not gone on yet.
        now = self._clock.now()
        left = (max(wait.in_place_until for wait in self.open) - now) / 1e6
        if any(wait.wake_at is not None and wait.wake_at <= now for wait in self.open):
            return  # Its timer is about to fire.
        if left <= 0:
            self.unwound = list(self.open)
            self.stop(Suspended())
        else:
            self._timer = self._loop.call_later(left, self.consider)

    def deliver(self, fact: str) -> None:
        """A fact has come."""
        self.delivered += 1
        for wait in self.open:
            if wait.fact == fact:
                _resolve(wait.future)
        if any(wait.fact == fact for wait in self.unwound):
            self.missed = True

    def stop(self, why: Unwind) -> None:
        """Ends all waits by raising such an error in each."""
        for wait in self.open:
            if not wait.future.done():
                wait.future.set_exception(type(why)())

    def awaited(self) -> tuple[list[str], int | None]:
        """The facts that would wake the unwound run, and the time that would."""
        facts = sorted({wait.fact for wait in self.unwound if wait.fact is not None})
        times = [wait.wake_at for wait in self.unwound if wait.wake_at is not None]
        return facts, min(times, default=None)

    def close(self) -> None:
        """Nothing will wait any more."""
        if self._timer is not None:
            self._timer.cancel()


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)

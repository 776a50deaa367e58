"""What time brings about: sleepers wake, delayed and backed-off runs become claimable, deadlines and approvals expire.

The disk is the calendar: the loop asks it what is due, acts, and sleeps until the next time on it. A change that sets
an earlier time wakes the loop.
"""

import asyncio

import orjson

from latticed.clock import Clock
from latticed.engine.loop import Loop
from latticed.engine.settling import DEADLINE_ERROR
from latticed.failpoints import hit
from latticed.models.records import Change, Commit, event
from latticed.ports import Store
from latticed.states import CLAIMABLE, EXPIRE_ASLEEP, WAKE

BATCH = 500
LONGEST_SECONDS = 30.0
"""How long the loop sleeps at most: what a missed wake-up can cost."""


class Scheduler(Loop):
    """The calendar's loop."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        super().__init__()
        self._store = store
        self._clock = clock
        self._next: int | None = None
        self._timer: asyncio.TimerHandle | None = None

    def told(self, commit: Commit) -> None:
        """Something became true on disk: perhaps there is an earlier time on the calendar."""
        for at in commit.times:
            self.poke(at)
        for row in commit.rows:
            if row.due_at is not None:
                self.poke(row.due_at)
            if row.deadline_at is not None:
                self.poke(row.deadline_at)

    def poke(self, at: int) -> None:
        """There is something to do at this time."""
        if self._next is None or at < self._next:
            self._next = at
            self.wake()

    async def tick(self) -> float:
        now = self._clock.now()
        self._next = None
        full = await self._wake_due(now)
        full |= await self._expire_overdue(now)
        full |= await self._store.expire_approvals(now, BATCH) >= BATCH
        if full:
            return 0.0
        found = await self._store.next_due(now)
        times = [at for at in (found, self._next) if at is not None]
        self._next = min(times, default=None)
        if self._next is None:
            return LONGEST_SECONDS
        return min(LONGEST_SECONDS, max(0.0, (self._next - self._clock.now()) / 1e6))

    async def _wake_due(self, now: int) -> bool:
        due = await self._store.due(now, BATCH)
        if due:
            hit("wake.before")
            await self._store.change(*(self._due(run_id, status, now) for run_id, status in due))
            hit("wake.after")
        return len(due) >= BATCH

    def _due(self, run_id: str, status: str, now: int) -> Change:
        if status in CLAIMABLE:  # No move: it can be claimed from now on.
            return Change(run_id, states=CLAIMABLE, columns={"due_at": None})
        return Change(run_id, WAKE, events=[event("run.woken", now, by="timer")])

    async def _expire_overdue(self, now: int) -> bool:
        overdue = await self._store.overdue(now, BATCH)
        if overdue:
            columns = {"error": orjson.dumps(DEADLINE_ERROR).decode()}
            told = [event("run.finished", now, status="failed", error=DEADLINE_ERROR)]
            changes = [Change(run_id, EXPIRE_ASLEEP, columns=columns, events=told) for run_id in overdue]
            hit("expire.before")
            await self._store.change(*changes)
            hit("expire.after")
        return len(overdue) >= BATCH

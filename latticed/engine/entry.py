"""One entry of a run's code: whether it may go on, where it stands in the journal, how it asks for the next record."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from latticed.engine.execution import Execution
from latticed.engine.journal import Branch
from latticed.engine.lasting import unbroken
from latticed.engine.waiting import Wait, Waits, micros
from latticed.errors import Cancelled, Misuse, Suspended, Unwind
from latticed.models.records import LINE, StepRecord

current_branch: ContextVar[Branch] = ContextVar("latticed_branch")
step_key: ContextVar[str | None] = ContextVar("latticed_step_key", default=None)
"""Set inside a step only."""

_MANY_REFUSALS = 100
_LONGEST = 10**16


@dataclass(slots=True)
class Asked:
    """What a branch has asked for, with its record if it is there and holds."""

    kind: str
    name: str
    branch: Branch
    occurrence: int
    found: StepRecord | None
    n: int | None
    """The number of the record that is there, also if it is to be made anew."""


class Entry:
    """Made anew each time the code is entered. One that was unwound stays so: what was left behind in it can do
    nothing."""

    def __init__(self, execution: Execution) -> None:
        self.x = execution
        self.waits = execution.waits = Waits(execution.clock)
        self._refusals = 0
        current_branch.set(execution.journal.branch(""))

    # May it go on?

    def check(self) -> None:
        """Returns if user code may go on.

        Raises:
            Cancelled: it is to end; not inside a shield.
            Suspended: it has been unwound to wait, or the daemon drains. No shield changes that: what a cleanup did
                now would be in the journal when the code is entered again, where it does not belong.
        """
        branch = current_branch.get(None)
        if branch is not None and branch.closed:
            raise Cancelled
        if not self.x.stopping and (self.waits.unwound or self.x.draining):
            if branch is not None:
                branch.suspend()
            raise Suspended
        self.x.check()

    async def admit(self) -> None:
        """As `check`. Code that goes on all the same, again and again, does not hold up the event loop."""
        try:
            self.check()
        except Unwind:
            self._refusals += 1
            await asyncio.sleep(0 if self._refusals < _MANY_REFUSALS else 1)
            raise

    async def wait(self, wait: Wait) -> None:
        """As Waits.wait, unless the code is to end."""
        self.check()
        try:
            await self.waits.wait(wait)
        except Suspended:
            self.branch().suspend()
            raise
        finally:
            if self.waits.unwound:
                self.x.on_unwound(self.x)

    def patience(self, now: int) -> int:
        """Until when a fact is awaited in place: for long where being unwound would end a shielded cleanup."""
        if self.x.stopping:
            return now + _LONGEST
        return now + int(self.x.settings.park_seconds * 1_000_000)

    # The journal

    def branch(self) -> Branch:
        """The branch that is asking."""
        branch = current_branch.get(None)
        if branch is None:
            raise Misuse("this context belongs to another task; call it from the run's own code")
        return branch

    def says(self) -> bool:
        """Whether an event that the code emits now is new, rather than one of an earlier entry."""
        branch = current_branch.get(None)
        if branch is None:
            return True
        if branch.replays(self.x.row.attempt):
            return False
        branch.said = True
        return True

    @contextmanager
    def asking(self, kind: str, name: str) -> Iterator[Asked]:
        """One thing at a time in a branch, in the order of the journal. Failed ones of an earlier attempt are made
        anew, but for what people have said."""
        if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
            raise Misuse(f"a {kind}'s name must be 1 to 200 printable characters")
        branch = self.branch()
        if step_key.get() is not None:
            raise Misuse(
                f"{kind} {name!r} was asked for inside {branch.busy or 'a step'}; a step cannot ask for others"
            )
        if branch.busy is not None:
            raise Misuse(
                f"{kind} {name!r} was asked for while {branch.busy} is under way in the same branch; "
                "use ctx.gather to do several things at once"
            )
        occurrence, found = branch.next(kind, name)
        asked = Asked(kind, name, branch, occurrence, found, None if found is None else found.n)
        if found is not None and found.status == "failed" and found.attempt != self.x.row.attempt and kind != "ask":
            branch.loosen()
            asked.found = None
        branch.said = False
        branch.busy = f"{kind} {name!r}"
        try:
            yield asked
        finally:
            branch.busy = None

    def record(self, asked: Asked, status: str = "waiting", ref: str | None = None) -> StepRecord:
        """A record of what was asked for, to be written."""
        x = self.x
        number = x.journal.number() if asked.n is None else asked.n
        return StepRecord(
            number, asked.kind, asked.branch.path, asked.name, asked.occurrence, status, x.row.attempt, x.row.epoch,
            x.clock.now(), None, ref, b"null", b"null",
        )  # fmt: skip

    # Writing

    async def write(self, record: StepRecord, **parts: Any) -> None:
        """Writes a record, with what is to be written with it.

        Raises:
            Cancelled: it was not written: the run is no longer ours, or is being cancelled and nothing may be begun.
        """
        try:
            row = await self.x.commit(steps=[record], **parts)
        except asyncio.CancelledError:  # Perhaps it is written and perhaps not; user code may go on all the same.
            await unbroken(self.x.commit(steps=[record]))
            raise
        if row is None:
            raise Cancelled

    async def write_once(self, record: StepRecord, **parts: Any) -> None:
        """As `write`, for what must not be written twice."""
        if await unbroken(self.x.commit(steps=[record], **parts)) is None:
            raise Cancelled

    def note(self, record: StepRecord) -> StepRecord:
        """Writes a record of what can be found out again, without waiting for that."""
        order = self.x.store.order(self.x.fenced(steps=[record]))
        order.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.x.journal.add(record)
        return record

    async def seal(self, branch: Branch) -> None:
        """A branch has ended: what it said after its last record is not said again if others make the run wait.

        Raises:
            Suspended: it was told to leave, so that this is not its end.
        """
        if branch.suspended:
            raise Suspended
        if branch.said:
            x = self.x
            now, before = x.clock.now(), x.journal.ended(branch.path)
            number = x.journal.number() if before is None else before.n
            await self.write(
                StepRecord(
                    number, LINE, branch.path, "", 0, "ok", x.row.attempt, x.row.epoch, now, now, None, b"null",
                    b"null",
                )
            )  # fmt: skip


class Shield:
    """Keeps a cancel away from a cleanup, from now until it is lowered, at the latest after so many seconds."""

    def __init__(self, execution: Execution, seconds: float) -> None:
        """Raises it.

        Raises:
            Misuse: that is no number of seconds.
        """
        length = min(micros(seconds, "ctx.shield") / 1e6, 1e9)
        self._x: Execution | None = execution
        execution.shields += 1
        self._timer = asyncio.get_running_loop().call_later(length, self.lower)

    def lower(self) -> None:
        """Ends it; once is enough."""
        self._timer.cancel()
        if self._x is not None:
            self._x.shields -= 1
            self._x.harder.set()
            self._x = None

"""One claimed run in this process: its fenced writes, its events on their way, how far it is wound down."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import structlog

from latticed.clock import Clock
from latticed.config import RunsConfig
from latticed.engine.journal import Journal
from latticed.engine.patience import Asked
from latticed.engine.threads import Threads
from latticed.engine.waiting import Waits
from latticed.errors import Cancelled, Suspended, Unavailable, Unwind
from latticed.models.audit import Act
from latticed.models.hooks import DeliveryRow
from latticed.models.records import Beside, Birth, Change, Claimed, NewEvent, RunRow, StepRecord
from latticed.ports import HookChain, Store
from latticed.states import OWNED, Move, Status

LAZY_SECONDS = 0.01
"""How long an event that need not be on disk waits for a commit that must be."""
FIRST_RETRY_SECONDS, MOST_RETRY_SECONDS = 0.05, 1.0
_PENDING_LIMIT = 500

log = structlog.get_logger()


class Execution:
    """What the executor, the context and the ladder share about one claimed run."""

    def __init__(
        self, claimed: Claimed, store: Store, clock: Clock, settings: RunsConfig, threads: Threads,
        admit: Callable[..., Birth], chain: HookChain | None = None,
        on_unwound: Callable[["Execution"], object] = lambda x: None,
    ) -> None:  # fmt: skip
        self.claimed = claimed
        self.run_id = claimed.row.id
        self.row = claimed.row
        self.store = store
        self.clock = clock
        self.settings = settings
        self.threads = threads
        self.admit = admit
        """Makes a child's row from what was asked; raises `Invalid` if it cannot run here."""
        self.chain = chain
        """The hooks around its tools and nodes."""
        self.on_unwound = on_unwound
        """To be told once its code is to leave in order to wait."""
        self.journal = Journal(claimed.journal)
        self.waits = Waits(clock)
        self.facts = claimed.row.facts
        self.cancel_rank = 0
        """0 without a cancel on record, then the rung at which its ladder begins."""
        self.stopping = False
        """Whether user code is to end: a cancel is on record, its deadline has passed."""
        self.expired = False
        self.draining = False
        self.settling = False
        """Whether user code has ended (or been given up) and its outcome is being written."""
        self.ended = False
        self.shields = 0
        self.plain_calls = 0
        """Plain functions of this run that a thread is executing, or is to."""
        self.line: set[Future[Any]] = set()
        """What they will have come to. One that still waits for its thread leaves the line where it is cancelled."""
        self.escalations: list[Callable[[int], None]] = []
        self.rung = 0
        self.harder = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.ladder: asyncio.Task[None] | None = None
        self.leave_by: asyncio.TimerHandle | None = None
        """When code that was unwound to wait is made to leave."""
        self.recoveries = claimed.row.recoveries
        self.deadline: asyncio.TimerHandle | None = None
        self.abandoned = False
        """Whether its code was given up."""
        self.holds_slot = True
        self.asking: set[Asked] = set()
        """What hooks are being asked at this moment; it is cut short at once where anything else ends in its time."""
        self._pending: list[NewEvent] = []
        self._shows: dict[str, Any] = {}
        self._unkept: list[DeliveryRow] = []
        self._flush_timer: asyncio.Handle | None = None
        self._loop = asyncio.get_running_loop()

    def log_fields(self) -> dict[str, Any]:
        """What every line that is logged about this run says."""
        return {"run": self.run_id, "workspace": self.row.workspace, "epoch": self.row.epoch}

    def check(self) -> None:
        """Whether user code may go on.

        Raises:
            Cancelled: it is to end.
            Suspended: it was unwound to wait, which no shield changes, or the daemon drains.
        """
        if self.waits.unwound and not self.stopping:
            raise Suspended
        if self.shields and not self.ended:
            return
        if self.stopping or self.ended:
            raise Cancelled
        if self.draining:
            raise Suspended

    # What happened, on its way to disk

    def say(self, event: NewEvent, *, lazy: bool = False) -> None:
        """An event that nobody waits for: it goes with the next commit, at once if the writer is idle (or, lazy,
        a little later)."""
        self._pending.append(event)
        if lazy and self._flush_timer is None:
            self._flush_timer = self._loop.call_later(LAZY_SECONDS, self._flush)
        elif not lazy:
            if self._flush_timer is not None:
                self._flush_timer.cancel()
            self._flush_timer = self._loop.call_soon(self._flush)

    def show(self, **columns: Any) -> None:
        """Columns of `run_details`, as JSON text, that go with the next commit that is waited for."""
        self._shows |= columns

    def note(self, told: NewEvent, delivery: DeliveryRow) -> None:
        """An execution of a hook: its event, and its row, go with the next commit, whatever that is."""
        self._pending.append(told)
        self._unkept.append(delivery)

    async def breathe(self) -> None:
        """Who says much waits for the disk."""
        if len(self._pending) >= _PENDING_LIMIT:
            await self.commit()

    def _take_pending(self) -> list[NewEvent]:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        pending, self._pending = self._pending, []
        return pending

    def _flush(self) -> None:
        events = self._take_pending()
        if not events or self.ended:
            return
        unkept, self._unkept = self._unkept, []

        def done(future: "asyncio.Future[list[RunRow | None]]") -> None:
            if not future.cancelled() and isinstance(future.exception(), Unavailable):
                self._pending[:0] = events
                self._unkept[:0] = unkept
                if self._flush_timer is None:
                    self._flush_timer = self._loop.call_later(MOST_RETRY_SECONDS, self._flush)

        beside = Beside(deliveries=unkept) if unkept else None
        self.store.order(self.fenced(events=events, beside=beside)).add_done_callback(done)

    # Fenced writes

    def fenced(self, **parts: Any) -> Change:
        """A change of this run that only its owner can make."""
        return Change(self.run_id, owner=self.row.owner, epoch=self.row.epoch, **parts)

    async def commit(
        self,
        *,
        move: Move | None = None,
        states: frozenset[Status] = OWNED,
        events: list[NewEvent] | None = None,
        steps: list[StepRecord] | None = None,
        births: list[Birth] | None = None,
        columns: dict[str, Any] | None = None,
        facts_seen: int | None = None,
        beside: Beside | None = None,
        act: Act | None = None,
        by: Callable[[Change], Awaitable[Any]] | None = None,
    ) -> Any:
        """One fenced write, with all events on their way. While the store is away it is tried again, slot held.

        Returns:
            The run's row, or what `by` makes of the change; None if this execution is no longer the owner, or the
            guard did not hold (then nothing was written).
        """
        pending = self._take_pending()
        shows, self._shows = self._shows, {}
        unkept, self._unkept = self._unkept, []
        if unkept:
            beside = beside or Beside()
            beside.deliveries = [*unkept, *beside.deliveries]
        columns = columns or {}
        if steps and self.recoveries and self._gets_on(steps):
            columns = {**columns, "recoveries": 0}
        change = self.fenced(
            move=move,
            states=states,
            events=[*pending, *(events or ())],
            steps=steps or [],
            births=births or [],
            columns=columns,
            shows=shows,
            facts_seen=facts_seen,
            beside=beside,
            act=act,
        )
        outcome = await self.persist(lambda: by(change) if by else self._first(change))
        if outcome is None:
            self._pending[:0] = pending
            self._shows = shows | self._shows
            self._unkept[:0] = unkept
        else:
            if "recoveries" in columns:
                self.recoveries = 0
            for step in change.steps:
                self.journal.add(step)
        return outcome

    def _gets_on(self, steps: list[StepRecord]) -> bool:
        """Whether this brings the run further than it was at its last crash. One that begins anew after a crash only
        ever does again what it did before."""
        return self.claimed.recovery != "requeue" and any(step.status != "started" for step in steps)

    async def _first(self, change: Change) -> RunRow | None:
        return (await self.store.change(change))[0]

    async def persist(self, write: Callable[[], Awaitable[Any]]) -> Any:
        """Does a write, again and again while the store is away: that is never a run's failure."""
        wait = FIRST_RETRY_SECONDS
        while True:
            try:
                return await write()
            except Unavailable as away:
                log.warning("store_away", run=self.run_id, epoch=self.row.epoch, reason=away.detail)
                await asyncio.sleep(wait)
                wait = min(wait * 2, MOST_RETRY_SECONDS)

    # What others tell

    def notice(self, row: RunRow) -> None:
        """The run's row has changed on disk, by whomever."""
        self.facts = max(self.facts, row.facts)
        if row.cancel_rank > self.cancel_rank:
            self.cancel_rank = row.cancel_rank
            self.harder.set()

    def unwind(self) -> None:
        """User code is to end: nothing waits any longer, `ctx` calls raise."""
        self.stopping = True
        if not self.shields:
            self._let_go(Cancelled())

    def drain(self) -> None:
        """The daemon is ending: the run is given back after the step under way."""
        self.draining = True
        if not self.shields:
            self._let_go(Suspended())

    def _let_go(self, why: Unwind) -> None:
        """Nothing is waited for any longer: no fact, no time, no hook, no thread."""
        self.waits.stop(why)
        self.stop_asking()
        for each in self.line:
            each.cancel()

    def spare(self) -> None:
        """Nobody is made to leave for having been unwound any more: the code has left, or is to end altogether."""
        if self.leave_by is not None:
            self.leave_by.cancel()
            self.leave_by = None
        if self.ladder is not None and not self.stopping:
            self.ladder.cancel()
            self.ladder = None

    def stop_asking(self) -> None:
        """Hooks that are being asked are cut short."""
        for asked in self.asking:
            asked.cancel()

    def close(self) -> None:
        """Nothing of this execution writes any more."""
        self.ended = True
        self.waits.close()
        self.stop_asking()
        self._take_pending()
        for each in (self.leave_by, self.ladder):
            if each is not None:
                each.cancel()

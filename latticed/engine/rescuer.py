"""Runs whose owner is gone: at start those of another boot, later any that no task of this boot executes."""

import asyncio
from collections.abc import Callable, Collection

import orjson
import structlog

from latticed.clock import Clock
from latticed.engine.loop import Loop
from latticed.failpoints import hit
from latticed.models.records import Change, RunRow, event
from latticed.ports import Store
from latticed.states import CANCEL_WOUND_DOWN, EXPIRE, INTERRUPT, RELEASE, Move, Status

EVERY_SECONDS = 30.0
BATCH = 500

log = structlog.get_logger()


class Rescuer(Loop):
    """Deals with orphans: each by its recovery policy, a cancel on record before all else."""

    def __init__(
        self, *, store: Store, clock: Clock, owner: str, max_recoveries: int, is_live: Callable[[str], bool],
        kill_processes: Callable[[Collection[str]], object],
    ) -> None:  # fmt: skip
        super().__init__()
        self._store = store
        self._clock = clock
        self._owner = owner
        self._is_live = is_live
        self._kill_processes = kill_processes
        self._doubtful: set[tuple[str, int]] = set()
        self.max_recoveries = max_recoveries
        self.recovered = 0

    async def recover(self) -> int:
        """Deals with every run of another boot; how many there were. Done before the door opens."""
        owned = [(row, policy) for row, policy in await self._store.list_owned() if row.owner != self._owner]
        if owned:
            await self._deal_with(owned)
            hit("recover.after")
        return len(owned)

    async def tick(self) -> float:
        """Finds runs of this boot that nobody executes: seen so twice in a row, they are orphans too."""
        doubtful = {
            (row.id, row.epoch): (row, policy)
            for row, policy in await self._store.list_owned()
            if row.owner == self._owner and not self._is_live(row.id)
        }
        orphans = [found for key, found in doubtful.items() if key in self._doubtful and not self._is_live(key[0])]
        self._doubtful = set(doubtful)
        if orphans:
            log.warning("orphans", runs=[row.id for row, _ in orphans])
            await self._deal_with(orphans)
        return EVERY_SECONDS

    async def _deal_with(self, owned: list[tuple[RunRow, str]]) -> None:
        await asyncio.to_thread(self._kill_processes, [row.id for row, _ in owned])
        hit("recover.before")
        for start in range(0, len(owned), BATCH):
            resumed: list[Change] = []
            requeued: list[Change] = []
            for row, policy in owned[start : start + BATCH]:
                change = self._change(row, policy)
                (requeued if change.move is RELEASE and policy == "requeue" else resumed).append(change)
            if resumed:
                await self._store.change(*resumed)
            hit("recover.half")
            if requeued:
                await self._store.requeue(requeued)
        self.recovered += len(owned)

    def _change(self, row: RunRow, policy: str) -> Change:
        now = self._clock.now()
        recoveries = row.recoveries + 1

        def end(move: Move, status: str, code: str | None, message: str) -> Change:
            error = {"code": code, "message": message, "detail": None} if code else None
            told = {"status": status} | ({"error": error} if error else {})
            columns = {"error": orjson.dumps(error).decode(), "recoveries": recoveries} if error else {}
            return Change(
                row.id, move, owner=row.owner, epoch=row.epoch, columns=columns,
                events=[event("run.finished", now, **told)],
            )  # fmt: skip

        if row.status == Status.CANCELLING:
            return end(CANCEL_WOUND_DOWN, "cancelled", None, "")
        if row.deadline_at is not None and row.deadline_at <= now:
            return end(EXPIRE, "failed", "deadline_exceeded", "its deadline passed while the daemon was down")
        if policy == "interrupt":
            return end(INTERRUPT, "interrupted", "interrupted", "the daemon died; its policy is interrupt")
        if recoveries >= self.max_recoveries:
            between = "" if policy == "requeue" else ", with no new step recorded in between"
            message = f"the daemon died {recoveries} times while it ran{between}"
            return end(INTERRUPT, "interrupted", "max_recoveries", message)
        return Change(
            row.id, RELEASE, owner=row.owner, epoch=row.epoch, columns={"recoveries": recoveries},
            events=[event("run.recovered", now, policy=policy, from_epoch=row.epoch)],
        )  # fmt: skip

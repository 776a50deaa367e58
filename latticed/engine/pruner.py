"""Removes what is not kept: workspaces that were removed, runs whose time is over, old keys, sessions and audit rows.

It works in slices and gives the writer as much rest as it took, so that nobody waits for it. All that it has to know
is on disk: it goes on where an earlier life broke off.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

import structlog

from latticed.clock import Clock
from latticed.config import RetentionConfig
from latticed.engine.loop import Loop
from latticed.failpoints import hit
from latticed.models.records import NOBODY, Change, Commit, Finished, RunRow
from latticed.models.stopping import stop_change
from latticed.states import OWNED, TERMINAL, Status

T = TypeVar("T")

WELL = (Status.OK, Status.RETRIED_OK, Status.PARTIAL)
"""Ends of runs that are kept for `ok_days`; the others are for `failed_days`."""
DAY = 86_400_000_000
ROUND_SECONDS = 3600.0
"""How often it looks for what is old; more often where something is kept for less than a day."""
_WAITS_SECONDS = 1.0
_PAGE = 500
_SWEPT = 50
"""Runs that are made ready to be deleted at once."""

log = structlog.get_logger()


class Ground(Protocol):
    """What is asked of the store."""

    async def change(self, *changes: Change) -> list[RunRow | None]:
        """As ports.Writes."""
        ...

    async def list_owned(self) -> list[tuple[RunRow, str]]:
        """As ports.Store."""
        ...

    async def list_removed(self) -> list[str]:
        """Workspaces that are removed and hold something yet."""
        ...

    async def list_names(self) -> list[str]:
        """All workspaces that are there."""
        ...

    async def list_unowned(self, workspace: str, limit: int) -> list[str]:
        """Some runs of a workspace that nobody owns."""
        ...

    async def sweep(self, workspace: str, run_ids: Sequence[str]) -> int:
        """Deletes some of these runs of a workspace, but none that somebody owns by now, with all that belongs to them;
        how many rows."""
        ...

    async def finish_removal(self, workspace: str) -> bool:
        """Deletes some of what a removed workspace without runs still holds; True when that was the last of it."""
        ...

    async def list_finished(self, workspace: str, status: str, after: str, limit: int) -> list[Finished]:
        """Runs that ended so, from the one behind `after` on, those made first first."""
        ...

    async def retire(self, run_ids: Sequence[str]) -> int:
        """Takes finished runs out of reach, but none of which something active has need; how many."""
        ...

    async def expire_keys(self, now: int) -> int:
        """Forgets some idempotency keys that are too old; how many."""
        ...

    async def expire_sessions(self, now: int) -> int:
        """Deletes some sessions that are over; how many."""
        ...

    async def expire_audit(self, before: int) -> int:
        """Deletes some rows of the audit trail that are older; how many."""
        ...


async def _nothing(run_ids: Sequence[str]) -> None:
    return


class Pruner(Loop):
    """The loop that removes. `removed` is shared with all who must not see a workspace any more: it takes a name out
    once that is free again. `changed` is told of a workspace that runs were removed from, `gone` of one that is no
    more, `counted(what, rows)` of what was deleted; `clear` removes what runs left beside the store, before they go."""

    def __init__(
        self, *, store: Ground, clock: Clock, retention: RetentionConfig, removed: set[str],
        changed: Callable[[str], None] = lambda workspace: None, gone: Callable[[str], None] = lambda workspace: None,
        counted: Callable[[str, int], None] = lambda what, rows: None,
        clear: Callable[[Sequence[str]], Awaitable[None]] = _nothing,
    ) -> None:  # fmt: skip
        super().__init__()
        self._store = store
        self._clock = clock
        self._retention = retention
        self._removed = removed
        self._changed = changed
        self._gone = gone
        self._counted = counted
        self._clear = clear
        self._next_round = 0.0

    async def find(self) -> None:
        """Learns which workspaces are removed. Done before the door opens."""
        self._removed.update(await self._store.list_removed())

    def configure(self, retention: RetentionConfig) -> None:
        """Other times to keep things for."""
        self._retention = retention
        self._next_round = 0.0
        self.wake()

    def told(self, commit: Commit) -> None:
        """Something became true on disk: perhaps the last run of a removed workspace has ended."""
        if self._removed and any(row.workspace in self._removed and row.status not in OWNED for row in commit.rows):
            self.wake()

    async def tick(self) -> float:
        for workspace in sorted(self._removed):
            await self._remove(workspace)
        if self._clock.monotonic() >= self._next_round:
            await self._round()
            self._next_round = self._clock.monotonic() + self._period()
        rest = max(0.0, self._next_round - self._clock.monotonic())
        return min(rest, _WAITS_SECONDS) if self._removed else rest

    def _period(self) -> float:
        kept = self._retention
        days = [each for each in (kept.ok_days, kept.failed_days, kept.audit_days) if each is not None]
        return min(ROUND_SECONDS, max(1.0, min(days, default=1.0) * 86_400 / 24))

    # Workspaces

    async def _remove(self, workspace: str) -> None:
        """Cancels what runs in a removed workspace, deletes the rest, and frees its name once nothing is left."""
        owned = [row for row, _ in await self._store.list_owned() if row.workspace == workspace]
        if unasked := [row.id for row in owned if not row.cancel_rank]:
            hit("remove.before_cancel")
            await self._store.change(*(self._stop(run_id) for run_id in unasked))
        await self._all("runs", lambda: self._sweep(workspace))
        if owned:
            return
        while not await self._slice(lambda: self._store.finish_removal(workspace)):
            hit("remove.half")
            if any(row.workspace == workspace for row, _ in await self._store.list_owned()):
                return
        hit("remove.after")
        self._removed.discard(workspace)
        self._gone(workspace)
        log.info("workspace_removed", workspace=workspace)

    def _stop(self, run_id: str) -> Change:
        reason = "its workspace is being removed"
        return stop_change(
            run_id, by="latticed", reason=reason, mode="graceful", children=True, now=self._clock.now()
        )  # fmt: skip

    async def _sweep(self, workspace: str) -> int:
        swept = 0
        while not swept and (found := await self._store.list_unowned(workspace, _SWEPT)):
            await self._clear(found)
            swept = await self._store.sweep(workspace, found)
        hit("prune.slice")
        return swept

    # What is old

    async def _round(self) -> None:
        now = self._clock.now()
        await self._all("runs", lambda: self._sweep(NOBODY))  # What an earlier life took out of reach.
        kept = self._retention
        if kept.ok_days is not None or kept.failed_days is not None:
            for workspace in await self._store.list_names():
                for status in sorted(TERMINAL):
                    days = kept.ok_days if status in WELL else kept.failed_days
                    if days is not None:
                        await self._retire(workspace, status, now - int(days * DAY))
        await self._all("idempotency_keys", lambda: self._store.expire_keys(now))
        await self._all("sessions", lambda: self._store.expire_sessions(now))
        if (days := kept.audit_days) is not None:
            await self._all("audit", lambda: self._store.expire_audit(now - int(days * DAY)))

    async def _retire(self, workspace: str, status: str, before: int) -> None:
        """Removes the runs of a workspace that ended so before a time. They are looked through in the order in which
        they were made, up to the first that was made after it."""
        after = ""
        removed = False
        while True:
            page = await self._store.list_finished(workspace, status, after, _PAGE)
            if await self._slice(partial(self._retire_some, [run.id for run in page if run.finished_at < before])):
                hit("prune.retired")
                removed = True
                await self._all("runs", lambda: self._sweep(NOBODY))
            if len(page) < _PAGE or page[-1].created_at >= before:
                break
            after = page[-1].id
        if removed:
            self._changed(workspace)

    async def _retire_some(self, run_ids: list[str]) -> int:
        return await self._store.retire(run_ids) if run_ids else 0

    # Slices

    async def _all(self, what: str, some: Callable[[], Awaitable[int]]) -> None:
        """Does `some` of it until nothing is left."""
        while rows := await self._slice(some):
            self._counted(what, rows)

    async def _slice(self, work: Callable[[], Awaitable[T]]) -> T:
        """One slice, and as long a rest as it took."""
        began = self._clock.monotonic()
        done = await work()
        await asyncio.sleep(self._clock.monotonic() - began)
        return done

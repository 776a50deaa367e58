"""Decides what runs next: named queues, limits, priorities, fairness between workspaces.

A queue goes round its workspaces, one run each; within a workspace the higher priority comes first, then the older
run. Nothing is polled: what becomes claimable on disk is told here, and a slot that becomes free asks for more. Each
share (a workspace's part of a queue) keeps a window of the next runs in memory; what does not fit is on disk and read
when the window runs low, so that a million queued runs cost no memory.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog

from latticed.failpoints import hit
from latticed.models.records import Birth, Claimed, Commit, ReadyEntry, RunRow, claim_change
from latticed.ports import Registry, Store
from latticed.states import CLAIMABLE

WINDOW = 1000
SUSPECT_RECOVERIES = 2
"""Crashes in a row that make a run suspect: suspects are claimed one at a time."""
_STORE_AWAY_SECONDS = 1.0

log = structlog.get_logger()


@dataclass(slots=True)
class _Share:
    workspace: str
    heap: list[ReadyEntry] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    more: bool = False
    """Whether the disk may hold runs of this share that the window does not, all of them after `last`."""
    last: ReadyEntry | None = None
    filling: bool = False
    blind: bool = False
    """Whether nothing of it was read yet, so that what the window holds may not be what comes first."""


@dataclass(slots=True)
class _Queue:
    limit: int
    running: int = 0
    shares: dict[str, _Share] = field(default_factory=dict)
    round: deque[str] = field(default_factory=deque)


class Dispatcher:
    """The queues of this process."""

    def __init__(
        self, *, store: Store, registry: Registry, owner: str, concurrency: int, queues: Mapping[str, int],
        start: Callable[[Claimed], None], removed: Set[str] = frozenset(),
    ) -> None:  # fmt: skip
        self._store = store
        self._registry = registry
        self._owner = owner
        self._start = start
        self._removed = removed
        """Workspaces of which nothing more is started."""
        self.concurrency = concurrency
        self.running = 0
        self.paused = True
        self.claiming: set[str] = set()
        self._suspect: str | None = None
        self._queues = {name: _Queue(limit) for name, limit in queues.items()}
        self._turn: deque[str] = deque(queues)
        self._scheduled = False
        self._tasks: set[asyncio.Future[Any]] = set()
        self._loop = asyncio.get_running_loop()

    def configure(self, concurrency: int, queues: Mapping[str, int]) -> None:
        """New limits; what runs is left alone."""
        self.concurrency = concurrency
        for name, limit in queues.items():
            self._queues.setdefault(name, _Queue(limit)).limit = limit
        for name in self._queues.keys() - queues.keys():
            self._queues[name].limit = 0
        self._turn = deque(self._queues)
        self.wake()

    async def fill(self) -> None:
        """Reads what can be claimed: at start, and when agents or queues have changed."""
        for queue, workspace in await self._store.ready_shares():
            if queue in self._queues:
                share = self._share(self._queues[queue], workspace)
                share.more, share.last, share.blind = True, None, True
        self.wake()

    def refill(self) -> None:
        """As `fill`, in the background."""
        self._spawn(self.fill())

    def told(self, commit: Commit) -> None:
        """Something became true on disk: runs that can be claimed now take their place."""
        for row in commit.rows:
            if row.status in CLAIMABLE and row.due_at is None:
                queue = self._queues.get(row.queue)
                if queue is not None and self._registry.find(row.kind, row.target) is not None:
                    entry = ReadyEntry(
                        -row.priority, row.id, row.target, row.kind, row.recoveries >= SUSPECT_RECOVERIES
                    )
                    self._push(self._share(queue, row.workspace), entry)
                    self.wake()

    def seize(self, birth: Birth) -> None:
        """Orders the claim of a run whose birth was just ordered, if nothing is before it and a slot is free: it saves
        the way from the one commit to the other. Both may share one; what runs has its claim on disk either way."""
        queue = self._queues.get(birth.queue)
        if (
            self.paused
            or queue is None
            or birth.due_at is not None
            or self.running >= self.concurrency
            or queue.running >= queue.limit
            or any(share.heap or share.more or share.filling for share in queue.shares.values())
            or self._registry.find(birth.kind, birth.target) is None
        ):
            return
        self.running += 1
        queue.running += 1
        self.claiming.add(birth.id)
        hit("claim.before")
        claim = self._store.order(claim_change(birth.id, self._owner, birth.created_at))
        self._tasks.add(claim)
        claim.add_done_callback(lambda done: self._seized(birth, done))

    def _seized(self, birth: Birth, claim: "asyncio.Future[list[RunRow | None]]") -> None:
        self._tasks.discard(claim)
        self.claiming.discard(birth.id)
        row = None
        if not claim.cancelled() and claim.exception() is None:
            row = claim.result()[0]
        else:  # The run may be on disk all the same.
            self._loop.call_later(_STORE_AWAY_SECONDS, self.refill)
        if row is None:
            self.free(birth.queue, birth.id)
            return
        self._start(
            Claimed(
                row, birth.goal, orjson.loads(birth.inputs), birth.max_retries, birth.recovery, birth.created_by,
                birth.roles, birth.journal, birth=birth,
            )
        )  # fmt: skip

    def _share(self, queue: _Queue, workspace: str) -> _Share:
        share = queue.shares.get(workspace)
        if share is None:
            share = queue.shares[workspace] = _Share(workspace)
            queue.round.append(workspace)
        return share

    def _push(self, share: _Share, entry: ReadyEntry) -> None:
        if entry.id in share.known or entry.id in self.claiming:
            return
        if len(share.heap) >= 2 * WINDOW or (len(share.heap) >= WINDOW and not share.more):
            share.heap = heapq.nsmallest(WINDOW, share.heap)
            share.known = {kept.id for kept in share.heap}
            share.more, share.last = True, share.heap[-1]
        if share.more and share.last is not None and entry > share.last:
            return  # Its turn comes after runs that only the disk knows.
        share.known.add(entry.id)
        heapq.heappush(share.heap, entry)

    def wake(self) -> None:
        """Looks for something to start, once this turn of the event loop is over."""
        if not self._scheduled and not self.paused:
            self._scheduled = True
            self._loop.call_soon(self.tick)

    def free(self, queue: str, run_id: str) -> None:
        """A slot is free again."""
        self._release(queue, run_id)
        self.wake()

    def _release(self, queue: str, run_id: str) -> None:
        self.running -= 1
        self._queues[queue].running -= 1
        if self._suspect == run_id:
            self._suspect = None

    def tick(self) -> None:
        """Picks all that the limits allow, round by round, and claims it in one transaction."""
        self._scheduled = False
        if self.paused:
            return
        picked: list[tuple[str, str]] = []
        idle = 0
        while self.running < self.concurrency and idle < len(self._turn):
            name = self._turn[0]
            self._turn.rotate(-1)
            entry = self._pick(self._queues[name])
            if entry is None:
                idle += 1
                continue
            idle = 0
            self.running += 1
            self._queues[name].running += 1
            self.claiming.add(entry.id)
            picked.append((name, entry.id))
        if picked:
            self._spawn(self._claim(picked))

    def _pick(self, queue: _Queue) -> ReadyEntry | None:
        """The next run of a queue: from the workspace whose turn it is."""
        if queue.running >= queue.limit:
            return None
        for _ in range(len(queue.round)):
            workspace = queue.round[0]
            queue.round.rotate(-1)
            share = queue.shares[workspace]
            if workspace in self._removed:
                del queue.shares[workspace]
                queue.round.remove(workspace)
                continue
            if share.more and not share.filling and (share.blind or len(share.heap) < WINDOW // 2):
                share.filling = True
                self._spawn(self._refill(queue, share))
            if share.blind:
                continue
            entry = self._pop(share)
            if entry is not None:
                return entry
            if not share.heap and not share.more and not share.filling:
                del queue.shares[workspace]
                queue.round.remove(workspace)
        return None

    def _pop(self, share: _Share) -> ReadyEntry | None:
        held: list[ReadyEntry] = []
        found = None
        while share.heap and found is None:
            entry = heapq.heappop(share.heap)
            if entry.suspect and self._suspect is not None:
                held.append(entry)
                continue
            found = entry
            share.known.discard(entry.id)
            if entry.suspect:
                self._suspect = entry.id
        for entry in held:
            heapq.heappush(share.heap, entry)
        return found

    async def _refill(self, queue: _Queue, share: _Share) -> None:
        name = next(name for name, known in self._queues.items() if known is queue)
        try:
            share.more, share.last = False, None
            found = await self._store.list_ready(name, share.workspace, WINDOW)
        except Exception:
            share.more = True
            self._loop.call_later(_STORE_AWAY_SECONDS, self.wake)
            raise
        finally:
            share.filling = False
        share.blind = False
        if len(found) >= WINDOW:
            share.more, share.last = True, found[-1]
        for entry in found:
            if self._registry.find(entry.kind, entry.target) is not None:
                self._push(share, entry)
        self.wake()

    async def _claim(self, picked: list[tuple[str, str]]) -> None:
        hit("claim.before")
        claimed: list[Claimed] = []
        try:
            claimed = await self._store.claim([run_id for _, run_id in picked], self._owner)
        except Exception:
            for queue, run_id in picked:  # Nothing was written: they are on disk as before.
                self.claiming.discard(run_id)
                self._release(queue, run_id)
            self._loop.call_later(_STORE_AWAY_SECONDS, self.refill)
            raise
        ours = {run.row.id for run in claimed}
        for queue, run_id in picked:
            self.claiming.discard(run_id)
            if run_id not in ours:  # Somebody else moved it, such as a cancel.
                self.free(queue, run_id)
        for run in claimed:
            self._start(run)

    def _spawn(self, work: Awaitable[None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                log.warning("dispatch_failed", reason=str(error))

        task = self._loop.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Waits until no claim is on its way; call it once paused."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def load(self, queue: str) -> tuple[int, int]:
        """How many of a queue run, and how many may."""
        known = self._queues.get(queue)
        return (known.running, known.limit) if known is not None else (0, 0)

    @property
    def suspect(self) -> str | None:
        """The run that is executed alone among those that crashed repeatedly."""
        return self._suspect

"""What a workspace may take: counted from what becomes true on disk, refused before anything is written.

A submission takes a place when it is asked for and keeps it until its run is told or has failed to come, so that of
many at once exactly those fit that there is room for. What is on disk is counted once, at the start and when the
limits change; from then on each commit says what it adds. A workspace without a limit costs a look-up.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from latticed.clock import Clock
from latticed.config import LimitsConfig, Settings
from latticed.engine.loop import Loop
from latticed.errors import Busy
from latticed.models.limits import ROW_BYTES, Tally
from latticed.models.records import Birth, Commit, EventRecord, Once, RunRow

MINUTE = 60_000_000
_BYTES = frozenset({"event_bytes", "storage_bytes"})
_ENTERS = frozenset({"run.queued", "run.retrying", "run.woken", "run.released", "run.recovered"})
_LEAVES = frozenset({"run.started", "run.finished"})
_LONG = 3600.0
_AGAIN = {"active_runs": 5, "queued_runs": 5, "event_bytes": 60, "storage_bytes": 60}
"""Seconds after which to come again where nobody can know when there is room."""
_WAYS = {
    "active_runs": "runs that are not over; wait for some to end, or stop some",
    "queued_runs": "runs that wait in a queue; wait for some to start, or stop some",
    "submissions_per_minute": "submissions in 60 seconds; submit more slowly",
    "event_bytes": "bytes of events; wait for retention to remove old runs",
    "storage_bytes": "bytes kept; wait for retention to remove old runs",
}


class Ground(Protocol):
    """What is asked of the store."""

    def bear(self, births: Sequence[Birth]) -> "asyncio.Future[list[RunRow]]":
        """As ports.Writes."""
        ...

    async def submit_once(self, birth: Birth, once: Once, refusal: Busy | None = None) -> tuple[str, bool]:
        """As ports.FacadeStore."""
        ...

    async def find_made(self, once: Once) -> str | None:
        """As ports.FacadeStore."""
        ...

    async def tally(
        self, wanted: Callable[[str], frozenset[str]], since: int
    ) -> tuple[int, dict[str, Tally]]:  # fmt: skip
        """What each workspace takes for which `wanted` names limits, and the position as of which that holds."""
        ...

    async def weigh(self, workspace: str, after: str, position: int, whole: bool) -> tuple[int, int, str | None]:
        """Bytes of the events up to `position`, and of all else if `whole`, of some runs of a workspace from the one
        behind `after` on; and the last of these, or None at the end."""
        ...

    def measure(self, wanted: Callable[[str], bool] | None) -> None:
        """From now on each commit says what it adds, beside events, to the workspaces that are `wanted`."""
        ...


@dataclass(slots=True)
class _Meter:
    """Bytes: what was on disk when they were counted, and what has come since."""

    before: int = 0
    since: int = 0
    fresh: int = 0
    """What has come since the count that is under way began."""

    def add(self, size: int) -> None:
        self.since += size
        self.fresh += size

    @property
    def total(self) -> int:
        return self.before + self.since


@dataclass(slots=True)
class _Use:
    limits: LimitsConfig
    active: int = 0
    queued: set[str] = field(default_factory=set)
    recent: deque[tuple[int, int]] = field(default_factory=deque)
    """Time and position of the submissions of the last minute."""
    places: dict[Any, int] = field(default_factory=dict)
    """Submissions on their way to the disk, and how many requests share each: those of one key make one run."""
    events: _Meter = field(default_factory=_Meter)
    others: _Meter = field(default_factory=_Meter)
    weighed: bool = False


class Limits(Loop):
    """The limits of all workspaces. The loop weighs, in the background, what a limit on bytes has to know."""

    def __init__(
        self, *, store: Ground, clock: Clock, settings: Settings,
        refused: Callable[[str, str], None] = lambda workspace, limit: None,
        ordered: Callable[[Birth], object] = lambda birth: None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._store = store
        self._clock = clock
        self._refused = refused
        self._ordered = ordered
        """Told of a run whose birth has just been ordered, before anything else is."""
        self._uses: dict[str, _Use] = {}
        self._holds: dict[str, tuple[_Use, Any]] = {}
        """Run on its way to the disk → where it has its place."""
        self._late: list[EventRecord] | None = None
        self._position = 0
        self._stale: set[str] = set()
        self._counted: asyncio.Task[None] | None = None
        self._take(settings)

    def _take(self, settings: Settings) -> None:
        self._settings = settings
        self._quotas: dict[str, LimitsConfig | None] = {}
        self._any = any(limits.given for limits in (settings.limits, *settings.workspaces.values()))

    def _is_measured(self, workspace: str) -> bool:  # Asked by the writer's thread: it looks at nothing that changes.
        return self._settings.limits_of(workspace).storage_bytes is not None

    def configure(self, settings: Settings) -> None:
        """Other limits. Submissions to a workspace that has any wait until what is on disk is counted again."""
        self._take(settings)
        self._store.measure(None)
        self._counted = None
        if self._any:
            self._counted = self._begin_count()

    def quota(self, workspace: str) -> LimitsConfig | None:
        """What holds for a workspace; None if it has no limit at all."""
        try:
            return self._quotas[workspace]
        except KeyError:
            limits = self._settings.limits_of(workspace) if self._any else None
            self._quotas[workspace] = limits = limits if limits is not None and limits.given else None
            return limits

    # Submissions

    async def submit(self, birth: Birth, once: Once | None = None) -> tuple[str, bool]:
        """Puts a run on disk if its workspace has room → as `submit_once` of the store.

        Raises:
            Busy: it has none; nothing was written. A key that was used before is never refused.
        """
        limits = self.quota(birth.workspace)
        if limits is None:
            return await self._put(birth, once)
        await self.count()
        if once is not None and (made := await self._store.find_made(once)) is not None:
            return made, True
        use = self._use(birth.workspace, limits)
        place: Any = birth.id if once is None else (once.route, once.key)
        refusal = None if place in use.places else self._refusal(birth.workspace, use, limits.given)
        try:
            if refusal is None:
                self._holds[birth.id] = (use, place)
                use.places[place] = use.places.get(place, 0) + 1
            elif once is None:
                raise refusal
            return await self._put(birth, once, refusal)
        except Busy as busy:
            self.note(birth.workspace, busy)
            raise
        finally:
            self._leave(birth.id)

    async def _put(self, birth: Birth, once: Once | None, refusal: Busy | None = None) -> tuple[str, bool]:
        if once is not None:
            return await self._store.submit_once(birth, once, refusal)
        born = self._store.bear([birth])
        self._ordered(birth)
        await born
        return birth.id, False

    def full(self, workspace: str) -> Busy | None:
        """Why nothing may be kept for a workspace that comes from outside and is no run, such as a signal."""
        limits = self.quota(workspace)
        if limits is None or limits.storage_bytes is None:
            return None
        return self._refusal(workspace, self._use(workspace, limits), frozenset({"storage_bytes"}))

    def note(self, workspace: str, busy: Busy) -> None:
        """Counts a refusal."""
        self._refused(workspace, busy.extra["limit"])

    def _leave(self, run_id: str) -> None:
        use, place = self._holds.pop(run_id, (None, None))
        if use is not None and place in use.places:
            use.places[place] -= 1
            if not use.places[place]:
                del use.places[place]

    def _refusal(self, workspace: str, use: _Use, given: frozenset[str]) -> Busy | None:
        for name in LimitsConfig.model_fields:
            if name not in given:
                continue
            most: int = getattr(use.limits, name)
            taken = self._taken(use, name)
            if taken >= most:
                wait = self._frees(use, most) if name == "submissions_per_minute" else _AGAIN[name]
                return _busy(workspace, name, taken, most, wait)
        return None

    def _taken(self, use: _Use, name: str) -> int:
        match name:
            case "active_runs":
                return use.active + len(use.places)
            case "queued_runs":
                return len(use.queued) + len(use.places)
            case "submissions_per_minute":
                now = self._clock.now()
                while use.recent and not now - MINUTE < use.recent[0][0] <= now:  # Also if the clock was set back.
                    use.recent.popleft()
                return len(use.recent) + len(use.places)
            case "event_bytes":
                return use.events.total
            case _:
                return use.events.total + use.others.total

    def _frees(self, use: _Use, most: int) -> int:
        """Seconds until one more submission fits into the minute."""
        until_free = len(use.recent) + len(use.places) - most
        if most == 0 or until_free >= len(use.recent):
            return 60
        return max(1, -((self._clock.now() - MINUTE - use.recent[until_free][0]) // 1_000_000))

    # Counting

    async def count(self) -> None:
        """Returns once what is on disk has been counted.

        Raises:
            Unavailable: the store is away.
        """
        if not self._any:
            return
        await asyncio.shield(self._begin_count())

    def _begin_count(self) -> "asyncio.Task[None]":
        task = self._counted
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            self._store.measure(self._is_measured)
            self._late = []  # Now: what is told before the task begins may not be in what it finds.
            task = self._counted = asyncio.get_running_loop().create_task(self._tally(self._settings, self._late))
        return task

    async def _tally(self, settings: Settings, late: list[EventRecord]) -> None:

        def wanted(workspace: str) -> frozenset[str]:
            return settings.limits_of(workspace).given

        position, tallies = await self._store.tally(wanted, self._clock.now() - MINUTE)
        if self._late is not late:  # Another count has begun, for newer limits.
            return
        self._late = None
        self._position = max(self._position, position)
        for name in [name for name in self._uses if self.quota(name) is None]:
            del self._uses[name]
        for name in self._uses.keys() | tallies.keys():
            limits = self.quota(name)
            assert limits is not None
            use = self._use(name, limits)
            tally = tallies.get(name, Tally(0, frozenset(), []))
            use.limits, use.active, use.queued = limits, tally.active, set(tally.queued)
            newer = [(at, since) for at, since in use.recent if since > position]
            use.recent = deque([*((at, position) for at in sorted(tally.recent)), *newer])
            self.changed(name)
        for event in late:
            if event.position > position and (found := self._uses.get(event.workspace)) is not None:
                _count_run(found, event)

    def _use(self, workspace: str, limits: LimitsConfig) -> _Use:
        use = self._uses.get(workspace)
        if use is None:
            # What was not there when all were counted has come since, and nothing of it is on disk yet.
            use = self._uses[workspace] = _Use(limits, weighed=self._late is None)
        return use

    def told(self, commit: Commit) -> None:
        """Something became true on disk."""
        if not self._any:
            return
        for event in commit.events:
            limits = self.quota(event.workspace)
            if limits is None:
                continue
            use = self._use(event.workspace, limits)
            _count_run(use, event)
            use.events.add(len(event.data) + ROW_BYTES)
            if event.run_id in self._holds and event.type == "run.queued":
                _, place = self._holds.pop(event.run_id)
                use.places.pop(place, None)
                if limits.submissions_per_minute is not None:
                    use.recent.append((event.at, event.position))
        if self._late is not None:
            self._late += commit.events
        if commit.events:
            self._position = commit.events[-1].position
        for workspace, size in commit.sizes.items():
            if (found := self._uses.get(workspace)) is not None:
                found.others.add(size)

    # Bytes

    def changed(self, workspace: str) -> None:
        """Something was removed from a workspace, or nobody knows yet what it takes: its bytes are counted anew."""
        if (limits := self.quota(workspace)) is not None and limits.given & _BYTES:
            self._stale.add(workspace)
            self.wake()

    def forget(self, workspace: str) -> None:
        """A workspace is gone."""
        self._uses.pop(workspace, None)
        self._stale.discard(workspace)

    async def tick(self) -> float:
        while self._stale:
            workspace = min(self._stale)
            await self._weigh(workspace)
            self._stale.discard(workspace)
        return _LONG

    async def _weigh(self, workspace: str) -> None:
        use = self._uses.get(workspace)
        if use is None:
            return
        position = self._position
        use.events.fresh = use.others.fresh = 0
        events = others = 0
        after: str | None = ""
        while after is not None:
            whole = use.limits.storage_bytes is not None
            of_events, of_others, after = await self._store.weigh(workspace, after, position, whole)
            events += of_events
            others += of_others
            if not use.weighed:  # What is found so far holds already.
                use.events.before, use.others.before = events, others
        use.events = _Meter(events, use.events.fresh)
        use.others = _Meter(others, use.others.fresh)
        use.weighed = True

    # Views

    def view(self, workspace: str, active: int, queued: int) -> dict[str, Any]:
        """The limits of a workspace and its use of them, given what it has of runs: as models.limits has it."""
        limits = self._settings.limits_of(workspace)
        use = self._uses.get(workspace) or _Use(limits)
        counted: dict[str, int | None] = {"active_runs": active, "queued_runs": queued}
        for name in ("submissions_per_minute", "event_bytes", "storage_bytes"):
            counted[name] = self._taken(use, name) if name in limits.given else None
        return {"limits": limits.model_dump(), "use": counted}


def _count_run(use: _Use, event: EventRecord) -> None:
    if event.type in _ENTERS:
        if event.type == "run.queued" and event.seq == 1:
            use.active += 1
        if use.limits.queued_runs is not None:
            use.queued.add(event.run_id)
    elif event.type in _LEAVES:
        if event.type == "run.finished":
            use.active -= 1
        use.queued.discard(event.run_id)


def _busy(workspace: str, name: str, taken: int, most: int, wait: int) -> Busy:
    where = f"{name} of workspace {workspace!r} is limited to {most}, and it has {taken} {_WAYS[name]}"
    busy = Busy(f"{where}, or have limits.{name} or workspaces.{workspace}.{name} raised in the configuration", wait)
    busy.extra["limit"] = name
    return busy

"""What the limits ask of the store: what a workspace takes."""

from collections.abc import Callable

from sqlalchemy import func, select

from latticed import ids
from latticed.models.limits import Tally
from latticed.models.records import Once
from latticed.states import ACTIVE, CLAIMABLE
from latticed.store import dialects as d
from latticed.store.engine_side import EngineSide
from latticed.store.idempotency import lookup, made_by
from latticed.store.tables import runs, workspaces
from latticed.store.transaction import Transaction
from latticed.store.weighing import EVENT_BYTES, OTHER_BYTES

_RUNS_AT_ONCE = 100
"""How many runs one look weighs; each has its own steps and events."""

_PAGE = (
    select(runs.c.id)
    .where(runs.c.workspace == d.parameter("workspace"), runs.c.id > d.parameter("after"))
    .order_by(runs.c.id)
    .limit(_RUNS_AT_ONCE)
)


class LimitsSide(EngineSide):
    """What workspaces take."""

    async def find_made(self, once: Once) -> str | None:
        """The id of what a key has made in the last 24 hours.

        Raises:
            Conflict: it was used with another body.
        """
        rows = await self.read(lookup(once))
        return made_by(rows[0] if rows else None, once, self.clock.now())

    async def tally(self, wanted: Callable[[str], frozenset[str]], since: int) -> tuple[int, dict[str, Tally]]:
        """What each workspace takes for which `wanted` names limits, and the position as of which that holds."""
        active = select(func.count()).where(runs.c.status.in_(sorted(ACTIVE)))
        queued = select(runs.c.id).where(runs.c.status.in_(sorted(CLAIMABLE)))
        recent = select(runs.c.created_at).where(
            runs.c.id >= ids.earliest(ids.RUN, since), runs.c.created_at > since, runs.c.parent_run_id.is_(None)
        )

        def work(t: Transaction) -> tuple[int, dict[str, Tally]]:
            found: dict[str, Tally] = {}
            for (name,) in t.connection.execute(select(workspaces.c.name).where(workspaces.c.removed_at.is_(None))):
                if limits := wanted(name):
                    here = runs.c.workspace == name
                    of_queue = t.connection.execute(queued.where(here)).scalars() if "queued_runs" in limits else ()
                    rate = "submissions_per_minute" in limits
                    of_minute = t.connection.execute(recent.where(here)).scalars() if rate else ()
                    number = t.connection.execute(active.where(here)).scalar_one()
                    found[name] = Tally(number, frozenset(of_queue), list(of_minute))
            return t.position, found

        tallied: tuple[int, dict[str, Tally]] = await self.writer.submit(work)
        return tallied

    async def weigh(self, workspace: str, after: str, position: int, whole: bool) -> tuple[int, int, str | None]:
        """Bytes of the events up to `position`, and of all else if `whole`, of some runs of a workspace from the one
        behind `after` on; and the last of these, or None at the end."""
        page = [row[0] for row in await self.read(_PAGE, {"workspace": workspace, "after": after})]
        given = {"ids": d.json_list(page)}
        of_events = (await self.read(EVENT_BYTES, given | {"position": position}))[0][0]
        of_others = 0
        if whole:
            for statement in OTHER_BYTES:
                of_others += (await self.read(statement, given))[0][0]
        return of_events, of_others, page[-1] if len(page) == _RUNS_AT_ONCE else None

    def measure(self, wanted: Callable[[str], bool] | None) -> None:
        """From now on each commit says what it adds, beside events, to the workspaces that are `wanted`."""
        self.writer.measured = wanted

    async def count_active(self, workspace: str) -> tuple[int, int]:
        """How many runs of a workspace are not over, and how many of them wait in a queue."""
        statement = (
            select(runs.c.status, func.count())
            .where(runs.c.workspace == workspace, runs.c.status.in_(sorted(ACTIVE)))
            .group_by(runs.c.status)
        )
        counts = {row[0]: row[1] for row in await self.read(statement)}
        return sum(counts.values()), sum(counts.get(status, 0) for status in CLAIMABLE)

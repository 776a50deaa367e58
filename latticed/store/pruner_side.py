"""What the pruner asks of the store: removals in slices, none of which holds the writer for long.

What is to go is first out of reach, in one small transaction: a workspace by its mark, a run by having no workspace any
more. After that it can be deleted row by row, over as many transactions and lives of the daemon as it takes.
"""

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import ColumnElement, Table, delete, exists, func, select, tuple_, update

from latticed.errors import Conflict, NotFound
from latticed.models.people import EVERYWHERE, Principal
from latticed.models.records import NOBODY, Finished
from latticed.states import ACTIVE, OWNED, TERMINAL
from latticed.store import dialects as d
from latticed.store.engine_side import EngineSide
from latticed.store.idempotency import DAY
from latticed.store.tables import (
    approvals,
    audit,
    bodies,
    details,
    events,
    hook_deliveries,
    hooks,
    idempotency_keys,
    one_of,
    runs,
    sessions,
    signals,
    steps,
    tokens,
    workspaces,
)
from latticed.store.transaction import Transaction

BUDGET_SECONDS = 0.005
"""How long one slice may go on taking rows."""
_ROWS = 100
"""Rows that one statement deletes at most."""
_RUNS = 10
"""Runs whose rows are deleted together."""
_COUNTED = 1000
"""Up to how many active runs are counted, to be told of."""

OF_A_RUN = tuple(table.c.run_id for table in (events, steps, signals, approvals, hook_deliveries, bodies, details))
OF_A_WORKSPACE = tuple(
    table.c.workspace for table in (events, approvals, details, hook_deliveries, hooks, idempotency_keys, tokens, audit)
)
"""What goes with a run, and with a workspace that has no runs any more. A new table is to be added here."""


def _delete_some(table: Table, *which: ColumnElement[bool]) -> Any:
    """Deletes some of the rows that are meant; those that are left are for another time."""
    key = tuple(table.primary_key.columns)
    some = select(*key).where(*which).limit(_ROWS)
    return delete(table).where((tuple_(*key) if len(key) > 1 else key[0]).in_(some))


_UNOWNED = d.literal("+" + one_of("runs.status", frozenset(ACTIVE | TERMINAL) - OWNED))
_NEXT = (
    select(runs.c.id)
    .where(runs.c.workspace == d.parameter("workspace"), runs.c.id.in_(d.id_set()), _UNOWNED)
    .order_by(runs.c.id)
    .limit(_RUNS)
)  # fmt: skip
_EMPTY_RUNS = [_delete_some(column.table, column.in_(d.id_set())) for column in OF_A_RUN]
_DROP_RUNS = delete(runs).where(runs.c.id.in_(d.id_set()))
_EMPTY_WORKSPACE = [
    # Sessions have no workspace of their own: they are those of its tokens, and go before these.
    _delete_some(
        sessions, sessions.c.token_id.in_(select(tokens.c.id).where(tokens.c.workspace == d.parameter("workspace")))
    ),
    *(_delete_some(column.table, column == d.parameter("workspace")) for column in OF_A_WORKSPACE),
]

_parents = runs.alias("parents")
_RETIRABLE = (
    runs.c.id.in_(d.id_set()),
    d.literal(one_of("runs.status", TERMINAL)),
    # A parent that is entered again may still have to look how its child ended.
    ~exists().where(_parents.c.id == runs.c.parent_run_id, d.literal(one_of("parents.status", ACTIVE))),
    # What is still to be sent tells of the run.
    ~exists().where(hook_deliveries.c.run_id == runs.c.id, hook_deliveries.c.status == "pending"),
)
_RETIRE = update(runs).where(*_RETIRABLE).values(workspace=NOBODY)


class PrunerSide(EngineSide):
    """Removals."""

    async def remove_workspace(self, name: str, by: Principal, *, force: bool) -> None:
        """Marks a workspace as removed: from then on nothing is born in it.

        Raises:
            NotFound: there is none of that name.
            Conflict: runs are active in it, and `force` is not given.
        """

        def work(t: Transaction) -> None:
            there = (workspaces.c.name == name, workspaces.c.removed_at.is_(None))
            if t.connection.execute(select(workspaces.c.name).where(*there)).first() is None:
                raise NotFound("there is no such workspace")
            some = select(runs.c.id).where(runs.c.workspace == name, runs.c.status.in_(sorted(ACTIVE))).limit(_COUNTED)
            active = t.connection.execute(select(func.count()).select_from(some.subquery())).scalar_one()
            if active and not force:
                number = f"at least {active}" if active >= _COUNTED else active
                raise Conflict(
                    f"workspace {name!r} has active runs ({number}); stop them first, or remove it with force=true"
                )
            t.connection.execute(update(workspaces).where(*there).values(removed_at=t.now))
            t.gone.add(name)
            t.audit(EVERYWHERE, by, "workspace.delete", name, force=force, active_runs=active)

        await self.writer.submit(work)

    async def list_removed(self) -> list[str]:
        """Workspaces that are removed and hold something yet."""
        removed = select(workspaces.c.name).where(workspaces.c.removed_at.is_not(None))
        return [row[0] for row in await self.read(removed)]

    async def list_names(self) -> list[str]:
        """All workspaces that are there."""
        there = select(workspaces.c.name).where(workspaces.c.removed_at.is_(None))
        return [row[0] for row in await self.read(there)]

    async def list_unowned(self, workspace: str, limit: int) -> list[str]:
        """Some runs of a workspace that are in nobody's hands, those made first first."""
        some = select(runs.c.id).where(runs.c.workspace == workspace, _UNOWNED).order_by(runs.c.id).limit(limit)
        return [row[0] for row in await self.read(some)]

    async def sweep(self, workspace: str, run_ids: Collection[str]) -> int:
        """Deletes some of these runs of a workspace and all that belongs to them, but no run that is in the hands of an
        owner by now; how many rows."""
        given = {"workspace": workspace, "ids": d.json_list(run_ids)}

        def work(t: Transaction) -> int:
            swept = 0
            until = self.clock.monotonic() + BUDGET_SECONDS
            while self.clock.monotonic() < until or not swept:
                found = t.connection.execute(_NEXT, given).scalars().all()
                if not found:
                    break
                swept += _drop(t, found)
            return swept

        removed: int = await self.writer.submit(work)
        return removed

    async def finish_removal(self, workspace: str) -> bool:
        """Deletes some of what a removed workspace without runs still holds; True when that was the last of it, and its
        name is free again."""

        def work(t: Transaction) -> bool:
            t.forgets = True
            for statement in _EMPTY_WORKSPACE:
                if t.connection.execute(statement, {"workspace": workspace}).rowcount:
                    return False
            if t.connection.execute(select(runs.c.id).where(runs.c.workspace == workspace).limit(1)).first():
                return False
            t.connection.execute(
                delete(workspaces).where(workspaces.c.name == workspace, workspaces.c.removed_at.is_not(None))
            )
            return True

        gone: bool = await self.writer.submit(work)
        return gone

    async def list_finished(
        self, workspace: str, status: str, after: str, limit: int
    ) -> list[Finished]:  # fmt: skip
        """Runs that ended so, from the one behind `after` on, those made first first."""
        statement = (
            select(runs.c.id, runs.c.created_at, runs.c.finished_at)
            .where(runs.c.workspace == workspace, runs.c.status == status, runs.c.id > after)
            .order_by(runs.c.id)
            .limit(limit)
        )
        return [Finished._make(row) for row in await self.read(statement)]

    async def retire(self, run_ids: Collection[str]) -> int:
        """Takes finished runs out of reach, for `sweep(NOBODY)`; how many. Those stay of which something that is not
        over yet has need: a parent, or a delivery."""

        def work(t: Transaction) -> int:
            return int(t.connection.execute(_RETIRE, {"ids": d.json_list(run_ids)}).rowcount)

        retired: int = await self.writer.submit(work)
        return retired

    async def expire_keys(self, now: int) -> int:
        """Forgets some idempotency keys that are older than they are remembered; how many."""
        return await self._expire(idempotency_keys, idempotency_keys.c.created_at <= now - DAY)

    async def expire_sessions(self, now: int) -> int:
        """Deletes some sessions that are over; how many."""
        return await self._expire(sessions, sessions.c.expires_at <= now)

    async def expire_audit(self, before: int) -> int:
        """Deletes some rows of the audit trail that are older than `before`; how many."""
        # The first rows are the oldest: without an index of times this looks at no others.
        oldest = select(audit.c.id, audit.c.at).order_by(audit.c.id).limit(_ROWS).subquery()
        return await self._expire(audit, audit.c.id.in_(select(oldest.c.id).where(oldest.c.at < before)))

    async def _expire(self, table: Table, which: ColumnElement[bool]) -> int:
        if not await self.read(select(*table.primary_key.columns).where(which).limit(1)):
            return 0
        statement = _delete_some(table, which)
        expired: int = await self.writer.submit(lambda t: int(t.connection.execute(statement).rowcount))
        return expired


def _drop(t: Transaction, run_ids: Iterable[str]) -> int:
    """Deletes rows of these runs, and the runs themselves once they have no others; how many rows."""
    t.forgets = True
    ids = {"ids": d.json_list(run_ids)}
    swept = 0
    for statement in _EMPTY_RUNS:
        found: int = t.connection.execute(statement, ids).rowcount
        swept += found
        if found == _ROWS:
            return swept
    return swept + int(t.connection.execute(_DROP_RUNS, ids).rowcount)

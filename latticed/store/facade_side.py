"""What the facade asks of the store: submissions, lists, events, people."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Select, delete, select, update
from sqlalchemy.dialects.sqlite import insert as insert_ignoring

from latticed import ids
from latticed.clock import to_text
from latticed.errors import Conflict, NotFound
from latticed.models.hooks import PRE_RUN_BRANCH
from latticed.models.people import Answer, Principal
from latticed.models.records import Birth, EventRecord, StepRecord, event
from latticed.models.views import approval_view, run_view, step_view, token_view
from latticed.states import TERMINAL, Status
from latticed.store import dialects as d
from latticed.store.engine_side import RUN, EngineSide
from latticed.store.tables import approvals, events, idempotency_keys, runs, signals, steps, tokens, workspaces
from latticed.store.transaction import Transaction

_EVENTS = select(
    events.c.run_id, events.c.seq, events.c.position, events.c.type, events.c.workspace, events.c.kind, events.c.at,
    events.c.data,
)  # fmt: skip
_ONE_RUN = d.Query(RUN.where(runs.c.id == d.parameter("id"), runs.c.workspace == d.parameter("workspace")))
_STATUS = d.Query(
    select(runs.c.status, runs.c.last_seq).where(
        runs.c.id == d.parameter("id"), runs.c.workspace == d.parameter("workspace")
    )
)
_TIMELINE = d.Query(
    _EVENTS.where(events.c.run_id == d.parameter("id"), events.c.seq > d.number("after"))
    .order_by(events.c.seq)
    .limit(d.number("most"))
)
_LAST_POSITION = d.Query(select(events.c.position).order_by(events.c.position.desc()).limit(1))
_SCAN = 20_000
"""Positions that one look at a filtered feed covers at most, so that a rare type does not make a long query."""


class FacadeSide(EngineSide):
    """The facade's half of the store."""

    async def submit_once(self, birth: Birth, route: str, key: str, fingerprint: str, since: int) -> tuple[str, bool]:
        """Inserts a run unless this key was used after `since`: (run id, whether that was a replay).

        Raises:
            Conflict: the key was used with another body.
        """
        where = (
            idempotency_keys.c.workspace == birth.workspace,
            idempotency_keys.c.route == route,
            idempotency_keys.c.key == key,
        )

        def work(t: Transaction) -> tuple[str, bool]:
            found = t.connection.execute(
                select(idempotency_keys.c.fingerprint, idempotency_keys.c.run_id, idempotency_keys.c.created_at).where(
                    *where
                )
            ).first()
            if found is not None and found.created_at > since:
                if found.fingerprint != fingerprint:
                    raise Conflict(f"the idempotency key {key!r} was used with another body; use a new key")
                return found.run_id, True
            if found is not None:
                t.connection.execute(delete(idempotency_keys).where(*where))
            t.connection.execute(
                idempotency_keys.insert().values(
                    workspace=birth.workspace, route=route, key=key, fingerprint=fingerprint, run_id=birth.id,
                    created_at=t.now,
                )
            )  # fmt: skip
            t.bear([birth])
            return birth.id, False

        submitted: tuple[str, bool] = await self.writer.submit(work)
        return submitted

    async def find_run(self, workspace: str, run_id: str) -> dict[str, Any] | None:
        """A run as models.runs.Run."""
        rows = await self.reader.fetch(_ONE_RUN, id=run_id, workspace=workspace)
        return run_view(rows[0]._asdict()) if rows else None

    async def find_status(self, workspace: str, run_id: str) -> tuple[str, int] | None:
        """Status and last sequence number of a run."""
        rows = await self.reader.fetch(_STATUS, id=run_id, workspace=workspace)
        return (rows[0][0], rows[0][1]) if rows else None

    async def find_due(self, run_id: str) -> str | None:
        """The time before which a run is not claimed, if it is still to come."""
        rows = await self.read(select(runs.c.due_at).where(runs.c.id == run_id))
        return to_text(rows[0][0]) if rows and rows[0][0] is not None else None

    async def find_cancel(self, run_id: str) -> str | None:
        """The cancel on record, as JSON."""
        rows = await self.read(select(runs.c.cancel).where(runs.c.id == run_id))
        return rows[0][0] if rows else None

    async def list_runs(
        self, workspace: str, filters: dict[str, Any], tags: list[tuple[str, str]], before: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """Runs newest first, each as models.runs.Run. `filters` are columns and the values they may have."""
        statement = RUN.where(runs.c.workspace == workspace)
        for column, value in filters.items():
            values = value if isinstance(value, list | tuple | frozenset) else [value]
            statement = statement.where(runs.c[column].in_(sorted(values)))
        for key, value in tags:
            statement = statement.where(d.json_text(runs.c.tags, key) == value)
        rows = await self.read(_before(statement, runs.c.id, before).limit(limit))
        return [run_view(row._mapping) for row in rows]

    async def place_in_queue(self, workspace: str, queue: str, priority: int, run_id: str) -> int:
        """How many runs of the same queue and workspace are claimed before this one."""
        entries = await self.list_ready(queue, workspace, 10_001)
        return next((i for i, entry in enumerate(entries) if entry.id == run_id), len(entries))

    async def list_steps(self, run_id: str, after: int, limit: int) -> list[dict[str, Any]]:
        """The journal, oldest first, each as models.runs.Step."""
        statement = select(steps).where(steps.c.run_id == run_id, steps.c.n > after).order_by(steps.c.n).limit(limit)
        return [step_view(row) for row in await self.read(statement)]

    async def copy_journal(self, run_id: str, before: int) -> list[StepRecord]:
        """What was recorded before record number `before` and is settled, for another run to begin with."""
        statement = (
            select(*(steps.c[name] for name in StepRecord._fields))
            .where(
                steps.c.run_id == run_id,
                steps.c.n < before,
                steps.c.status.in_(("ok", "failed")),
                steps.c.branch != PRE_RUN_BRANCH,
            )
            .order_by(steps.c.n)
        )
        found = [StepRecord._make(row) for row in await self.read(statement)]
        return [r._replace(outcome=_bytes(r.outcome), error=_bytes(r.error)) for r in found]

    async def list_events(self, run_id: str, after: int, limit: int) -> list[EventRecord]:
        """A run's events with a sequence number above `after`, oldest first."""
        return [_event(row) for row in await self.reader.fetch(_TIMELINE, id=run_id, after=after, most=limit)]

    async def list_feed(
        self, workspace: str, after: int, limit: int, types: Sequence[str] = (), kind: str | None = None
    ) -> tuple[list[EventRecord], int]:
        """A workspace's events above position `after`, and the position up to which this look was complete."""
        last = await self.last_position()
        until = min(after + _SCAN, last)
        statement = _EVENTS.where(
            events.c.workspace == workspace, events.c.position > after, events.c.position <= until
        )  # fmt: skip
        if types:
            statement = statement.where(events.c.type.in_(types))
        if kind is not None:
            statement = statement.where(events.c.kind == kind)
        found = [_event(row) for row in await self.read(statement.order_by(events.c.position).limit(limit))]
        return found, (found[-1].position if len(found) == limit else until)

    async def last_position(self) -> int:
        """The position of the newest event."""
        rows = await self.reader.fetch(_LAST_POSITION)
        return rows[0][0] if rows else 0

    async def send_signal(self, workspace: str, run_id: str, name: str, data: Any, by: str) -> str:
        """Keeps a signal for a run and wakes it if it waits for that.

        Raises:
            NotFound: no such run in the workspace.
            Conflict: the run is over, or being cancelled.
        """

        def work(t: Transaction) -> str:
            found = t.connection.execute(
                select(runs.c.status).where(runs.c.id == run_id, runs.c.workspace == workspace)
            ).first()
            if found is None:
                raise NotFound("there is no such run")
            if found.status in TERMINAL or found.status == Status.CANCELLING:
                raise Conflict(f"the run is {found.status}; it takes no signals")
            signal_id = ids.new(ids.SIGNAL)
            t.connection.execute(
                signals.insert().values(
                    id=signal_id, run_id=run_id, name=name, data=d.json(data), sent_at=t.now, sent_by=by
                )
            )
            t.deliver(run_id, f"signal:{name}", [])
            return signal_id

        sent: str = await self.writer.submit(work)
        return sent

    async def list_approvals(
        self, workspace: str, status: str | None, lane: str | None, before: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """Approvals newest first, each as models.people.Approval."""
        statement = select(approvals).where(approvals.c.workspace == workspace)
        if status is not None:
            statement = statement.where(approvals.c.status == status)
        if lane is not None:
            statement = statement.where(d.json_has(approvals.c.lanes, d.value(lane)))
        return [approval_view(row) for row in await self.read(_before(statement, approvals.c.id, before).limit(limit))]

    async def find_approval_view(self, workspace: str, approval_id: str) -> dict[str, Any] | None:
        """An approval as models.people.Approval."""
        rows = await self.read(
            select(approvals).where(approvals.c.id == approval_id, approvals.c.workspace == workspace)
        )
        return approval_view(rows[0]) if rows else None

    async def answer(self, workspace: str, approval_id: str, answer: Answer, by: Principal) -> None:
        """One answer wins: the approval must be pending and in time, its run neither over nor being cancelled.

        Raises:
            Conflict: it is not.
        """

        def work(t: Transaction) -> None:
            found = t.connection.execute(
                select(approvals.c.run_id, approvals.c.status, approvals.c.expires_at, runs.c.status.label("run"))
                .join_from(approvals, runs, runs.c.id == approvals.c.run_id)
                .where(approvals.c.id == approval_id, approvals.c.workspace == workspace)
            ).one()
            if found.status != "pending":
                raise Conflict(f"this approval is {found.status} already")
            if found.expires_at is not None and found.expires_at <= t.now:
                raise Conflict("this approval has expired")
            if found.run in TERMINAL or found.run == Status.CANCELLING:
                raise Conflict(f"the run that asked is {found.run}")
            status = "approved" if answer.decision == "approve" else "denied"
            t.connection.execute(
                update(approvals)
                .where(approvals.c.id == approval_id)
                .values(
                    status=status, answered_at=t.now, answered_by=by.name, answer=d.json(answer.data),
                    comment=d.json(answer.comment or None),
                )
            )  # fmt: skip
            said = {"approval_id": approval_id, "decision": answer.decision, "by": by.name, "comment": answer.comment}
            t.deliver(found.run_id, f"approval:{approval_id}", [event("approval.answered", t.now, **said)])

        await self.writer.submit(work)

    async def list_workspaces(self, after: str | None, limit: int, only: str | None) -> list[Any]:
        """Workspaces by name."""
        statement = select(workspaces).order_by(workspaces.c.name).limit(limit)
        if after is not None:
            statement = statement.where(workspaces.c.name > after)
        if only is not None:
            statement = statement.where(workspaces.c.name == only)
        return list(await self.read(statement))

    async def create_workspace(self, name: str) -> int:
        """Makes a workspace; when.

        Raises:
            Conflict: it is there already.
        """

        def work(t: Transaction) -> int:
            made = t.connection.execute(
                insert_ignoring(workspaces).values(name=name, created_at=t.now).on_conflict_do_nothing()
            )
            if made.rowcount == 0:
                raise Conflict(f"there is a workspace {name!r} already")
            return t.now

        created: int = await self.writer.submit(work)
        return created

    async def has_workspace(self, name: str) -> bool:
        """Whether there is such a workspace."""
        return bool(await self.read(select(workspaces.c.name).where(workspaces.c.name == name)))

    async def add_token(self, values: dict[str, Any]) -> None:
        """Keeps a token (its digest, not its text)."""
        await self.writer.submit(lambda t: t.connection.execute(tokens.insert().values(values)) and None)

    async def find_token(self, digest: str) -> Principal | None:
        """Who holds the token with this sha256, if it has not been revoked (its expiry is for the caller)."""
        rows = await self.read(select(tokens).where(tokens.c.digest == digest, tokens.c.revoked_at.is_(None)))
        if not rows:
            return None
        row = rows[0]
        lanes = None if row.lanes is None else tuple(orjson.loads(row.lanes))
        return Principal(row.id, row.name, row.role, row.workspace, lanes, row.expires_at)

    async def has_tokens(self) -> bool:
        """Whether any token was ever made."""
        return bool(await self.read(select(tokens.c.id).limit(1)))

    async def list_tokens(self, workspace: str, before: str | None, limit: int) -> list[dict[str, Any]]:
        """Tokens of a workspace, newest first, each as models.people.Token."""
        statement = select(tokens).where(tokens.c.workspace == workspace)
        return [token_view(row) for row in await self.read(_before(statement, tokens.c.id, before).limit(limit))]

    async def revoke_token(self, workspace: str, token_id: str) -> bool:
        """Ends a token; False if there is none in this workspace."""

        def work(t: Transaction) -> bool:
            where = (tokens.c.id == token_id, tokens.c.workspace == workspace)
            if t.connection.execute(select(tokens.c.id).where(*where)).first() is None:
                return False
            t.connection.execute(
                update(tokens).where(*where, tokens.c.revoked_at.is_(None)).values(revoked_at=t.now)
            )  # fmt: skip
            return True

        revoked: bool = await self.writer.submit(work)
        return revoked


def _before(statement: Select[Any], column: Any, before: str | None) -> Select[Any]:
    """Newest first, from below a cursor."""
    return (statement if before is None else statement.where(column < before)).order_by(column.desc())


def _event(row: Any) -> EventRecord:
    return EventRecord(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7].encode())


def _bytes(text: Any) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text)

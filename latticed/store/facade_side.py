"""What the facade asks of the store: submissions, lists, events, answers."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update

from latticed import ids
from latticed.clock import to_text
from latticed.errors import Busy, Conflict, NotFound
from latticed.models.hooks import PRE_RUN_BRANCH
from latticed.models.people import Answer, Principal
from latticed.models.records import LINE, Birth, EventRecord, Once, StepRecord, event
from latticed.models.views import approval_view, run_view, step_view, whole_view
from latticed.states import TERMINAL, Status
from latticed.store import dialects as d
from latticed.store.engine_side import RUN, WHOLE_RUN
from latticed.store.idempotency import at_most_once
from latticed.store.people_side import PeopleSide, newest_first
from latticed.store.tables import approvals, events, runs, signals, steps
from latticed.store.transaction import LAST_POSITION, Transaction

_EVENTS = select(
    events.c.run_id, events.c.seq, events.c.position, events.c.type, events.c.workspace, events.c.kind, events.c.at,
    events.c.data,
)  # fmt: skip
_ONE_RUN = d.Prepared(WHOLE_RUN.where(runs.c.id == d.parameter("id"), runs.c.workspace == d.parameter("workspace")))
_STATUS = d.Prepared(
    select(runs.c.status, runs.c.last_seq).where(
        runs.c.id == d.parameter("id"), runs.c.workspace == d.parameter("workspace")
    )
)
_TIMELINE = d.Prepared(
    _EVENTS.where(events.c.run_id == d.parameter("id"), events.c.seq > d.number("after"))
    .order_by(events.c.seq)
    .limit(d.number("most"))
)
_LAST_POSITION = d.Prepared(LAST_POSITION)
_SCAN = 20_000
"""Positions that one look at a filtered feed covers at most, so that a rare type does not make a long query."""


class FacadeSide(PeopleSide):
    """The facade's half of the store."""

    async def submit_once(
        self, birth: Birth, once: Once, refusal: Busy | None = None
    ) -> tuple[str, bool]:  # fmt: skip
        """Inserts a run unless its key was used before: (run id, whether that was so).

        Raises:
            Conflict: the key was used with another body.
            Busy: the `refusal`, if the key was not used before.
        """

        def bear(t: Transaction) -> str:
            t.bear([birth])
            return birth.id

        submitted: tuple[str, bool] = await self.writer.submit(at_most_once(once, bear, refusal))
        return submitted

    async def find_run(self, workspace: str, run_id: str) -> dict[str, Any] | None:
        """A run as models.runs.Run."""
        rows = await self.reader.fetch(_ONE_RUN, id=run_id, workspace=workspace)
        return whole_view(rows[0]._asdict()) if rows else None

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
        """Runs newest first, each as models.runs.RunSummary. `filters` are columns and the values they may have."""
        statement = RUN.where(runs.c.workspace == workspace)
        for column, value in filters.items():
            values = value if isinstance(value, list | tuple | frozenset) else [value]
            statement = statement.where(runs.c[column].in_(sorted(values)))
        for key, value in tags:
            statement = statement.where(d.json_text(runs.c.tags, key) == value)
        rows = await self.read(newest_first(statement, runs.c.id, before).limit(limit))
        return [run_view(row._mapping) for row in rows]

    async def place_in_queue(self, workspace: str, queue: str, priority: int, run_id: str) -> int:
        """How many runs of the same queue and workspace are claimed before this one."""
        entries = await self.list_ready(queue, workspace, 10_001)
        return next((i for i, entry in enumerate(entries) if entry.id == run_id), len(entries))

    async def list_steps(self, run_id: str, after: int, limit: int) -> list[dict[str, Any]]:
        """The journal, oldest first, each as models.runs.Step."""
        shown = (steps.c.run_id == run_id, steps.c.n > after, steps.c.kind != LINE)
        statement = select(steps).where(*shown).order_by(steps.c.n).limit(limit)
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
        """The highest position that was ever given, also if its event was pruned."""
        rows = await self.reader.fetch(_LAST_POSITION)
        position: int = rows[0].position
        return position

    async def send_signal(
        self, workspace: str, run_id: str, name: str, data: Any, by: Principal, once: Once | None = None,
        refusal: Busy | None = None,
    ) -> tuple[str, bool]:  # fmt: skip
        """Keeps a signal for a run, and wakes it if it waits for that, unless the key was used before: (signal id,
        whether that was so).

        Raises:
            NotFound: no such run in the workspace.
            Conflict: the run is over, or being cancelled; or the key was used with another body.
            Busy: the `refusal`, if the key was not used before.
        """

        def work(t: Transaction) -> str:
            found = t.connection.execute(
                select(runs.c.status).where(runs.c.id == run_id, runs.c.workspace == workspace)
            ).first()
            if found is None:
                raise NotFound("there is no such run")
            if found.status in TERMINAL or found.status == Status.CANCELLING:
                raise Conflict(f"the run is {found.status}; it takes no signals")
            signal_id, text = ids.new(ids.SIGNAL), d.json(data)
            t.connection.execute(
                signals.insert().values(
                    id=signal_id, run_id=run_id, name=name, data=text, sent_at=t.now, sent_by=by.name
                )
            )
            t.measure(workspace, text)
            t.deliver(run_id, f"signal:{name}", [])
            t.audit(workspace, by, "run.signal", run_id, name=name, signal_id=signal_id)
            return signal_id

        sent: tuple[str, bool] = await self.writer.submit(at_most_once(once, work, refusal))
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
        return [
            approval_view(row) for row in await self.read(newest_first(statement, approvals.c.id, before).limit(limit))
        ]

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
            t.measure(workspace, d.json(answer.data), rows=0)
            t.audit(workspace, by, "approval.answer", approval_id, run_id=found.run_id, decision=answer.decision)

        await self.writer.submit(work)


def _event(row: Any) -> EventRecord:
    return EventRecord(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7].encode())


def _bytes(text: Any) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text)

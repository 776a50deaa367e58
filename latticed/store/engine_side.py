"""What the engine asks of the store: claims, journals, what is due, what is orphaned."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import case, func, select, union_all, update

from latticed.clock import Clock
from latticed.failpoints import hit
from latticed.models.records import (
    ApprovalRequest,
    Birth,
    Change,
    Claimed,
    Ending,
    ReadyEntry,
    RunRow,
    StepRecord,
    claim_change,
    event,
)
from latticed.models.views import whole_view
from latticed.states import ACTIVE, CLAIMABLE, OWNED, TERMINAL, UNWOUND, WELL, Status
from latticed.store import dialects as d
from latticed.store.moving import ROW
from latticed.store.reading import Reader
from latticed.store.tables import approvals, bodies, details, one_of, runs, signals, steps
from latticed.store.transaction import Transaction
from latticed.store.writer import Writer

ASKED_UNTIL = case(
    (
        d.literal(one_of("runs.status", (Status.AWAITING_APPROVAL,))),
        select(func.min(approvals.c.expires_at))
        .where(approvals.c.run_id == runs.c.id, runs.c.awaits.contains(approvals.c.id))
        .correlate(runs)
        .scalar_subquery(),
    )
).label("asked_until")
"""When the first of the questions that a run waits for expires; looked up for no other run."""
RUN = (
    select(runs, bodies.c.goal, bodies.c.inputs, bodies.c.roles, details.c.role, details.c.usage, ASKED_UNTIL)
    .join_from(runs, bodies, bodies.c.run_id == runs.c.id)
    .outerjoin(details, details.c.run_id == runs.c.id)
)
"""All that models.views.run_view needs."""
WHOLE_RUN = RUN.add_columns(details.c.story, details.c.output.label("so_far"))
"""All that models.views.whole_view needs."""
_CLAIMED = (
    select(
        runs.c.id, bodies.c.goal, bodies.c.inputs, runs.c.max_retries, runs.c.recovery,
        runs.c.created_by, bodies.c.roles, runs.c.rerun_of,
    )
    .join_from(runs, bodies, bodies.c.run_id == runs.c.id)
    .where(runs.c.id.in_(d.id_set()))
)  # fmt: skip
_WHOLE = WHOLE_RUN.where(runs.c.id.in_(d.id_set()))
_JOURNALS = (
    select(steps.c.run_id, *(steps.c[name] for name in StepRecord._fields))
    .where(steps.c.run_id.in_(d.id_set()))
    .order_by(steps.c.run_id, steps.c.n)
)
_READY = (
    select(runs.c.priority, runs.c.id, runs.c.target, runs.c.kind, runs.c.recoveries)
    .where(runs.c.due_at.is_(None), d.literal(one_of("runs.status", CLAIMABLE)))
    .order_by(runs.c.priority.desc(), runs.c.id)
)
_LATELY = 500
"""How many earlier runs on models are looked through for those that are like one."""
_ENDING = d.Prepared(
    select(runs.c.id, runs.c.status, runs.c.output, runs.c.error).where(runs.c.id == d.parameter("id"))
)
_ANSWER = d.Prepared(
    select(approvals.c.status, approvals.c.answer, approvals.c.comment).where(approvals.c.id == d.parameter("id"))
)


class EngineSide:
    """The engine's half of the store."""

    writer: Writer
    reader: Reader
    clock: Clock

    async def read(self, statement: Any, parameters: dict[str, Any] | None = None) -> Sequence[Any]:
        """Rows of a query that writes nothing.

        Raises:
            Unavailable: the store is away.
        """
        return await self.reader.rows(statement, parameters)

    def order(self, *changes: Change) -> "asyncio.Future[list[RunRow | None]]":
        """Orders changes without waiting; orders are carried out in the order in which they are given."""
        return self.writer.submit(changes)

    async def change(self, *changes: Change) -> list[RunRow | None]:
        """Makes each change whose guard holds, in one transaction; None for one that lost.

        Raises:
            Unavailable: the store is away; nothing was written.
        """
        outcome: list[RunRow | None] = await self.writer.submit(changes)
        return outcome

    async def claim(self, ids: Sequence[str], owner: str) -> list[Claimed]:
        """Claims those of `ids` that can still be claimed, in one transaction, and reads them whole."""

        def work(t: Transaction) -> tuple[list[RunRow], dict[str, Any], list[Any], dict[str, Any]]:
            changes = [claim_change(run_id, owner, t.now) for run_id in ids]
            rows = [row for row in t.apply(changes) if row is not None]
            given = {g.id: g for g in t.connection.execute(_CLAIMED, {"ids": d.json_list(row.id for row in rows)})}
            again = [row.id for row in rows if row.epoch > 1 or given[row.id].rerun_of is not None]
            journal = t.connection.execute(_JOURNALS, {"ids": d.json_list(again)}).all() if again else []
            judged = [row.id for row in rows if t.hooks.at("pre_run", row.workspace, row.kind, row.target)]
            whole: Sequence[Any] = t.connection.execute(_WHOLE, {"ids": d.json_list(judged)}).all() if judged else []
            return rows, given, list(journal), {row.id: whole_view(row._mapping) for row in whole}

        rows, given, journal, views = await self.writer.submit(work)
        journals: dict[str, list[StepRecord]] = {}
        for run_id, *record in journal:
            journals.setdefault(run_id, []).append(_record(record))
        claimed = []
        for row in rows:
            g = given[row.id]
            claimed.append(
                Claimed(
                    row, orjson.loads(g.goal), orjson.loads(g.inputs), g.max_retries, g.recovery,
                    g.created_by, orjson.loads(g.roles), journals.get(row.id, []), views.get(row.id),
                )
            )  # fmt: skip
        return claimed

    async def take_signal(self, change: Change, name: str, record: StepRecord) -> bytes | None:
        """Takes the oldest signal of that name and records it in the journal as `record`, whose outcome it becomes.

        Returns:
            The signal's data as JSON; None if there is none (or the run is no longer the caller's).
        """
        oldest = (
            select(signals.c.id, signals.c.data)
            .where(signals.c.run_id == change.run_id, signals.c.name == name, signals.c.consumed_by.is_(None))
            .order_by(signals.c.id)
            .limit(1)
        )

        def work(t: Transaction) -> bytes | None:
            found = t.connection.execute(oldest).first()
            if found is None:
                return None
            data: bytes = found.data.encode()
            change.steps = [record._replace(ref=found.id, outcome=data)]
            if t.apply([change])[0] is None:
                return None
            t.connection.execute(update(signals).where(signals.c.id == found.id).values(consumed_by=record.n))
            return data

        taken: bytes | None = await self.writer.submit(work)
        return taken

    async def open_approval(self, change: Change, request: ApprovalRequest) -> RunRow | None:
        """Opens an approval together with the change (its journal record and event); None if the change lost."""

        def work(t: Transaction) -> RunRow | None:
            row = t.apply([change])[0]
            if row is not None:
                if request.expires_at is not None:
                    t.times.append(request.expires_at)
                t.measure(row.workspace, d.json(request.prompt), d.json(request.schema))
                t.connection.execute(
                    approvals.insert().values(
                        id=request.id, workspace=row.workspace, run_id=row.id, node=request.node, status="pending",
                        prompt=d.json(request.prompt), schema=d.json(request.schema), lanes=d.json(request.lanes),
                        created_at=t.now, expires_at=request.expires_at, answer="null", comment="null",
                        subject=None if request.subject is None else d.json(request.subject),
                    )
                )  # fmt: skip
            return row

        hit("ask.before")
        opened: RunRow | None = await self.writer.submit(work)
        hit("ask.after")
        return opened

    async def find_approval(self, approval_id: str) -> tuple[str, Any, str | None] | None:
        """Status, answer and comment of an approval."""
        rows = await self.reader.fetch(_ANSWER, id=approval_id)
        return (rows[0][0], orjson.loads(rows[0][1]), orjson.loads(rows[0][2])) if rows else None

    async def find_ending(self, run_id: str) -> Ending | None:
        """How a run ended; None while it has not."""
        rows = await self.reader.fetch(_ENDING, id=run_id)
        if not rows or rows[0].status not in TERMINAL:
            return None
        output, error = rows[0].output, rows[0].error
        return Ending(rows[0].status, orjson.loads(output or b"null"), orjson.loads(error or b"null"))

    async def recall(self, row: RunRow, limit: int) -> list[dict[str, Any]]:
        """What the newest earlier runs like this one came to, newest first: goal and summary of those that ended well,
        of the same workspace, target and mode, among the newest of the workspace."""
        earlier = (details.c.workspace == row.workspace, details.c.run_id < row.id)
        lately = select(details.c.run_id).where(*earlier).order_by(details.c.run_id.desc()).limit(_LATELY)
        statement = (
            select(details.c.run_id, bodies.c.goal, d.json_text(runs.c.output, "summary").label("summary"))
            .join_from(details, runs, runs.c.id == details.c.run_id)
            .join(bodies, bodies.c.run_id == details.c.run_id)
            .where(
                details.c.run_id.in_(lately), runs.c.workspace == row.workspace, runs.c.target == row.target,
                runs.c.mode == row.mode,
                d.literal(one_of("runs.status", WELL)),
            )
            .order_by(details.c.run_id.desc())
            .limit(limit)
        )  # fmt: skip
        found = await self.read(statement)
        return [
            {"run_id": each.run_id, "goal": orjson.loads(each.goal)[:500], "summary": str(each.summary or "")[:500]}
            for each in found
        ]

    async def ready_shares(self) -> list[tuple[str, str]]:
        """Each (queue, workspace) in which something can be claimed."""
        statement = (
            select(runs.c.queue, runs.c.workspace)
            .where(runs.c.due_at.is_(None), d.literal(one_of("runs.status", CLAIMABLE)))
            .distinct()
        )
        return [(row[0], row[1]) for row in await self.read(statement)]

    async def list_ready(self, queue: str, workspace: str, limit: int) -> list[ReadyEntry]:
        """The first `limit` runs of a share that can be claimed, in the order in which they are to be."""
        rows = await self.read(_READY.where(runs.c.queue == queue, runs.c.workspace == workspace).limit(limit))
        return [ReadyEntry(-r.priority, r.id, r.target, r.kind, r.recoveries >= 2) for r in rows]

    async def due(self, now: int, limit: int) -> list[tuple[str, str]]:
        """Sleepers whose time has come: (id, status)."""
        statement = select(runs.c.id, runs.c.status).where(runs.c.due_at <= now).order_by(runs.c.due_at).limit(limit)
        return [(row[0], row[1]) for row in await self.read(statement)]

    async def overdue(self, now: int, limit: int) -> list[str]:
        """Runs that nobody runs and whose deadline has passed."""
        asleep = sorted(CLAIMABLE | UNWOUND)
        statement = (
            select(runs.c.id)
            .where(runs.c.deadline_at <= now, d.literal(one_of("status", ACTIVE)), runs.c.status.in_(asleep))
            .order_by(runs.c.deadline_at)
            .limit(limit)
        )
        return [row[0] for row in await self.read(statement)]

    async def expire_approvals(self, now: int, limit: int) -> int:
        """Closes pending approvals whose time is over and tells their runs; how many."""
        over = (
            select(approvals.c.id, approvals.c.run_id)
            .where(approvals.c.status == "pending", approvals.c.expires_at <= now)
            .order_by(approvals.c.expires_at)
            .limit(limit)
        )
        if not await self.read(over):
            return 0

        def work(t: Transaction) -> int:
            found = t.connection.execute(over).all()
            for approval_id, run_id in found:
                t.connection.execute(update(approvals).where(approvals.c.id == approval_id).values(status="expired"))
                told = [event("approval.expired", t.now, approval_id=approval_id)]
                t.deliver(run_id, f"approval:{approval_id}", told)
            return len(found)

        hit("lapse.before")
        expired: int = await self.writer.submit(work)
        hit("lapse.after")
        return expired

    async def next_due(self, now: int) -> int | None:
        """When the scheduler has to look again, in microseconds; None if nothing is timed."""
        earliest = union_all(
            select(func.min(runs.c.due_at).label("at")).where(runs.c.due_at.is_not(None)),
            select(func.min(runs.c.deadline_at)).where(
                runs.c.deadline_at > now, d.literal(one_of("status", ACTIVE))
            ),
            select(func.min(approvals.c.expires_at)).where(
                approvals.c.status == "pending", approvals.c.expires_at.is_not(None)
            ),
        )  # fmt: skip
        times = [row[0] for row in await self.read(earliest) if row[0] is not None]
        return min(times) if times else None

    async def list_owned(self) -> list[tuple[RunRow, str]]:
        """Every run in the hands of an owner, with its recovery policy."""
        statement = select(*ROW, runs.c.recovery).where(d.literal(one_of("runs.status", OWNED)))
        return [(RunRow._make(row[:-1]), row[-1]) for row in await self.read(statement)]

    async def requeue(self, changes: Sequence[Change]) -> list[RunRow | None]:
        """Makes each change and, where it holds, empties the run's journal after its children have their cancel."""

        def work(t: Transaction) -> list[RunRow | None]:
            outcomes = t.apply(changes)
            for row in outcomes:
                if row is not None:
                    t.forget(row, "its parent begins anew")
            return outcomes

        outcome: list[RunRow | None] = await self.writer.submit(work)
        return outcome

    async def active_counts(self) -> list[tuple[str, str, str, int]]:
        """Runs that are not over: (workspace, queue, status, count)."""
        statement = (
            select(runs.c.workspace, runs.c.queue, runs.c.status, func.count())
            .where(runs.c.status.in_(sorted(ACTIVE)))
            .group_by(runs.c.workspace, runs.c.queue, runs.c.status)
        )
        return [tuple(row) for row in await self.read(statement)]

    def bear(self, births: Sequence[Birth]) -> "asyncio.Future[list[RunRow]]":
        """Inserts runs as queued; they are on disk once this is done. What is ordered after it comes after it."""
        return self.writer.submit(births)


def _record(fields: Sequence[Any]) -> StepRecord:
    record = StepRecord._make(fields)
    return record._replace(outcome=fields[-2].encode(), error=fields[-1].encode())

"""What one write transaction can do, for one caller or for a whole batch at the cost of one.

`apply` is the one function that moves a run: compare-and-set on the move's source states (and the owner's fence),
with its events, its journal and all that must become true together with it.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import orjson
from sqlalchemy import Connection, delete, select, update
from sqlalchemy.sql import func

from latticed import ids
from latticed.errors import NotFound
from latticed.models.audit import Act, act
from latticed.models.hooks import PRE_RUN_BRANCH, DeliveryRow, HookSpec
from latticed.models.limits import ROW_BYTES
from latticed.models.matching import HookIndex
from latticed.models.people import Principal
from latticed.models.records import STOP_MODES, Beside, Birth, Change, EventRecord, NewEvent, RunRow, StepRecord, event
from latticed.models.stopping import stop_change
from latticed.states import ACTIVE, BADLY, TERMINAL, WAKE, Status
from latticed.store import deliveries, stories
from latticed.store import dialects as d
from latticed.store.moving import Shape, move_statement, shape_of
from latticed.store.tables import approvals, audit, bodies, details, events, floors, runs, signals, steps
from latticed.store.weighing import SHOWN_BYTES

POSITION = "events.position"
LAST_POSITION = select(
    func.max(
        select(func.coalesce(func.max(events.c.position), 0)).scalar_subquery(),
        func.coalesce(select(floors.c.value).where(floors.c.name == POSITION).scalar_subquery(), 0),
    ).label("position")
)
"""The highest position ever given, also if its event was pruned."""


@lru_cache(maxsize=32)
def _show_statement(columns: tuple[str, ...]) -> d.SetStatement:
    return d.upsert_statement(details, ("run_id", "workspace"), columns)


_BORN = {"status": str(Status.QUEUED), "recoveries": 0, "attempt": 1, "epoch": 0, "last_seq": 1, "facts": 0,
         "cancel_rank": 0}  # fmt: skip
_BIRTH = (
    "id", "workspace", "kind", "target", "version", "name", "mode", "queue", "priority", "max_retries", "recovery",
    "due_at", "run_at", "deadline_seconds", "deadline_at", "parent_run_id", "detached", "rerun_of", "created_by",
    "created_at",
)  # fmt: skip
_BEAR = d.insert_statement(runs, (*_BIRTH, "tags", "updated_at", *_BORN))
_BODY = d.insert_statement(bodies, ("run_id", "goal", "inputs", "roles"))
_EVENT = d.insert_statement(events, ("position", "run_id", "seq", "type", "at", "workspace", "kind", "data"))
_ACT = d.insert_statement(audit, ("at", *Act._fields))
_FLOOR = d.insert_statement(floors, ("name", "value"), replace=True)
_STEP = d.insert_statement(steps, ("run_id", *StepRecord._fields), replace=True)
_CLOSE_APPROVALS = (
    update(approvals).values(status="closed").where(approvals.c.run_id.in_(d.id_set()), approvals.c.status == "pending")
)
_CHILDREN = select(runs.c.id, runs.c.parent_run_id).where(
    runs.c.parent_run_id.in_(d.id_set()), ~runs.c.detached, runs.c.status.in_(sorted(ACTIVE))
)


class Transaction:
    """One open transaction. Collects what it made true; the writer tells it once it is committed."""

    def __init__(
        self, connection: Connection, now: int, position: int, gone: set[str], measured: Callable[[str], bool] | None,
        hooks: HookIndex,
    ) -> None:  # fmt: skip
        self.connection = connection
        self.now = now
        self.position = position
        self.gone = gone
        """Workspaces that are removed: nothing is born in them."""
        self.sizes: dict[str, int] = {}
        self._measured = measured
        self.hooks = hooks
        self.rows: list[RunRow] = []
        self.events: list[EventRecord] = []
        self.facts: list[tuple[str, str]] = []
        self.times: list[int] = []
        self.acts: list[Act] = []
        """What `finish` writes into the audit trail."""
        self.forgets = False
        """Whether events are deleted in it: the highest position stays known."""
        self.outbox: list[str] = []
        """The keys of hooks that have something to be sent."""

    def finish(self) -> None:
        """Writes what was gathered for all members at once: the last thing before the commit."""
        acts = [a for a in self.acts if a.workspace not in self.gone] if self.gone else self.acts
        if acts:
            _ACT.execute(self.connection, [(self.now, *a[:-1], a.detail.decode()) for a in acts])
        if self.forgets:
            _FLOOR.execute(self.connection, [(POSITION, self.position)])

    def audit(
        self, workspace: str, principal: Principal | str | None, action: str, subject: str, /, **detail: Any
    ) -> None:  # fmt: skip
        """Puts what a principal did (a part of the daemon, if it is a text) into the audit trail."""
        self.acts.append(act(workspace, principal, action, subject, **detail))

    def measure(self, workspace: str, *texts: str | bytes | None, rows: int = 1) -> None:
        """Counts what new rows with these texts take, if that is limited for their workspace."""
        if self._measured is not None and self._measured(workspace):
            size = sum(len(text.encode() if isinstance(text, str) else text) for text in texts if text is not None)
            self.sizes[workspace] = self.sizes.get(workspace, 0) + size + rows * ROW_BYTES

    def apply(self, changes: Sequence[Change]) -> list[RunRow | None]:
        """Makes each change whose guard holds, in order; None where neither it nor its `otherwise` held."""
        outcomes: list[RunRow | None] = [None] * len(changes)
        pending = list(range(len(changes)))
        while pending:  # A wave holds one change a run, so that two of one run are made one after the other.
            wave: dict[str, int] = {}
            later = []
            for i in pending:
                if changes[i].run_id in wave:
                    later.append(i)
                else:
                    wave[changes[i].run_id] = i
            self._wave([(i, changes[i]) for i in wave.values()], outcomes)
            pending = later
        return outcomes

    def bear(self, births: Sequence[Birth]) -> list[RunRow]:
        """Inserts runs as queued, each with its first event.

        Raises:
            NotFound: the workspace of one was removed, and nobody's child is to be born there.
        """
        if not births:
            return []
        if self.gone and any(b.workspace in self.gone and b.parent_run_id is None for b in births):
            raise NotFound("there is no such workspace")
        given = attrgetter(*_BIRTH)
        constants = tuple(_BORN.values())
        _BEAR.execute(self.connection, [(*given(b), d.json(b.tags), self.now, *constants) for b in births])
        _BODY.execute(self.connection, [(b.id, d.json(b.goal), b.inputs.decode(), d.json(b.roles)) for b in births])
        rows = [
            RunRow(b.id, b.workspace, b.kind, b.target, b.queue, b.priority, "queued", 0, 1, None, 1, 0, b.due_at,
                   b.deadline_at, 0, b.parent_run_id, b.detached, None, 0, b.mode)
            for b in births
        ]  # fmt: skip
        self.rows += rows
        self._append(
            [(row, [event("run.queued", b.created_at, target=b.target, queue=b.queue, by=b.created_by)])
             for row, b in zip(rows, births, strict=True)]
        )  # fmt: skip
        self._journal([(b.id, record) for b in births for record in b.journal])
        if self._measured is not None:
            for b in births:
                self.measure(b.workspace, d.json(b.tags))
                self.measure(b.workspace, d.json(b.goal), b.inputs)
                self._weigh(b.workspace, b.journal)
        self.acts += [b.act for b in births if b.act is not None]
        return rows

    def _wave(self, wave: list[tuple[int, Change]], outcomes: list[RunRow | None]) -> None:
        held: list[tuple[RunRow, Change]] = []
        while wave:
            by_shape: dict[Shape, list[tuple[int, Change]]] = {}
            for item in wave:
                by_shape.setdefault(shape_of(item[1]), []).append(item)
            wave = []
            for shape, items in by_shape.items():
                if shape[0] is not None and shape[0].target in BADLY:
                    items = stories.break_off(self.connection, items)
                rows = self._update(shape, [change for _, change in items])
                for i, change in items:
                    if (row := rows.get(change.run_id)) is not None:
                        outcomes[i] = row
                        held.append((row, change))
                    elif change.otherwise is not None:
                        wave.append((i, change.otherwise))
        self.rows += [row for row, _ in held]
        self._append([(row, change.events) for row, change in held if change.events])
        self._journal([(row.id, record) for row, change in held for record in change.steps])
        if self._measured is not None:
            for row, change in held:
                self._weigh(row.workspace, change.steps, *map(change.columns.get, ("output", "error")))
        self.bear([birth for _, change in held for birth in change.births])
        self.acts += [change.act for _, change in held if change.act is not None]
        for row, change in held:
            if change.shows:
                self._show(row, change.shows)
        self._keep_beside([(row, change.beside) for row, change in held if change.beside is not None])
        self._follow(held)

    def _update(self, shape: Shape, changes: list[Change]) -> dict[str, RunRow]:
        rows = [
            (c.run_id, self.now, len(c.events), c.owner, c.epoch, c.facts_seen, c.awaited, c.below_cancel_rank,
             *c.columns.values())
            for c in changes
        ]  # fmt: skip
        found = move_statement(shape).execute(self.connection, rows)
        return {row[0]: RunRow._make(row) for row in found}

    def _weigh(self, workspace: str, records: Sequence[StepRecord], *texts: str | None) -> None:
        """Counts records that are settled, which none takes the place of, and what a run's end adds to its row."""
        for record in records:
            if record.status in ("ok", "failed"):
                self.measure(workspace, record.outcome, record.error)
        if any(texts):
            self.measure(workspace, *texts, rows=0)

    def _show(self, row: RunRow, shown: dict[str, Any]) -> None:
        """What a run shows takes the place of what it has shown before: the difference is what it takes."""
        measured = self._measured is not None and self._measured(row.workspace)
        before = self._shown(row.id) if measured else 0
        _show_statement(tuple(shown)).execute(self.connection, [(row.id, row.workspace, *shown.values())])
        if measured:
            self.sizes[row.workspace] = self.sizes.get(row.workspace, 0) + self._shown(row.id) - before

    def _shown(self, run_id: str) -> int:
        size: int = self.connection.execute(SHOWN_BYTES, {"ids": d.json_list([run_id])}).scalar_one()
        return size

    def _keep(self, rows: Sequence[DeliveryRow]) -> None:
        """Writes executions of hooks. The texts of one that is to be sent are counted once they are final."""
        deliveries.keep(self.connection, rows)
        for row in rows:
            self.measure(row.workspace, *(() if row.status == "pending" else (row.detail, row.output)))

    def _keep_beside(self, kept: list[tuple[RunRow, Beside]]) -> None:
        self._keep([delivery for _, beside in kept for delivery in beside.deliveries])
        for row, beside in kept:
            if beside.inputs is not None:
                given = update(bodies).where(bodies.c.run_id == row.id).values(inputs=beside.inputs.decode())
                self.connection.execute(given)

    def _follow(self, held: list[tuple[RunRow, Change]]) -> None:
        """What an end or a cancel makes true of others, in the same transaction."""
        ended = [row for row, change in held if change.move is not None and row.status in TERMINAL]
        cancelled = [row for row, change in held if row.cancel_rank and "cancel_rank" in change.columns]
        stopped = [*ended, *cancelled]
        if ended:
            self.connection.execute(_CLOSE_APPROVALS, {"ids": d.json_list(row.id for row in ended)})
        if stopped:
            self._stop_children({row.id: row for row in stopped})
        for row in ended:
            if row.parent_run_id is not None:
                self.deliver(
                    row.parent_run_id,
                    f"child:{row.id}",
                    [event("child.finished", self.now, run_id=row.id, status=row.status, detached=bool(row.detached))],
                )
        if ended and self.hooks.has("post_run"):
            about = [(row.workspace, row.kind, row.target, row.id) for row in ended]
            self._send([(hook, run[0], run[3], None) for run in about for hook in self.hooks.at("post_run", *run[:3])])

    def _stop_children(self, parents: dict[str, RunRow]) -> None:
        found = self.connection.execute(_CHILDREN, {"ids": d.json_list(parents)}).all()
        stops = []
        for child, parent_id in found:
            parent = parents[parent_id]
            asked = orjson.loads(parent.cancel) if parent.cancel else {"children": True}
            if asked["children"]:
                reason = f"its parent {parent_id} is {parent.status}"
                mode = STOP_MODES[max(parent.cancel_rank, 1)]
                stops.append(stop_change(child, by=parent_id, reason=reason, mode=mode, children=True, now=self.now))
        if stops:
            self.apply(stops)

    def deliver(self, run_id: str, fact: str, told: list[NewEvent]) -> tuple[RunRow | None, RunRow | None]:
        """A fact has come for a run: it is counted and told, and wakes the run if that waits for it.

        Returns the run as it was touched and as it was woken; None where that did not apply.
        """
        self.facts.append((run_id, fact))
        touched, woken = self.apply(
            [
                Change(run_id, states=ACTIVE, delivers=True, events=told),
                Change(run_id, WAKE, awaited=fact, events=[event("run.woken", self.now, by=fact)]),
            ]
        )
        return touched, woken

    def forget(self, row: RunRow, reason: str) -> None:
        """Empties a run's journal, after its children have their cancel, so that it begins anew."""
        found = self.connection.execute(_CHILDREN, {"ids": d.json_list([row.id])}).all()
        self.apply(
            [
                stop_change(child, by=row.id, reason=reason, mode="graceful", children=True, now=self.now)
                for child, _ in found
            ]
        )
        self.connection.execute(_CLOSE_APPROVALS, {"ids": d.json_list([row.id])})
        anew = steps.c.branch != PRE_RUN_BRANCH  # What hooks said before its first step holds for the run.
        self.connection.execute(delete(steps).where(steps.c.run_id == row.id, anew))
        self.connection.execute(delete(details).where(details.c.run_id == row.id))
        self.connection.execute(update(signals).where(signals.c.run_id == row.id).values(consumed_by=None))

    def _append(self, told: list[tuple[RunRow, list[NewEvent]]]) -> None:
        if not told:
            return
        rows = []
        for row, new in told:
            seq = row.last_seq - len(new)
            for item in new:
                seq += 1
                self.position += 1
                data = item.data or orjson.dumps({"epoch": row.epoch, "attempt": row.attempt})
                if row.mode != "live":  # Nobody who sees one event of it takes it for the real thing.
                    data = b'{"simulation":true' + (b"," if data != b"{}" else b"") + data[1:]
                rows.append((self.position, row.id, seq, item.type, item.at, row.workspace, row.kind, data.decode()))
                self.events.append(
                    EventRecord(row.id, seq, self.position, item.type, row.workspace, row.kind, item.at, data)
                )
        _EVENT.execute(self.connection, rows)
        if self.hooks.has("on_event"):
            targets = {row.id: row.target for row, _ in told}
            self._send(
                [(hook, e.workspace, e.run_id, e.position)
                 for e in self.events[-len(rows):]
                 for hook in self.hooks.at("on_event", e.workspace, e.kind, targets[e.run_id], e.type)]
            )  # fmt: skip

    def _send(self, what: list[tuple[HookSpec, str, str, int | None]]) -> None:
        """Puts into the outbox that a hook is to be told of a run or of an event of it."""
        rows = [
            DeliveryRow(
                ids.new(ids.DELIVERY), workspace, hook.key, hook.point, hook.sort, run_id, position, "pending", 0,
                self.now, self.now, None, None, "null", "null",
            )
            for hook, workspace, run_id, position in what
        ]  # fmt: skip
        self._keep(rows)
        self.outbox += [row.hook for row in rows]

    def tell_feed(self, told: Sequence[tuple[str, str, str, NewEvent]]) -> None:
        """Appends events (of a workspace, a kind, a run) that stand in a workspace's feed alone; no hook is told."""
        rows = []
        for workspace, kind, run_id, new in told:
            self.position += 1
            seq = -self.position
            self.events.append(EventRecord(run_id, seq, self.position, new.type, workspace, kind, new.at, new.data))
            rows.append((self.position, run_id, seq, new.type, new.at, workspace, kind, new.data.decode()))
        _EVENT.execute(self.connection, rows)

    def _journal(self, records: list[tuple[str, StepRecord]]) -> None:
        if records:
            _STEP.execute(
                self.connection,
                [(run_id, *record[:-2], record.outcome.decode(), record.error.decode()) for run_id, record in records],
            )


Work = Callable[[Transaction], Any]
"""A transaction of its own shape: reads, decides and writes; raises a LatticedError only before it has written."""

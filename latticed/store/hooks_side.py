"""What the courier and the facade ask of the store about hooks: what is to be sent, what became of it, who they are."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import delete, func, select, update

from latticed.errors import Conflict, NotFound
from latticed.failpoints import hit
from latticed.models.deliveries import Due, Sent
from latticed.models.hooks import EVENT, DeliveryRow, WebhookHook
from latticed.models.people import Principal
from latticed.models.records import EventRecord, Once, event
from latticed.models.views import whole_view
from latticed.store import dialects as d
from latticed.store.engine_side import ASKED_UNTIL, EngineSide
from latticed.store.idempotency import at_most_once
from latticed.store.tables import bodies, details, events, hook_deliveries, hooks, runs
from latticed.store.transaction import Transaction

_D = hook_deliveries.c
_SIZE = (
    func.coalesce(func.length(bodies.c.inputs), 0)
    + func.coalesce(func.length(bodies.c.goal), 0)
    + func.coalesce(func.length(runs.c.output), 0)
    + func.coalesce(func.length(details.c.story), 0)
    + func.coalesce(func.length(details.c.output), 0)
    + func.coalesce(func.length(events.c.data), 0)
)
_HEAD = ("id", "workspace", "hook", "point", "run_id", "attempts", "created_at", "position", "due_at")
_FIRST = (
    select(*(_D[name] for name in _HEAD))
    .where(
        _D.hook == d.parameter("hook"), _D.due_at.is_not(None), _D.due_at <= d.number("now"),
        _D.id.not_in(d.id_set("taken")),
    )
    .order_by(_D.due_at, _D.id)
    .limit(d.number("most"))
    .subquery("first")
)  # fmt: skip
_SIZED = (
    select(
        *(_FIRST.c[name].label(f"d_{name}") for name in _HEAD), *runs.c,
        bodies.c.goal, bodies.c.inputs, bodies.c.roles, ASKED_UNTIL,
        details.c.role, details.c.usage, details.c.story, details.c.output.label("so_far"),
        events.c.seq, events.c.type, events.c.at, events.c.data,
        func.sum(_SIZE).over(order_by=(_FIRST.c.due_at, _FIRST.c.id), rows=(None, -1)).label("before"),
    )
    .join_from(_FIRST, runs, runs.c.id == _FIRST.c.run_id, isouter=True)
    .join(bodies, bodies.c.run_id == _FIRST.c.run_id, isouter=True)
    .join(details, details.c.run_id == _FIRST.c.run_id, isouter=True)
    .join(events, events.c.position == _FIRST.c.position, isouter=True)
    .subquery("sized")
)  # fmt: skip
_DUE = d.Prepared(
    select(_SIZED)
    .where(func.coalesce(_SIZED.c.before, 0) < d.number("bytes"))
    .order_by(_SIZED.c.d_due_at, _SIZED.c.d_id)
)
"""The next deliveries of a hook, as many as may be held in memory, and always one."""

_SENT = ("id", "status", "attempts", "due_at", "finished_at", "duration_ms", "detail", "output")
_RECORD = d.update_statement(
    _SENT,
    lambda row: (
        update(hook_deliveries)
        .values({name: row[name] for name in _SENT[1:]})
        .where(_D.id == row["id"], _D.status == "pending")
        .returning(_D.id)
    ),
)
_OVER = {"status": "dead", "due_at": None}


class HooksSide(EngineSide):
    """Deliveries and registered hooks."""

    async def list_due(self, hook: str, now: int, taken: Collection[str], most: int, most_bytes: int) -> list[Due]:
        """The next deliveries of a hook that are to be sent at `now`, the oldest first, without those in `taken`; at
        most so many, and (beside the first) no more than so many bytes."""
        values = {"hook": hook, "now": now, "taken": d.json_list(taken), "most": most, "bytes": most_bytes}
        return [_due(row._asdict()) for row in await self.reader.fetch(_DUE, **values)]

    async def next_delivery(self, hook: str, taken: Collection[str]) -> int | None:
        """When a hook has something to be sent next, beside those in `taken`."""
        statement = select(func.min(_D.due_at)).where(
            _D.hook == hook, _D.due_at.is_not(None), _D.id.not_in(d.id_set("taken"))
        )
        rows = await self.read(statement, {"taken": d.json_list(taken)})
        due: int | None = rows[0][0]
        return due

    async def pending_hooks(self) -> list[str]:
        """The hooks that have something to be sent, now or later."""
        return [row[0] for row in await self.read(select(_D.hook).where(_D.due_at.is_not(None)).distinct())]

    async def count_pending(self) -> int:
        """How much is to be sent, now or later, in all workspaces."""
        number: int = (await self.read(select(func.count()).where(_D.due_at.is_not(None))))[0][0]
        return number

    async def record_sent(self, sent: Sequence[Sent]) -> list[str]:
        """Records what became of deliveries, each with its event in the feed; the registered hooks that were disabled
        since their receivers are gone. What is not pending any more stays as it is."""

        def work(t: Transaction) -> list[str]:
            rows = [(*s[:6], d.json(s.detail or None), d.json(s.output or None)) for s in sent]
            ids = {row[0] for row in _RECORD.execute(t.connection, rows)}
            held = [s for s in sent if s.id in ids]
            for s in held:
                if s.status != "pending":
                    t.measure(s.due.workspace, d.json(s.detail or None), d.json(s.output or None), rows=0)
            t.tell_feed([(s.due.workspace, s.due.kind, s.due.run_id, event(EVENT, t.now, **s.told)) for s in held])
            gone = {s.due.hook for s in sent if s.gone}
            return [hook for hook in gone if _disable(t, hook)]

        disabled: list[str] = await self.writer.submit(work)
        hit("deliver.recorded")
        return disabled

    async def give_up_deliveries(self, hooks: Collection[str], before: int) -> int:
        """Gives up what has been due since before then and was not sent, since its hook is one of these, which are
        disabled or not there."""
        late = (_D.hook.in_(sorted(hooks)), _D.due_at.is_not(None), _D.due_at < before)
        if not await self.read(select(_D.id).where(*late).limit(1)):
            return 0

        def work(t: Transaction) -> int:
            reason = d.json("for a day its hook was disabled, or not there")
            values = {**_OVER, "finished_at": t.now, "detail": reason}
            return t.connection.execute(update(hook_deliveries).where(*late).values(values)).rowcount

        given_up: int = await self.writer.submit(work)
        return given_up

    async def list_deliveries(
        self, workspace: str, filters: dict[str, Any], before: str | None, limit: int
    ) -> list[DeliveryRow]:
        """Executions of hooks, newest first. `filters` are columns and the values they may have."""
        statement = select(hook_deliveries).where(_D.workspace == workspace).order_by(_D.id.desc()).limit(limit)
        for column, values in filters.items():
            statement = statement.where(_D[column].in_(sorted(values)))
        if before is not None:
            statement = statement.where(_D.id < before)
        return [DeliveryRow._make(row) for row in await self.read(statement)]

    async def find_delivery(self, workspace: str, delivery_id: str) -> DeliveryRow | None:
        """One execution of a hook."""
        rows = await self.read(select(hook_deliveries).where(_D.id == delivery_id, _D.workspace == workspace))
        return DeliveryRow._make(rows[0]) if rows else None

    async def redeliver(self, workspace: str, delivery_id: str, by: Principal) -> None:
        """Puts a delivery into the outbox again; one that waits there is sent at once.

        Raises:
            NotFound: no such delivery in this workspace.
            Conflict: it was part of a run, which went on with its answer.
        """

        def work(t: Transaction) -> None:
            where = (_D.id == delivery_id, _D.workspace == workspace)
            found = t.connection.execute(select(_D.hook, _D.point).where(*where)).first()
            if found is None:
                raise NotFound("there is no such delivery")
            if found.point not in ("post_run", "on_event"):
                raise Conflict(f"a hook at {found.point} was asked by its run, which went on with the answer")
            t.connection.execute(update(hook_deliveries).where(*where).values(status="pending", due_at=t.now))
            t.audit(workspace, by, "hook.redeliver", delivery_id, hook=found.hook)
            t.outbox.append(found.hook)

        await self.writer.submit(work)
        hit("redeliver.after")

    # Registered hooks

    async def list_registered(self) -> list[Any]:
        """Every registered hook: the columns of `hooks`, by its id."""
        return list(await self.read(select(hooks).order_by(hooks.c.id)))

    async def add_hook(
        self, workspace: str, hook_id: str, name: str, spec: WebhookHook, by: Principal, once: Once | None = None
    ) -> tuple[str, bool]:
        """Keeps a registered hook unless its key was used before: (hook id, whether that was so).

        Raises:
            NotFound: its workspace was removed.
            Conflict: there is one of that name, or the key was used with another body.
        """

        def work(t: Transaction) -> str:
            if workspace in t.gone:
                raise NotFound("there is no such workspace")
            _need_free(t, workspace, name, hook_id)
            t.connection.execute(
                hooks.insert().values(
                    id=hook_id, workspace=workspace, created_by=by.name, created_at=t.now, **_columns(name, spec, t.now)
                )
            )
            t.audit(workspace, by, "hook.create", hook_id, name=name, point=spec.point)
            return hook_id

        kept: tuple[str, bool] = await self.writer.submit(at_most_once(once, work))
        hit("registered.after")
        return kept

    async def change_hook(self, workspace: str, hook_id: str, name: str, spec: WebhookHook, by: Principal) -> int:
        """Replaces what a registered hook is; when, in microseconds.

        Raises:
            NotFound: it is not there any more.
            Conflict: there is another of that name.
        """

        def work(t: Transaction) -> int:
            _need_free(t, workspace, name, hook_id)
            where = (hooks.c.id == hook_id, hooks.c.workspace == workspace)
            if not t.connection.execute(update(hooks).where(*where).values(_columns(name, spec, t.now))).rowcount:
                raise NotFound("there is no such hook")
            t.audit(workspace, by, "hook.update", hook_id, name=name, enabled=spec.enabled)
            return t.now

        changed: int = await self.writer.submit(work)
        return changed

    async def remove_hook(self, workspace: str, hook_id: str, by: Principal) -> None:
        """Removes a registered hook; what it was to be sent is skipped.

        Raises:
            NotFound: it is not there any more.
        """

        def work(t: Transaction) -> None:
            where = (hooks.c.id == hook_id, hooks.c.workspace == workspace)
            if not t.connection.execute(delete(hooks).where(*where)).rowcount:
                raise NotFound("there is no such hook")
            waiting = (_D.hook == hook_id, _D.due_at.is_not(None))
            told = {"status": "skipped", "due_at": None, "finished_at": t.now, "detail": d.json("its hook was deleted")}
            t.connection.execute(update(hook_deliveries).where(*waiting).values(told))
            t.audit(workspace, by, "hook.delete", hook_id)

        await self.writer.submit(work)


def _columns(name: str, spec: WebhookHook, now: int) -> dict[str, Any]:
    return {
        "name": name,
        "point": spec.point,
        "spec": spec.model_dump_json(exclude={"enabled"}),
        "enabled": spec.enabled,
        "updated_at": now,
    }


def _need_free(t: Transaction, workspace: str, name: str, hook_id: str) -> None:
    taken = select(hooks.c.id).where(hooks.c.workspace == workspace, hooks.c.name == name, hooks.c.id != hook_id)
    if t.connection.execute(taken).first() is not None:
        raise Conflict(f"there is a hook {name!r} already")


def _disable(t: Transaction, hook_id: str) -> bool:
    """Whether there was such a hook and it was enabled."""
    found = t.connection.execute(
        update(hooks)
        .where(hooks.c.id == hook_id, hooks.c.enabled)
        .values(enabled=False, updated_at=t.now)
        .returning(hooks.c.workspace)
    ).first()
    if found is not None:
        t.audit(found.workspace, "courier", "hook.update", hook_id, enabled=False, reason="410 Gone")
    return found is not None


def _due(row: Any) -> Due:
    run_id, run, told = row["d_run_id"], None, None
    if row["id"] is not None:
        run = whole_view(row)
    if row["seq"] is not None:
        data = row["data"].encode()
        told = EventRecord(run_id, row["seq"], row["d_position"], row["type"], "", "", row["at"], data).view()
    return Due(
        row["d_id"], row["d_workspace"], row["d_hook"], row["d_point"], run_id, row["d_attempts"], row["d_created_at"],
        run, row["kind"] or "agent", told,
    )  # fmt: skip

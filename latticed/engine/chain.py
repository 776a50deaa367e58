"""The chain of hooks at a point of a run: asked one after the other, each answer recorded once; the first veto ends it.

An answer is a record of the journal, in a branch beside those of user code, so that nobody who answered is asked again
when the run is entered again. It is committed with its changes, its event and the row of its execution, or nothing of
that is. A hook that is being asked is cut short the moment its run is to end or to be given back.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from latticed import ids
from latticed.clock import Clock
from latticed.engine.entry import current_branch
from latticed.engine.execution import Execution
from latticed.engine.lasting import unbroken
from latticed.engine.outcomes import Blocked, Moved, to_json
from latticed.engine.patience import Asked, TooLate
from latticed.errors import Cancelled, RunError, Suspended
from latticed.failpoints import hit
from latticed.models import hooks as model
from latticed.models.fields import Tags
from latticed.models.hooks import PRE_RUN_BRANCH, Answer, DeliveryRow, HookFailed, HookSpec, Occasion, Point, Verdict
from latticed.models.records import Beside, NewEvent, StepRecord, event
from latticed.models.views import seized_view
from latticed.ports import Hooks, Store

SUBJECTS = {"pre_tool": "tool", "post_tool": "tool", "pre_node": "node", "post_node": "node"}


@dataclass(slots=True)
class _Said:
    """How one execution of a hook ended."""

    hook: HookSpec
    occasion: Occasion
    about: dict[str, Any]
    status: str = "ok"
    detail: str | None = None
    output: str = ""
    duration_ms: float = 0.0
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def veto(self) -> str | None:
        """Why what it was asked about is not to happen; None if it may."""
        if not self.hook.judges:
            return None
        if self.status == "blocked" or (self.status in ("error", "timeout") and self.hook.table.on_error == "block"):
            return self.detail
        return None

    def event(self, at: int) -> NewEvent:
        """As it is told."""
        hook = self.hook
        return event(
            model.EVENT, at, hook=hook.name, point=hook.point, sort=hook.sort, delivery_id=self.occasion.delivery_id,
            status=self.status, attempt=1, duration_ms=self.duration_ms, detail=self.detail, output=self.output,
            **self.about,
        )  # fmt: skip

    def row(self, at: int) -> DeliveryRow:
        """As it is kept."""
        o, hook = self.occasion, self.hook
        detail, output = orjson.dumps(self.detail).decode(), orjson.dumps(self.output).decode()
        return DeliveryRow(
            o.delivery_id, o.workspace, hook.key, hook.point, hook.sort, o.run_id, None, self.status, 1, o.at, None, at,
            self.duration_ms, detail, output,
        )  # fmt: skip

    def record(self, x: Execution, path: str, at: int) -> StepRecord:
        """As it is journalled."""
        failed = self.status in ("error", "timeout")
        error = {"code": f"hook_{self.status}", "message": self.detail, "detail": None} if failed else None
        outcome = {"status": self.status, "veto": self.veto, "changes": self.changes}
        return StepRecord(
            x.journal.number(), "hook", path, self.hook.name, 0, "failed" if failed else "ok", x.row.attempt,
            x.row.epoch, self.occasion.at, at, self.hook.key, orjson.dumps(outcome), orjson.dumps(error),
        )  # fmt: skip


class Chain:
    """Asks the hooks of this moment about runs that are executed here."""

    def __init__(self, store: Store, clock: Clock, hooks: Hooks) -> None:
        self._store = store
        self._clock = clock
        self._hooks = hooks

    def before_entry(self, x: Execution) -> Sequence[HookSpec] | None:
        """Who stands before the run's code; None if nobody does, nor did."""
        return self._at("pre_run", x) or (() if x.journal.aside(PRE_RUN_BRANCH) else None)

    async def before_run(self, x: Execution, hooks: Sequence[HookSpec]) -> Blocked | Moved | None:
        """Asks whoever of these has not answered yet. Once the run's code has recorded something nobody is asked any
        more.

        Returns:
            None if the run's code is to be entered, with the inputs that it has now.
        """
        answered = {record.ref for record in x.journal.aside(PRE_RUN_BRANCH)}
        begun = any(r.epoch > 0 and r.branch != PRE_RUN_BRANCH for r in x.journal.records.values())
        hooks = () if begun else [hook for hook in hooks if hook.key not in answered]
        run, birth = x.claimed.view, x.claimed.birth
        if run is None and birth is not None:
            run = seized_view(birth, x.row, self._clock.now())
        for hook in hooks:
            if run is None:
                run = await x.persist(lambda: self._store.find_run(x.row.workspace, x.run_id))
                if run is None:
                    raise Cancelled
            said = await self._ask(x, hook, model.payload(hook, x.row.workspace, run), {})
            now = self._clock.now()
            if (reason := said.veto) is not None:
                x.note(said.event(now), said.row(now))
                return Blocked(hook.name, reason, said.record(x, PRE_RUN_BRANCH, now))
            inputs, tags = said.changes.get("inputs"), said.changes.get("tags")
            columns = {} if tags is None else {"tags": orjson.dumps(tags).decode()}
            # Cancelled meanwhile it is on its way to disk all the same, and the run's code is not entered.
            await self._write(x, said, PRE_RUN_BRANCH, now, columns, None if inputs is None else orjson.dumps(inputs))
            run |= said.changes
            if inputs is not None:
                x.claimed.inputs = inputs
        queue = x.row.queue
        for record in x.journal.aside(PRE_RUN_BRANCH):
            queue = orjson.loads(record.outcome)["changes"].get("queue", queue)
        return Moved(queue) if queue != x.row.queue else None

    async def before(self, point: Point, x: Execution, subject: dict[str, Any], key: str) -> Verdict:
        """Asks about a tool that is about to be called, or a node about to be entered.

        `subject` is what the payload shows of it (`{"name", "args"}` of a tool); `key` tells this occasion from every
        other of the run, and is the same when the run is entered again. Not to be called inside a step.

        Raises:
            Cancelled, Suspended: the run is to end, or to be given back.
        """
        path = f"~{point}:{key}"
        changes: dict[str, Any] = {}
        for record in x.journal.aside(path):
            said = orjson.loads(record.outcome)
            if said["veto"] is not None:
                return Verdict({}, record.name, said["veto"])
            changes |= said["changes"]
        async for said in self._each(point, x, subject | changes, path):
            if said.veto is not None:
                return Verdict({}, said.hook.name, said.veto)
            changes |= said.changes
        return Verdict(changes)

    async def after(self, point: Point, x: Execution, subject: dict[str, Any], key: str) -> None:
        """Tells that a tool was called, or a node is over. Nothing that a hook does here changes that.

        Raises:
            Cancelled, Suspended: the run is to end, or to be given back.
        """
        async for _ in self._each(point, x, subject, f"~{point}:{key}"):
            pass

    async def _each(self, point: Point, x: Execution, subject: dict[str, Any], path: str) -> Any:
        hooks = self._at(point, x)
        branch = current_branch.get(None)
        if not hooks or (branch is not None and branch.replays(x.row.attempt)):
            return
        answered = {record.ref for record in x.journal.aside(path)}
        run = await x.persist(lambda: self._store.find_run(x.row.workspace, x.run_id))
        name = SUBJECTS[point]
        about = {name: str(subject.get("name") or subject.get("id") or "")}
        for hook in hooks:
            if hook.key not in answered and run is not None:
                told = model.payload(hook, x.row.workspace, run, **{name: subject})
                said = await self._ask(x, hook, told, about)
                await unbroken(self._write(x, said, path, self._clock.now()))
                subject = subject | said.changes
                yield said
                if said.veto is not None:
                    return

    def _at(self, point: Point, x: Execution) -> Sequence[HookSpec]:
        return self._hooks.index.at(point, x.row.workspace, x.row.kind, x.row.target)

    async def _ask(self, x: Execution, hook: HookSpec, payload: dict[str, Any], about: dict[str, Any]) -> _Said:
        """One execution, from beginning to end.

        Raises:
            Cancelled, Suspended, asyncio.CancelledError: it was cut short; that is on its way to disk.
        """
        x.check()
        occasion = Occasion(ids.new(ids.DELIVERY), x.row.workspace, x.run_id, self._clock.now())
        said = _Said(hook, occasion, about)
        began = self._clock.monotonic()
        hit("hook.before")
        asked = Asked(self._hooks, hook, orjson.dumps(payload), occasion)
        x.asking.add(asked)
        cancelled, answer = False, None
        try:
            answer = await asked.answer()
        except asyncio.CancelledError:
            cancelled = True
        finally:
            x.asking.discard(asked)
        said.duration_ms = round((self._clock.monotonic() - began) * 1000, 3)
        if answer is None or asked.cut:
            why = "to end" if x.stopping else "given back" if x.draining else "not to wait for it"
            said.status, said.detail = "skipped", f"cut short: its run is {why}"
            now = self._clock.now()
            x.note(said.event(now), said.row(now))
            if cancelled:
                raise asyncio.CancelledError
            raise Suspended if x.draining and not x.stopping else Cancelled
        self._take(x, said, answer)
        hit("hook.answered")
        return said

    def _take(self, x: Execution, said: _Said, answer: Answer | HookFailed) -> None:
        said.output = model.clip_end(answer.output, model.OUTPUT_CHARS)
        try:
            if isinstance(answer, HookFailed):
                raise answer
            if not said.hook.judges:
                return
            if answer.block is not None:
                said.status, said.detail = "blocked", answer.block
            else:
                said.changes = self._validated(x, said.hook.point, answer.changes)
                if said.changes:
                    said.detail = f"changed {', '.join(said.changes)}"
        except HookFailed as failed:
            said.status = "timeout" if isinstance(failed, TooLate) else "error"
            said.detail = model.clip(str(failed), model.DETAIL_CHARS)

    def _validated(self, x: Execution, point: str, changes: Any) -> dict[str, Any]:
        """The changes as the run gets them.

        Raises:
            HookFailed: one that may not be made here, or not like this.
        """
        allowed = model.CHANGEABLE[point]
        for name in changes:
            if name not in allowed:
                raise HookFailed(f"its answer changes {name!r}; a hook at {point} can change {', '.join(allowed)}")
        valid: dict[str, Any] = {}
        for name, value in changes.items():
            if name == "tags":
                try:
                    valid[name] = _tags().validate_python(value)
                except ValidationError as error:
                    raise HookFailed(f"its answer's tags are no tags: {error.errors()[0]['msg']}") from None
            elif name == "queue":
                queues = self._hooks.queues()
                if not isinstance(value, str) or value not in queues:
                    raise HookFailed(f"it chose the queue {value!r}; there are {', '.join(sorted(queues))}")
                valid[name] = value
            elif not isinstance(value, dict):
                raise HookFailed(f"its answer's {name} are not a JSON object")
            else:
                try:
                    data = to_json(value, x.settings.output_limit_bytes, f"its answer's {name}")
                except RunError as error:
                    raise HookFailed(str(error)) from None
                valid[name] = orjson.loads(data)
        return valid

    async def _write(
        self, x: Execution, said: _Said, path: str, now: int, columns: dict[str, Any] | None = None,
        inputs: bytes | None = None,
    ) -> None:  # fmt: skip
        """Writes an answer, with all that it changes.

        Raises:
            Cancelled: the run is no longer ours.
        """
        beside = Beside(inputs, [said.row(now)])
        record, told = said.record(x, path, now), said.event(now)
        if await x.commit(steps=[record], events=[told], columns=columns, beside=beside) is None:
            raise Cancelled
        hit("hook.after")


@cache
def _tags() -> TypeAdapter[dict[str, str]]:
    return TypeAdapter(Tags)

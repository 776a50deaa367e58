"""The facade: every verb once. The API calls nothing else, and neither will whatever door comes next."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from latticed import ids
from latticed.auditing import Auditing
from latticed.clock import Clock
from latticed.engine.admission import Admission
from latticed.engine.dispatcher import Dispatcher
from latticed.engine.executor import Executor
from latticed.engine.limits import Limits
from latticed.engine.scheduler import Scheduler
from latticed.errors import Busy, Conflict, Invalid, NotFound, Unauthenticated, Unavailable
from latticed.failpoints import hit
from latticed.hooking import Hooking
from latticed.hooks.registry import Registry as HookRegistry
from latticed.metrics import Metrics
from latticed.models.audit import act
from latticed.models.people import Answer, Principal
from latticed.models.records import Once
from latticed.models.runs import RerunRequest, SignalRequest, StopRequest, Submission
from latticed.models.stopping import stop_change
from latticed.models.views import born_view
from latticed.notes import Notes
from latticed.outbox import HooksStore, Receivers
from latticed.paging import id_cursor, number_behind, number_cursor, page, page_by_name, weighed_page
from latticed.people import People
from latticed.permits import Permits
from latticed.plugins import Registry
from latticed.ports import Broker, FacadeStore
from latticed.schemas import Schema
from latticed.states import TERMINAL, Status
from latticed.timelines import Timelines
from latticed.why import explain
from latticed.workspaces import Workspaces


class Lattice(People, Workspaces, Auditing, Hooking, Timelines):
    """What can be asked of this daemon. Everything is authorised before it comes here, and scoped to a workspace."""

    def __init__(
        self, *, store: FacadeStore, broker: Broker, clock: Clock, registry: Registry, admission: Admission,
        dispatcher: Dispatcher, executor: Executor, scheduler: Scheduler, metrics: Metrics, limits: Limits,
        removed: set[str], prune: Callable[[], None],
        hooks: HookRegistry, hooks_store: HooksStore, receivers: Receivers,
    ) -> None:  # fmt: skip
        super().__init__()
        self._store = store
        self._broker = broker
        self._clock = clock
        self._registry = registry
        self._admission = admission
        self._dispatcher = dispatcher
        self._executor = executor
        self._scheduler = scheduler
        self._metrics = metrics
        self._limits = limits
        self._removed = removed
        self._prune = prune
        self._hooks = hooks
        self._hooks_store = hooks_store
        self._receivers = receivers
        self._known_workspaces: set[str] = set()
        self._permits = Permits(clock)
        self.notes = Notes(store, clock)

    def _forget_workspace(self, workspace: str) -> None:
        super()._forget_workspace(workspace)
        self._hooks.forget(workspace)

    # Runs

    async def submit(
        self, workspace: str, submission: Submission, principal: Principal, once: Once | None = None
    ) -> tuple[dict[str, Any], bool]:  # fmt: skip
        """Puts a run on disk; it is there, fsync included, when this returns. True: the key was used before.

        Raises:
            Invalid: unknown target or queue.
            NotFound: unknown workspace, or what the key made is gone.
            Conflict: the key was used with another body.
            Busy: a limit of the workspace is reached; nothing was written.
            Unavailable: draining, or the store is away; nothing was written.
        """
        return await self._submit(workspace, submission, principal, once)

    async def _submit(
        self, workspace: str, submission: Submission, principal: Principal, once: Once | None, **lineage: Any
    ) -> tuple[dict[str, Any], bool]:  # fmt: skip
        self._need_open("runs")
        began = self._clock.monotonic()
        await self._need_workspace(workspace)
        hit("submit.before")
        birth = self._admission.admit(submission, workspace, principal.name, **lineage)
        verb, told = ("run.rerun", {"of": birth.rerun_of}) if birth.rerun_of else ("run.submit", {})
        birth.act = act(workspace, principal, verb, birth.id, kind=birth.kind, target=birth.target, **told)
        run_id, replayed = await self._limits.submit(birth, once)
        if replayed:
            return await self.get_run(workspace, run_id), True
        hit("submit.after")
        self._metrics.submit.observe(self._clock.monotonic() - began)
        return born_view(birth), False

    async def get_run(self, workspace: str, run_id: str) -> dict[str, Any]:
        """A run as models.runs.Run.

        Raises:
            NotFound: no such run in this workspace.
        """
        found = await self._store.find_run(workspace, _run_id(run_id))
        if found is None:
            raise NotFound("there is no such run")
        return found

    async def list_runs(
        self, workspace: str, *, kind: str | None = None, status: Any = None, target: str | None = None,
        tag: list[str] | None = None, parent: str | None = None, limit: int = 50, cursor: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """A page of runs, newest first.

        Raises:
            Invalid: a made-up cursor, or a tag that is not `key:value`.
        """
        await self._need_workspace(workspace)
        asked = {"kind": kind, "status": status, "target": target, "parent_run_id": parent}
        filters = {column: value for column, value in asked.items() if value}
        tags = []
        for text in tag or ():
            key, colon, value = text.partition(":")
            if not colon:
                raise Invalid(f"tag={text!r} is not KEY:VALUE", [{"loc": ["query", "tag"], "msg": "use KEY:VALUE"}])
            tags.append((key, value))
        before = id_cursor(ids.RUN, cursor)
        return page(await self._store.list_runs(workspace, filters, tags, before, limit + 1), limit)

    async def wait_for(self, workspace: str, run_id: str, principal: Principal, seconds: float) -> dict[str, Any]:
        """A run once it is over or awaits an approval, or after so many seconds, or when the daemon drains.

        Raises:
            Unauthenticated: at once, when the principal may not read any more.
            NotFound: the run is gone.
        """
        permit = self._permits.give(principal, workspace)
        # What is being executed here is known not to be over, and from now on it is told.
        live = self._executor.live.get(run_id)
        known = run_id in self._dispatcher.claiming or (live is not None and not live.settling)
        try:
            with self._broker.turn(run_id) as turn:
                async with asyncio.timeout(seconds) as limit:
                    permit.then = lambda: _pass(limit)
                    goes_on = known or await self._goes_on(workspace, run_id)
                    if goes_on and not (self.draining or permit.ended.is_set()):
                        await turn.wait()
        except TimeoutError:
            pass
        finally:
            permit.close()
        if permit.ended.is_set():
            raise Unauthenticated
        return await self.get_run(workspace, run_id)

    async def _goes_on(self, workspace: str, run_id: str) -> bool:
        found = await self._store.find_status(workspace, run_id)
        return found is not None and found[0] not in TERMINAL and found[0] != Status.AWAITING_APPROVAL

    async def stop(
        self, workspace: str, run_id: str, request: StopRequest, principal: Principal
    ) -> dict[str, Any]:  # fmt: skip
        """Puts a cancel on record, or climbs, as models.runs.StopAnswer.

        Raises:
            NotFound: no such run in this workspace.
        """
        live = self._executor.live.get(_run_id(run_id))
        if live is None or live.row.workspace != workspace:  # What runs here is known without a read.
            await self._need_run(workspace, run_id)
        hit("stop.before")
        change = stop_change(
            run_id, by=principal.name, reason=request.reason, mode=request.mode, children=request.children,
            now=self._clock.now(),
            act=act(workspace, principal, "run.stop", run_id, mode=request.mode, children=request.children),
        )  # fmt: skip
        row = (await self._store.change(change))[0]
        hit("stop.before_answer")
        status = row.status if row is not None else (await self.get_run(workspace, run_id))["status"]
        if row is None and status in TERMINAL:
            return {
                "stopped": False, "run_id": run_id, "status": status, "cancellation": None,
                "reason": "run already finished",
            }  # fmt: skip
        cancel = row.cancel if row is not None else await self._store.find_cancel(run_id)
        return {
            "stopped": True,
            "run_id": run_id,
            "status": status,
            "cancellation": "immediate" if status == Status.CANCELLED else "cooperative",
            "reason": None if cancel is None else orjson.loads(cancel)["reason"],
        }

    async def rerun(
        self, workspace: str, run_id: str, request: RerunRequest, principal: Principal, once: Once | None = None
    ) -> tuple[dict[str, Any], bool]:  # fmt: skip
        """Runs a finished run's work again, as a new run; from a step on, with what was recorded before it.

        Raises:
            NotFound: no such run in this workspace.
            Conflict: it is not over.
            Invalid: no such step, or its target is gone.
        """
        old = await self.get_run(workspace, run_id)
        if old["status"] not in TERMINAL:
            raise Conflict(f"the run is {old['status']}; only a finished run can be run again")
        journal = []
        if request.from_step is not None:
            number = number_behind(ids.STEP, request.from_step)
            known = await self._store.list_steps(run_id, number - 1, 1) if number is not None else []
            if number is None or not known or known[0]["id"] != request.from_step:
                message = f"the run has no step {request.from_step!r}; GET …/steps lists them"
                raise Invalid(message, [{"loc": ["body", "from_step"], "msg": message}])
            journal = [record._replace(attempt=1, epoch=0) for record in await self._store.copy_journal(run_id, number)]
            await self._need_run(workspace, run_id)  # Else it was pruned meanwhile, and what was copied is not all.
        submission = Submission.model_construct(
            kind=old["kind"], target=old["target"], goal=old["goal"], inputs=old["inputs"],
            roles=old["requested_roles"], max_retries=old["max_retries"], queue=old["queue"],
            priority=old["priority"], run_at=None, deadline_seconds=old["deadline_seconds"],
            recovery=old["recovery"], mode=old["mode"], tags=old["tags"], name=old["name"],
        )  # fmt: skip
        return await self._submit(workspace, submission, principal, once, rerun_of=run_id, journal=journal)

    async def why(self, workspace: str, run_id: str) -> dict[str, Any]:
        """Why a run is not running, as models.runs.Why."""
        run = await self.get_run(workspace, run_id)
        return await explain(run, self._store, self._dispatcher, self._registry, self.draining)

    async def list_steps(
        self, workspace: str, run_id: str, *, limit: int = 50, cursor: str | None = None
    ) -> dict[str, Any]:  # fmt: skip
        """A page of a run's journal, oldest first."""
        await self._need_run(workspace, run_id)
        after = number_cursor(cursor, ids.STEP)

        async def look(last: dict[str, Any] | None, most: int) -> list[dict[str, Any]]:
            begins = number_behind(ids.STEP, last["id"]) if last else after
            return await self._store.list_steps(run_id, begins or 0, most)

        return await weighed_page(look, limit)

    async def signal(
        self, workspace: str, run_id: str, name: str, request: SignalRequest, principal: Principal,
        once: Once | None = None,
    ) -> tuple[dict[str, Any], bool]:  # fmt: skip
        """Keeps data for a run that waits for it, or will, as models.runs.SignalAccepted. True: the key was used
        before.

        Raises:
            NotFound: no such run in this workspace.
            Conflict: it is over or being cancelled, or the key was used with another body.
            Busy: the workspace may keep no more; nothing was written.
        """
        if not (0 < len(name) <= 200 and name.isprintable()):
            raise NotFound("a signal's name has 1 to 200 printable characters")
        refusal = self._limits.full(workspace)
        hit("signal.before")
        try:
            signal_id, replayed = await self._store.send_signal(
                workspace, _run_id(run_id), name, request.data, principal, once, refusal
            )  # fmt: skip
        except Busy as busy:
            self._limits.note(workspace, busy)
            raise
        hit("signal.after")
        return {"accepted": True, "run_id": run_id, "name": name, "signal_id": signal_id}, replayed

    # People

    async def list_approvals(
        self, workspace: str, *, status: str | None = None, lane: str | None = None, limit: int = 50,
        cursor: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """A page of questions to people, newest first."""
        await self._need_workspace(workspace)
        before = id_cursor(ids.APPROVAL, cursor)
        return page(await self._store.list_approvals(workspace, status, lane, before, limit + 1), limit)

    async def answer(
        self, workspace: str, approval_id: str, answer: Answer, principal: Principal
    ) -> dict[str, Any]:  # fmt: skip
        """Answers a question; exactly one answer wins. As models.people.Approval.

        Raises:
            NotFound: no such approval in this workspace.
            Forbidden: it is for lanes that this token does not have.
            Invalid: the data does not fit the approval's schema.
            Conflict: it is answered, expired or closed.
        """
        if not ids.is_id(ids.APPROVAL, approval_id):
            raise NotFound("there is no such approval")
        asked = await self._store.find_approval_view(workspace, approval_id)
        if asked is None:
            raise NotFound("there is no such approval")
        self._need_lane(principal, asked["lanes"])
        schema = Schema.of(asked["schema"] if answer.decision == "approve" else None, "the approval")
        if asked["status"] == "pending" and (problems := schema.problems(answer.data)):
            errors = [{"loc": ["body", "data", *p["loc"]], "msg": p["msg"]} for p in problems]
            raise Invalid("the data does not fit what was asked for", errors)
        hit("answer.before")
        await self._store.answer(workspace, approval_id, answer, principal)
        hit("answer.after")
        return await self._store.find_approval_view(workspace, approval_id) or asked

    # The daemon

    async def ready(self) -> None:
        """Returns if the daemon takes work.

        Raises:
            Unavailable: it drains, or the store is away.
        """
        if self.draining:
            raise Unavailable("the daemon is stopping")
        await self._store.check()

    async def metrics(self) -> bytes:
        """Figures in Prometheus' text format."""
        m = self._metrics
        gauges = {m.streams: self._broker.open_streams, m.running: self._dispatcher.running}
        gauges[m.pending] = await self._hooks_store.count_pending()
        m.abandoned.labels("run").set(len(self._executor.given_up))
        m.abandoned.labels("thread").set(self._executor.threads.abandoned)
        m.abandoned.labels("tool").set(self._registry.agents.lost.total())
        return m.text(await self._store.active_counts(), {g: float(v) for g, v in gauges.items()})

    async def list_agents(self, workspace: str, *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
        """A page of the configured agents, by name."""
        await self._need_workspace(workspace)
        return page_by_name(self._registry.agents.views(), limit, cursor)


def _pass(limit: asyncio.Timeout) -> None:
    """The time is over now."""
    if not limit.expired():
        limit.reschedule(0)


def _run_id(text: str) -> str:
    if not ids.is_id(ids.RUN, text):
        raise NotFound("there is no such run")
    return text

"""Drives claimed runs: enter user code, see how it ended, record that, give the slot back."""

import asyncio
from collections.abc import Callable

import orjson
import structlog

from latticed.clock import Clock
from latticed.config import RunsConfig
from latticed.engine import ladder
from latticed.engine.chain import Chain
from latticed.engine.context import Context
from latticed.engine.execution import Execution
from latticed.engine.outcomes import (
    Blocked,
    Failed,
    Finished,
    Interrupted,
    Moved,
    Outcome,
    Refused,
    Returned,
    Unwound,
    failure,
    to_json,
)
from latticed.engine.retrying import NEVER_AGAIN
from latticed.engine.settling import (
    release,
    settle_blocked,
    settle_cancelled,
    settle_failed,
    settle_left_behind,
    settle_moved,
    settle_returned,
    settle_stopped,
    settle_unwound,
)
from latticed.engine.threads import Threads
from latticed.errors import ApprovalExpired, LatticedError, Misuse, RunError, Unwind
from latticed.failpoints import hit
from latticed.log import fields as log_fields
from latticed.models.records import Birth, Claimed, Commit, RunRow
from latticed.ports import Agent, Hooks, Registry, Store
from latticed.states import Status

log = structlog.get_logger()

LAST_SECONDS = 0.5
"""How long a drain waits for what it has killed, and then for what it writes of those that do not end."""
MOST_LEFT_BEHIND = 3
"""How many entries of one run may be under way still that were given up when the run was to wait."""
_LEFT = (Unwind, asyncio.CancelledError)


_STAYS = {
    "code": Misuse.code,
    "message": f"its code stayed {MOST_LEFT_BEHIND + 1} times when it was to leave and wait, and still runs; "
    "it is to let latticed.Suspended pass, which is a BaseException",
    "detail": None,
}


class Executor:
    """All runs that this process executes."""

    def __init__(
        self, *, store: Store, clock: Clock, registry: Registry, settings: RunsConfig, threads: Threads,
        admit: Callable[..., Birth], on_end: Callable[[Execution], None], hooks: Hooks | None = None,
    ) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._registry = registry
        self.settings = settings
        self.threads = threads
        self._admit = admit
        self._chain = None if hooks is None else Chain(store, clock, hooks)
        self._on_end = on_end
        """Told once nothing of an execution runs any more: its slot is free."""
        self.live: dict[str, Execution] = {}
        self._stopped_early: dict[str, RunRow] = {}
        """Runs whose cancel came between their claim and their start here."""
        self.given_up: set[Execution] = set()
        """Those whose code could not be stopped and still runs."""
        self.draining = False
        self._idle = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def start(self, claimed: Claimed) -> None:
        """Begins to execute a run that was claimed."""
        execution = Execution(
            claimed, self._store, self._clock, self.settings, self.threads, self._admit, self._chain, self._unwound
        )  # fmt: skip
        self.live[execution.run_id] = execution
        if self.draining:
            execution.drain()
        execution.settling = True  # There is no user code to be cancelled until it is entered.
        execution.task = self._loop.create_task(self._drive(execution))
        execution.task.add_done_callback(lambda task: self._ended(execution, task))
        row = self._stopped_early.pop(execution.run_id, None)
        if row is not None and row.epoch == execution.row.epoch:
            self._stop(execution, row)
        if (deadline_at := execution.row.deadline_at) is not None:
            left = max(0.0, (deadline_at - self._clock.now()) / 1e6)
            execution.deadline = self._loop.call_later(left, self._expire, execution)

    def told(self, commit: Commit) -> None:
        """Something became true on disk."""
        for row in commit.rows:
            execution = self.live.get(row.id)
            if execution is not None and execution.row.epoch == row.epoch:
                if row.status == Status.CANCELLING:
                    self._stop(execution, row)
                else:
                    execution.notice(row)
            elif row.status == Status.CANCELLING:
                self._stopped_early[row.id] = row
            elif self._stopped_early:
                self._stopped_early.pop(row.id, None)
        for run_id, fact in commit.facts:
            if (execution := self.live.get(run_id)) is not None:
                execution.waits.deliver(fact)

    def _stop(self, execution: Execution, row: RunRow) -> None:
        execution.notice(row)
        if not (execution.stopping or execution.ended or execution.abandoned):
            hit("stop.after")
            ladder.begin(execution, self._give_up)

    def _expire(self, execution: Execution) -> None:
        if not (execution.stopping or execution.ended or execution.settling):
            execution.expired = True
            ladder.begin(execution, self._give_up)

    def _unwound(self, execution: Execution) -> None:
        ladder.see_out(execution, self._give_up)

    async def _give_up(self, execution: Execution) -> None:
        """User code does not end: the run ends without it, what runs on can write nothing any more. A run that was
        unwound waits without it; at a drain, where the process ends, any other is given back."""
        if execution.settling:
            return
        execution.settling = execution.abandoned = True
        earlier = sum(other.run_id == execution.run_id for other in self.given_up)
        self.given_up.add(execution)
        what = "thread" if execution.plain_calls else "task"
        log.warning("abandoned", run=execution.run_id, epoch=execution.row.epoch, what=what)
        if execution.cancel_rank or execution.expired:
            await settle_stopped(execution, abandoned=what)
        elif not execution.waits.unwound:
            await release(execution, "drain")
        elif earlier < MOST_LEFT_BEHIND or self.draining:
            await settle_left_behind(execution, what)
        else:
            await settle_failed(execution, Failed(_STAYS, again=False), what)
        if asyncio.current_task() is execution.ladder:
            execution.ladder = None  # It must not cancel itself.
        self._close(execution)
        if execution.waits.unwound and not execution.stopping:
            self._free(execution)  # One that waits holds no slot.

    def _ended(self, execution: Execution, task: "asyncio.Task[None]") -> None:
        self.given_up.discard(execution)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("executor_failed", run=execution.run_id, exc_info=error)
        self._close(execution)
        execution.task = None  # Its context knows the execution: without the circle both are gone at once.
        self._free(execution)

    def _free(self, execution: Execution) -> None:
        """Its slot is free, once."""
        if self.live.get(execution.run_id) is execution:
            del self.live[execution.run_id]
        if execution.holds_slot:
            execution.holds_slot = False
            self._on_end(execution)

    def _close(self, execution: Execution) -> None:
        if execution.deadline is not None:
            execution.deadline.cancel()
        execution.close()
        if self.draining and not self._under_way():
            self._idle.set()

    async def _drive(self, x: Execution) -> None:
        log_fields.set(x.log_fields)
        hit("claim.after")
        while True:
            x.settling = False
            if (at := x.row.deadline_at) is not None and at <= self._clock.now():
                self._expire(x)  # While the end of the last entry was written nobody could be told.
            agent = self._registry.find(x.row.kind, x.row.target)
            if agent is None:  # A reload has taken it away since the claim.
                x.settling = True
                await release(x, "agent_missing")
                return
            outcome = await self._enter(x, agent)
            if x.settling:  # It was given up in the meantime, and has come back after all.
                if x.ladder is not None:
                    await asyncio.wait([x.ladder])
                return
            x.spare()
            x.settling = True
            if not await self._settle(x, outcome):
                return
            while x.task is not None and x.task.cancelling():  # What made the last entry leave is not for the next.
                x.task.uncancel()

    async def _enter(self, x: Execution, agent: Agent) -> Outcome:
        outcome: Outcome
        context = Context(x)
        try:
            x.check()
            chain, held = self._chain, None
            if chain is not None and (hooks := chain.before_entry(x)) is not None:
                held = await chain.before_run(x, hooks)
            if held is None:
                inputs = orjson.loads(orjson.dumps(x.claimed.inputs))  # What an entry changes, the next is not given.
                result = await agent.run(context, x.claimed.goal, inputs)
                judged = result if isinstance(result, Finished) else None
                output = result if judged is None else judged.output
                json = to_json(output, x.settings.output_limit_bytes, "the output")
                outcome = Returned(json, None if judged is None else judged.status)
            else:
                outcome = held
        except BaseException as error:  # User code's own SystemExit, too: it does not end the daemon.
            outcome = self._raised(x, error)
            error.__traceback__ = None  # It holds the frames that hold it: a circle for each run that waits.
        # What it did once it was told to leave, or cut short, is not how its work ended. A veto was said before.
        left = (x.waits.unwound or x.rung) and not isinstance(outcome, Blocked)
        return Unwound() if left else outcome

    def _raised(self, x: Execution, error: BaseException) -> Outcome:
        if isinstance(error, _LEFT) or (isinstance(error, BaseExceptionGroup) and error.subgroup(_LEFT)):
            if x.stopping or x.draining:
                return Unwound()
            return Failed({"code": "error", "message": "the agent cancelled itself", "detail": None}, again=True)
        if isinstance(error, LatticedError):
            return Failed({"code": error.code, "message": error.detail, "detail": None}, again=False)
        if not isinstance(error, RunError):
            log.info("agent_raised", exc_info=error)
        return failure(error, (*NEVER_AGAIN, ApprovalExpired))

    async def _settle(self, x: Execution, outcome: Outcome) -> bool:
        """Records how it ended; True if the run is to be entered again at once."""
        if isinstance(outcome, Blocked):
            await settle_blocked(x, outcome)
            return False
        if x.cancel_rank:
            await settle_cancelled(x)
            return False
        if x.expired:
            await settle_stopped(x)
            return False
        match outcome:
            case Returned():
                return await settle_returned(x, outcome)
            case Failed() | Refused() | Interrupted():
                return await settle_failed(x, outcome)
            case Unwound():
                return await settle_unwound(x)
            case Moved():
                await settle_moved(x, outcome.queue)
        return False

    async def drain(self, seconds: float, kill_seconds: float, hurry: asyncio.Event) -> None:
        """Gives every run back: after its step under way, or after `seconds` without that; all are then released or
        interrupted on disk, also what does not end. Returns at the latest `kill_seconds` and a little later."""
        self.draining = True
        for execution in self._under_way():
            execution.drain()
        for rung, patience in ((2, seconds), (3, kill_seconds)):
            if await self._none_left(patience, hurry if rung == 2 else None):
                return
            for execution in self._under_way():
                ladder.climb(execution, rung)
        if await self._none_left(LAST_SECONDS, None):
            return
        given_up = [asyncio.ensure_future(self._give_up(execution)) for execution in self._under_way()]
        await asyncio.wait(given_up, timeout=LAST_SECONDS)
        for execution in self._under_way():
            log.warning("left_running", run=execution.run_id, reason="its end cannot be written")

    def _under_way(self) -> list[Execution]:
        """What still has something to write; not what was given up."""
        return [execution for execution in self.live.values() if not execution.ended]

    async def _none_left(self, seconds: float, hurry: asyncio.Event | None) -> bool:
        """Waits until nothing is under way, but no longer than `seconds`, or than until `hurry` is set."""
        self._idle.clear()
        if self._under_way():
            waits = [asyncio.ensure_future(event.wait()) for event in (self._idle, hurry) if event is not None]
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        return not self._under_way()

"""What user code gets: steps, sleeps, signals, people, children, events. Exact meanings are in docs/concepts.md."""

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, TypeVar

import orjson

from latticed.clock import from_datetime
from latticed.engine.children import Children
from latticed.engine.entry import Entry, Shield, step_key
from latticed.engine.execution import Execution
from latticed.engine.gathering import gather
from latticed.engine.outcomes import to_json
from latticed.engine.pauses import Pauses
from latticed.engine.retrying import Retry
from latticed.engine.steps import Recorder
from latticed.engine.waiting import micros
from latticed.errors import Misuse, StepFailed, StepInterrupted
from latticed.models.records import NewEvent

T = TypeVar("T")

OPEN_TYPES = frozenset({"log", "progress", "text.delta", "output", "result"})
"""The event types that user code may emit, besides `x.…`."""
_OWN_TYPE = re.compile(r"x\.[A-Za-z0-9_.\-]{1,60}")
_LEVELS = ("debug", "info", "warning", "error")
EVENT_LIMIT = 262_144


class Context:
    """One run, as its code sees it. Every method that waits raises `Cancelled` once a cancel is on record."""

    def __init__(self, execution: Execution) -> None:
        """Begins an entry of the run's code, in the task that will execute it."""
        self._x = execution
        self.entry = Entry(execution)
        """For the parts of latticed that record what user code may not."""
        self._recorder = Recorder(self.entry)
        self._pauses = Pauses(self.entry)
        self._children = Children(self.entry)

    # Who and where

    @property
    def run_id(self) -> str:
        """This run's id."""
        return self._x.run_id

    @property
    def workspace(self) -> str:
        """The workspace that this run is of."""
        return self._x.row.workspace

    @property
    def attempt(self) -> int:
        """1 at first, one more after each failed attempt."""
        return self._x.row.attempt

    @property
    def mode(self) -> str:
        """`live`, or `simulation`: then nothing outside is to be asked or changed."""
        return self._x.row.mode

    @property
    def roles(self) -> list[str]:
        """The roles that were asked for; none are the agent's own choice."""
        return self._x.claimed.roles

    @property
    def max_retries(self) -> int:
        """How often the work may be done again."""
        return self._x.claimed.max_retries

    @property
    def step_key(self) -> str:
        """Inside a step: a key that is the same whenever this step runs again, for idempotent calls elsewhere."""
        key = step_key.get()
        if key is None:
            raise Misuse("ctx.step_key is there inside a step only")
        return key

    @property
    def cancelled(self) -> bool:
        """Whether this run is to end."""
        return self._x.stopping or self._x.ended

    def check_cancelled(self) -> None:
        """Ends the run here if it is to end; for loops that do not call anything else of this context.

        Raises:
            Cancelled: a cancel is on record.
            Suspended: the daemon drains.
        """
        self.entry.check()

    # Steps

    async def step(
        self,
        name: str,
        fn: Callable[..., Any],
        *args: Any,
        retry: Retry | dict[str, Any] | None = None,
        timeout_seconds: float | None = None,
        retry_on_crash: bool = True,
        timeout: float | None = None,
    ) -> Any:
        """Runs `fn(*args)` once and records what it returns; entered again, returns the record without running it.

        A plain function runs in a thread. Each attempt may take `timeout_seconds`; `timeout` is the same by its
        shorter name. With `retry_on_crash=False` a step that was under way at a crash is not run again.

        Raises:
            StepFailed: it used up its attempts.
            StepInterrupted: it was begun, did not end, and must not run again.
            JournalConflict: the journal has something else here.
        """
        policy = Retry.of(retry)
        if not callable(fn):
            if inspect.iscoroutine(fn):
                fn.close()
            raise Misuse(f"step {name!r} needs a function to call, such as fetch, not fetch()")
        limit = timeout_seconds if timeout is None else timeout
        seconds = None if limit is None else micros(limit, "ctx.step's timeout_seconds") / 1e6
        await self.entry.admit()
        with self.entry.asking("step", name) as asked:
            if (found := asked.found) is not None:
                if found.status == "ok":
                    return orjson.loads(found.outcome)
                if found.status == "failed":
                    error = orjson.loads(found.error)
                    raise StepFailed(name, error["code"], error["message"])
                if found.status == "started" and not retry_on_crash:
                    raise StepInterrupted(f"step {name!r} was begun and did not end; it must not be run again")
                asked.branch.loosen()
            return await self._recorder.run(asked, fn, args, policy, seconds, retry_on_crash)

    async def gather(self, *awaitables: Awaitable[T]) -> list[T]:
        """Runs several lines of this run at the same time; results in order. The first failure cancels the others.

        Each line has a journal branch of its own, by its position.
        """
        return await gather(self.entry, awaitables)

    # Waiting

    async def sleep(self, seconds: float) -> None:
        """Sleeps; a longer sleep gives the slot back and survives the daemon's death."""
        length = micros(seconds, "ctx.sleep")
        await self._pauses.sleep(lambda now: now + length)

    async def sleep_until(self, moment: datetime) -> None:
        """Sleeps until an aware datetime."""
        if not isinstance(moment, datetime):
            raise Misuse("ctx.sleep_until needs a datetime with an offset, such as datetime.now(UTC)")
        try:
            wake_at = from_datetime(moment)
        except (ValueError, OverflowError) as error:
            raise Misuse(f"ctx.sleep_until: {error}") from None
        await self._pauses.sleep(lambda now: wake_at)

    async def wait_signal(
        self, name: str, schema: dict[str, Any] | None = None, timeout_seconds: float | None = None
    ) -> Any:
        """Waits for a signal of this name and takes its data; signals sent before are kept and come in order.

        Raises:
            SignalTimeout: none came in time.
            RunError: code `invalid_signal`, the data does not fit `schema`.
        """
        return await self._pauses.signal(name, schema, timeout_seconds)

    async def ask(
        self,
        prompt: str,
        schema: dict[str, Any] | None = None,
        lanes: list[str] | None = None,
        expires_seconds: float | None = None,
        subject: dict[str, Any] | None = None,
        *,
        expires: float | None = None,
    ) -> Any:
        """Asks a person and waits for the answer; gives the answer's data. `subject` says what exactly it is about,
        for programs: JSON that is shown with the approval. `expires` is `expires_seconds` by its shorter name.

        Raises:
            Denied: the answer was no.
            ApprovalExpired: nobody answered in time.
        """
        seconds = expires_seconds if expires is None else expires
        return await self._pauses.ask(prompt, schema, lanes, seconds, subject)

    async def run(
        self,
        /,
        kind: str,
        target: str,
        goal: str | None = None,
        inputs: dict[str, Any] | None = None,
        detached: bool = False,
        **options: Any,
    ) -> Any:
        """Starts a child run and waits for its output; detached, gives its id at once.

        An attached child is cancelled with its parent. `options` are further fields of a submission, such as `queue`.

        Raises:
            ChildFailed: it did not end well.
            RunError: code `invalid`, it cannot be started.
        """
        wanted = {"kind": kind, "target": target, "goal": goal or f"child of {self.run_id}", "inputs": inputs or {}}
        return await self._children.run(wanted | options, detached)

    # Telling

    async def emit(self, type: str, /, **data: Any) -> None:
        """Appends an event of one's own: `log`, `progress`, `text.delta`, `output`, `result` or `x.…`.

        What was said before, where the code is entered again, is not said twice.

        Raises:
            Misuse: another type.
            NotJson: data that is not JSON.
            OutcomeTooLarge: data larger than 256 KiB.
        """
        if not isinstance(type, str) or (type not in OPEN_TYPES and not _OWN_TYPE.fullmatch(type)):
            allowed = ", ".join(sorted(OPEN_TYPES))
            raise Misuse(f"user code may not emit {type!r}; it may emit {allowed} and types that begin with 'x.'")
        encoded = to_json(data, EVENT_LIMIT, f"the data of event {type!r}")
        in_step = step_key.get() is not None
        if not in_step or self._x.ended:  # A step under way is let come to its end.
            await self.entry.admit()
        if in_step or self.entry.says():
            self._x.say(NewEvent(type, self._x.clock.now(), encoded))
            await self._x.breathe()

    async def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """How far the run is."""
        if not isinstance(done, int | float) or not isinstance(total, int | float | None):
            raise Misuse("ctx.progress needs numbers: how much is done, and of how much in total if that is known")
        if not isinstance(message, str):
            raise Misuse("ctx.progress needs a message that is a text")
        await self.emit("progress", done=done, total=total, message=message)

    async def log(self, /, message: str, level: str = "info", **fields: Any) -> None:
        """A line for the timeline."""
        if level not in _LEVELS:
            raise Misuse(f"ctx.log knows the levels {', '.join(_LEVELS)}, not {level!r}")
        await self.emit("log", **{**fields, "level": level, "message": message})

    # Ending well

    @asynccontextmanager
    async def shield(self, seconds: float) -> AsyncIterator[None]:
        """For a cleanup: inside, a cancel that is on record neither raises nor cancels, for at most so long.

        Raises:
            TimeoutError: it took longer.
        """
        shield = Shield(self._x, seconds)
        try:
            async with asyncio.timeout(seconds):
                yield
        finally:
            shield.lower()

    @contextmanager
    def escalation(self, handler: Callable[[int], None]) -> Iterator[None]:
        """While inside, the rungs of the cancel ladder go to `handler` (1, 2, 3) in place of cancelling the task:
        for work in another process, whose end ends the wait for it."""
        self._x.escalations.append(handler)
        try:
            for rung in range(1, self._x.rung + 1):
                handler(rung)
            yield
        finally:
            self._x.escalations.remove(handler)

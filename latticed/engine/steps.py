"""Running a step: its attempts, its timeout, its record."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import orjson

from latticed.engine.bridge import Bridge
from latticed.engine.entry import Asked, Entry, step_key
from latticed.engine.lasting import Late, unbroken
from latticed.engine.outcomes import describe, to_json
from latticed.engine.retrying import NEVER_AGAIN, Retry
from latticed.engine.waiting import Wait
from latticed.errors import StepFailed, Suspended
from latticed.failpoints import hit
from latticed.models.records import NewEvent, StepRecord


class Recorder:
    """perform → record → hand back."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._x = entry.x

    async def run(
        self, asked: Asked, fn: Callable[..., Any], args: tuple[Any, ...], policy: Retry,
        timeout_seconds: float | None, retry_on_crash: bool,
    ) -> Any:  # fmt: skip
        """Runs a step that has no record that holds, and records it.

        Raises:
            StepFailed: its attempts are used up.
        """
        x = self._x
        record = self._entry.record(asked, "started")
        began = record.started_at
        attempt, done = 0, None
        begun = retry_on_crash

        async def begin() -> None:
            """Whoever enters again must know that it had begun."""
            nonlocal begun
            await self._entry.write(record, events=[_event("step.started", record, attempt, began)])
            begun = True
            hit("step.before_effect")

        token = step_key.set(f"{x.run_id}/{asked.branch.path}:{asked.name}/{asked.occurrence}")
        try:
            while done is None:
                attempt += 1
                if attempt > 1:
                    began = x.clock.now()
                if begun:
                    x.say(_event("step.started", record, attempt, began), lazy=True)
                    hit("step.before_effect")
                try:
                    done = await self._perform(asked.name, fn, args, timeout_seconds, None if begun else begin)
                except asyncio.CancelledError as error:
                    if _is_cancelled():
                        if (retry_on_crash or not begun) and not (x.stopping or x.draining or x.ended):
                            # User code may go on; entered again it must find its place.
                            await unbroken(x.commit(steps=[record if begun else record._replace(status="waiting")]))
                        raise
                    await self._fail(record, attempt, began, policy, error)
                except (Exception, SystemExit, KeyboardInterrupt) as error:
                    await self._fail(record, attempt, began, policy, error)
        finally:
            step_key.reset(token)
        outcome, late = done
        hit("step.after_effect")
        now = x.clock.now()
        record = record._replace(status="ok", finished_at=now, outcome=outcome)
        await self._entry.write(record, events=[_event("step.finished", record, attempt, began, now)])
        hit("step.after_record")
        if late:
            raise asyncio.CancelledError
        return orjson.loads(outcome)

    async def _fail(self, record: StepRecord, attempt: int, began: int, policy: Retry, error: BaseException) -> None:
        """Waits for the next attempt, or records that there is none and raises."""
        x = self._x
        now = x.clock.now()
        described = describe(error)
        final = attempt >= policy.attempts or isinstance(error, NEVER_AGAIN)
        told = _event("step.failed", record, attempt, began, now, error=described, final=final)
        if final:
            failed = record._replace(status="failed", finished_at=now, error=orjson.dumps(described))
            await self._entry.write(failed, events=[told])
            raise StepFailed(record.name, described["code"], described["message"]) from error
        x.say(told)
        wake_at = now + int(policy.wait_seconds(attempt) * 1_000_000)
        await self._entry.wait(Wait(wake_at, wake_at=wake_at))

    async def _perform(
        self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], seconds: float | None,
        begin: Callable[[], Coroutine[Any, Any, None]] | None,
    ) -> tuple[bytes, bool]:  # fmt: skip
        """The outcome as JSON; and whether a cancellation came before it, which is still to be raised. `begin` is done
        before the function is called, once it is its turn."""
        late = False
        if inspect.iscoroutinefunction(fn):
            if begin is not None:
                await begin()
            value = await self._await(fn(*args), seconds)
        else:
            function = partial(fn, *args)
            self._x.plain_calls += 1
            try:
                value = await self._call(function if begin is None else _after(begin, function), seconds)
            except Late as cancelled:
                value, late = cancelled.value, True
            finally:
                self._x.plain_calls -= 1
            if inspect.isawaitable(value):  # Such as of a lambda around a coroutine function.
                value = await self._await(value, seconds)
        return to_json(value, self._x.settings.output_limit_bytes, f"the outcome of step {name!r}"), late

    async def _await(self, work: Awaitable[Any], seconds: float | None) -> Any:
        try:
            if seconds is None:
                return await work
            async with asyncio.timeout(seconds):
                return await work
        finally:
            if self._x.rung and not self._x.stopping:  # Cut short by a drain: what it made of that is no outcome.
                raise Suspended

    async def _call(self, function: Callable[[], Any], seconds: float | None) -> Any:
        bridge = Bridge.here()
        if bridge is None:
            x = self._x
            return await x.threads.run(function, seconds=seconds, admit=x.check, line=x.line)
        if seconds is None:
            return await bridge.call(function)
        return await Bridge().visit(self._x, function, seconds)


def _after(begin: Callable[[], Coroutine[Any, Any, None]], function: Callable[[], Any]) -> Callable[[], Any]:
    """For a thread: the function, after what is to be done in the loop before it."""
    loop = asyncio.get_running_loop()

    def work() -> Any:
        asyncio.run_coroutine_threadsafe(begin(), loop).result()
        return function()

    return work


def _is_cancelled() -> bool:
    """Whether somebody has cancelled this task, rather than that its code raised the error by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _event(type: str, record: StepRecord, attempt: int, began: int, now: int | None = None, **more: Any) -> NewEvent:
    data = {
        "name": record.name,
        "branch": record.branch,
        "occurrence": record.occurrence,
        "attempt": attempt,
        "duration_ms": None if now is None else (now - began) / 1000,
        **more,
    }
    return NewEvent(type, began if now is None else now, orjson.dumps(data))

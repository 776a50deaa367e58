"""Asks a hook and waits for its answer no longer than the hook may take, whatever it does with its time."""

import asyncio
from typing import Any

import structlog

from latticed.models.hooks import Answer, HookFailed, HookSpec, Occasion
from latticed.ports import Hooks

LET_GO_SECONDS = 1.0
"""How long a hook that took too long gets to be gone before whoever asked goes on without it."""

log = structlog.get_logger()


class TooLate(HookFailed):
    """A hook took longer than it may."""


class Asked:
    """A hook that is being asked. Its time runs from when it begins: waiting for its turn is no fault of its own.

    It has a task to itself, and nobody waits for that task to end: a hook may swallow its own cancellation.
    """

    def __init__(self, hooks: Hooks, hook: HookSpec, payload: bytes, occasion: Occasion) -> None:
        self.cut = self._late = False
        """Whether it was cut short, before its time was over and before it had answered."""
        self._seconds = hook.table.timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._task = self._loop.create_task(self._ask(hooks, hook, payload, occasion))
        self._task.add_done_callback(self._end)

    async def answer(self) -> Answer | HookFailed:
        """What it answers, or what it failed of.

        Raises:
            asyncio.CancelledError: whoever waits was cancelled, and the hook with that.
        """
        try:
            await self._over
            if not self._task.done() and not self.cut:
                self._late = self._task.cancel()
                self._over = self._loop.create_future()
                self._timer = self._loop.call_later(LET_GO_SECONDS, self._end)
                await self._over
        except asyncio.CancelledError:
            self.cancel()
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()
        if self._late:
            return TooLate(f"no answer within {self._seconds:g} s")
        if self.cut:
            return HookFailed("it was cut short")
        return HookFailed("it cancelled itself") if self._task.cancelled() else self._task.result()

    def cancel(self) -> None:
        """Cuts it short: from now on nobody waits for it."""
        self.cut = self.cut or not (self._late or self._task.done())
        self._task.cancel()
        self._end()

    async def _ask(self, hooks: Hooks, hook: HookSpec, payload: bytes, occasion: Occasion) -> Answer | HookFailed:
        """Whatever a hook raises is its failure, be it a SystemExit, which must not leave a task."""
        try:
            return await hooks.ask(hook, payload, occasion, self._begin)
        except asyncio.CancelledError:
            raise
        except HookFailed as failed:
            return failed
        except BaseException as error:
            log.info("hook_raised", hook=hook.name, delivery=occasion.delivery_id, exc_info=error)
            return HookFailed(f"{type(error).__name__}: {error}")

    def _begin(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._end)

    def _end(self, _: Any = None) -> None:
        if not self._over.done():
            self._over.set_result(None)

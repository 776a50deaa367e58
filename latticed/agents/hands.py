"""The calls of tools in one conversation. Nobody can end a thread from outside, so a cancel waits for those that plain
tools are at work in, and what is given up at its last rung is known to be a thread. What outruns its time is left."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TypeVar

from latticed.agents.places import MOST_LOST, Places
from latticed.engine.execution import Execution
from latticed.engine.lasting import Late, outlast, unbroken

T = TypeVar("T")
LET_GO_SECONDS = 1.0
"""How long a tool that took too long gets to be gone before its run goes on without it."""

_call: ContextVar[object] = ContextVar("call", default=None)
"""The call of a tool that this code belongs to."""


class Hands(Executor):
    """The places that all share, as one conversation uses them; in the event loop only."""

    def __init__(self, places: Places, x: Execution) -> None:
        self._places = places
        self._x = x
        self._at_work: dict[Future[Any], tuple[object, asyncio.Future[None]]] = {}

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """As that of the places."""
        working = self._places.submit(fn, *args, **kwargs)
        loop = asyncio.get_running_loop()
        self._x.plain_calls += 1
        self._at_work[working] = _call.get(), loop.create_future()

        def tell(_: "Future[T]") -> None:
            with suppress(RuntimeError):  # The loop may be over before the thread is.
                loop.call_soon_threadsafe(self._end, working)

        working.add_done_callback(tell)
        return working

    def refusal(self, tool: str) -> str | None:
        """Why a tool is not to be called now; None if it may."""
        lost = self._places.lost[tool]
        return f"{lost} calls of it were given up and have not come back." if lost >= MOST_LOST else None

    async def call(self, tool: str, work: Coroutine[Any, Any, T], seconds: float | None) -> T:
        """What a call of a tool comes to. A cancellation is passed on and then waits for what threads do.

        Raises:
            TimeoutError: it is not there in `seconds` and a grace; what it still does is given up.
        """
        token = _call.set(call := object())
        task = asyncio.ensure_future(work)
        _call.reset(token)
        try:
            return await outlast(task, seconds and seconds + LET_GO_SECONDS, task.cancel)
        except Late as late:
            value: T = late.value
            return value
        except asyncio.CancelledError:
            await self._rest()
            raise
        finally:
            if not task.done():
                self._places.leave(task, tool)
            for working in [each for each, (of, _) in self._at_work.items() if of is call]:
                self._places.leave(working, tool)
                self._end(working)

    async def _rest(self) -> None:
        """Returns once nothing is at work, however often the caller is cancelled meanwhile."""
        while self._at_work:
            await unbroken(_all([ended for _, ended in self._at_work.values()]))

    def _end(self, working: "Future[Any]") -> None:
        _, ended = self._at_work.pop(working, (None, None))
        if ended is not None:
            self._x.plain_calls -= 1
            ended.set_result(None)


async def _all(futures: "list[asyncio.Future[None]]") -> None:
    await asyncio.wait(futures)

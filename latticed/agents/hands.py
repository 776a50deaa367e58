"""The threads in which a run's plain tools are at work: nobody can end them from outside, so a cancel waits for them,
and what is given up at its last rung is known to be a thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any, TypeVar

from latticed.engine.execution import Execution
from latticed.engine.lasting import unbroken

T = TypeVar("T")


class Hands(Executor):
    """The pool that all share, as one conversation uses it; in the event loop only."""

    def __init__(self, threads: Executor, x: Execution) -> None:
        self._threads = threads
        self._x = x
        self._at_work: set[asyncio.Future[Any]] = set()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """As the pool's."""
        working = self._threads.submit(fn, *args, **kwargs)
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        self._x.plain_calls += 1
        self._at_work.add(ended)

        def end() -> None:
            self._x.plain_calls -= 1
            self._at_work.discard(ended)
            ended.set_result(None)

        def tell(_: "Future[T]") -> None:
            with suppress(RuntimeError):  # The loop may be over before the thread is.
                loop.call_soon_threadsafe(end)

        working.add_done_callback(tell)
        return working

    async def rest(self) -> None:
        """Returns once nothing is at work, however often the caller is cancelled meanwhile."""
        while self._at_work:
            await unbroken(_all(set(self._at_work)))


async def _all(futures: "set[asyncio.Future[Any]]") -> None:
    await asyncio.wait(futures)

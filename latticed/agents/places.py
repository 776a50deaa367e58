"""Where plain tools are at work, and what was given up of tools, plain or not.

A thread cannot be ended from outside, nor a task that swallows its cancellation. A call that is not back when its time
is over is lost: it is left to itself, and another takes its place, so that a tool that hangs holds up no other. A few
lost calls later that tool is not called any more until one is back.
"""

import asyncio
import sys
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
MOST_LOST = 8
"""So many calls of one tool that have not come back are enough."""


class Places(Executor):
    """Threads, so many at work at once; in the event loop only. `lost` counts by tool what was given up and still runs;
    it is kept from one configuration to the next."""

    def __init__(self, size: int, lost: Counter[str]) -> None:
        self.lost = lost
        self._free = size
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._left: dict[Future[Any] | asyncio.Task[Any], str] = {}
        self._threads = ThreadPoolExecutor(sys.maxsize, thread_name_prefix="tool")  # The places are its bound.

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Calls a function in a thread, once there is a place for it."""
        working: Future[T] = Future()
        loop = asyncio.get_running_loop()

        def tell(_: "Future[T]") -> None:
            with suppress(RuntimeError):  # The loop may be over before the thread is.
                loop.call_soon_threadsafe(self._back, working)

        working.add_done_callback(tell)
        self._waiting.append((working, partial(fn, *args, **kwargs)))
        self._fill()
        return working

    def leave(self, work: "Future[Any] | asyncio.Task[Any]", tool: str) -> None:
        """Gives up what a call of this tool still does."""
        if isinstance(work, Future):
            if work.cancel() or work.done():
                return
            self._free += 1
            self._fill()
        else:
            work.add_done_callback(self._back)
        self._left[work] = tool
        self.lost[tool] += 1

    def close(self) -> None:
        """Takes no more work and waits for nobody."""
        for working, _ in self._waiting:
            working.cancel()
        self._threads.shutdown(wait=False)

    def _fill(self) -> None:
        while self._free and self._waiting:
            working, call = self._waiting.popleft()
            if working.set_running_or_notify_cancel():
                self._free -= 1
                self._threads.submit(_work, working, call)

    def _back(self, work: "Future[Any] | asyncio.Task[Any]") -> None:
        if (tool := self._left.pop(work, None)) is not None:
            self.lost[tool] -= 1
        elif not work.cancelled():
            self._free += 1
            self._fill()
        if not work.cancelled():
            work.exception()


def _work(working: "Future[Any]", call: Callable[[], Any]) -> None:
    try:
        working.set_result(call())
    except BaseException as error:
        working.set_exception(error)

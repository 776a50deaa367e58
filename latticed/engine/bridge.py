"""Between the event loop and a thread that executes a run's plain code: what is awaited in the one blocks the other."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from latticed.engine.execution import Execution
from latticed.engine.lasting import outlast
from latticed.errors import Cancelled, Misuse

T = TypeVar("T")
Inbox = SimpleQueue["asyncio.Task[Any] | Callable[[], None]"]

_here: ContextVar["Bridge | None"] = ContextVar("latticed_bridge", default=None)


class Bridge:
    """One thread's way to the loop and back. Made in the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._inbox: Inbox = SimpleQueue()

    @staticmethod
    def here() -> "Bridge | None":
        """The bridge of the thread that this code runs in, or runs for."""
        return _here.get()

    async def visit(
        self, x: Execution, function: Callable[[], Any], seconds: float | None = None, own: bool = True
    ) -> Any:
        """Runs a plain function of a run in a thread with this bridge; as Threads.run. If the caller is cancelled, so
        is what the thread waits for."""

        def inside() -> Any:
            _here.set(self)
            return function()

        return await x.threads.run(
            inside, seconds=seconds, own=own, on_cancel=self._cancel, admit=x.check, line=x.line
        )  # fmt: skip

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    def block(self, work: Coroutine[Any, Any, T]) -> T:
        """Called in the thread: does `work` in the loop and waits for it. Meanwhile `call` may want this thread.

        Raises:
            Cancelled: the run's code was cancelled meanwhile.
            Misuse: called in the event loop, which must not wait for itself.
        """
        if asyncio._get_running_loop() is not None:
            work.close()
            raise Misuse("the context of a plain agent blocks; call it from plain functions only")
        inbox: Inbox = SimpleQueue()
        outer, self._inbox = self._inbox, inbox
        try:
            self._loop.call_soon_threadsafe(self._begin, work, inbox)
            while not isinstance(got := inbox.get(), asyncio.Task):
                got()
        finally:
            self._inbox = outer
        if got.cancelled():
            raise Cancelled
        result: T = got.result()
        return result

    def _begin(self, work: Coroutine[Any, Any, Any], inbox: Inbox) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(inbox.put)

    async def call(self, function: Callable[[], Any]) -> Any:
        """Called in the loop, by what the thread waits for: runs a function in that thread, in the caller's context.

        Raises:
            Late: the caller was cancelled meanwhile.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        context = contextvars.copy_context()

        def settle(error: BaseException | None, result: Any = None) -> None:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def work() -> None:
            try:
                settled = partial(settle, None, context.run(function))
            except StopIteration:  # A future cannot carry one.
                settled = partial(settle, RuntimeError("the function raised StopIteration"))
            except BaseException as error:
                settled = partial(settle, error)
            self._loop.call_soon_threadsafe(settled)

        self._inbox.put(work)
        return await outlast(future)

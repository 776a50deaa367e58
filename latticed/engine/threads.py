"""Plain functions run in a bounded pool of their own, so that a blocking one stops nobody else."""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock, Thread
from typing import Any

from latticed.engine.lasting import outlast


class Threads:
    """The pool. A thread cannot be ended from outside: one whose run was given up is `abandoned` until it returns."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.busy = 0
        self.abandoned = 0
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="plain")
        self._lock = Lock()

    async def run(
        self, function: Callable[[], Any], *, seconds: float | None = None, own: bool = False,
        on_cancel: Callable[[], object] = lambda: None, admit: Callable[[], object] = lambda: None,
        line: "set[Future[Any]] | None" = None,
    ) -> Any:  # fmt: skip
        """Runs a plain function, in the caller's context, once there is a place for it; `admit` may raise then in its
        stead. A cancellation ends the wait for a place, but not what has begun: `on_cancel` is told. It is in `line`
        meanwhile: cancelled there, it waits no longer for a place, and `admit` is to raise at once.

        `own` gives it a thread outside the pool: for a caller that holds a place in the pool already, and would wait
        for ever if all places were held by such callers.

        Raises:
            TimeoutError: it took longer than `seconds`; its thread is left to itself.
            Late: the caller was cancelled meanwhile.
        """
        call = partial(self._counted, admit, partial(contextvars.copy_context().run, function))
        working = _in_own_thread(call) if own else self._pool.submit(call)
        future = asyncio.wrap_future(working)
        if line is not None:
            line.add(working)

        def leave() -> None:
            if not working.cancel():
                on_cancel()

        try:
            return await outlast(future, seconds, leave)
        except asyncio.CancelledError:
            if working.cancelled():
                admit()
            raise
        finally:
            if line is not None:
                line.discard(working)
            if not future.done() and not working.cancel():  # It took too long, and not because it waited for a place.
                self.abandoned += 1
                future.add_done_callback(self._came_back)

    def _came_back(self, future: "asyncio.Future[Any]") -> None:
        self.abandoned -= 1
        future.exception()

    def _counted(self, admit: Callable[[], object], call: Callable[[], Any]) -> Any:
        with self._lock:
            self.busy += 1
        try:
            admit()
            return call()
        except StopIteration as stop:  # A future cannot carry one.
            raise RuntimeError("the function raised StopIteration") from stop
        finally:
            with self._lock:
                self.busy -= 1

    def close(self) -> None:
        """Takes no more work and waits for nobody."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _in_own_thread(call: Callable[[], Any]) -> "Future[Any]":
    future: Future[Any] = Future()

    def work() -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

    Thread(target=work, name="plain-own", daemon=True).start()
    return future

"""Tasks that user code makes, such as those of an `asyncio.TaskGroup`: leaving the program in one ends the task alone.

asyncio hands SystemExit and KeyboardInterrupt through to whoever runs the loop, whatever task they come from, and the
daemon would end with that task.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from latticed.engine.entry import current_branch
from latticed.engine.outcomes import describe
from latticed.errors import RunError

LEAVING = (SystemExit, KeyboardInterrupt)


class Contained(Coroutine[Any, Any, Any]):
    """A coroutine that fails where it would leave the program."""

    def __init__(self, inner: Coroutine[Any, Any, Any]) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __await__(self) -> Any:
        return (yield from self._inner.__await__())

    def send(self, value: Any) -> Any:
        """As the coroutine's own."""
        try:
            return self._inner.send(value)
        except LEAVING as error:
            raise RunError(describe(error)["message"]) from error

    def throw(self, *raised: Any) -> Any:
        """As the coroutine's own."""
        try:
            return self._inner.throw(*raised)
        except LEAVING as error:
            raise RunError(describe(error)["message"]) from error

    def close(self) -> None:
        """As the coroutine's own."""
        self._inner.close()


def make_task(
    loop: asyncio.AbstractEventLoop, work: Any, **options: Any
) -> "asyncio.Task[Any]":  # fmt: skip
    """The loop's task factory: what is begun by a run's code is contained."""
    if current_branch.get(None) is not None:
        work = Contained(work)
    return asyncio.Task(work, loop=loop, **options)

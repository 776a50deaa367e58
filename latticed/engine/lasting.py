"""Waiting for what cannot or must not be cut short, although the one who waits is cancelled meanwhile."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Late(asyncio.CancelledError):
    """The waiting task was cancelled before `value` came: a cancellation, unless somebody has a use for the value."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


async def outlast(
    future: "asyncio.Future[T]", seconds: float | None = None, on_cancel: Callable[[], object] = lambda: None
) -> T:
    """The future's result, or its exception, once it is there; `on_cancel` is called at each cancellation until then.

    Raises:
        TimeoutError: it is not there after so many seconds; the future is left to itself.
        Late: it is there, but a cancellation came before it.
    """
    loop = asyncio.get_running_loop()
    deadline = None if seconds is None else loop.time() + seconds
    cancelled = False
    while not future.done():
        left = None if deadline is None else deadline - loop.time()
        if left is not None and left <= 0:
            raise asyncio.CancelledError if cancelled else TimeoutError
        try:
            await asyncio.wait([future], timeout=left)
        except asyncio.CancelledError:
            cancelled = True
            on_cancel()
    result = future.result()
    if cancelled:
        raise Late(result)
    return result


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
    """Does `work` to its end, also if the caller is cancelled meanwhile; the cancellation is raised then."""
    try:
        return await outlast(asyncio.ensure_future(work))
    except Late:
        raise asyncio.CancelledError from None

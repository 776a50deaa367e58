"""Several lines of a run at the same time, each with a journal branch of its own."""

import asyncio
import inspect
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from latticed.engine.entry import Entry, current_branch, step_key
from latticed.engine.journal import Branch
from latticed.engine.lasting import unbroken
from latticed.errors import Misuse, Unwind

T = TypeVar("T")


async def gather(entry: Entry, awaitables: Sequence[Awaitable[T]]) -> list[T]:
    """Runs each as a line; results in order. The first line that fails ends the others, and its error is raised.

    A line that only leaves because the run is to be unwound ends nobody: the steps that are under way in the others
    are still recorded.
    """
    try:
        await entry.admit()
        parent = entry.branch()
        if step_key.get() is not None or parent.busy is not None:
            raise Misuse(f"ctx.gather was called while {parent.busy or 'a step'} is under way")
        path = f"{parent.path}{parent.gathers}"
        parent.gathers += 1
        branches = [entry.x.journal.branch(f"{path}.{i}/", parent) for i in range(len(awaitables))]
        parent.busy = "a gather"
        try:
            return await _together(entry, branches, awaitables)
        finally:
            parent.busy = None
    finally:
        for awaitable in awaitables:
            if inspect.iscoroutine(awaitable):
                awaitable.close()  # One that never began would complain; one that has ended does not mind.


async def _together(entry: Entry, branches: list[Branch], awaitables: Sequence[Awaitable[T]]) -> list[T]:
    if not awaitables:
        return []
    waits = entry.waits
    left = len(awaitables)
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ended(task: "asyncio.Task[T]") -> None:
        nonlocal left
        left -= 1
        fails = _fails(task)
        if not over.done() and (left == 0 or fails):
            over.set_result(None)  # This line's place among the running is its parent's from now on.
        else:
            waits.leave()

    waits.running += left - 1  # The parent's own place is taken by a line.
    tasks = [
        asyncio.create_task(_line(entry, branch, awaitable))
        for branch, awaitable in zip(branches, awaitables, strict=True)
    ]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        await over
    finally:
        if over.cancelled():
            waits.running += 1
        for branch, task in zip(branches, tasks, strict=True):
            branch.closed = True
            task.cancel()
        if left:
            await unbroken(_all_done(tasks))
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
    if errors:
        # What a person should see comes before what merely follows from it.
        raise next((error for error in errors if isinstance(error, Exception)), errors[0])
    return [task.result() for task in tasks]


async def _line(entry: Entry, branch: Branch, awaitable: Awaitable[T]) -> T:
    current_branch.set(branch)
    result = await awaitable
    await entry.seal(branch)
    return result


def _fails(task: "asyncio.Task[T]") -> bool:
    if task.cancelled():
        return True
    error = task.exception()
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(Unwind) is None
    return error is not None and not isinstance(error, Unwind)


async def _all_done(tasks: list["asyncio.Task[T]"]) -> None:
    await asyncio.wait(tasks)

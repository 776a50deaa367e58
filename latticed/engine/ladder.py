"""The cancel ladder: cooperative, then the task, then the process; each rung an event.

Rung 1 at once: `ctx` calls raise. Rung 2 after `grace_seconds` (or at once with `now`): the task is cancelled. Rung 3
`kill_seconds` later (or at once with `kill`): what still runs is given up. A shield holds the second and the third
back, but not a kill. Work in another process is told each rung in place of the task and ends by itself. A run that
outlives its deadline goes down the same ladder, and a drain that takes too long uses its rungs. Code that was unwound
to wait and does not leave is cancelled and given up after the same times; its run goes on waiting.
"""

import asyncio
from collections.abc import Awaitable, Callable

from latticed.engine.execution import Execution
from latticed.models.records import event

LAST_WAIT_SECONDS = 5.0
"""How long a killed process may take to be gone."""
LET_GO_SECONDS = 0.1
"""How long cancelled code may take to be gone when it is killed at once: it ends in the next turns of the loop."""


def begin(x: Execution, give_up: Callable[[Execution], Awaitable[None]]) -> None:
    """Takes at once the rungs that are due, and the others until user code has ended; `give_up` ends the run without
    it."""
    began = x.clock.monotonic()
    taken = 0

    def take(rung: int) -> None:
        nonlocal taken
        if rung > taken:
            taken = rung
            after_ms = round((x.clock.monotonic() - began) * 1000)
            x.say(event("cancel.escalated", x.clock.now(), rung=rung, after_ms=after_ms), lazy=True)
            climb(x, rung)

    async def descend() -> None:
        await _wait(x, 2, x.settings.grace_seconds)
        await _wait_for_shields(x)
        take(2)
        await _wait(x, 3, x.settings.kill_seconds)
        await _wait_for_shields(x)
        take(3)
        await _wait(x, 4, LAST_WAIT_SECONDS if x.escalations else LET_GO_SECONDS)
        await give_up(x)

    x.spare()
    take(1)
    x.unwind()
    if x.cancel_rank > 1 and not x.shields:
        take(2)
    x.ladder = asyncio.get_running_loop().create_task(descend())


def see_out(x: Execution, give_up: Callable[[Execution], Awaitable[None]]) -> None:
    """Its code was unwound: cancels it if it stays for `grace_seconds`, and gives it up `kill_seconds` later."""
    loop = asyncio.get_running_loop()

    async def descend() -> None:
        await _wait_for_shields(x)
        if x.task is not None:
            x.task.cancel()
        await asyncio.sleep(x.settings.kill_seconds)
        await _wait_for_shields(x)
        await give_up(x)

    def begin() -> None:
        x.ladder = loop.create_task(descend())

    if x.leave_by is None:
        x.leave_by = loop.call_later(x.settings.grace_seconds, begin)


def climb(x: Execution, rung: int) -> None:
    """What a rung does to what runs, once: it is told to work in another process, or the second cancels the task."""
    if rung <= x.rung:
        return
    x.rung = rung
    for handler in list(x.escalations):
        handler(rung)
    if rung == 2 and not x.escalations and x.task is not None and not x.settling:
        x.task.cancel()


async def _wait(x: Execution, rank: int, seconds: float) -> None:
    """Until a cancel of this rank is on record, or the time is over."""
    deadline = x.clock.monotonic() + seconds
    while x.cancel_rank < rank and (left := deadline - x.clock.monotonic()) > 0:
        x.harder.clear()
        try:
            async with asyncio.timeout(left):
                await x.harder.wait()
            x.unwind()  # A shield may have ended, which kept its run's waits going.
        except TimeoutError:
            continue


async def _wait_for_shields(x: Execution) -> None:
    """Until no cleanup is shielded any more, or a kill is on record."""
    while x.shields and x.cancel_rank < 3:
        x.harder.clear()
        await x.harder.wait()

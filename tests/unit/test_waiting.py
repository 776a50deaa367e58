"""Waiting in place and being unwound, without a daemon: the clock is the test's."""

import asyncio
from threading import Event
from typing import Any

import pytest

from latticed.engine.lasting import Late, outlast, unbroken
from latticed.engine.threads import Threads
from latticed.engine.waiting import Wait, Waits
from latticed.errors import Cancelled, Suspended
from tests.wait import eventually

SECOND = 1_000_000


class Hands:
    """A clock that shows what it is told; the loop's own timers go on as ever."""

    def __init__(self) -> None:
        self.at = 0

    def now(self) -> int:
        return self.at

    def monotonic(self) -> float:
        return self.at / SECOND


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
async def waits(clock: Hands) -> Waits:
    return Waits(clock)


async def begin(waits: Waits, *these: Wait) -> list["asyncio.Task[None]"]:
    """Lines that wait for these, all of them waiting."""
    waits.running += len(these) - 1
    tasks = [asyncio.create_task(waits.wait(wait)) for wait in these]
    await eventually(lambda: len(waits.open) == len(these) or all(task.done() for task in tasks))
    return tasks


async def test_a_wait_is_over_with_its_fact(waits: Waits) -> None:
    [task] = await begin(waits, Wait(SECOND, fact="signal:go"))
    waits.deliver("signal:stop")
    assert not any(wait.future.done() for wait in waits.open)
    waits.deliver("signal:go")
    await task
    assert (waits.running, waits.open, waits.delivered) == (1, set(), 2)


async def test_a_wait_is_over_at_its_time(waits: Waits) -> None:
    [task] = await begin(waits, Wait(SECOND, wake_at=1000))
    await task
    assert waits.running == 1


async def test_what_may_come_soon_is_awaited_in_place_and_then_unwound(waits: Waits, clock: Hands) -> None:
    [task] = await begin(waits, Wait(20_000, fact="child:a", wake_at=5 * SECOND))
    assert not task.done()
    clock.at = 20_000
    with pytest.raises(Suspended):
        await task
    assert waits.awaited() == (["child:a"], 5 * SECOND)
    assert not waits.missed


async def test_all_are_unwound_together_once_none_may_be_over_soon(waits: Waits) -> None:
    long = [Wait(0, fact="signal:b"), Wait(0, wake_at=9 * SECOND), Wait(0, fact="signal:a", wake_at=8 * SECOND)]
    tasks = await begin(waits, *long)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Suspended] * 3
    assert len(set(map(id, outcomes))) == 3, "each has an error of its own"
    assert waits.awaited() == (["signal:a", "signal:b"], 8 * SECOND)
    assert waits.running == 3


async def test_nothing_is_unwound_while_a_line_runs(waits: Waits) -> None:
    waits.running += 1
    [task] = await begin(waits, Wait(0, fact="signal:go"))
    waits.consider()
    assert not task.done()
    waits.leave()
    with pytest.raises(Suspended):
        await task


async def test_a_wait_that_is_over_counts_as_running_before_its_line_goes_on(waits: Waits, clock: Hands) -> None:
    one, two = await begin(waits, Wait(SECOND, fact="signal:one"), Wait(SECOND, fact="signal:two"))
    clock.at = SECOND
    waits.deliver("signal:one")
    waits.consider()
    assert waits.unwound == []
    await one
    waits.leave()
    with pytest.raises(Suspended):
        await two
    assert waits.awaited() == (["signal:two"], None)


async def test_what_is_due_is_not_unwound(waits: Waits, clock: Hands) -> None:
    """Such as a backoff of no length at all, which nobody would remember."""
    for _ in range(3):
        [task] = await begin(waits, Wait(clock.at, wake_at=clock.at))
        await task
        clock.at += 1
    assert waits.unwound == []


async def test_a_fact_that_comes_after_the_unwinding_is_noticed(waits: Waits) -> None:
    [task] = await begin(waits, Wait(0, fact="approval:a"))
    with pytest.raises(Suspended):
        await task
    waits.deliver("approval:b")
    assert not waits.missed
    waits.deliver("approval:a")
    assert waits.missed


async def test_a_stop_ends_what_waits(waits: Waits) -> None:
    tasks = await begin(waits, Wait(9 * SECOND, fact="signal:a"), Wait(9 * SECOND, wake_at=9 * SECOND))
    waits.stop(Cancelled())
    for task in tasks:
        with pytest.raises(Cancelled):
            await task
    assert (waits.unwound, waits.open) == ([], set())


async def test_a_cancelled_line_is_counted_again(waits: Waits) -> None:
    [task] = await begin(waits, Wait(9 * SECOND, fact="signal:a"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (waits.running, waits.open) == (1, set())
    waits.close()


# --- what must not be cut short --------------------------------------------------------------------------------------


async def cancelled_while(task: "asyncio.Task[Any]", times: int = 1) -> None:
    """Lets the task begin and cancels it so often."""
    await turn()
    for _ in range(times):
        task.cancel()
        await turn()


async def turn() -> None:
    """One turn of the loop."""
    over = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(over.set_result, None)
    await over


async def test_unbroken_work_comes_to_its_end_and_the_cancellation_after_it() -> None:
    release, ended = asyncio.Event(), []

    async def work() -> str:
        await release.wait()
        ended.append("work")
        return "done"

    task = asyncio.create_task(unbroken(work()))
    await cancelled_while(task, 3)
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError) as raised:
        await task
    assert (ended, type(raised.value)) == (["work"], asyncio.CancelledError)
    assert await unbroken(work()) == "done"


async def test_what_comes_late_is_still_told() -> None:
    future = asyncio.get_running_loop().create_future()
    noted: list[int] = []
    task = asyncio.create_task(outlast(future, 60, lambda: noted.append(1)))
    await cancelled_while(task, 2)
    future.set_result("value")
    with pytest.raises(Late) as late:
        await task
    assert (late.value.value, noted) == ("value", [1, 1])


async def test_an_error_that_comes_late_is_raised() -> None:
    future = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(outlast(future))
    await cancelled_while(task)
    future.set_exception(ValueError("its own"))
    with pytest.raises(ValueError, match="its own"):
        await task


@pytest.mark.parametrize("cancels", [0, 2])
async def test_what_takes_too_long_is_left_to_itself(cancels: int) -> None:
    future = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(outlast(future, 0.02))
    await cancelled_while(task, cancels)
    with pytest.raises((TimeoutError, asyncio.CancelledError)) as raised:
        await task
    assert not future.done()
    assert isinstance(raised.value, asyncio.CancelledError if cancels else TimeoutError)


# --- threads ---------------------------------------------------------------------------------------------------------


async def test_what_times_out_while_it_waits_for_a_thread_never_begins() -> None:
    threads, release, ran = Threads(1), Event(), []
    holder = asyncio.create_task(threads.run(release.wait))
    await eventually(lambda: threads.busy == 1)
    with pytest.raises(TimeoutError):
        await threads.run(lambda: ran.append("late"), seconds=0.02)
    release.set()
    await holder
    await threads.run(str)
    assert (ran, threads.abandoned) == ([], 0)
    threads.close()


async def test_a_thread_that_is_left_to_itself_is_counted_until_it_comes_back() -> None:
    threads, release = Threads(1), Event()
    with pytest.raises(TimeoutError):
        await threads.run(release.wait, seconds=0.02)
    assert threads.abandoned == 1
    release.set()
    await eventually(lambda: threads.abandoned == 0 and threads.busy == 0)
    threads.close()

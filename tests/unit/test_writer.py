"""Who commits: the writer's thread, or the event loop while it is calm."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from latticed.clock import SystemClock
from latticed.errors import Internal, Unavailable
from latticed.models.records import Birth, Commit
from latticed.store import Store, open_store
from latticed.store.writer import CALM_AFTER, CALM_CHANGES, CALM_FOR, CALM_SECONDS
from tests.conftest import empty_database
from tests.unit.births import birth


class StretchedClock(SystemClock):
    """A commit takes as long as it is told to."""

    commit_seconds = 0.0
    _read = 0

    def monotonic(self) -> float:
        self._read += 1
        return self._read * self.commit_seconds


class House:
    """A store, and by whom each of its commits was made."""

    def __init__(self, path: Path, store: Store, clock: StretchedClock) -> None:
        self.path, self.store, self.clock = path, store, clock
        self.by_loop: list[bool] = []
        self.born: list[str] = []
        loop = threading.get_ident()
        store.start(self.told, lambda members, seconds: self.by_loop.append(threading.get_ident() == loop))

    def told(self, commit: Commit) -> None:
        self.born += [row.id for row in commit.rows]

    async def bear(self, *births: Birth) -> bool:
        """Whether the loop did it."""
        await self.store.bear(births or [birth()])
        return self.by_loop[-1]

    async def calm(self) -> None:
        for _ in range(CALM_AFTER):
            assert not await self.bear()
        assert await self.bear()


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    path = tmp_path / "latticed.db"
    path.write_bytes(empty_database())
    clock = StretchedClock()
    house = House(path, await open_store(f"sqlite+aiosqlite:///{path}", clock, busy_seconds=0.2), clock)
    yield house
    await house.store.close()


async def test_the_loop_commits_once_it_is_calm(house: House) -> None:
    await house.calm()
    assert [await house.bear() for _ in range(9)] == [True] * 9


async def test_the_thread_has_its_turn_now_and_then(house: House) -> None:
    by_loop = [await house.bear() for _ in range(2 * (CALM_AFTER + CALM_FOR))]
    once = [False] * CALM_AFTER + [True] * CALM_FOR
    assert by_loop == [*once, False, *once][: len(by_loop)]


async def test_much_at_once_is_for_the_thread(house: House) -> None:
    await house.calm()
    assert not await house.bear(*(birth() for _ in range(CALM_CHANGES + 1)))
    assert not await house.bear(), "it is not calm any more"


async def test_work_of_its_own_shape_is_for_the_thread(house: House) -> None:
    await house.calm()
    await house.store.create_workspace("other", "test")
    assert not house.by_loop[-1]


async def test_what_comes_while_the_thread_is_at_work_stands_behind_it(house: House) -> None:
    await house.calm()
    entered, leave = threading.Event(), threading.Event()

    def stay(t: object) -> None:
        entered.set()
        leave.wait()

    first = house.store.writer.submit(stay)
    late = birth()
    await a_few_turns()
    entered.wait()
    second = house.store.bear([late])
    await a_few_turns()
    assert not second.done()
    leave.set()
    await first
    await second
    assert not house.by_loop[-1]
    assert house.born[-1] == late.id


async def test_a_slow_disk_is_waited_for_in_the_thread(house: House) -> None:
    await house.calm()
    house.clock.commit_seconds = 2 * CALM_SECONDS
    await house.bear()
    assert not await house.bear()
    house.clock.commit_seconds = 0.0
    await house.calm()


async def test_a_lock_of_somebody_else_is_waited_for_in_the_thread(house: House) -> None:
    await house.calm()
    with sqlite3.connect(house.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        ordered = house.store.bear([birth()])
        await a_few_turns()
        assert not ordered.done(), "the loop goes on meanwhile"
        with pytest.raises(Unavailable, match="locked by another process"):
            await ordered
        other.execute("ROLLBACK")
    other.close()
    await house.calm()


async def test_one_of_two_that_fails_fails_alone(house: House) -> None:
    await house.calm()
    good, bad = birth(), birth()
    await house.store.bear([bad])
    kept, lost = house.store.bear([good]), house.store.bear([bad])
    assert (await kept)[0].id == good.id
    with pytest.raises(Internal):
        await lost
    assert house.by_loop[-1]
    assert await house.store.find_status("default", good.id) == ("queued", 1)


async def a_few_turns() -> None:
    """Lets the loop hand over what was ordered, and be told of what it committed by itself."""
    loop = asyncio.get_running_loop()
    for _ in range(3):
        turned = asyncio.Event()
        loop.call_soon(turned.set)
        await turned.wait()

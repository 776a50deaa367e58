"""How limits are counted: places, minutes, and what comes while the store is asked."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from latticed.config import Settings
from latticed.engine.limits import Limits
from latticed.errors import Busy, Unavailable
from latticed.models.limits import ROW_BYTES, Tally
from latticed.models.records import Commit, EventRecord, Once

MINUTE = 60_000_000
START = 1_800_000_000_000_000


class Ground:
    """A store that answers when it is told to, and remembers keys."""

    def __init__(self) -> None:
        self.position = 0
        self.tallies: dict[str, Tally] = {}
        self.weights: list[tuple[int, int, str | None]] = [(0, 0, None)]
        self.made: dict[Once, str] = {}
        self.open = asyncio.Event()
        self.open.set()
        self.trouble: Exception | None = None
        self.limits: Limits
        self.clock = SimpleNamespace(now=lambda: self.now, monotonic=lambda: 0.0)
        self.now = START

    def bear(self, births: Any) -> Any:
        return asyncio.ensure_future(self._put(births[0].id))

    async def submit_once(self, birth: Any, once: Once, refusal: Busy | None = None) -> tuple[str, bool]:
        await self.open.wait()
        if once in self.made:
            return self.made[once], True
        if refusal is not None:
            raise refusal
        self.made[once] = birth.id
        await self._put(birth.id)
        return birth.id, False

    async def _put(self, run_id: str) -> None:
        await self.open.wait()
        if self.trouble is not None:
            raise self.trouble
        self.tell(run_id, "run.queued", 1)

    async def find_made(self, once: Once) -> str | None:
        return self.made.get(once)

    async def tally(self, wanted: Callable[[str], frozenset[str]], since: int) -> tuple[int, dict[str, Tally]]:
        position, found = self.position, dict(self.tallies)
        await self.open.wait()
        return position, found

    async def weigh(self, workspace: str, after: str, position: int, whole: bool) -> tuple[int, int, str | None]:
        await self.open.wait()
        return self.weights.pop(0)

    def measure(self, wanted: Callable[[str], bool] | None) -> None:
        """The sizes are given by the tests."""

    def tell(self, run_id: str, type: str, seq: int = 2, **sizes: int) -> None:
        """One event is committed."""
        self.position += 1
        event = EventRecord(run_id, seq, self.position, type, "default", "agent", self.now, b"{}")
        self.limits.told(Commit([], [event], [], [], sizes))


def birth(run_id: str) -> Any:
    return SimpleNamespace(id=run_id, workspace="default")


async def turn() -> None:
    """Lets everything run that can."""
    turned = asyncio.Event()
    asyncio.get_running_loop().call_soon(turned.set)
    await turned.wait()


async def limits_of(ground: Ground, **limits: int) -> Limits:
    ground.limits = Limits(store=ground, clock=ground.clock, settings=Settings(limits=limits))
    await ground.limits.count()
    return ground.limits


async def refusal(limits: Limits, run_id: str = "none") -> Busy:
    with pytest.raises(Busy) as caught:
        await limits.submit(birth(run_id))
    return caught.value


async def test_after_the_time_that_a_refusal_names_one_more_fits_and_not_before() -> None:
    ground = Ground()
    limits = await limits_of(ground, submissions_per_minute=3)
    for number, seconds in enumerate((0, 10, 25)):
        ground.now = START + seconds * 1_000_000 + 400_000
        await limits.submit(birth(f"run-{number}"))
    ground.now = START + 30_000_000
    for number, began in enumerate((0, 10, 25)):
        wait = (await refusal(limits)).retry_after
        assert ground.now + wait * 1_000_000 >= START + began * 1_000_000 + 400_000 + MINUTE
        ground.now += (wait - 1) * 1_000_000
        await refusal(limits)
        ground.now += 1_000_000
        await limits.submit(birth(f"later-{number}"))


async def test_a_clock_that_was_set_back_locks_nobody_out() -> None:
    ground = Ground()
    limits = await limits_of(ground, submissions_per_minute=1)
    await limits.submit(birth("run"))
    ground.now -= 3600 * 1_000_000
    await limits.submit(birth("earlier"))
    assert 1 <= (await refusal(limits)).retry_after <= 60


async def test_a_submission_has_its_place_from_the_beginning_and_gives_it_back_if_it_fails() -> None:
    ground = Ground()
    limits = await limits_of(ground, active_runs=2)
    ground.open.clear()
    ground.trouble = Unavailable()
    waiting = [asyncio.create_task(limits.submit(birth(f"run-{number}"))) for number in range(2)]
    await turn()
    await refusal(limits)
    ground.open.set()
    assert [type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)] == [Unavailable] * 2
    ground.trouble = None
    for number in range(2):
        await limits.submit(birth(f"run-{number}"))
    await refusal(limits)
    ground.tell("run-0", "run.finished")
    await limits.submit(birth("run-2"))


async def test_requests_of_one_key_share_one_place() -> None:
    ground = Ground()
    limits = await limits_of(ground, active_runs=2)
    ground.open.clear()
    keys = [Once("default", "runs", key, "print") for key in ("a", "a", "a", "b", "b", "c")]
    tasks = [asyncio.create_task(limits.submit(birth(f"run-{n}"), once)) for n, once in enumerate(keys)]
    await turn()
    ground.open.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[:5] == [("run-0", False), ("run-0", True), ("run-0", True), ("run-3", False), ("run-3", True)]
    assert isinstance(outcomes[5], Busy)
    assert limits.view("default", 2, 2)["use"]["active_runs"] == 2


async def test_what_is_told_while_the_store_counts_is_counted_once() -> None:
    ground = Ground()
    limits = await limits_of(ground, active_runs=1000)
    ground.tell("old-1", "run.queued", 1)
    ground.tell("old-2", "run.queued", 1)
    ground.tallies = {"default": Tally(2, frozenset(), [])}
    ground.open.clear()
    limits.configure(Settings(limits={"active_runs": 3}))
    await turn()
    ground.tell("new", "run.queued", 1)
    ground.tell("old-1", "run.finished")
    submission = asyncio.create_task(limits.submit(birth("next")))
    await turn()
    assert not submission.done(), "it waits for the count"
    ground.open.set()
    await submission
    await refusal(limits)


async def test_a_count_that_failed_is_made_again() -> None:
    ground = Ground()
    limits = await limits_of(ground, active_runs=1)

    async def away(*args: Any) -> Any:
        raise Unavailable

    ground.tally, there = away, ground.tally  # type: ignore[method-assign]
    limits.configure(Settings(limits={"active_runs": 1}))
    with pytest.raises(Unavailable):
        await limits.submit(birth("run"))
    ground.tally = there  # type: ignore[method-assign]
    await limits.submit(birth("run"))


async def test_a_run_counts_as_queued_whenever_it_waits_for_a_slot() -> None:
    ground = Ground()
    limits = await limits_of(ground, queued_runs=1)
    await limits.submit(birth("run"))
    for leaves, enters in (
        ("run.started", "run.retrying"), ("run.started", "run.released"), ("run.started", "run.recovered"),
        ("run.started", "run.woken"),
    ):  # fmt: skip
        await refusal(limits)
        ground.tell("run", leaves)
        assert limits.view("default", 0, 0)["use"]["queued_runs"] == 0
        ground.tell("run", enters)
    ground.tell("run", "run.finished")
    await limits.submit(birth("another"))


async def test_bytes_are_those_on_disk_and_those_that_came_since() -> None:
    ground = Ground()
    ground.tallies = {"default": Tally(0, frozenset(), [])}
    limits = await limits_of(ground, storage_bytes=10_000)
    ground.weights = [(1_000, 2_000, "run-1"), (3_000, 500, None)]
    ground.tell("run", "log", default=70)
    await limits.tick()
    used = limits.view("default", 0, 0)["use"]["storage_bytes"]
    assert used == 6_500
    ground.tell("run", "log", default=70)
    assert limits.view("default", 0, 0)["use"]["storage_bytes"] == used + 70 + len(b"{}") + ROW_BYTES
    ground.weights = [(9_999, 1, None)]
    limits.changed("default")
    await limits.tick()
    assert "storage_bytes" in (await refusal(limits)).detail
    assert limits.full("default") is not None
    limits.forget("default")
    assert limits.full("default") is None

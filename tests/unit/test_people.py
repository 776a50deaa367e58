"""Who is known, for how long, and that finding out takes the same work whatever is shown."""

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pytest

from latticed.api.attempts import BURST, SECONDS_EACH, Attempts
from latticed.errors import Busy, LatticedError, NotFound, Unavailable
from latticed.models.audit import Act
from latticed.models.people import Principal
from latticed.notes import MOST_ROWS, ROW_SECONDS, USED_MICROSECONDS, Notes, Refusal
from latticed.people import People, digest, new_token_text
from latticed.permits import Permits
from tests.wait import eventually

ADA = Principal("tok_ada", "Ada", "admin", "default")
BOB = Principal("tok_bob", "Bob", "viewer", "other", expires_at=5_000_000)


REFUSAL = Refusal(ADA, "GET /x", "forbidden", "127.0.0.1", None)


class Hands:
    """A clock that is set by hand."""

    def __init__(self, now: int = 1_000_000) -> None:
        self.micros = now

    def now(self) -> int:
        return self.micros

    def monotonic(self) -> float:
        return self.micros / 1_000_000


class Ledger:
    """A store that knows tokens, counts what it is asked, and can be held up or away."""

    def __init__(self, **known: Principal) -> None:
        self.known = {digest(text): principal for text, principal in known.items()}
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.away: LatticedError | None = None
        self.acts: list[Act] = []
        self.used: list[dict[str, int]] = []
        self.workspaces = {"there"}

    async def find_token(self, key: str) -> Principal | None:
        self.asked.append(key)
        found = self.known.get(key)
        await self.gate.wait()
        return found

    find_session = find_token

    async def has_workspace(self, name: str) -> bool:
        self.asked.append(name)
        found = name in self.workspaces
        await self.gate.wait()
        return found

    async def note(self, acts: Sequence[Act], used: Mapping[str, int]) -> None:
        if self.away is not None:
            raise self.away
        self.acts += acts
        self.used.append(dict(used))


class Door(People):
    """People without the rest of the facade."""

    def __init__(self, ledger: Ledger, clock: Hands) -> None:
        super().__init__()
        self._store = cast(Any, ledger)
        self._clock = clock
        self._permits = Permits(clock)
        self._known_workspaces = set()
        self.notes = Notes(ledger, clock)
        self.draining = False

    forget = People._forget
    give = property(lambda self: self._permits.give)


def token_id(key: str) -> Callable[[Principal], bool]:
    return lambda principal: principal.token_id == key


# --- who is known ----------------------------------------------------------------------------------------------------


async def test_who_is_known_is_not_asked_for_again() -> None:
    ledger = Ledger(a=ADA)
    door = Door(ledger, Hands())
    assert [await door.authenticate("a") for _ in range(5)] == [ADA] * 5
    assert len(ledger.asked) == 1


async def test_who_is_forgotten_is_asked_for_again_and_no_other() -> None:
    ledger = Ledger(a=ADA, b=BOB)
    door = Door(ledger, Hands())
    await door.authenticate("a"), await door.authenticate("b")
    door.forget(token_id("tok_ada"))
    ledger.known.pop(digest("a"))
    assert await door.authenticate("a") is None
    assert await door.authenticate("b") == BOB
    assert len(ledger.asked) == 3


async def test_what_was_read_before_a_revocation_is_not_remembered_after_it() -> None:
    ledger = Ledger(a=ADA)
    door = Door(ledger, Hands())
    ledger.gate.clear()
    asking = asyncio.create_task(door.authenticate("a"))
    await eventually(lambda: bool(ledger.asked))
    ledger.known.clear()  # revoked, while an older look is under way
    door.forget(token_id("tok_ada"))
    ledger.gate.set()
    assert await asking is None


async def test_a_workspace_that_is_removed_while_it_is_looked_for_is_not_remembered() -> None:
    ledger = Ledger()
    door = Door(ledger, Hands())
    ledger.gate.clear()
    asking = asyncio.create_task(door._need_workspace("there"))
    await eventually(lambda: bool(ledger.asked))
    ledger.workspaces.clear()
    door._forget_workspace("there")
    ledger.gate.set()
    await asking
    with pytest.raises(NotFound):
        await door._need_workspace("there")


async def test_an_expired_token_is_nobodys() -> None:
    clock = Hands()
    door = Door(Ledger(b=BOB), clock)
    assert await door.authenticate("b") == BOB
    clock.micros = 5_000_000
    assert await door.authenticate("b") is None


# --- the same work ---------------------------------------------------------------------------------------------------


def wrongs(right: str) -> dict[str, str]:
    """Wrong tokens of the right one's length: wrong at the first, a middle and the last place, and all over."""
    other = lambda i: "B" if right[i] == "A" else "A"
    places = {"first": 4, "middle": len(right) // 2, "last": len(right) - 1}
    return {name: right[:i] + other(i) + right[i + 1 :] for name, i in places.items()} | {"all": new_token_text()}


async def test_a_wrong_token_is_one_look_whatever_is_wrong_with_it() -> None:
    right = new_token_text()
    ledger = Ledger(**{right: ADA})
    door = Door(ledger, Hands())
    assert await door.authenticate(right) == ADA
    for wrong in wrongs(right).values():
        ledger.asked.clear()
        assert await door.authenticate(wrong) is None
        assert ledger.asked == [digest(wrong)], "by its digest, which says nothing of how much of it is right"


async def test_how_long_it_takes_does_not_tell_how_much_of_a_token_is_right() -> None:
    right = new_token_text()
    door = Door(Ledger(**{right: ADA}), Hands())
    await door.authenticate(right)
    took: dict[str, list[int]] = {name: [] for name in wrongs(right)}
    texts = wrongs(right)
    for _ in range(400):
        for name, text in texts.items():
            began = time.perf_counter_ns()
            for _ in range(5):
                await door.authenticate(text)
            took[name].append(time.perf_counter_ns() - began)
    medians = [statistics.median(each) for each in took.values()]
    assert max(medians) < 1.5 * min(medians), medians


# --- permits ---------------------------------------------------------------------------------------------------------


async def test_a_permit_ends_with_what_it_was_given_for() -> None:
    door = Door(Ledger(), Hands())
    ada, ada_elsewhere, bob = door.give(ADA, "default"), door.give(ADA, "else"), door.give(BOB, "other")
    ada.close()
    door.forget(token_id("tok_ada"))
    assert [each.ended.is_set() for each in (ada, ada_elsewhere, bob)] == [False, True, False]
    door._forget_workspace("other")
    assert bob.ended.is_set()
    for each in (ada_elsewhere, bob):
        each.close()
    assert not door._permits.open


async def test_a_permit_ends_when_its_principal_expires_and_no_sooner() -> None:
    clock = Hands(BOB.expires_at or 0)
    permits = Permits(clock)
    assert permits.give(BOB, "other").ended.is_set(), "already over"
    clock.micros -= 30_000
    permit = permits.give(BOB, "other")
    assert not permit.ended.is_set()
    clock.micros = BOB.expires_at or 0
    async with asyncio.timeout(5):
        await permit.ended.wait()


async def test_a_timer_that_comes_too_early_by_the_clock_on_the_wall_is_set_again() -> None:
    clock = Hands((BOB.expires_at or 0) - 20_000)
    permit = Permits(clock).give(BOB, "other")
    first = permit._timer
    await eventually(lambda: permit._timer is not first)
    assert not permit.ended.is_set()
    permit.close()


async def test_at_the_end_of_the_daemon_all_end_and_none_begins() -> None:
    permits = Permits(Hands())
    open_before = permits.give(ADA, "default")
    permits.shut()
    assert open_before.ended.is_set()
    assert permits.give(ADA, "default").ended.is_set()


# --- notes -----------------------------------------------------------------------------------------------------------


async def test_a_use_is_noted_once_a_minute() -> None:
    ledger, clock = Ledger(a=ADA), Hands()
    door = Door(ledger, clock)
    for _ in range(3):
        await door.authenticate("a")
    await door.notes.close()
    assert ledger.used == [{"tok_ada": 1_000_000}]
    clock.micros += USED_MICROSECONDS - 1
    await door.authenticate("a")
    assert door.notes.used_at("tok_ada") == 1_000_000
    clock.micros += 1
    await door.authenticate("a")
    await door.notes.close()
    assert ledger.used[-1] == {"tok_ada": 1_000_000 + USED_MICROSECONDS}


async def test_of_a_flood_the_first_and_the_number_are_kept() -> None:
    ledger = Ledger()
    notes = Notes(ledger, Hands())
    for i in range(MOST_ROWS + 7):
        notes.refused(REFUSAL if i % 2 else REFUSAL._replace(by=None))
    await notes.close()
    assert [act.workspace for act in ledger.acts[:2]] == ["*", "default"]
    assert [act.principal for act in ledger.acts[:2]] == ["", "Ada"]
    assert len(ledger.acts) == MOST_ROWS + 1
    assert ledger.acts[-1][2:] == ("refused", "*", b'{"left_out":7}')


async def test_after_a_flood_as_many_are_kept_as_time_has_passed() -> None:
    ledger, clock = Ledger(), Hands()
    notes = Notes(ledger, clock)
    for turns, kept in ((0, MOST_ROWS), (3, 3), (2 * MOST_ROWS, MOST_ROWS)):
        clock.micros += int(turns * ROW_SECONDS * 1_000_000)
        for _ in range(2 * MOST_ROWS):
            notes.refused(REFUSAL)
        await notes.flush()
        assert len(ledger.acts) == kept + 1, "these, and how many more there were"
        ledger.acts.clear()
    await notes.close()


async def test_only_the_name_of_a_workspace_that_is_there_is_kept() -> None:
    ledger = Ledger()
    notes = Notes(ledger, Hands())
    for named in ("there", "lat_pasted-by-mistake", None):
        notes.refused(REFUSAL._replace(named=named))
    await notes.close()
    assert [b'"workspace":"there"' in act.detail for act in ledger.acts] == [True, False, False]
    assert not [act for act in ledger.acts if b"lat_" in act.detail]


async def test_what_could_not_be_written_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latticed.notes.PAUSE_SECONDS", 0.001)
    ledger = Ledger()
    notes = Notes(ledger, Hands())
    ledger.away = Unavailable()
    for _ in range(MOST_ROWS + 7):
        notes.refused(REFUSAL)
    notes.use("tok_ada", 1_000_000)
    await eventually(lambda: not notes._refusals)
    ledger.away = None
    await eventually(lambda: bool(ledger.acts))
    assert [act.detail for act in ledger.acts] == [b'{"left_out":%d}' % (MOST_ROWS + 7)]
    assert {"tok_ada": 1_000_000} in ledger.used
    await notes.close()


async def test_closing_does_not_wait_for_a_store_that_is_away() -> None:
    ledger = Ledger()
    ledger.away = Unavailable()
    notes = Notes(ledger, Hands())
    notes.refused(REFUSAL)
    async with asyncio.timeout(5):
        await notes.close()


# --- attempts --------------------------------------------------------------------------------------------------------


def test_a_burst_may_fail_and_then_one_each_time() -> None:
    attempts = Attempts()
    for _ in range(BURST):
        attempts.need_leave("a", 0.0)
        attempts.failed("a", 0.0)
    with pytest.raises(Busy) as raised:
        attempts.need_leave("a", 0.0)
    assert raised.value.retry_after == SECONDS_EACH + 1
    attempts.need_leave("b", 0.0)
    attempts.need_leave("a", SECONDS_EACH)
    attempts.failed("a", SECONDS_EACH)
    with pytest.raises(Busy):
        attempts.need_leave("a", SECONDS_EACH)


def test_no_more_addresses_are_kept_than_fit() -> None:
    attempts = Attempts()
    for i in range(5000):
        attempts.failed(str(i), 0.0)
    assert len(attempts._full_at) == 1000

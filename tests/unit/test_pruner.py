"""What is kept and for how long, on a real store with a clock that is set."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio
from sqlalchemy import insert, text

from latticed.broker.memory import MemoryBroker
from latticed.config import RetentionConfig
from latticed.engine.pruner import Pruner
from latticed.models.people import EVERYWHERE, Principal
from latticed.models.records import Birth, Change, NewEvent, Once, StepRecord, event
from latticed.permits import Permits
from latticed.states import CANCEL, CLAIM, FAIL, SUCCEED, Move
from latticed.store import Store, open_store
from latticed.store.pruner_side import OF_A_RUN, OF_A_WORKSPACE
from latticed.store.tables import hook_deliveries, metadata
from latticed.timelines import BATCH, FIRST_BATCH, RunTimeline
from tests.conftest import empty_database
from tests.unit.births import birth

HOUR = 3_600_000_000
DAY = 24 * HOUR
ADMIN = Principal("tok_admin", "admin", "admin", EVERYWHERE)


class SetClock:
    """Stands still until it is set on."""

    def __init__(self) -> None:
        self.micros = 1_800_000_000_000_000

    def now(self) -> int:
        return self.micros

    def monotonic(self) -> float:
        return self.micros / 1e6

    def pass_days(self, days: float) -> None:
        self.micros += int(days * DAY)


class House:
    """A store, a pruner and runs."""

    def __init__(self, store: Store, clock: SetClock) -> None:
        self.store, self.clock = store, clock
        self.broker = MemoryBroker()
        self.changed: list[str] = []
        self.removed: set[str] = set()

    async def prune(self, **kept: float) -> None:
        """One tick of a pruner that has just been started."""
        pruner = Pruner(
            store=self.store, clock=self.clock, retention=RetentionConfig(**kept), removed=self.removed,
            changed=self.changed.append,
        )  # fmt: skip
        await pruner.find()
        await pruner.tick()

    def birth(self, **fields: Any) -> Birth:
        return birth(**{"created_at": self.clock.now()} | fields)

    async def begun(self, **fields: Any) -> str:
        """A run in the hands of an owner."""
        birth = self.birth(**fields)
        await self.store.bear([birth])
        await self.store.change(Change(birth.id, CLAIM, columns={"owner": "me"}, events=[self.event("run.started")]))
        return birth.id

    def event(self, type: str, **data: Any) -> NewEvent:
        return event(type, self.clock.now(), **data)

    async def ended(self, move: Move = SUCCEED, events: int = 0, **fields: Any) -> str:
        """A run that has ended, with a step and some events more."""
        run_id = await self.begun(**fields)
        step = StepRecord(1, "step", "", "work", 0, "ok", 1, 1, 1, 2, None, b"1", b"null")
        told = [self.event("log", number=number) for number in range(events)]
        await self.store.change(Change(run_id, steps=[step], events=told))
        await self.end(run_id, move)
        return run_id

    async def end(self, run_id: str, move: Move = SUCCEED) -> None:
        told = self.event("run.finished", status=str(move.target))
        assert (await self.store.change(Change(run_id, move, events=[told])))[0] is not None

    async def is_there(self, *run_ids: str, workspace: str = "default") -> list[bool]:
        return [await self.store.find_run(workspace, run_id) is not None for run_id in run_ids]

    async def rows(self, run_id: str) -> int:
        """How many rows there are of a run, in all tables."""
        number = 0
        for table in metadata.tables.values():
            column = "id" if table.name == "runs" else "run_id"
            if column in table.c:
                statement = text(f"SELECT count(*) FROM {table.name} WHERE {column} = :id").bindparams(id=run_id)
                number += (await self.store.read(statement))[0][0]
        return number


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock = SetClock()
    (tmp_path / "some.db").write_bytes(empty_database())
    store = await open_store(f"sqlite+aiosqlite:///{tmp_path}/some.db", clock)
    made = House(store, clock)
    store.start(made.broker.publish)
    await store.create_workspace("default", "test")
    try:
        yield made
    finally:
        await store.close()


async def test_runs_are_kept_for_as_long_as_their_end_says(house: House) -> None:
    well, badly = await house.ended(), await house.ended(FAIL)
    stopped = house.birth()
    await house.store.bear([stopped])
    await house.end(stopped.id, CANCEL)
    house.clock.pass_days(2)
    young, active = await house.ended(), await house.begun()
    await house.prune()
    assert all(await house.is_there(well, badly, stopped.id, young, active)), "without a limit all is kept"
    await house.prune(ok_days=1)
    assert await house.is_there(well, badly, stopped.id, young, active) == [False, True, True, True, True]
    await house.prune(failed_days=3)
    assert await house.is_there(badly, stopped.id) == [True, True]
    await house.prune(failed_days=1)
    assert await house.is_there(badly, stopped.id, young, active) == [False, False, True, True]
    assert [await house.rows(run_id) for run_id in (well, badly, stopped.id)] == [0, 0, 0]
    assert await house.rows(young) == 6
    assert set(house.changed) == {"default"}


async def test_a_time_counts_from_the_end_not_from_the_beginning(house: House) -> None:
    long = await house.begun()
    house.clock.pass_days(10)
    await house.end(long)
    await house.prune(ok_days=5)
    assert await house.is_there(long) == [True]
    house.clock.pass_days(6)
    await house.prune(ok_days=5)
    assert await house.is_there(long) == [False]


async def test_many_are_looked_through_page_by_page(house: House) -> None:
    births = [house.birth() for _ in range(1200)]
    await house.store.bear(births)
    ends = [Change(each.id, CANCEL, events=[house.event("run.finished", status="cancelled")]) for each in births]
    await house.store.change(*ends)
    house.clock.pass_days(2)
    kept = [await house.ended(FAIL) for _ in range(3)]
    await house.prune(failed_days=1)
    left = await house.store.read(text("SELECT count(*) FROM runs"))
    assert (left[0][0], await house.is_there(*kept)) == (3, [True] * 3)
    assert (await house.store.read(text("SELECT count(*) FROM run_bodies")))[0][0] == 3


async def test_a_child_outlives_its_parents_need_of_it_and_no_reference_does_harm(house: House) -> None:
    parent = await house.begun()
    child = await house.ended(parent_run_id=parent)
    again = await house.ended(rerun_of=child)
    house.clock.pass_days(2)
    rerun = await house.begun(rerun_of=again)
    await house.prune(ok_days=1)
    assert await house.is_there(parent, child, again, rerun) == [True, True, False, True]
    assert (await house.store.find_run("default", rerun) or {})["rerun_of"] == again, "that it was one stays a fact"
    await house.end(parent)
    await house.prune(ok_days=1)
    assert await house.is_there(child) == [False]
    orphan = await house.begun(parent_run_id=parent, detached=True)
    house.clock.pass_days(2)
    await house.prune(ok_days=1)
    assert await house.is_there(parent, orphan) == [False, True]
    await house.end(orphan)
    assert (await house.store.find_run("default", orphan) or {})["status"] == "ok"


async def test_a_run_waits_for_what_is_still_to_be_sent_about_it(house: House) -> None:
    run = await house.ended()
    row = {
        "id": "dlv_1", "workspace": "default", "hook": "some", "point": "post_run", "sort": "webhook", "run_id": run,
        "status": "pending", "attempts": 3, "created_at": 1, "due_at": 1, "detail": "{}", "output": "null",
    }  # fmt: skip
    await house.store.writer.submit(lambda t: t.connection.execute(insert(hook_deliveries).values(row)) and None)
    house.clock.pass_days(2)
    await house.prune(ok_days=1)
    assert await house.is_there(run) == [True]
    settle = text("UPDATE hook_deliveries SET status = 'dead', due_at = NULL")
    await house.store.writer.submit(lambda t: t.connection.execute(settle) and None)
    await house.prune(ok_days=1)
    assert (await house.is_there(run), await house.rows(run)) == ([False], 0)


async def test_what_was_out_of_reach_when_the_daemon_died_is_deleted_by_the_next(house: House) -> None:
    run = await house.ended(events=700)
    assert await house.store.retire([run]) == 1
    assert (await house.is_there(run), await house.rows(run)) == ([False], 706)
    await house.prune()
    assert await house.rows(run) == 0
    assert await house.store.last_position() == 703, "positions go on from where they were"


async def test_keys_are_forgotten_after_a_day(house: House) -> None:
    once = Once("default", "runs", "key", "print")
    first = house.birth()
    assert await house.store.submit_once(first, once) == (first.id, False)
    house.clock.pass_days(0.99)
    await house.prune()
    assert await house.store.submit_once(house.birth(), once) == (first.id, True)
    house.clock.pass_days(0.02)
    await house.prune()
    assert await house.store.read(text("SELECT * FROM idempotency_keys")) == []
    second = house.birth()
    assert await house.store.submit_once(second, once) == (second.id, False)


async def test_sessions_and_old_rows_of_the_audit_trail_go(house: House) -> None:
    await house.store.add_session("over", house.clock.now() + HOUR, ADMIN)
    house.clock.pass_days(1)
    await house.store.add_session("good", house.clock.now() + HOUR, ADMIN)
    await house.prune()
    assert (await house.store.read(text("SELECT digest FROM sessions")))[0][0] == "good"
    acts = [row["action"] for row in await house.store.list_audit(None, {}, limit=9)]
    assert acts == ["session.create", "session.create", "workspace.create"]
    await house.prune(audit_days=0.5)
    assert [row["action"] for row in await house.store.list_audit(None, {}, limit=9)] == ["session.create"]


async def test_a_reader_of_a_run_that_is_removed_comes_to_a_clean_end(house: House) -> None:
    run = await house.ended(events=BATCH)
    lagging = await house.begun()
    permits = Permits(house.clock)

    def reader(run_id: str, known: str) -> RunTimeline:
        permit = permits.give(ADMIN, "default")
        timeline = RunTimeline(house.store, house.broker, house.broker.open_run(run_id), 0, permit)
        timeline.run_id, timeline.known = run_id, known
        return timeline

    over, live = reader(run, "ok"), reader(lagging, "running")
    assert len(await over.next()) == FIRST_BATCH
    await live.next()
    live._channel.ring()
    await house.end(lagging)
    house.broker.close(live._channel)  # As if so much had come that only the disk had it all.
    live._channel = house.broker.open_run(lagging)
    house.clock.pass_days(2)
    await house.prune(ok_days=1)
    assert (await over.next(), over.final_status) == ([], "ok")
    assert (await live.next(), live.final_status, live.permit.ended.is_set()) == ([], None, True)
    for timeline in (over, live):
        timeline.close()


async def test_a_removed_workspace_waits_for_its_runs_and_takes_nothing_else(house: House) -> None:
    store = house.store
    await store.create_workspace("other", "test")
    mine, running = await house.ended(workspace="other"), await house.begun(workspace="other")
    theirs = await house.ended()
    await store.remove_workspace("other", ADMIN, force=True)
    assert not await store.has_workspace("other")
    await house.prune()
    assert (house.removed, await house.is_there(mine, running, workspace="other")) == ({"other"}, [False, True])
    row = next(row for row, _ in await store.list_owned())
    assert (row.id, row.status, row.cancel_rank) == (running, "cancelling", 1)
    ends = house.event("run.finished", status="cancelled")
    await store.change(Change(running, states=frozenset({row.status}), columns={"status": "cancelled"}, events=[ends]))  # type: ignore[arg-type]
    await house.prune()
    assert (house.removed, await house.rows(running), await house.is_there(theirs)) == (set(), 0, [True])
    await store.create_workspace("other", "test")


def test_no_table_is_forgotten() -> None:
    of_runs = {table.name for table in metadata.tables.values() if "run_id" in table.c}
    of_workspaces = {table.name for table in metadata.tables.values() if "workspace" in table.c}
    # The runs of a workspace go by themselves; a key's `run_id` is whatever it made, and keys go by their time.
    assert {column.table.name for column in OF_A_RUN} == of_runs - {"idempotency_keys"}
    assert {column.table.name for column in OF_A_WORKSPACE} == of_workspaces - {"runs"}

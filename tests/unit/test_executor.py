"""The executor and the rescuer on a real store, in an order of things that cannot be brought about from outside."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from latticed.clock import SystemClock
from latticed.config import RunsConfig
from latticed.engine.execution import Execution
from latticed.engine.executor import Executor
from latticed.engine.rescuer import Rescuer
from latticed.engine.threads import Threads
from latticed.ids import BOOT, RUN, new
from latticed.models.people import Principal
from latticed.models.records import Birth, Change, Claimed
from latticed.models.stopping import stop_change
from latticed.states import WAIT
from latticed.store import Store, open_store
from tests.conftest import empty_database
from tests.wait import eventually

OWNER = new(BOOT)


class Agents:
    """The configured agents: one, that notes that it was entered and awaits for ever; or none any more."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.there = True

    def find(self, kind: str, target: str) -> "Agents | None":
        return self if self.there else None

    async def run(self, ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
        self.entered.append(ctx.run_id)
        await asyncio.Event().wait()


class Undecided(Agents):
    """Waits for the signal `go` when it is entered first, and for ever when it is entered again."""

    async def run(self, ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
        self.entered.append(ctx.run_id)
        await (ctx.wait_signal("go") if len(self.entered) == 1 else asyncio.Event().wait())


class Engine:
    """A store, an executor that is told of its commits, and what they need."""

    def __init__(self, store: Store) -> None:
        self.store, self.agents = store, Agents()
        self.over: list[str] = []
        self.killed: list[str] = []
        self.clock = SystemClock()
        self.executor = Executor(
            store=store, clock=self.clock, registry=self.agents, settings=RunsConfig(), threads=Threads(2),
            admit=lambda *_: None, on_end=self.ended,
        )  # fmt: skip
        self.rescuer = Rescuer(
            store=store, clock=self.clock, owner=OWNER, max_recoveries=3, is_live=self.executor.live.__contains__,
            kill_processes=self.killed.extend,
        )  # fmt: skip

    def ended(self, execution: Execution) -> None:
        self.over.append(execution.run_id)

    async def claimed(self, owner: str = OWNER, **fields: Any) -> Claimed:
        """A run that has just been claimed, and not been started."""
        now = self.clock.now()
        birth = Birth(
            id=new(RUN), workspace="default", kind="agent", target="some", name="some", mode="live", goal="goal",
            inputs=b"{}", roles=[], queue="default", priority=0, max_retries=0, recovery="resume", run_at=None,
            deadline_seconds=None, tags={}, created_by="test", created_at=now,
        )  # fmt: skip
        for name, value in fields.items():
            setattr(birth, name, value)
        await self.store.bear([birth])
        [claimed] = await self.store.claim([birth.id], owner)
        return claimed

    async def stop(self, run_id: str, mode: str) -> None:
        change = stop_change(run_id, by="test", reason=None, mode=mode, children=True, now=self.clock.now())
        assert (await self.store.change(change))[0] is not None

    async def run(self, run_id: str) -> dict[str, Any]:
        found = await self.store.find_run("default", run_id)
        assert found is not None
        return found

    async def types(self, run_id: str) -> list[str]:
        return [event.type for event in await self.store.list_events(run_id, 0, 100)]


@pytest_asyncio.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    (tmp_path / "some.db").write_bytes(empty_database())
    store = await open_store(f"sqlite+aiosqlite:///{tmp_path}/some.db", SystemClock())
    made = Engine(store)
    store.start(made.executor.told)
    if not await store.has_workspace("default"):
        await store.create_workspace("default")
    try:
        yield made
    finally:
        await made.executor.drain(0.01, 0.01, asyncio.Event())
        made.executor.threads.close()
        await store.close()


async def test_a_cancel_between_the_claim_and_the_start_is_obeyed(engine: Engine) -> None:
    for mode in ("graceful", "now", "kill"):
        claimed = await engine.claimed()
        run_id = claimed.row.id
        await engine.stop(run_id, mode)
        engine.executor.start(claimed)
        await eventually(lambda run_id=run_id: run_id in engine.over)
        run = await engine.run(run_id)
        assert (run["status"], run["abandoned"]) == ("cancelled", None)
    assert engine.agents.entered == []


async def test_a_cancel_of_what_is_never_started_is_forgotten(engine: Engine) -> None:
    claimed = await engine.claimed(owner="somebody else")
    await engine.stop(claimed.row.id, "now")
    assert engine.executor._stopped_early
    assert await engine.rescuer.recover() == 1
    assert (await engine.run(claimed.row.id))["status"] == "cancelled"
    assert engine.executor._stopped_early == {}


async def test_a_deadline_that_is_over_at_the_start_ends_the_run(engine: Engine) -> None:
    claimed = await engine.claimed(deadline_seconds=1e-6)
    engine.executor.settings = RunsConfig(grace_seconds=0.01, kill_seconds=0.01)
    engine.executor.start(claimed)
    await eventually(lambda: engine.over)
    assert (await engine.run(claimed.row.id))["error"]["code"] == "deadline_exceeded"


async def test_a_deadline_that_passes_while_a_wait_is_being_written_ends_the_run_all_the_same(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.executor.settings = RunsConfig(park_seconds=0, grace_seconds=0.01, kill_seconds=0.01)
    engine.executor._registry = agent = Undecided()
    claimed = await engine.claimed(deadline_seconds=0.2)
    run_id, change, held, gate = claimed.row.id, engine.store.change, asyncio.Event(), asyncio.Event()

    async def slow_change(*changes: Change) -> Any:
        if changes[0].move is WAIT:
            held.set()
            await gate.wait()
        return await change(*changes)

    monkeypatch.setattr(engine.store, "change", slow_change)
    engine.executor.start(claimed)
    await held.wait()
    await engine.store.send_signal("default", run_id, "go", 1, Principal("tok", "test", "operator", "default"))
    await eventually(lambda: claimed.row.deadline_at < engine.clock.now())
    gate.set()
    await eventually(lambda: engine.over)
    assert (await engine.run(run_id))["error"]["code"] == "deadline_exceeded"
    assert len(agent.entered) == 1


async def test_a_run_whose_agent_is_gone_since_the_claim_is_given_back(engine: Engine) -> None:
    claimed = await engine.claimed()
    engine.agents.there = False
    engine.executor.start(claimed)
    await eventually(lambda: engine.over)
    assert (await engine.run(claimed.row.id))["status"] == "queued"
    assert (await engine.types(claimed.row.id))[-1] == "run.released"


async def test_a_run_of_this_boot_that_nobody_executes_is_found_at_the_second_look(engine: Engine) -> None:
    lost, held = await engine.claimed(), await engine.claimed()
    engine.executor.start(held)
    await eventually(lambda: engine.agents.entered == [held.row.id])
    await engine.rescuer.tick()
    assert (await engine.run(lost.row.id))["status"] == "running"
    assert engine.killed == []
    await engine.rescuer.tick()
    run = await engine.run(lost.row.id)
    assert (run["status"], run["recoveries"]) == ("queued", 1)
    assert (await engine.types(lost.row.id))[-1] == "run.recovered"
    assert engine.killed == [lost.row.id]
    assert (await engine.run(held.row.id))["status"] == "running"
    await engine.stop(held.row.id, "now")
    await eventually(lambda: engine.over == [held.row.id])

"""Lines in tasks that are not ours: whatever order they go in, each finds what it has recorded, and only that."""

import asyncio
from random import Random
from typing import Any

import pytest

from latticed.engine.lines import Lines
from latticed.errors import Misuse
from latticed.models.records import StepRecord
from tests.unit.test_executor import Engine, engine
from tests.wait import eventually

__all__ = ["engine"]

FANS, LINES, STEPS = 3, 4, 3


class Fanning:
    """An agent that fans out several times, in tasks of its own that go on in an order that chance decides."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.done: list[str] = []
        self.output: Any = None

    def find(self, kind: str, target: str) -> "Fanning":
        return self

    async def run(self, ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
        async def effect(name: str) -> str:
            await self.pause()
            self.done.append(name)
            return name

        async def line(lines: Lines, fan: int, number: int) -> list[str]:
            await self.pause()
            async with lines.line(number):
                return [await ctx.step("same", effect, f"{fan}.{number}.{step}") for step in range(STEPS)]

        found = []
        for fan in range(FANS):
            found.append([await ctx.step("between", effect, f"{fan}")])
            lines = Lines(ctx.entry)
            tasks = [asyncio.create_task(line(lines, fan, number)) for number in range(LINES)]
            found += await asyncio.gather(*tasks)
        self.output = found
        return found

    async def pause(self) -> None:
        for _ in range(self.random.randint(0, 5)):
            await asyncio.sleep(0)  # noqa: TID251 - turns of the loop, to mix the order


async def execute(engine: Engine, seed: int, journal: list[StepRecord]) -> tuple[Fanning, list[StepRecord]]:
    """A run that begins with this journal, to its end; what it did, and its journal then."""
    agent = Fanning(Random(seed))
    engine.executor._registry = agent
    claimed = await engine.claimed(journal=journal, rerun_of="another")
    engine.executor.start(claimed)
    x = engine.executor.live[claimed.row.id]
    await eventually(lambda: claimed.row.id in engine.over)
    assert (await engine.run(claimed.row.id))["status"] == "ok"
    return agent, sorted(x.journal.records.values())


def cut(journal: list[StepRecord], random: Random) -> list[StepRecord]:
    """What may be on disk of it at a crash: a beginning of each line of the last fan, and all before that."""
    last = random.randrange(FANS)
    lengths = [random.randint(0, STEPS) for _ in range(LINES)]

    def is_there(record: StepRecord) -> bool:
        if not record.branch:
            return record.occurrence <= last
        fan, line = map(int, record.branch.rstrip("/").split("."))
        return fan < last or (fan == last and record.occurrence < lengths[line])

    kept = filter(is_there, journal)
    return [record._replace(n=number) for number, record in enumerate(kept, 1)]


async def test_a_run_that_is_entered_again_does_what_is_missing_and_nothing_else(engine: Engine) -> None:
    first, journal = await execute(engine, 0, [])
    everything = set(first.done)
    assert len(first.done) == len(everything) == FANS * (1 + LINES * STEPS)
    orders = {tuple(first.done)}
    for seed in range(1, 13):
        kept = cut(journal, Random(seed))
        again, whole = await execute(engine, seed, kept)
        recorded = {record.outcome.decode().strip('"') for record in kept}
        assert again.output == first.output
        assert set(again.done) == everything - recorded
        assert len(again.done) == len(set(again.done))
        assert {(r.branch, r.name, r.occurrence) for r in whole} == {(r.branch, r.name, r.occurrence) for r in journal}
        orders.add(tuple(again.done))
    assert len(orders) > 6, "chance was to mix them"


async def test_a_line_begins_once(engine: Engine) -> None:
    wrong: list[Exception] = []

    class Twice(Fanning):
        async def run(self, ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
            lines = Lines(ctx.entry)
            async with lines.line(0):
                with pytest.raises(Misuse) as caught:
                    Lines(ctx.entry).line(0)
                    async with lines.line(0):
                        pass
                wrong.append(caught.value)

    agent = Twice(Random(0))
    engine.executor._registry = agent
    claimed = await engine.claimed()
    engine.executor.start(claimed)
    await eventually(lambda: claimed.row.id in engine.over)
    assert "has begun already" in str(wrong[0])

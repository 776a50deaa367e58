"""The chain of hooks around tools and nodes: what an agent that calls it gets, at first and when entered again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from pydantic import TypeAdapter

from latticed import Block, Context
from latticed.clock import SystemClock
from latticed.config import RunsConfig
from latticed.engine.executor import Executor
from latticed.engine.threads import Threads
from latticed.hooks.asking import Asker
from latticed.hooks.functions import FunctionRunner
from latticed.hooks.registry import Registry
from latticed.ids import BOOT, RUN, new
from latticed.models.hooks import AnyHook, HookSpec, Verdict
from latticed.models.matching import HookIndex
from latticed.models.records import Birth, Change, event
from latticed.models.stopping import stop_change
from latticed.states import RELEASE
from latticed.store import Store, open_store
from tests.conftest import empty_database
from tests.wait import eventually

OWNER = new(BOOT)
Hook = Callable[[dict[str, Any]], Any]


class Engine:
    """A store, an executor and hooks; the code of every run is `self.code`, which gets its context."""

    def __init__(self, store: Store) -> None:
        self.store, self.clock = store, SystemClock()
        self.registry, self.runner = Registry(), FunctionRunner(4)
        self.asked: list[tuple[str, Any]] = []
        self.code: Callable[[Context], Any] = self._nothing
        self.executors: list[Executor] = []
        self.over: list[str] = []
        self.boot()

    def boot(self) -> Executor:
        """Another executor, that knows nothing of what the ones before were doing."""
        made = Executor(
            store=self.store, clock=self.clock, registry=self, settings=RunsConfig(), threads=Threads(2),
            admit=lambda *_: None, on_end=lambda execution: self.over.append(execution.run_id),
            hooks=Asker(self.registry, {"python": self.runner}, lambda: ["default"]),
        )  # fmt: skip
        self.executors.append(made)
        return made

    def hooks(self, point: str, **functions: Hook) -> None:
        """These are asked at that point, by name."""

        def noted(name: str, function: Hook) -> Hook:
            def ask(payload: dict[str, Any]) -> Any:
                self.asked.append((name, payload.get("tool") or payload.get("node")))
                return function(payload)

            return ask

        adapter: TypeAdapter[Any] = TypeAdapter(AnyHook)
        table = adapter.validate_python({"use": "python", "point": point, "function": "a:b", "timeout_seconds": 0.5})
        self.runner.functions = {name: noted(name, function) for name, function in functions.items()}
        self.registry.set_file(HookSpec(name, table) for name in functions)

    def find(self, kind: str, target: str) -> "Engine":
        return self

    async def run(self, ctx: Context, goal: str, inputs: dict[str, Any]) -> Any:
        return await self.code(ctx)

    async def _nothing(self, ctx: Context) -> None:
        return

    def told(self, commit: Any) -> None:
        self.executors[-1].told(commit)

    async def begin(self) -> str:
        """A run that was claimed and whose code is being executed."""
        birth = Birth(
            id=new(RUN), workspace="default", kind="agent", target="some", name="some", mode="live", goal="goal",
            inputs=b"{}", roles=[], queue="default", priority=0, max_retries=0, recovery="resume", run_at=None,
            deadline_seconds=None, tags={}, created_by="test", created_at=self.clock.now(),
        )  # fmt: skip
        await self.store.bear([birth])
        await self._claim(birth.id)
        return birth.id

    async def _claim(self, run_id: str) -> None:
        [claimed] = await self.store.claim([run_id], OWNER)
        self.executors[-1].start(claimed)

    async def again(self, run_id: str) -> None:
        """As after a crash: nobody tells the old executor, another one enters the run's code."""
        [live] = [each.live[run_id] for each in self.executors if run_id in each.live]
        released = event("run.recovered", self.clock.now(), policy="resume", from_epoch=live.row.epoch)
        await self.store.change(Change(run_id, RELEASE, owner=OWNER, epoch=live.row.epoch, events=[released]))
        self.boot()
        await self._claim(run_id)

    async def ended(self, run_id: str) -> dict[str, Any]:
        await eventually(lambda: run_id in self.over)
        found = await self.store.find_run("default", run_id)
        assert found is not None
        return found

    async def events(self, run_id: str) -> list[dict[str, Any]]:
        found = await self.store.list_events(run_id, 0, 100)
        return [orjson.loads(e.data) for e in found if e.type == "hook.finished"]


@pytest_asyncio.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    (tmp_path / "some.db").write_bytes(empty_database())
    store = await open_store(f"sqlite+aiosqlite:///{tmp_path}/some.db", SystemClock())
    made = Engine(store)
    store.start(made.told)
    await store.create_workspace("default")
    try:
        yield made
    finally:
        for executor in made.executors:
            await executor.drain(0.01, 0.01, asyncio.Event())
            executor.threads.close()
        made.runner.close()
        await store.close()


def before(ctx: Context, args: dict[str, Any], key: str = "call_1") -> Any:
    x = ctx._x
    assert x.chain is not None
    return x.chain.before("pre_tool", x, {"name": "search", "args": args}, key)


def after(ctx: Context, result: Any, key: str = "call_1") -> Any:
    x = ctx._x
    assert x.chain is not None
    return x.chain.after("post_tool", x, {"name": "search", "args": {}, "result": result}, key)


async def test_without_hooks_a_tool_is_called_as_it_is(engine: Engine) -> None:
    async def code(ctx: Context) -> Any:
        await after(ctx, 1)
        return list(await before(ctx, {"q": "x"}))

    engine.code = code
    run = await engine.ended(await engine.begin())
    assert (run["status"], run["output"]) == ("ok", [{}, None, None])


async def test_hooks_change_a_tools_arguments_one_after_the_other(engine: Engine) -> None:
    def add(payload: dict[str, Any]) -> Any:
        return {"args": {**payload["tool"]["args"], payload["hook"]: len(payload["tool"]["args"])}}

    async def code(ctx: Context) -> Any:
        return (await before(ctx, {"q": "x"})).changes

    engine.hooks("pre_tool", a=add, b=add)
    engine.code = code
    run_id = await engine.begin()
    assert (await engine.ended(run_id))["output"] == {"args": {"q": "x", "a": 1, "b": 2}}
    assert engine.asked[1] == ("b", {"name": "search", "args": {"q": "x", "a": 1}})
    told = await engine.events(run_id)
    assert [(e["hook"], e["point"], e["tool"], e["status"]) for e in told] == [
        ("a", "pre_tool", "search", "ok"),
        ("b", "pre_tool", "search", "ok"),
    ]


async def test_a_veto_is_the_callers_to_obey(engine: Engine) -> None:
    async def code(ctx: Context) -> Any:
        return list(await before(ctx, {}))

    engine.hooks("pre_tool", a=lambda payload: Block("no searching"), b=lambda payload: None)
    engine.code = code
    run = await engine.ended(await engine.begin())
    assert (run["status"], run["output"]) == ("ok", [{}, "a", "no searching"])
    assert [name for name, _ in engine.asked] == ["a"]


@pytest.mark.parametrize("answer", [{"inputs": {}}, {"args": []}, {"tags": {}}, "no"])
async def test_what_may_not_be_changed_of_a_tool_blocks_it(engine: Engine, answer: Any) -> None:
    async def code(ctx: Context) -> Any:
        return (await before(ctx, {})).hook

    engine.hooks("pre_tool", a=lambda payload: answer)
    engine.code = code
    assert (await engine.ended(await engine.begin()))["output"] == "a"


async def test_nobody_who_answered_is_asked_again_when_the_run_is_entered_again(engine: Engine) -> None:
    entered: list[list[Verdict]] = []

    async def code(ctx: Context) -> Any:
        verdicts: list[Verdict] = [await before(ctx, {"n": 1}, "call_1")]
        entered.append(verdicts)
        verdicts.append(await before(ctx, {"n": 2}, "call_2"))
        await ctx.step("work", lambda: 1)
        if len(entered) == 1:
            await asyncio.Event().wait()

    engine.hooks(
        "pre_tool",
        a=lambda p: {"args": {"n": p["tool"]["args"]["n"] * 10}} if p["tool"]["args"]["n"] == 1 else Block("two"),
    )
    engine.code = code
    run_id = await engine.begin()
    await eventually(lambda: entered and len(entered[0]) == 2)
    await eventually(lambda: engine.executors[0].live[run_id].journal.records.get(3))
    await engine.again(run_id)
    await engine.ended(run_id)
    assert entered[0] == entered[1] == [Verdict({"args": {"n": 10}}), Verdict({}, "a", "two")]
    assert len(engine.asked) == len(await engine.events(run_id)) == 2


async def test_a_hook_that_is_new_is_not_asked_about_what_has_happened_already(engine: Engine) -> None:
    entered: list[int] = []

    async def code(ctx: Context) -> Any:
        entered.append(1)
        first = await before(ctx, {}, "call_1")
        await ctx.step("search", lambda: 1)
        if len(entered) == 1:
            await asyncio.Event().wait()
        return [first.hook, (await before(ctx, {}, "call_2")).hook]

    engine.code = code
    run_id = await engine.begin()
    await eventually(lambda: engine.executors[0].live[run_id].journal.records)
    engine.hooks("pre_tool", new=lambda payload: Block("no"))
    await engine.again(run_id)
    assert (await engine.ended(run_id))["output"] == [None, "new"]


async def test_branches_ask_at_the_same_time(engine: Engine) -> None:
    async def code(ctx: Context) -> Any:
        async def line(n: int) -> Any:
            changed = (await before(ctx, {"n": n}, f"call_{n}")).changes["args"]
            return await ctx.step("search", lambda: changed["n"])

        return list(await ctx.gather(*(line(n) for n in range(4))))

    engine.hooks("pre_tool", a=lambda p: {"args": {"n": p["tool"]["args"]["n"] + 1}})
    engine.code = code
    assert (await engine.ended(await engine.begin()))["output"] == [1, 2, 3, 4]


@pytest.mark.parametrize("answer", [Block("no"), {"args": {}}, "strange", RuntimeError("broken")])
async def test_what_is_told_afterwards_changes_nothing(engine: Engine, answer: Any) -> None:
    def say(payload: dict[str, Any]) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def code(ctx: Context) -> Any:
        await after(ctx, "found")
        return "fine"

    engine.hooks("post_tool", a=say, b=lambda payload: None)
    engine.code = code
    run_id = await engine.begin()
    assert (await engine.ended(run_id))["output"] == "fine"
    assert [name for name, _ in engine.asked] == ["a", "b"]
    assert engine.asked[0][1]["result"] == "found"
    told = [(e["status"], e["detail"]) for e in await engine.events(run_id)]
    assert told == [("error", "RuntimeError: broken") if isinstance(answer, Exception) else ("ok", None), ("ok", None)]


async def test_a_node_is_told_as_a_node(engine: Engine) -> None:
    async def code(ctx: Context) -> Any:
        x = ctx._x
        assert x.chain is not None
        verdict = await x.chain.before("pre_node", x, {"id": "fetch", "type": "action", "inputs": {"a": 1}}, "fetch/0")
        await x.chain.after("post_node", x, {"id": "fetch", "output": 1}, "fetch/0")
        return verdict.changes

    engine.hooks("pre_node", a=lambda payload: {"inputs": {"b": payload["node"]["inputs"]["a"]}})
    engine.code = code
    run_id = await engine.begin()
    assert (await engine.ended(run_id))["output"] == {"inputs": {"b": 1}}
    assert (await engine.events(run_id))[0]["node"] == "fetch"


async def test_a_cancel_while_a_tools_hook_is_asked_is_obeyed_at_once(engine: Engine) -> None:
    async def hang(payload: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    async def code(ctx: Context) -> Any:
        return await before(ctx, {})

    engine.hooks("pre_tool", a=hang)
    engine.registry.index = HookIndex(
        HookSpec(h.name, h.table.model_copy(update={"timeout_seconds": 60.0})) for h in engine.registry.index
    )
    engine.code = code
    run_id = await engine.begin()
    await eventually(lambda: engine.asked)
    now = engine.clock.now()
    await engine.store.change(stop_change(run_id, by="t", reason=None, mode="graceful", children=True, now=now))
    assert (await engine.ended(run_id))["status"] == "cancelled"
    assert [e["status"] for e in await engine.events(run_id)] == ["skipped"]


async def test_a_veto_that_a_cancel_overtakes_is_on_record_all_the_same(engine: Engine) -> None:
    async def veto(payload: dict[str, Any]) -> Block:
        now = engine.clock.now()
        engine.store.order(
            stop_change(payload["run"]["id"], by="t", reason=None, mode="graceful", children=True, now=now)
        )
        return Block("no")

    engine.hooks("pre_run", judge=veto)
    run_id = await engine.begin()
    assert (await engine.ended(run_id))["status"] == "cancelled"
    assert [e["status"] for e in await engine.events(run_id)] == ["blocked"]
    assert [(step["name"], step["status"]) for step in await engine.store.list_steps(run_id, 0, 9)] == [("judge", "ok")]


@pytest.mark.parametrize("what", ["cancel", "deadline"])
async def test_a_veto_is_on_record_whatever_comes_between_it_and_its_runs_end(engine: Engine, what: str) -> None:
    async def veto(payload: dict[str, Any]) -> Block:
        x, loop = engine.executors[-1].live[payload["run"]["id"]], asyncio.get_running_loop()
        if what == "cancel":
            change = stop_change(x.run_id, by="t", reason=None, mode="graceful", children=True, now=engine.clock.now())
            engine.store.order(change)
            loop.call_soon(engine.executors[-1]._stop, x, x.row._replace(status="cancelling", cancel_rank=1))
        else:
            loop.call_soon(engine.executors[-1]._expire, x)
        return Block("no")

    engine.hooks("pre_run", judge=veto)
    run_id = await engine.begin()
    run = await engine.ended(run_id)
    assert (run["status"], (run["error"] or {}).get("code")) == (
        ("cancelled", None) if what == "cancel" else ("failed", "deadline_exceeded")
    )
    assert [e["status"] for e in await engine.events(run_id)] == ["blocked"]
    assert [(step["name"], step["status"]) for step in await engine.store.list_steps(run_id, 0, 9)] == [("judge", "ok")]

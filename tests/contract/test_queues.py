"""Queues: limits, priorities, fairness between workspaces, times, and why a run is not running."""

import asyncio
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from latticed import ids
from latticed.clock import SystemClock, from_text
from latticed.models.records import Birth
from latticed.store import open_store
from tests.agents_for_tests import leave, pause
from tests.conftest import Daemon, wait_until
from tests.contract.conftest import configuration

MANY = 4000


def queued_before(state_dir: Path, workspace: str, count: int, target: str, **fields: Any) -> list[str]:
    """Puts that many runs on disk as queued, for a daemon that is yet to start; their ids."""
    clock = SystemClock()

    async def put() -> list[str]:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = await open_store(f"sqlite+aiosqlite:///{state_dir / 'latticed.db'}", clock)
        store.start(lambda commit: None)
        try:
            if not await store.has_workspace(workspace):
                await store.create_workspace(workspace)
            births = [birth() for _ in range(count)]
            await store.bear(births)
            return [each.id for each in births]
        finally:
            await store.close()

    def birth() -> Birth:
        given: dict[str, Any] = {
            "id": ids.new(ids.RUN), "workspace": workspace, "kind": "agent", "target": target, "name": target,
            "mode": "live", "goal": "one of many", "inputs": b"{}", "roles": [], "queue": "default", "priority": 0,
            "max_retries": 0, "recovery": "resume", "run_at": None, "deadline_seconds": None, "tags": {},
            "created_by": "test", "created_at": clock.now(),
        }  # fmt: skip
        return Birth(**given | fields)

    with asyncio.Runner() as runner:
        return runner.run(put())


def why(one: Daemon, run_id: str) -> dict[str, Any]:
    return one.get(run_id, "why")


def queue(one: Daemon, name: str = "default") -> dict[str, Any]:
    items = one.client.get(one.path("queues")).json()["items"]
    found: dict[str, Any] = next(item for item in items if item["name"] == name)
    return found


def started_in_order(one: Daemon, runs: list[str]) -> list[str]:
    """The runs in the order in which they were started."""
    at = {run_id: one.events(run_id, "run.started")[0]["at"] for run_id in runs}
    return sorted(runs, key=lambda run_id: at[run_id])


def most_at_once(one: Daemon, runs: list[str]) -> int:
    """How many of the runs were executed at the same time."""
    edges = []
    for run_id in runs:
        events = {event["type"]: event["at"] for event in one.events(run_id, "run.started", "run.finished")}
        edges += [(events["run.started"], 1), (events["run.finished"], -1)]
    return max(itertools.accumulate(step for _, step in sorted(edges)))


async def works(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    await ctx.step("work", pause, inputs.get("seconds", 0.05))
    leave(inputs, f"{ctx.run_id} worked")


async def rests(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    await ctx.sleep(3600)


async def fails_once(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    if ctx.attempt == 1:
        raise RuntimeError("once more")


def stopped(one: Daemon, runs: list[str]) -> None:
    """Gives back what the runs hold."""
    for run_id in runs:
        one.stop_run(run_id, mode="now")
    for run_id in runs:
        one.wait(run_id)


def test_a_queue_and_the_daemon_have_their_limits(narrow: Daemon) -> None:
    wide = [narrow.post_run("works", inputs={"seconds": 0.1})["id"] for _ in range(9)]
    lone = [narrow.post_run("works", queue="one", inputs={"seconds": 0.1})["id"] for _ in range(4)]
    for run_id in wide + lone:
        assert narrow.wait(run_id)["status"] == "ok"
    assert most_at_once(narrow, wide) == 3
    assert most_at_once(narrow, lone) == 1
    assert most_at_once(narrow, wide + lone) == 4


def test_why_says_what_a_run_waits_for(narrow: Daemon) -> None:
    running = [narrow.post_run("works", queue="two", inputs={"seconds": 60})["id"] for _ in range(2)]
    for run_id in running:
        narrow.wait_event(run_id, "run.started")
    first, second = (narrow.post_run("works", queue="two")["id"] for _ in range(2))
    said = [why(narrow, run_id) for run_id in (running[0], first, second)]
    assert [each["code"] for each in said] == ["running", "queue_full", "queue_full"]
    assert [each["position"] for each in said] == [None, 0, 1]
    assert "2 of 2" in said[1]["reason"]
    assert [queue(narrow, "two")[key] for key in ("concurrency", "running", "queued")] == [2, 2, 2]
    running += [narrow.post_run("works", inputs={"seconds": 60})["id"] for _ in range(2)]
    narrow.wait_event(running[-1], "run.started")
    waits = narrow.post_run("works")["id"]
    assert (why(narrow, waits)["code"], why(narrow, waits)["queue"]) == ("daemon_full", "default")
    delayed = narrow.post_run("works", run_at="2999-01-01T00:00:00Z")["id"]
    assert (why(narrow, delayed)["code"], why(narrow, delayed)["until"]) == ("delayed", "2999-01-01T00:00:00.000000Z")
    stopped(narrow, [*running, delayed])
    for run_id in (first, second, waits):
        assert narrow.wait(run_id)["status"] == "ok"
        assert why(narrow, run_id)["code"] == "finished"


def test_a_higher_priority_comes_first_then_the_older_run(narrow: Daemon) -> None:
    blocks = narrow.post_run("works", queue="one", inputs={"seconds": 60})["id"]
    narrow.wait_event(blocks, "run.started")
    priorities = [0, -100, 5, 100, 0, 5, -1]
    runs = [
        narrow.post_run("works", queue="one", priority=priority, inputs={"seconds": 0})["id"] for priority in priorities
    ]
    assert [why(narrow, run_id)["position"] for run_id in runs] == [3, 6, 1, 0, 4, 2, 5]
    stopped(narrow, [blocks])
    for run_id in runs:
        narrow.wait(run_id, "ok")
    order = sorted(range(len(runs)), key=lambda i: (-priorities[i], i))
    assert started_in_order(narrow, runs) == [runs[i] for i in order]


def test_a_higher_priority_comes_first_after_a_crash_too(daemon: Callable[..., Daemon]) -> None:
    one = daemon(config=configuration({"default": 1}))
    recovered = one.post_run("works", inputs={"seconds": 60})["id"]
    one.wait_event(recovered, "run.started")
    queued = [one.post_run("works", priority=priority, inputs={"seconds": 0})["id"] for priority in (-1, 1)]
    one.kill()
    one.start()
    one.wait(queued[1], "ok")
    wait_until(lambda: len(one.events(recovered, "run.started")) == 2)
    assert one.events(recovered, "run.started")[1]["at"] > one.events(queued[1], "run.finished")[0]["at"]
    assert one.get(queued[0])["status"] == "queued"


def test_nothing_that_waits_holds_a_slot(narrow: Daemon) -> None:
    def begun(target: str, **fields: Any) -> str:
        return str(narrow.post_run(target, queue="one", **fields)["id"])

    waiting = [begun("rests"), begun("signaller"), begun("parent", inputs={"child": "rests"})]
    asking, again = begun("asker"), begun("fails_once", max_retries=1)
    delayed = begun("rests", run_at="2999-01-01T00:00:00Z")
    for run_id in waiting:
        narrow.wait(run_id, "waiting")
    narrow.wait(asking, "awaiting_approval")
    assert narrow.wait(begun("works"))["status"] == "ok"
    assert narrow.wait(again)["status"] == "retried_ok"
    assert queue(narrow, "one") == {"name": "one", "concurrency": 1, "running": 0, "queued": 1}
    stopped(narrow, [*waiting, asking, delayed])


def test_a_delayed_run_starts_at_its_time_and_not_before(narrow: Daemon) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    delayed = narrow.post_run("works", run_at=soon.isoformat())["id"]
    past = narrow.post_run("works", run_at="2001-01-01T00:00:00Z")["id"]
    assert narrow.wait(past)["status"] == "ok"
    assert narrow.get(delayed)["status"] == "queued"
    run = narrow.wait(delayed, "ok")
    late = from_text(run["started_at"]) - from_text(soon.isoformat())
    assert 0 <= late < 1_000_000


def test_a_crowd_delays_another_workspaces_run_by_a_round_at_most(daemon: Callable[..., Daemon]) -> None:
    slots, others = 2, [f"other{i}" for i in range(5)]
    one = daemon(start=False, config=configuration({"default": slots}))
    queued_before(one.state_dir, "crowd", MANY, "works", priority=100)
    one.start()
    one.workspace = "crowd"
    wait_until(lambda: queue(one)["running"] == slots)
    for name in others:
        one.client.post("/v1/workspaces", json={"name": name})
    lone = {name: one.post_run("works", workspace=name)["id"] for name in others}

    def position(name: str, type: str) -> int:
        items = one.client.get(one.path("events", name), params={"after": 0, "types": type}).json()["items"]
        return int(items[0]["position"]) if items else 0

    for name in others:
        wait_until(lambda name=name: position(name, "run.finished"))
    feed = one.client.get(one.path("events"), params={"after": 0, "types": "run.started", "limit": 500}).json()["items"]
    begun = [event["position"] for event in feed]
    for name in lone:
        between = [at for at in begun if position(name, "run.queued") < at < position(name, "run.started")]
        # Those that were picked when it came, and one round, in which each workspace has its turn.
        assert len(between) <= slots + 1
    assert queue(one)["queued"] > MANY - 500
    one.kill()


def test_thousands_of_sleepers_hold_no_slot(daemon: Callable[..., Daemon]) -> None:
    one = daemon(start=False, config=configuration({"default": 200}))
    sleepers = queued_before(one.state_dir, "default", MANY, "rests")
    one.start()
    before = psutil.Process(one.process.pid).memory_info().rss
    wait_until(lambda: queue(one) == {"name": "default", "concurrency": 200, "running": 0, "queued": 0}, 60, 0.2)
    assert {one.get(run_id)["status"] for run_id in sleepers[:: MANY // 10]} == {"waiting"}
    began = time.monotonic()
    assert one.run("echo")["status"] == "ok"
    assert time.monotonic() - began < 2
    assert psutil.Process(one.process.pid).memory_info().rss - before < 60 << 20
    one.kill()
    one.start()
    assert one.run("echo")["status"] == "ok"
    assert (one.get(sleepers[-1])["status"], queue(one)["running"]) == ("waiting", 0)


def test_a_restart_finds_what_is_due_and_leaves_what_has_no_agent(daemon: Callable[..., Daemon]) -> None:
    one = daemon(config=configuration({"default": 1, "gone": 1}))
    blocks = one.post_run("works", inputs={"seconds": 60})["id"]
    one.wait_event(blocks, "run.started")
    waits = one.post_run("fails_once", max_retries=1)["id"]
    due_at = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
    homeless, overdue = (one.post_run("works", queue=name, run_at=due_at)["id"] for name in ("gone", "default"))
    due = time.monotonic() + 0.5
    one.kill()
    wait_until(lambda: time.monotonic() > due)
    without = configuration({"default": 1})
    one.configure(without | {"agents": without["agents"] | {"fails_once": None}})
    one.start()
    stopped(one, [blocks])
    assert one.wait(overdue)["status"] == "ok", "what fell due meanwhile is claimed"
    assert (one.get(waits)["status"], why(one, waits)["code"]) == ("queued", "agent_missing")
    assert (one.get(homeless)["status"], why(one, homeless)["code"]) == ("queued", "queue_missing")
    one.configure(configuration({"default": 1, "gone": 1}))
    one.restart()
    assert one.wait(waits)["status"] == "retried_ok"
    assert one.wait(homeless)["status"] == "ok"

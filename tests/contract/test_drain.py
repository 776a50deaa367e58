"""SIGTERM, a second one, and SIGHUP."""

import signal
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import Daemon, wait_until
from tests.timeline import begun, lines, pending_question, printed, well_ended

Make = Callable[..., Daemon]
DRAIN, KILL = 1.5, 0.5
COMMAND = "trap 'exit 0' TERM; trap '' INT; echo up; while :; do sleep 0.05; done"


def draining(one: Daemon) -> Daemon:
    """Sends SIGTERM and waits until it has been taken note of."""
    one.process.send_signal(signal.SIGTERM)
    wait_until(lambda: one.client.get("/readyz").status_code == 503)
    return one


def on_disk(one: Daemon, run_id: str) -> tuple[str, int]:
    """Status and recoveries of a run, of a daemon that has ended."""
    with closing(sqlite3.connect(one.state_dir / "latticed.db")) as database:
        row = database.execute("SELECT status, recoveries FROM runs WHERE id = ?", (run_id,)).fetchone()
    return str(row[0]), int(row[1])


def released(one: Daemon, run_id: str) -> bool:
    return [event["data"] for event in one.events(run_id, "run.released")] == [{"reason": "drain"}]


def test_while_it_drains_nothing_is_made(daemon: Make) -> None:
    one = daemon(config={"runs": {"drain_seconds": 10.0}})
    run_id = begun(one, "stepper_slow", {"seconds": 60})
    draining(one)
    for path, body in (
        (one.path("runs"), {"target": "echo", "goal": "x"}),
        (one.path("tokens"), {"role": "viewer"}),
        ("/v1/tokens", {"role": "viewer"}),
        ("/v1/workspaces", {"name": "late"}),
        (one.path("hooks"), {"name": "late", "point": "post_run", "url": "https://example.org/late"}),
    ):
        answer = one.client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), path
        assert answer.headers["retry-after"]
    one.stop_run(run_id, mode="kill")
    assert one.wait_exit() == 0


def test_a_drain_ends_what_is_under_way_and_gives_the_rest_back(daemon: Make, tmp_path: Path) -> None:
    effects = {name: tmp_path / name for name in ("slow", "cut", "ending")}
    one = daemon(
        config={
            "runs": {"drain_seconds": DRAIN, "kill_seconds": KILL, "grace_seconds": 60.0, "park_seconds": 7200.0},
            "agents": {"command": {"use": "command", "argv": ["bash", "-c", COMMAND]}},
        }
    )
    slow = begun(one, "stepper_slow", {"seconds": 0.5, "effects": str(effects["slow"])})
    branches = begun(one, "half_asleep", {"seconds": 0.5})
    asleep = begun(one, "long_wait", {"what": "sleep"})
    thread = begun(one, "thread_checks")
    group = begun(one, "task_group")
    careless = begun(one, "long_wait", {"what": "sleep"}, recovery="interrupt")
    anew = begun(one, "long_wait", {"what": "sleep"}, recovery="requeue")
    cut = begun(one, "awaiter", {"effects": str(effects["cut"])})
    turned = begun(one, "late_returner")
    command = begun(one, "command")
    ending = begun(one, "innocent", {"seconds": 0.8, "effects": str(effects["ending"])})
    stopped = begun(one, "awaiter")
    asker = begun(one, "asker")
    one.wait(asker, "awaiting_approval")
    one.wait_event(command, "output")
    for run_id in (slow, branches, ending):
        one.wait_event(run_id, "step.started")
    for run_id in (asleep, careless, anew, group):
        wait_until(lambda run_id=run_id: one.steps(run_id))
    question = pending_question(one, asker)

    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(one.post_run, "awaiter", wait=60)
        wait_until(lambda: len(one.client.get(one.path("runs"), params={"target": "awaiter"}).json()["items"]) == 3)
        began = time.monotonic()
        draining(one)
        makes = {
            one.path("runs"): {"target": "echo", "goal": "too late"},
            one.path("tokens"): {"name": "late", "role": "viewer"},
            one.path("hooks"): {"name": "late", "point": "post_run", "url": "https://example.org/"},
            "/v1/workspaces": {"name": "late"},
            "/v1/tokens": {"name": "late", "role": "viewer"},
        }
        for path, body in makes.items():
            refused = one.client.post(path, json=body)
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable"), path
            assert "stopping" in refused.json()["detail"]
        again = one.client.post(one.path(f"runs/{stopped}/rerun"))
        assert again.status_code in (409, 503)
        assert one.stop_run(stopped, mode="now")["stopped"]
        answer = one.client.post(one.path(f"approvals/{question}"), json={"decision": "approve", "data": {"n": 1}})
        assert answer.status_code == 200
        assert waiter.result()["status"] in ("queued", "running")
    assert one.wait_exit() == 0
    assert time.monotonic() - began < DRAIN + KILL + 5
    assert lines(effects["cut"]) == ["ended"]

    one.start()
    assert well_ended(one, ending, "ok")["epoch"] == 1
    well_ended(one, stopped)
    run = well_ended(one, careless, "interrupted")
    assert (run["error"]["code"], run["error"]["detail"]) == ("interrupted", None)
    assert one.wait(asker)["output"] == {"answer": {"n": 1}}
    for run_id in (slow, branches, asleep, thread, group, anew, cut, turned, command, waiter.result()["id"]):
        assert released(one, run_id), one.get(run_id)
        run = one.wait(run_id, "running")
        assert (run["recoveries"], run["attempt"], run["epoch"]) == (0, 1, 2)
        assert one.events(run_id, "run.recovered") == []
    assert [step["status"] for step in one.steps(branches) if step["name"] == "slow"] == ["ok"]
    first_life = [event for event in one.events(slow) if event["seq"] < one.events(slow, "run.released")[0]["seq"]]
    types = [event["type"] for event in first_life]
    assert types.count("step.started") == types.count("step.finished") > 0, "the step under way was recorded"
    wait_until(lambda: printed(one, command).count("up") == 2)


def test_a_drain_makes_nothing_new(daemon: Make) -> None:
    one = daemon(config={"runs": {"drain_seconds": 600.0}})
    over = one.run("echo")["id"]
    step = begun(one, "stepper_long")
    one.wait_event(step, "step.started")
    draining(one)
    for path, body in (
        (one.path("runs"), {"target": "echo", "goal": "g"}),
        (one.path(f"runs/{over}/rerun"), {}),
        (one.path("tokens"), {"role": "viewer"}),
        ("/v1/tokens", {"role": "viewer"}),
        ("/v1/workspaces", {"name": "late"}),
        (one.path("hooks"), {"name": "late", "point": "post_run", "url": "https://example.org/"}),
    ):
        refused = one.client.post(path, json=body)
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable"), path
        assert int(refused.headers["retry-after"]) >= 1
    assert one.stop_run(step, mode="now")["stopped"]
    assert one.wait_exit() == 0


def test_a_drain_ends_in_time_whatever_runs(daemon: Make, tmp_path: Path) -> None:
    one = daemon(
        config={
            "runs": {"drain_seconds": 0.3, "kill_seconds": 0.3},
            "agents": {"deaf": {"use": "command", "argv": ["bash", "-c", COMMAND.replace("exit 0", "")]}},
        }
    )
    never, swallow, deaf = begun(one, "thread_never"), begun(one, "swallow"), begun(one, "deaf")
    careless = begun(one, "thread_never", recovery="interrupt")
    given_up, stopped = begun(one, "thread_never"), begun(one, "thread_never")
    one.stop_run(given_up, mode="kill")
    one.wait(given_up, "cancelled")
    one.wait_event(deaf, "output")
    children = psutil.Process(one.process.pid).children(recursive=True)
    one.stop_run(stopped, reason="just before")
    began = time.monotonic()
    assert one.stop() == 0
    assert time.monotonic() - began < 0.3 + 0.3 + 5
    assert psutil.wait_procs(children, timeout=0)[1] == []
    assert on_disk(one, never) == on_disk(one, swallow) == on_disk(one, deaf) == ("queued", 0)
    assert on_disk(one, careless) == ("interrupted", 0)
    assert on_disk(one, given_up) == on_disk(one, stopped) == ("cancelled", 0)

    one.start()
    for run_id in (never, swallow):
        assert released(one, run_id), one.get(run_id)
        run = one.wait(run_id, "running")
        assert (run["recoveries"], run["attempt"], run["epoch"]) == (0, 1, 2), "a drain is no crash"
    run = well_ended(one, stopped)
    assert (run["cancel"]["reason"], run["abandoned"]) == ("just before", "thread")
    one.kill()


def test_a_drain_ends_in_time_although_nothing_can_be_written(daemon: Make) -> None:
    one = daemon(config={"runs": {"drain_seconds": 0.2, "kill_seconds": 0.2}, "store": {"busy_seconds": 60.0}})
    run_id = begun(one, "awaiter")
    with closing(sqlite3.connect(one.state_dir / "latticed.db", isolation_level=None)) as another:
        another.execute("BEGIN EXCLUSIVE")
        assert one.stop(timeout=20) == 0
    one.start()
    wait_until(lambda: one.get(run_id)["epoch"] == 2)
    assert one.get(run_id)["status"] == "running"


def test_a_second_signal_hurries(daemon: Make) -> None:
    one = daemon(config={"runs": {"drain_seconds": 600.0, "kill_seconds": 1.0}})
    run_id = begun(one, "stepper_long")
    one.wait_event(run_id, "step.finished")
    draining(one)
    began = time.monotonic()
    assert one.end(signal.SIGINT) == 0
    assert time.monotonic() - began < 6
    assert on_disk(one, run_id) == ("queued", 0)


def test_a_signal_at_the_very_start_is_a_drain(daemon: Make) -> None:
    one = daemon(start=False)
    one.launch()
    wait_until(lambda: one.url, interval=0.0002)
    assert one.stop() == 0


def reload(one: Daemon, config: dict[str, Any], said: str) -> dict[str, Any]:
    """Sends SIGHUP; the line that it logs."""

    def found() -> list[dict[str, Any]]:
        return [line for line in one.log_lines if line["event"] in ("reloaded", "reload_refused")]

    before = len(found())
    one.configure(config)
    one.process.send_signal(signal.SIGHUP)
    line = wait_until(lambda: found()[before:])[0]
    assert line["event"] == said
    return line


def test_a_reload_takes_over_what_it_can_and_refuses_a_bad_file(daemon: Make) -> None:
    spare = {"use": "function", "function": "agents_for_tests:echo"}
    runs = {"grace_seconds": 600.0}
    one = daemon(config={"runs": runs, "queues": {"narrow": {"concurrency": 1}}, "agents": {"spare": spare}})
    running = begun(one, "awaiter", queue="narrow")
    behind = one.post_run("spare", queue="narrow")["id"]
    assert one.get(behind, "why")["code"] != "agent_missing"

    reload(one, {"runs": runs, "queues": {"narrow": {"concurrency": 9}}, "agents": {"other": spare}}, "reloaded")
    assert one.run("other")["status"] == "ok"
    unknown = one.client.post(one.path("runs"), json={"target": "spare", "goal": "gone"})
    assert unknown.status_code == 422
    assert (one.get(behind)["status"], one.get(behind, "why")["code"]) == ("queued", "agent_missing")
    assert one.get(running)["status"] == "running"

    refused = reload(one, {"agents": {"spare": spare | {"function": "agents_for_tests:no_such"}}}, "reload_refused")
    assert "no_such" in refused["reason"]
    one.config_file.write_text("[runs\n")
    one.process.send_signal(signal.SIGHUP)
    wait_until(lambda: [line["event"] for line in one.log_lines].count("reload_refused") == 2)
    assert one.run("other")["status"] == "ok"

    config = {"runs": {"grace_seconds": 0.1}, "queues": {"narrow": {"concurrency": 9}}, "agents": {"spare": spare}}
    reload(one, config, "reloaded")
    assert one.wait(behind)["status"] == "ok"
    later = begun(one, "awaiter")
    one.stop_run(later)
    assert one.events(well_ended(one, later)["id"], "cancel.escalated")[1]["data"]["after_ms"] < 600

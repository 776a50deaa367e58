"""Tools of MCP servers, by both transports: started for a run or for all, watched, ended."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import Daemon, wait_until
from tests.endpoint import Call, Endpoint, Gate, Say
from tests.models.conftest import MCP, READY, Ledger, living

ENV = ["PATH", "PYTHONPATH", "LEDGER"]


@pytest.fixture(scope="module")
def served(
    endpoint: Endpoint, http_tools: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:  # fmt: skip
    agent = {**READY, "agent": "agents_on_models:bare"}
    more: dict[str, Any] = {
        "tools": {
            "own": {"use": "mcp", "argv": MCP, "env": ENV, "secrets": {"KEPT": "secret:kept"}, "prefix": "my_"},
            "common": {"use": "mcp", "argv": MCP, "env": ENV, "shared": True},
            "web": {"use": "mcp", "url": http_tools, "headers": {"Authorization": "Bearer secret:kept"}},
            "gone": {"use": "mcp", "argv": ["/no/such/program"]},
            "mute": {"use": "mcp", "argv": ["/bin/sleep", "60"], "start_seconds": 0.5},
        },
        "agents": {
            "own": {**agent, "tools": ["own"]},
            "common": {**agent, "tools": ["common"]},
            "web": {**agent, "tools": ["web"], "policy": {"broken": "deny"}},
            "gone": {**agent, "tools": ["gone"]},
            "mute": {**agent, "tools": ["mute"]},
        },
    }
    with living(endpoint, tmp_path_factory.mktemp("served"), **more) as one:
        yield one


@pytest.fixture
def done(served: Daemon) -> Ledger:
    (served.home / "ledger").unlink(missing_ok=True)
    return Ledger(served.home)


def servers(daemon: Daemon) -> list[psutil.Process]:
    """The MCP servers that a daemon has running."""
    children = psutil.Process(daemon.process.pid).children(recursive=True)
    return [child for child in children if "tests.mcp_server" in " ".join(child.cmdline())]


def test_a_server_that_is_started_for_a_run(served: Daemon, endpoint: Endpoint, done: Ledger) -> None:
    run = served.run("own", endpoint.script("stdio", Call("my_shout", text="hello"), Say("LOUD")))
    assert (run["status"], run["output"]) == ("ok", "LOUD")
    assert endpoint.told("stdio") == ["HELLO"]
    tools = {tool["function"]["name"]: tool["function"] for tool in endpoint.of("stdio")[0].body["tools"]}
    assert set(tools) == {"my_shout", "my_secret", "my_broken", "my_die"}
    assert tools["my_shout"]["description"] == "Says it louder."
    (called,) = served.events(run["id"], "tool.called")
    assert called["data"]["tool"] == "my_shout"
    assert len(done.lines("begin")) == 1


def test_it_ends_with_the_run(served: Daemon, endpoint: Endpoint, done: Ledger) -> None:
    gate = Gate()
    run = served.post_run("own", endpoint.script("ends", Say("one two", pieces=2, gate=gate, held_at=1)))
    assert gate.reached.wait(20)
    (pid,) = {int(line.split()[-1]) for line in done.lines("begin")}
    assert psutil.pid_exists(pid)
    served.stop_run(run["id"], mode="now")
    served.wait(run["id"], "cancelled")
    wait_until(lambda: not psutil.pid_exists(pid))
    gate.open()


def test_it_gets_what_it_is_given_and_no_more(served: Daemon, endpoint: Endpoint) -> None:
    served.run("own", endpoint.script("env", Call("my_secret"), Say("ok")))
    assert endpoint.told("env") == ["well kept nothing"]


def test_a_tool_that_fails_there_is_told_to_the_model(served: Daemon, endpoint: Endpoint) -> None:
    run = served.run("own", endpoint.script("mcp-broken", Call("my_broken"), Say("broken")))
    assert run["status"] == "ok"
    assert "broken" in endpoint.told("mcp-broken")[0]


def test_a_server_that_dies_is_told_to_the_model_and_started_again(
    served: Daemon, endpoint: Endpoint, done: Ledger
) -> None:
    goal = endpoint.script("dies", Call("my_die"), Call("my_shout", text="again"), Say("ok"))
    run = served.run("own", goal)
    assert run["status"] == "ok"
    told = endpoint.told("dies")
    assert "went away" in told[0]
    assert told[1] == "AGAIN"
    assert len(done.lines("begin")) == 2


def test_a_shared_server_is_started_once_for_all_runs(served: Daemon, endpoint: Endpoint, done: Ledger) -> None:
    goal = endpoint.script("common", Call("shout", text="x"), Say("ok"))
    runs = [served.post_run("common", goal) for _ in range(4)]
    assert {served.wait(run["id"])["status"] for run in runs} == {"ok"}
    assert len({line.split()[-1] for line in done.lines("shout")}) == 1
    died = served.run("common", endpoint.script("common-dies", Call("die"), Call("shout", text="y"), Say("ok")))
    assert died["status"] == "ok"
    assert len({line.split()[-1] for line in done.lines("shout")}) == 2


def test_a_server_by_streamable_http(served: Daemon, endpoint: Endpoint) -> None:
    goal = endpoint.script("web", Call.several(("shout", {"text": "a"}), ("broken", {})), Say("ok"))
    run = served.run("web", goal)
    assert run["status"] == "ok"
    told = endpoint.told("web")
    assert told[0] == "A"
    assert "policy" in told[1]


@pytest.mark.parametrize("agent", ["gone", "mute"])
def test_a_server_that_does_not_come_up_fails_the_run(served: Daemon, agent: str) -> None:
    run = served.run(agent, "hello")
    assert (run["status"], run["error"]["code"]) == ("failed", "tool_server_failed")
    assert agent in run["error"]["message"]


def test_no_server_outlives_the_daemon(served: Daemon, endpoint: Endpoint, done: Ledger) -> None:
    gate = Gate()
    served.post_run("own", endpoint.script("orphan", Say("one two", pieces=2, gate=gate, held_at=1)))
    assert gate.reached.wait(20)
    pids = [server.pid for server in servers(served)]
    assert len(pids) >= 1
    served.kill()
    wait_until(lambda: not any(_alive(pid) for pid in pids))
    gate.open()
    served.start()


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_kernel_ends_what_does_not_listen_to_its_input() -> None:
    leash = Path(__file__).parents[2] / "latticed" / "agents" / "leash.py"
    script = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-S", {str(leash)!r}, "/bin/sleep", "600"])
print(child.pid, flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid = int(parent.stdout.readline())
    wait_until(lambda: psutil.Process(pid).name() == "sleep")
    parent.kill()
    parent.wait(10)
    wait_until(lambda: not _alive(pid))
    parent.stdout.close()
    parent.stdin.close()

"""Tools of MCP servers, by both transports: started for a run or for all, watched, ended."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT, Daemon, wait_until
from tests.endpoint import Asked, Call, Endpoint, Gate, Say
from tests.models.conftest import MCP, READY, Ledger, living, settings

ENV = ["PATH", "PYTHONPATH", "LEDGER"]
RUDE = [sys.executable, str(ROOT / "tests" / "rude_server.py")]
DYING = "echo $KEPT is no licence >&2; exit 3"
FAIL = (
    ("gone", "could not be reached: /no/such/program: no such program"),
    ("mute", "could not be reached: it took too long"),
    ("dying", "could not be reached: it ended with status 3: [redacted] is no licence"),
    ("lost", "its cwd /no/such/folder is not a directory"),
    ("listless", "did not tell its tools: it took too long"),
)
"""Agents whose server does not come up, and what is said of that."""


class Moody:
    """An MCP server by HTTP that forgets its sessions when it is told to."""

    def __init__(self) -> None:
        self.sessions = 0
        self.known = ""
        self.refuses = 0
        """So many more are told that it is away."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, said = outer.answer(asked, self.headers.get("mcp-session-id"))
                body = json.dumps({"jsonrpc": "2.0", "id": asked.get("id"), **said}).encode() if said else b""
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("mcp-session-id", outer.known)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/mcp"
        Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, asked: dict[str, Any], session: str | None) -> tuple[int, dict[str, Any]]:
        if asked["method"] == "initialize":
            if self.refuses:
                self.refuses -= 1
                return 503, {}
            self.sessions += 1
            self.known = f"session-{self.sessions}"
            about = {"serverInfo": {"name": "moody", "version": "1"}, "capabilities": {"tools": {}}}
            return 200, {"result": {"protocolVersion": asked["params"]["protocolVersion"], **about}}
        if session is None:
            return 400, {"error": {"code": -32600, "message": "no session"}}
        if session != self.known:
            return 404, {}
        if asked["method"] == "tools/list":
            return 200, {"result": {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}}
        if asked["method"] == "tools/call":
            return 200, {"result": {"content": [{"type": "text", "text": f"in {session}"}]}}
        return 202, {}


@pytest.fixture(scope="module")
def moody() -> Iterator[Moody]:
    one = Moody()
    try:
        yield one
    finally:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture(scope="module")
def served(
    endpoint: Endpoint, http_tools: str, moody: "Moody", tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:  # fmt: skip
    agent = {**READY, "agent": "agents_on_models:bare"}
    more: dict[str, Any] = {
        "tools": {
            "own": {"use": "mcp", "argv": MCP, "env": ENV, "secrets": {"KEPT": "secret:kept"}, "prefix": "my_"},
            "common": {"use": "mcp", "argv": MCP, "env": ENV, "shared": True},
            "dumb": {"use": "mcp", "argv": ["/bin/sleep", "61"], "shared": True, "start_seconds": 60.0},
            "web": {"use": "mcp", "url": http_tools, "headers": {"Authorization": "Bearer secret:kept"}},
            "late": {"use": "mcp", "argv": ["/bin/sleep", "62"], "shared": True, "start_seconds": 1.0},
            "gone": {"use": "mcp", "argv": ["/no/such/program"]},
            "mute": {"use": "mcp", "argv": ["/bin/sleep", "60"], "start_seconds": 0.5},
            "dying": {
                "use": "mcp",
                "argv": ["sh", "-c", DYING],
                "secrets": {"KEPT": "secret:kept"},
                "start_seconds": 1.0,
            },
            "lost": {"use": "mcp", "argv": MCP, "cwd": "/no/such/folder"},
            "listless": {"use": "mcp", "argv": [*RUDE, "listless"], "start_seconds": 1.0},
            "rude": {"use": "mcp", "argv": RUDE},
            "slow": {"use": "mcp", "argv": RUDE, "timeout_seconds": 0.5},
            "moody": {"use": "mcp", "url": moody.url, "shared": True},
            "own_moody": {"use": "mcp", "url": moody.url},
        },
        "agents": {
            "own": {**agent, "tools": ["own"]},
            "common": {**agent, "tools": ["common"]},
            "web": {**agent, "tools": ["web"], "policy": {"broken": "deny"}},
            "piped": {"use": "pipeline", "model": "local", "tools": ["own"], "default_roles": ["executor"]},
            **{
                name: {**agent, "tools": [name]}
                for name in (*(name for name, _ in FAIL), "rude", "slow", "moody", "dumb", "late", "own_moody")
            },
        },
    }
    with living(endpoint, tmp_path_factory.mktemp("served"), **more) as one:
        yield one


@pytest.fixture
def done(served: Daemon) -> Ledger:
    (served.home / "ledger").unlink(missing_ok=True)
    return Ledger(served.home)


def below(daemon: Daemon, word: str) -> list[int]:
    """The processes below a daemon that have this word in their command line."""
    found = []
    for child in psutil.Process(daemon.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if word in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


def test_a_server_that_is_started_for_a_run(served: Daemon, endpoint: Endpoint, done: Ledger) -> None:
    run = served.run("own", endpoint.script("stdio", Call("my_shout", text="hello"), Say("LOUD")))
    assert (run["status"], run["output"]) == ("ok", "LOUD")
    assert endpoint.told("stdio") == ["HELLO"]
    tools = {tool["function"]["name"]: tool["function"] for tool in endpoint.of("stdio")[0].body["tools"]}
    assert set(tools) == {"my_shout", "my_secret", "my_variables", "my_breed", "my_broken", "my_die"}
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


def test_a_pipeline_has_one_for_all_its_steps(served: Daemon, endpoint: Endpoint, done: Ledger) -> None:
    def shout_then_speak(asked: Asked) -> Call | Say:
        answered = any(message["role"] == "tool" for message in asked.body["messages"])
        return Say("done") if answered else Call("my_shout", text="step")

    goal = endpoint.script("piped", shout_then_speak)
    run = served.run("piped", goal, inputs={"steps": [f"{goal} {number}" for number in range(3)]})
    assert run["status"] == "ok", run["error"]
    assert len(done.lines("shout")) == 3
    (pid,) = {int(line.split()[-1]) for line in done.lines("begin")}
    wait_until(lambda: not _alive(pid))


def test_it_gets_what_it_is_given_and_no_more(served: Daemon, endpoint: Endpoint) -> None:
    served.run("own", endpoint.script("env", Call("my_secret"), Call("my_variables"), Say("ok")))
    assert endpoint.told("env") == ["well kept", "KEPT LATTICED_RUN_ID LEDGER PATH PYTHONPATH"]


def test_it_is_told_whose_tools_an_agent_has(served: Daemon, http_tools: str) -> None:
    agents = served.agents
    assert agents["dying"]["tools"][0]["description"] == "The tools of an MCP server started by sh."
    assert agents["web"]["tools"][0]["description"] == "The tools of an MCP server at 127.0.0.1."


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


def test_a_shared_server_that_does_not_answer_keeps_nobody_from_another(
    served: Daemon, endpoint: Endpoint, done: Ledger
) -> None:
    dumb = served.post_run("dumb", "hello")
    served.wait(dumb["id"], "running")
    wait_until(lambda: below(served, "/bin/sleep 61"))
    assert served.run("common", endpoint.script("beside-dumb", Call("shout", text="z"), Say("ok")))["status"] == "ok"
    served.stop_run(dumb["id"], mode="now")
    served.wait(dumb["id"], "cancelled")
    wait_until(lambda: not below(served, "/bin/sleep 61"))


def test_those_who_wait_for_a_shared_server_that_does_not_come_up_wait_once(served: Daemon) -> None:
    began = time.monotonic()
    runs = [served.post_run("late", "hello") for _ in range(6)]
    ended = [served.wait(run["id"]) for run in runs]
    assert {run["error"]["code"] for run in ended} == {"tool_server_failed"}
    assert all("it took too long" in run["error"]["message"] for run in ended)
    assert time.monotonic() - began < 9.0, "each on its own they take three seconds a run"
    assert served.run("late", "hello")["error"]["code"] == "tool_server_failed", "who comes later tries again"


def test_a_shared_server_that_a_reload_has_replaced_ends_with_the_last_run_that_uses_it(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    def tables(prefix: str) -> dict[str, Any]:
        common = {"use": "mcp", "argv": MCP, "env": ENV, "shared": True, "prefix": prefix}
        agent = {**READY, "agent": "agents_on_models:bare", "tools": ["common"]}
        return {"tools": {"common": common}, "agents": {"common": agent}}

    with living(endpoint, tmp_path, **tables("")) as one:
        done = Ledger(one.home)
        gate = Gate()
        last = Say("one two", pieces=2, gate=gate, held_at=1)
        run = one.post_run("common", endpoint.script("replaced", Call("shout", text="a"), last))
        assert gate.reached.wait(20)
        (old,) = {int(line.split()[-1]) for line in done.lines("begin")}
        one.configure(settings(endpoint, **tables("new_")))
        one.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "reloaded" in one.log)
        assert one.run("common", endpoint.script("new", Call("new_shout", text="b"), Say("ok")))["status"] == "ok"
        assert endpoint.told("new") == ["B"]
        assert _alive(old)
        gate.open()
        assert one.wait(run["id"])["status"] == "ok"
        wait_until(lambda: not _alive(old))


def test_a_server_by_streamable_http(served: Daemon, endpoint: Endpoint) -> None:
    goal = endpoint.script("web", Call.several(("shout", {"text": "a"}), ("broken", {})), Say("ok"))
    run = served.run("web", goal)
    assert run["status"] == "ok"
    told = endpoint.told("web")
    assert told[0] == "A"
    assert "policy" in told[1]


@pytest.mark.parametrize(("agent", "said"), FAIL, ids=[name for name, _ in FAIL])
def test_a_server_that_does_not_come_up_fails_the_run_and_it_is_said_why(
    served: Daemon, agent: str, said: str
) -> None:  # fmt: skip
    run = served.run(agent, "hello")
    assert (run["status"], run["error"]["code"]) == ("failed", "tool_server_failed")
    assert f"the MCP server {agent} " in run["error"]["message"]
    assert said in run["error"]["message"]


def test_what_a_server_refuses_is_told_to_the_model_as_often_as_it_does(served: Daemon, endpoint: Endpoint) -> None:
    calls = (Call("refuse"), Call("refuse"), Call("refuse"), Call("nonsense"), Call("echo"))
    run = served.run("rude", endpoint.script("rude", *calls, Say("ok")))
    assert run["status"] == "ok", run["error"]
    told = endpoint.told("rude")
    assert [json.loads(each) for each in told[:3]] == [{"error": "not like this"}] * 3
    assert "CallToolResult" in told[3]
    assert told[4] == "polite"


def test_what_the_library_has_to_say_is_in_the_log(served: Daemon, endpoint: Endpoint) -> None:
    served.run("rude", endpoint.script("pages", Call("echo"), Say("ok")))
    assert any("duplicate pagination cursor" in line["event"] for line in served.log_lines)
    assert all(line.startswith("{") for line in served.log.splitlines())


def test_a_tool_is_given_up_when_its_time_is_over(served: Daemon, endpoint: Endpoint) -> None:
    run = served.run("slow", endpoint.script("ponder", Call("ponder"), Call("echo"), Say("ok")))
    assert run["status"] == "ok", run["error"]
    told = endpoint.told("ponder")
    assert "took longer than 0.5 s" in told[0]
    assert told[1] == "polite"


def test_a_server_that_writes_without_end_is_told_to_the_model(served: Daemon, endpoint: Endpoint) -> None:
    run = served.run("rude", endpoint.script("babble", Call("babble"), Call("echo"), Say("ok")))
    assert run["status"] == "ok", run["error"]
    told = endpoint.told("babble")
    assert "a line of more than 8 MiB" in told[0]
    assert told[1] == "polite"


def test_a_session_that_its_server_has_forgotten_is_made_anew(
    served: Daemon, endpoint: Endpoint, moody: Moody
) -> None:  # fmt: skip
    first = moody.sessions + 1
    served.run("moody", endpoint.script("moody", Call("echo"), Say("ok")))
    assert endpoint.told("moody") == [f"in session-{first}"]
    moody.known = "none"
    run = served.run("moody", endpoint.script("moody", Call("echo"), Call("echo"), Say("ok")))
    assert run["status"] == "ok", run["error"]
    told = endpoint.told("moody")
    assert "went away" in told[0]
    assert told[1] == f"in session-{first + 1}"


def test_what_a_server_has_started_ends_with_the_run(served: Daemon, endpoint: Endpoint, done: Ledger) -> None:
    served.run("own", endpoint.script("breeds", Call("my_breed"), Say("ok")))
    (pid,) = {int(line.split()[-1]) for line in done.lines("bred")}
    wait_until(lambda: not _alive(pid))


def test_nothing_of_a_server_outlives_the_daemon(served: Daemon, endpoint: Endpoint, done: Ledger) -> None:
    gate = Gate()
    for agent, tool in (("own", "my_breed"), ("common", "breed")):
        last = Say("one two", pieces=2, gate=gate, held_at=1)
        served.post_run(agent, endpoint.script(f"orphan-{agent}", Call(tool), last))
    wait_until(lambda: len(done.lines("bred")) == 2 and gate.reached.is_set())
    pids = [int(line.split()[-1]) for line in done.lines("bred")]
    pids += below(served, "tests.mcp_server")
    assert len(pids) >= 4
    served.kill()
    wait_until(lambda: not any(_alive(pid) for pid in pids))
    gate.open()
    served.start()


def test_a_server_that_is_away_when_a_run_is_entered_again_is_tried_again(
    served: Daemon, endpoint: Endpoint, moody: Moody
) -> None:
    gate = Gate()
    last = Say("one two", pieces=2, gate=gate, held_at=1)
    run = served.post_run("own_moody", endpoint.script("away", Call("echo"), last))
    wait_until(gate.reached.is_set)
    served.kill()
    gate.open()
    moody.refuses = 2
    served.start()
    run = served.wait(run["id"])
    assert (run["status"], run["output"]) == ("ok", "one two"), run["error"]
    assert moody.refuses == 0
    assert endpoint.asked("away")[0] == 1


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

"""A daemon whose agents work on a scripted model."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Daemon, merged, wait_until
from tests.endpoint import Endpoint, serving

READY = {"use": "pydantic-ai", "agent": "agents_on_models:helper", "model": "local"}
MCP = [sys.executable, "-m", "tests.mcp_server"]


def settings(endpoint: Endpoint, **more: Any) -> dict[str, Any]:
    """The configuration of the tests of this folder, with `more` laid over it."""
    local = {"model": "scripted", "base_url": endpoint.url, "timeout_seconds": 20.0}
    tools = {
        "weather": {"use": "function", "function": "agents_on_models:weather"},
        "occupied": {"use": "function", "function": "agents_on_models:occupied"},
        "echo_run": {"use": "agent", "target": "echo", "description": "Runs a child."},
        "failing_run": {"use": "agent", "target": "failer"},
        "endless_run": {"use": "agent", "target": "asker", "timeout_seconds": 0.5},
        "programs": {"use": "command", "allow": [["echo"], ["sleep"], ["sh", "-c", "exit 3"]]},
        "served": {
            "use": "mcp",
            "argv": MCP,
            "env": ["PATH", "PYTHONPATH", "LEDGER"],
            "secrets": {"KEPT": "secret:kept"},
        },
    }
    config = {
        "models": {
            "local": local,
            "keyed": {**local, "key": "secret:model-key"},
            "priced": {**local, "input_usd_per_million": 1000.0, "output_usd_per_million": 2000.0},
            "short": {**local, "timeout_seconds": 0.3, "attempts": 2},
            "once": {**local, "attempts": 1},
            "nowhere": {"model": "x", "base_url": "http://127.0.0.1:9/v1", "attempts": 1},
        },
        "tools": tools,
        "agents": {
            "helper": READY,
            "judge": {**READY, "agent": "agents_on_models:judge"},
            "bare": {"use": "pydantic-ai", "agent": "agents_on_models:bare"},
            "armed": {
                **READY,
                "agent": "agents_on_models:bare",
                "tools": ["weather", "echo_run", "failing_run", "endless_run", "programs"],
            },
            "busy": {**READY, "agent": "agents_on_models:bare", "tools": ["occupied"]},
            "staged": {**READY, "simulation": [{"tool": "add", "args": {"a": 2, "b": 2}}, "four"]},
            "wary": {**READY, "policy": {"plain_*": "deny", "add": "ask"}, "approval_seconds": 3600.0},
            "asks_all": {**READY, "policy": {"*": "ask"}},
            "drops_nothing": {**READY, "policy": {"drop": "deny"}},
            "armed_and_asked": {
                **READY,
                "agent": "agents_on_models:bare",
                "tools": ["programs"],
                "policy": {"*": "ask"},
            },
            "nowhere": {**READY, "model": "nowhere"},
            "keyless": {**READY, "model": "groq:llama"},
            "hooked": READY,
            "hasty": {**READY, "tool_seconds": 0.2},
            "keyed": {**READY, "model": "keyed"},
            "impatient": {**READY, "model": "short"},
            "one_try": {**READY, "model": "once"},
            "two_requests": {**READY, "budget": {"max_requests": 2}},
            "three_requests": {**READY, "budget": {"max_requests": 3}},
            "no_requests": {**READY, "budget": {"max_requests": 0}},
            "few_tokens": {**READY, "budget": {"max_tokens": 20}},
            "cheap": {**READY, "model": "priced", "budget": {"max_cost_usd": 0.03}},
        },
        "hooks": {
            name: {"use": "python", "point": point, "function": f"hooks_on_tools:{name}", "targets": ["hooked"]}
            for name, point in (("guard", "pre_tool"), ("witness", "post_tool"))
        },
    }
    return merged(config, more)


def environment(folder: Path) -> dict[str, str]:
    """Where tools write what they do, and the secrets."""
    return {
        "LEDGER": str(folder / "ledger"),
        "LATTICED_SECRET_MODEL_KEY": "sk-very-secret",
        "LATTICED_SECRET_KEPT": "well kept",
    }


class Ledger:
    """What the tools of a daemon have done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lines(self, beginning: str = "") -> list[str]:
        try:
            text = (self.folder / "ledger").read_text()
        except FileNotFoundError:
            return []
        return [line for line in text.splitlines() if line.startswith(beginning)]

    def touch(self, name: str) -> None:
        (self.folder / name).touch()


@contextmanager
def living(endpoint: Endpoint, folder: Path, **more: Any) -> Iterator[Daemon]:
    """A daemon with these settings, for as long as this lasts."""
    one = Daemon(folder, config=settings(endpoint, **more), env=environment(folder))
    try:
        yield one.start()
    finally:
        one.close()


@pytest.fixture(scope="session")
def endpoint() -> Iterator[Endpoint]:
    """The scripted model, for all tests."""
    with serving() as one:
        yield one


@pytest.fixture(scope="session")
def modelled(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the tests that do not stop it."""
    with living(endpoint, tmp_path_factory.mktemp("modelled")) as one:
        yield one


@pytest.fixture(scope="session")
def ledger(modelled: Daemon) -> Ledger:
    """What the tools of `modelled` have done."""
    return Ledger(modelled.home)


@pytest.fixture(scope="module")
def mortal(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that may be killed, and is to be left running."""
    with living(endpoint, tmp_path_factory.mktemp("mortal")) as one:
        yield one


@pytest.fixture
def done(mortal: Daemon) -> Ledger:
    """What the tools of `mortal` have done, from now on."""
    (mortal.home / "ledger").unlink(missing_ok=True)
    return Ledger(mortal.home)


@pytest.fixture(scope="session")
def http_tools() -> Iterator[str]:
    """An MCP server by streamable HTTP; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*MCP, str(port)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
    )  # fmt: skip
    try:
        wait_until(lambda: _answers(port), 20)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait(10)


def _answers(port: int) -> bool:
    with socket.socket() as door:
        return door.connect_ex(("127.0.0.1", port)) == 0


def approve(daemon: Daemon, run_id: str, decision: str = "approve", comment: str = "") -> dict[str, Any]:
    """Answers the one open question of a run, once it is there; the question."""
    daemon.wait(run_id, "awaiting_approval")
    asked = list(pending(daemon, run_id))
    assert len(asked) == 1, json.dumps(asked)
    answer(daemon, asked[0], decision, comment)
    return asked[0]


def pending(daemon: Daemon, run_id: str) -> list[dict[str, Any]]:
    """The open questions of a run, oldest first."""
    found = daemon.client.get(daemon.path("approvals"), params={"status": "pending", "limit": 500}).json()["items"]
    return [item for item in reversed(found) if item["run_id"] == run_id]


def answer(daemon: Daemon, asked: dict[str, Any], decision: str, comment: str = "") -> None:
    """Answers a question."""
    body = {"decision": decision, "comment": comment}
    said = daemon.client.post(daemon.path(f"approvals/{asked['id']}"), json=body)
    assert said.status_code == 200, said.text

"""Runs that are simulated, and agents that cannot run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Daemon
from tests.endpoint import Endpoint
from tests.models.conftest import environment, settings


def refusal(daemon: Daemon, target: str, **fields: str) -> str:
    body = {"target": target, "goal": "hello", **fields}
    answer = daemon.client.post(daemon.path("runs"), json=body)
    assert answer.status_code == 422, answer.text
    detail: str = answer.json()["detail"]
    return detail


def test_a_simulation_asks_nobody_and_says_so_in_the_run_and_in_every_event(
    modelled: Daemon, endpoint: Endpoint
) -> None:
    before = len(endpoint.requests)
    runs = [modelled.run("helper", "hello there", mode="simulation") for _ in range(2)]
    assert len(endpoint.requests) == before
    assert runs[0]["output"] == runs[1]["output"] == "Simulated answer of helper to: hello there"
    assert runs[0]["mode"] == "simulation"
    events = modelled.events(runs[0]["id"])
    assert len(events) > 4
    assert all(event["data"]["simulation"] is True for event in events)
    live = modelled.run("echo", "hello")
    assert not any("simulation" in event["data"] for event in modelled.events(live["id"]))


def test_an_object_is_made_up_that_fits(modelled: Daemon) -> None:
    run = modelled.run("judge", "hello", mode="simulation")
    assert run["status"] == "ok"
    assert set(run["output"]) == {"name", "people"}


def test_a_script_is_followed(modelled: Daemon) -> None:
    run = modelled.run("staged", "hello", mode="simulation")
    assert run["output"] == "four"
    (returned,) = modelled.events(run["id"], "tool.returned")
    assert returned["data"]["result"] == 4


def test_a_live_run_without_a_model_is_refused_and_told_what_to_configure(modelled: Daemon) -> None:
    assert "set agents.bare.model to the name of a table [models" in refusal(modelled, "bare")
    assert modelled.run("bare", "hello", mode="simulation")["status"] == "ok"


def test_an_agent_without_a_model_is_not_simulated(modelled: Daemon) -> None:
    assert "no model to simulate" in refusal(modelled, "echo", mode="simulation")


@pytest.mark.parametrize("package", ["pydantic_ai", "openai"])
def test_what_is_not_installed_is_named(
    daemon: Callable[..., Daemon], endpoint: Endpoint, tmp_path: Path, package: str
) -> None:  # fmt: skip
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")
    without = daemon(config=settings(endpoint), env=environment(tmp_path), start=False)
    without.env["PYTHONPATH"] = f"{tmp_path / 'without'}:{without.environment['PYTHONPATH']}"
    without.start()
    helper = without.agents["helper"]
    assert (helper["available"], helper["missing"]) == (False, "the extra agents: pip install 'latticed[agents]'")
    assert helper["modes"] == []
    lacks = "agent 'helper' cannot run: it lacks the extra agents: pip install 'latticed[agents]'"
    assert lacks in refusal(without, "helper")
    assert "pip install 'latticed[agents]'" in refusal(without, "helper", mode="simulation")
    assert without.run("echo", "hello")["status"] == "ok"

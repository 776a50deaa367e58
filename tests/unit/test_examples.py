"""The configurations to begin with can be loaded, and the agents in them are what they say."""

from pathlib import Path

import pytest

from latticed.config import PipelineConfig, load, loading
from latticed.plugins import Agents

EXAMPLES = sorted((Path(__file__).parents[2] / "config" / "examples").glob("*.toml"))
SECRETS = {f"LATTICED_SECRET_{name}": "x" for name in ("OPENAI", "ANTHROPIC", "TICKETS")}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_can_be_loaded(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "SYSTEM_FILE", tmp_path / "none")
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    config = load(file, tmp_path, {}, {})
    agents = Agents(config)
    views = agents.views()
    assert {view["name"] for view in views} >= set(config.agents)
    assert all(view["available"] for view in views), views
    for name, agent in config.agents.items():
        if isinstance(agent, PipelineConfig):
            assert agents.find("agent", name) is not None
            assert agent.model_of("planner") in config.models


def test_there_are_examples_of_each_sort() -> None:
    assert {file.stem for file in EXAMPLES} == {"ollama", "openai", "anthropic", "coding-agent", "tools"}

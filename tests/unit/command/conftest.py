"""Fixtures of the tests of commands."""

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import psutil
import pytest

from latticed.agents.command import CommandAgent
from latticed.config import CommandConfig
from tests.unit.command.rig import Children, FakeContext, Run, config


@pytest.fixture
def ctx() -> FakeContext:
    return FakeContext()


@pytest.fixture
def run(tmp_path: Path, ctx: FakeContext) -> Run:
    """Runs an argv (or a configuration) to its end."""

    def start(
        *argv: str | CommandConfig, goal: str = "goal", inputs: dict[str, Any] | None = None, limit: int = 1 << 20
    ) -> Awaitable[Any]:
        given = argv[0] if isinstance(argv[0], CommandConfig) else config(*map(str, argv))
        agent = CommandAgent(given, "tried", tmp_path, output_limit_bytes=limit)
        return agent.run(ctx, goal, inputs or {})

    return start


@pytest.fixture
def children() -> Children:
    """The child processes that were not there before the test; the daemon of other tests may have been."""
    before = psutil.Process().children()
    return lambda: [child for child in psutil.Process().children() if child not in before]

"""A daemon for the tests of steps and waits: it is quick to unwind, and its agents stand in the test files."""

from collections.abc import Iterator

import pytest

from tests.beside import agents_in
from tests.conftest import Daemon

FILES = ("steps", "plain_agents", "waits", "signals", "approvals", "children", "queues", "bad_user_code")
PARK = 0.1
"""How long its runs wait in place, in seconds."""


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """The daemon, for tests that do not stop it."""
    one = Daemon(tmp_path_factory.mktemp("quick"), config=quick_config())
    try:
        yield one.start()
    finally:
        one.close()


def quick_config(**runs: float) -> dict[str, object]:
    """What it is configured with; `runs` are changes to that table."""
    agents = agents_in(*(f"tests.contract.test_{name}" for name in FILES))
    return {"runs": {"park_seconds": PARK} | runs, "agents": agents}


GRACE = KILL = 0.4
"""How long the hasty daemon waits between two rungs, in seconds."""


@pytest.fixture(scope="session")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that is quick to lose its patience, for tests that do not stop it."""
    runs = {"grace_seconds": GRACE, "kill_seconds": KILL, "park_seconds": 0.2}
    one = Daemon(tmp_path_factory.mktemp("hasty"), config={"runs": runs, "queues": {"narrow": {"concurrency": 1}}})
    try:
        yield one.start()
    finally:
        one.close()


@pytest.fixture(scope="session")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One on which everything waits in place, and that never goes beyond the first rung by itself."""
    runs = {"grace_seconds": 600.0, "kill_seconds": 600.0, "park_seconds": 7200.0}
    one = Daemon(tmp_path_factory.mktemp("patient"), config={"runs": runs})
    try:
        yield one.start()
    finally:
        one.close()

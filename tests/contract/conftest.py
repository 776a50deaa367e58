"""Daemons for the tests of steps, waits and queues; their agents stand in the test files."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.beside import agents_in
from tests.conftest import Daemon

FILES = (
    "steps",
    "plain_agents",
    "waits",
    "signals",
    "approvals",
    "children",
    "queues",
    "bad_user_code",
    "bad_endings",
    "reruns",
    "replay",
    "pages",
)
PARK = 0.1
"""How long runs wait in place on these daemons, in seconds."""
NARROW = {"default": 3, "one": 1, "two": 2, "other": 2}
"""The queues of the narrow daemon."""


def configuration(queues: dict[str, int] | None = None, **runs: float) -> dict[str, Any]:
    """Quick to unwind, with all agents; `runs` are changes to that table."""
    agents = agents_in(*(f"tests.contract.test_{name}" for name in FILES))
    limits = {name: {"concurrency": limit} for name, limit in (queues or {}).items()}
    return {"runs": {"park_seconds": PARK} | runs, "queues": limits, "agents": agents}


def lived(one: Daemon) -> Iterator[Daemon]:
    try:
        yield one.start()
    finally:
        one.close()


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """For tests that do not stop it."""
    yield from lived(Daemon(tmp_path_factory.mktemp("quick"), config=configuration()))


@pytest.fixture
def unharmed(quick: Daemon) -> Iterator[None]:
    """The quick daemon goes on afterwards as if nothing had happened."""
    yield
    assert quick.post_run("echo", wait=10)["status"] == "ok"
    assert quick.client.get("/readyz").status_code == 200
    assert not [line for line in quick.log_lines if line["event"] == "executor_failed"]


@pytest.fixture(scope="session")
def doomed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """For tests that kill it and start it again."""
    yield from lived(Daemon(tmp_path_factory.mktemp("doomed"), config=configuration()))


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """With little room: four runs and two threads at a time. Each test gives all of it back."""
    one = Daemon(tmp_path_factory.mktemp("narrow"), config=configuration(NARROW, concurrency=4, threads=2))
    yield from lived(one)


GRACE = KILL = 0.4
"""How long the hasty daemon waits between two rungs, in seconds."""


@pytest.fixture(scope="session")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that is quick to lose its patience, for tests that do not stop it."""
    runs = {"grace_seconds": GRACE, "kill_seconds": KILL, "park_seconds": 0.2}
    config = {"runs": runs, "queues": {"narrow": {"concurrency": 1}}}
    yield from lived(Daemon(tmp_path_factory.mktemp("hasty"), config=config))


@pytest.fixture(scope="session")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One on which everything waits in place, and that never goes beyond the first rung by itself."""
    runs = {"grace_seconds": 600.0, "kill_seconds": 600.0, "park_seconds": 7200.0}
    yield from lived(Daemon(tmp_path_factory.mktemp("patient"), config={"runs": runs}))

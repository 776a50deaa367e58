"""What the lessons share: a daemon whose agents are the functions in the lessons' own files.

Read the lessons in the order of their numbers. Each shows an agent, which is what you would write, and then what can
be seen of its runs from outside. `daemon` and its verbs are in `tests/conftest.py`; they do nothing but HTTP.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.beside import agents_in
from tests.conftest import Daemon

HERE = Path(__file__).parent


def configuration() -> dict[str, Any]:
    lessons = sorted(f"tests.fundamentals.{path.stem}" for path in HERE.glob("test_*.py"))
    # Two seconds are what a run waits in place unless it is configured; the lessons are more impatient.
    return {"runs": {"park_seconds": 0.2}, "agents": agents_in(*lessons)}


@pytest.fixture(scope="session")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for lessons that leave it alone."""
    one = Daemon(tmp_path_factory.mktemp("lessons"), config=configuration(), executed=True)
    try:
        yield one.start()
    finally:
        one.close()


@pytest.fixture(scope="session")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for lessons that kill it and start it again."""
    one = Daemon(tmp_path_factory.mktemp("mortal"), config=configuration())
    try:
        yield one.start()
    finally:
        one.close()

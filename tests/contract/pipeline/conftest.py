"""One scripted model, and one daemon for the tests that do not stop it."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from tests.conftest import Daemon
from tests.contract.pipeline.roles import Cast, playing
from tests.endpoint import Endpoint, serving

_numbers = count(1)


@pytest.fixture(scope="session")
def endpoint() -> Iterator[Endpoint]:
    with serving() as one:
        yield one


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory, endpoint: Endpoint) -> Iterator[Daemon]:
    """For tests that do not stop it."""
    home = tmp_path_factory.mktemp("stage")
    with playing(home, endpoint, env={"SALES": str(home / "sales")}) as one:
        yield one.start()


@pytest.fixture
def cast(endpoint: Endpoint) -> Callable[..., Cast]:
    """Makes casts: `cast(reviewer=[RETRY, APPROVE])`."""
    return lambda **answers: Cast(endpoint, f"play{next(_numbers)}", **answers)


Casting = Callable[..., Any]

"""Daemons as users start them."""

from collections.abc import Callable
from functools import partial

import pytest

from tests.conftest import Daemon


@pytest.fixture
def daemon(daemon: Callable[..., Daemon]) -> Callable[..., Daemon]:
    return partial(daemon, executed=True)

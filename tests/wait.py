"""Waiting in tests: for what is waited for, never for a length of time."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout: float = 10, interval: float = 0.01) -> T:
    """The first truthy value of `predicate`, asked every `interval` seconds for at most `timeout` seconds."""
    pause = threading.Event()
    end = time.monotonic() + timeout
    while not (value := predicate()):
        assert time.monotonic() < end, f"not within {timeout} s: {_said(predicate)}"
        pause.wait(interval)
    return value


async def eventually(predicate: Callable[[], T], timeout: float = 10, interval: float = 0.002) -> T:
    """The same, with the event loop turning meanwhile."""
    end = time.monotonic() + timeout
    while not (value := predicate()):
        assert time.monotonic() < end, f"not within {timeout} s: {_said(predicate)}"
        try:
            await asyncio.wait_for(asyncio.Event().wait(), interval)
        except TimeoutError:
            continue
    return value


def _said(predicate: Callable[[], object]) -> str:
    code = getattr(predicate, "__code__", None)
    return f"{predicate.__qualname__}, line {code.co_firstlineno}" if code else repr(predicate)

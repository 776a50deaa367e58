"""Memory is given back once a burst is over, and not before."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from latticed.heap import MANY, Heap, trim
from latticed.models.records import Commit, RunRow

ROW = RunRow("run", "default", "agent", "some", "default", 0, "running", 1, 1, "me", 1, 0, None, None, 0, None, False,
             None, 0, "live")  # fmt: skip
MOVE = Commit([ROW], [], [], [])


class Clockwork:
    """Timers that go off when the test says so."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Any:
        self.timers.append(callback)
        return callback


async def test_it_is_given_back_once_a_burst_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clockwork = Clockwork()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clockwork)
    trims: list[int] = []
    heap = Heap(lambda: trims.append(1))
    for _ in range(MANY - 1):
        heap.told(MOVE)
    assert not clockwork.timers, "a little is not looked at"
    heap.told(MOVE)
    heap.told(MOVE)
    clockwork.timers.pop()()
    assert not trims, "it went on meanwhile"
    heap.told(MOVE)
    clockwork.timers.pop()()
    assert not trims
    clockwork.timers.pop()()
    assert trims == [1]
    assert not clockwork.timers
    for _ in range(MANY):
        heap.told(MOVE)
    clockwork.timers.pop()()
    assert trims == [1, 1], "and after the next"


def test_it_can_be_given_back_here() -> None:
    trim()

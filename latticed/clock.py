"""Time, by argument: no part of latticed asks the system for it on its own."""

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Where time comes from. Wall time is microseconds since the epoch, UTC."""

    def now(self) -> int:
        """Wall time in microseconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for measuring."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


def to_text(micros: int) -> str:
    """Microseconds since the epoch → RFC 3339 in UTC, microseconds kept."""
    return f"{_second(micros // 1_000_000)}.{micros % 1_000_000:06d}Z"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def from_text(text: str) -> int:
    """RFC 3339 with an offset → microseconds since the epoch.

    Raises:
        ValueError: not a time, or one without an offset.
    """
    return from_datetime(datetime.fromisoformat(text))


def from_datetime(moment: datetime) -> int:
    """An aware datetime → microseconds since the epoch.

    Raises:
        ValueError: a time without an offset, of which nobody knows what it means.
    """
    if moment.tzinfo is None:
        raise ValueError("the time needs an offset, such as 'Z'")
    whole = moment.astimezone(UTC)
    return int(whole.replace(microsecond=0).timestamp()) * 1_000_000 + whole.microsecond

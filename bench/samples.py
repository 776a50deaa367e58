"""The arithmetic of a benchmark: quantiles of samples, the spread of rounds, ratios. Pure, standard library only."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MS = 1e3
"""Milliseconds in a second."""


def quantile(values: Iterable[float], q: float) -> float:
    """The `q` quantile (0 to 1) by linear interpolation between the two nearest samples.

    Raises:
        ValueError: no values, or `q` outside 0 to 1.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("a quantile of no samples")
    if not 0 <= q <= 1:
        raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
    at = (len(ordered) - 1) * q
    low = math.floor(at)
    high = math.ceil(at)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def median(values: Iterable[float]) -> float:
    """The middle of the values; see `quantile`."""
    return quantile(values, 0.5)


def p50_p99(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """`{name}_p50_ms` and `{name}_p99_ms` of durations given in seconds."""
    return {
        f"{name}_p50_ms": quantile(seconds, 0.5) * MS,
        f"{name}_p99_ms": quantile(seconds, 0.99) * MS,
    }


@dataclass(frozen=True, slots=True)
class Spread:
    """What several rounds gave for one figure."""

    median: float
    low: float
    high: float
    rounds: int


def spread(rounds: Iterable[float]) -> Spread:
    """The median of the rounds with the lowest and the highest of them.

    Raises:
        ValueError: no rounds.
    """
    values = list(rounds)
    return Spread(median(values), min(values), max(values), len(values))


def times_better(ours: float, theirs: float, *, higher_is_better: bool) -> float | None:
    """How many times better `ours` is; below 1 it is worse. None where a ratio means nothing (zero, a negative)."""
    if ours <= 0 or theirs <= 0:
        return None
    return ours / theirs if higher_is_better else theirs / ours

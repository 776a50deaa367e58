"""The table that is printed, and the same as JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.figures import WORKLOADS, Figure
from bench.samples import Spread, spread, times_better

OURS = "latticed"
Rounds = dict[str, list[float]]
"""Key of a figure -> what each round gave."""


@dataclass
class Results:
    """What the rounds gave: side -> workload -> figure -> one value a round."""

    sides: Sequence[str]
    values: dict[str, dict[str, Rounds]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def add(self, side: str, workload: str, figures: Mapping[str, float]) -> None:
        """Takes in one round of one workload of one side."""
        rounds = self.values.setdefault(side, {}).setdefault(workload, {})
        for key, value in figures.items():
            rounds.setdefault(key, []).append(value)

    def spread(self, side: str, workload: str, key: str) -> Spread | None:
        """The median and the spread of a figure, if that side has it."""
        rounds = self.values.get(side, {}).get(workload, {}).get(key)
        return spread(rounds) if rounds else None

    def as_json(self) -> dict[str, Any]:
        """Every value of every round."""
        return {"values": self.values, "errors": self.errors}


def number(value: float) -> str:
    """A value with as many digits as it deserves; whole ones without any."""
    if not math.isfinite(value):
        return "never"
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cell(of: Spread | None) -> str:
    """`median (low..high)`."""
    if of is None:
        return "–"
    if of.rounds == 1 or of.low == of.high:
        return number(of.median)
    return f"{number(of.median)} ({number(of.low)}..{number(of.high)})"


def verdict(figure: Figure, of: Spread | None) -> str:
    """How a figure of ours stands to its goals."""
    if of is None or figure.reach is None or figure.aim is None:
        return ""
    goals = f"{number(figure.reach)} / {number(figure.aim)}"
    if figure.meets(of.median, figure.aim):
        return f"{goals} aim met"
    return f"{goals} reached" if figure.meets(of.median, figure.reach) else f"{goals} MISSED"


def ratio(results: Results, workload: str, figure: Figure, side: str) -> str:
    """How many times better ours is than that side."""
    ours, theirs = (results.spread(name, workload, figure.key) for name in (OURS, side))
    if ours is None or theirs is None:
        return "–"
    times = times_better(ours.median, theirs.median, higher_is_better=figure.higher_is_better)
    return "–" if times is None or not math.isfinite(times) else f"{number(times)} ×"


def table(results: Results) -> str:
    """Markdown: a line a figure; medians with the spread of the rounds, and how many times better ours is."""
    peers = [side for side in results.sides if side != OURS]
    head = ["what", "unit", OURS, "reach / aim", *peers, *(f"to {peer}" for peer in peers)]
    rows = [head]
    for workload, figures in WORKLOADS.items():
        for figure in figures:
            ours = results.spread(OURS, workload, figure.key)
            theirs = [results.spread(peer, workload, figure.key) for peer in peers]
            if ours is None and not any(theirs):
                continue
            ratios = [ratio(results, workload, figure, peer) for peer in peers]
            rows.append([figure.title, figure.unit, cell(ours), verdict(figure, ours), *map(cell, theirs), *ratios])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    padded = ([text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in rows)
    lines = ["| " + " | ".join(row) + " |" for row in padded]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)

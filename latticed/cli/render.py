"""Text for a person: aligned columns, relative times, status words."""

import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from latticed.clock import from_text

_COLOURS = {
    "ok": 32, "retried_ok": 32, "approved": 32, "partial": 33, "failed": 31, "rejected": 31, "denied": 31,
    "expired": 31, "cancelled": 35, "interrupted": 35, "cancelling": 35, "running": 36, "retrying": 33, "started": 36,
    "awaiting_approval": 33, "pending": 33, "error": 31, "dead": 31, "blocked": 31, "timeout": 31, "skipped": 33,
}  # fmt: skip
"""Status word → ANSI colour."""

_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

LONGEST = 80
"""How much of a free text stands in a column when nothing else limits it."""

Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Screen:
    """What text is made for.

    Attributes:
        now: wall time in microseconds, which relative times count from.
        width: columns of the terminal; None is no limit.
        colour: whether ANSI colours are understood.
    """

    now: int
    width: int | None = None
    colour: bool = False

    def status(self, word: str) -> str:
        """A status word in its colour."""
        colour = _COLOURS.get(word)
        return f"\x1b[{colour}m{word}\x1b[0m" if self.colour and colour else word

    def ago(self, at: str | None) -> str:
        """RFC 3339 → `3m ago` or `in 2h`; `-` for None."""
        if at is None:
            return "-"
        seconds = (self.now - from_text(at)) / 1_000_000
        if abs(seconds) < 1:
            return "now"
        return f"{_coarse(seconds)} ago" if seconds > 0 else f"in {_coarse(-seconds)}"

    def when(self, at: str | None) -> str:
        """RFC 3339 → local date and time, and how long ago that is; `-` for None."""
        return "-" if at is None else f"{_local(at):%Y-%m-%d %H:%M:%S} ({self.ago(at)})"

    def between(self, start: str | None, end: str | None) -> str:
        """How long something took or, if it has not ended, has taken; `-` if it has not begun."""
        if start is None:
            return "-"
        return took((self.now if end is None else from_text(end)) / 1000 - from_text(start) / 1000)


def took(milliseconds: float) -> str:
    """A duration: `12 ms`, `1.2 s`, `3m 4s`, `2h 5m`, `3d 4h`."""
    if milliseconds < 10:
        return f"{max(milliseconds, 0):.1f} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit} {rest}{small_unit}" if rest else f"{whole // size}{unit}"
    return f"{whole} s"


def clock_time(at: str) -> str:
    """RFC 3339 → local `12:00:01.123`."""
    moment = _local(at)
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"


def day(at: str) -> str:
    """RFC 3339 → the local date."""
    return f"{_local(at):%Y-%m-%d}"


def plain(text: object) -> str:
    """Free text on one line; whatever could command a terminal is shown in place of being obeyed."""
    return "".join(c if _is_harmless(c) else _escaped(c) for c in str(text))


def block(text: str) -> Iterator[str]:
    """Free text on as many lines as it has, with nothing in it that could command a terminal."""
    for line in text.split("\n"):
        yield "".join(c if c == "\t" or _is_harmless(c) else _escaped(c) for c in line.removesuffix("\r"))


def short(text: object, limit: int = LONGEST) -> str:
    """Free text on one line, runs of white space as one space, cut to `limit` columns."""
    whole = str(text)
    head = whole[: 4 * limit]  # a text may be a MiB
    line = " ".join(plain(word) for word in head.split())
    return _cut(line + ("…" if len(head) < len(whole) else ""), limit)


def value(anything: Any) -> str:
    """A JSON value on one line; a text stands without quotes."""
    return plain(anything) if isinstance(anything, str) else plain(json.dumps(anything, ensure_ascii=False))


def result(anything: Any) -> Iterator[str]:
    """A JSON value in full: a text as it is, anything else as indented JSON."""
    return block(anything if isinstance(anything, str) else json.dumps(anything, ensure_ascii=False, indent=2))


def fields(pairs: Iterable[tuple[str, str | None]]) -> Iterator[str]:
    """Names and values, one a line, values aligned; what is None or empty is left out."""
    given = [(name, text) for name, text in pairs if text]
    width = max((len(name) for name, _ in given), default=0)
    for name, text in given:
        yield f"  {name.ljust(width)}  {text}"


def table(heads: Row, rows: Iterable[Row], screen: Screen, empty: str, status: int | None = None) -> Iterator[str]:
    """Aligned columns; on a terminal the last one is cut at its edge.

    Args:
        empty: said in place of a table without rows.
        status: which column holds status words, to be coloured.
    """
    cells = [[plain(cell) for cell in row] for row in rows]
    if not cells:
        yield empty
        return
    widths = [max(columns(row[i]) for row in [heads, *cells]) for i in range(len(heads))]
    room = None
    if screen.width is not None:
        room = max(12, screen.width - sum(widths[:-1]) - 2 * (len(widths) - 1))
    for number, row in enumerate([list(heads), *cells]):
        line = []
        for i, cell in enumerate(row[:-1]):
            padding = " " * (widths[i] - columns(cell))
            line.append((screen.status(cell) if number and i == status else cell) + padding)
        line.append(row[-1] if room is None else _cut(row[-1], room))
        yield "  ".join(line).rstrip()


def columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(_columns(c) for c in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut(text: str, limit: int) -> str:
    """A text that takes no more than `limit` columns, with an ellipsis if something is missing."""
    if columns(text) <= limit:
        return text
    taken, kept = 0, []
    for character in text:
        taken += _columns(character)
        if taken > limit - 1:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…"


def _is_harmless(character: str) -> bool:
    if character.isprintable():
        return True
    # Spaces of other widths and what joins letters or emoji, but not what turns the direction of writing around.
    return unicodedata.category(character) in ("Zs", "Cf") and character not in _DIRECTIONS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _coarse(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _local(at: str) -> datetime:
    return datetime.fromtimestamp(from_text(at) / 1_000_000, UTC).astimezone()

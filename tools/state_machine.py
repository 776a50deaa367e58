"""Writes docs/state_machine.md from latticed/states.py.

Run by `make docs`; a test compares the two.
"""

from collections.abc import Sequence
from pathlib import Path

from latticed.states import ACTIVE, CLAIMABLE, HOLDS, MOVES, OWNED, TERMINAL, UNWOUND, Actor, Status, allowed_moves

TARGET = Path(__file__).resolve().parent.parent / "docs" / "state_machine.md"

HEAD = """\
# The states of a run and the moves between them

Generated from `latticed/states.py` by `make docs`; do not edit it here.

A run is in one state at a time. One function of the store makes a move, and it compares and sets: the row must be in
one of the move's source states, and for a move of the owner it must also carry the owner and the epoch that the mover
holds. The event that tells of the move is written in the same transaction. If no row matches, the mover lost and obeys
whoever won. A state that no move leaves is terminal.
"""

GUARDS = {Actor.OWNER: "state, owner, epoch", Actor.ANYONE: "state"}

SETS = (
    ("active", ACTIVE, "some move leaves it"),
    ("terminal", TERMINAL, "no move leaves it"),
    ("claimable", CLAIMABLE, "an executor may claim it"),
    ("owned", OWNED, "an owner executes it; only here may its journal be written"),
    ("unwound", UNWOUND, "it left its executor and waits for something outside to wake it"),
)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [_row(*head), "|" + "---|" * len(head), *(_row(*row) for row in rows)]


def _names(statuses: frozenset[Status]) -> str:
    """In the order in which the states are declared."""
    return ", ".join(f"`{status}`" for status in Status if status in statuses)


def _diagram() -> list[str]:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> queued : submit"]
    for move in MOVES:
        lines += [f"    {s} --> {move.target} : {move.name}" for s in Status if s in move.sources]
    lines += [f"    {status} --> [*]" for status in Status if status in TERMINAL]
    return [*lines, "```"]


def render() -> str:
    """The whole page, ending in one newline."""
    states = [
        (
            f"`{status}`",
            "terminal" if status in TERMINAL else "active",
            HOLDS[status],
            ", ".join(f"`{name}`" for name in allowed_moves(status)) or "none",
        )
        for status in Status
    ]
    moves = [("`submit`", "nothing", "`queued`", "none", "It is written down for the first time.")] + [
        (f"`{m.name}`", _names(m.sources), f"`{m.target}`", GUARDS[m.actor], m.doc) for m in MOVES
    ]
    sets = [(name, what, _names(members)) for name, members, what in SETS]
    parts = [
        HEAD,
        "## States\n",
        *_table(("state", "kind", "what holds", "moves that leave it"), states),
        "\n## Moves\n",
        *_table(("move", "from", "to", "guarded by", "when"), moves),
        "\n## Sets of states\n",
        *_table(("set", "what holds", "states"), sets),
        "\n## Diagram\n",
        *_diagram(),
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    TARGET.write_text(render(), encoding="utf-8")
    print(f"wrote {TARGET.name}")


if __name__ == "__main__":
    main()

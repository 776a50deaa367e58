"""The statements that move runs: one for each shape of a change, prepared once."""

from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Update, null, update
from sqlalchemy.sql import func

from latticed.models.records import Change, RunRow
from latticed.states import CLAIM, OWNED, TERMINAL, Move, Status
from latticed.store import dialects as d
from latticed.store.tables import one_of, runs

ROW = tuple(runs.c[name] for name in RunRow._fields)

Shape = tuple[Move | None, frozenset[Status], bool, bool, bool, bool, bool, tuple[str, ...]]


def shape_of(change: Change) -> Shape:
    """What two changes have in common if one statement makes both."""
    return (
        change.move,
        change.states if change.move is None else change.move.sources,
        change.epoch is not None,
        change.facts_seen is not None,
        change.awaited is not None,
        change.below_cancel_rank is not None,
        change.delivers,
        tuple(change.columns),
    )


@lru_cache(maxsize=512)
def move_statement(shape: Shape) -> d.SetStatement:
    """The guarded update of all changes of one shape: their rows in, the rows whose guard held out."""
    move, sources, fenced, by_facts, by_awaited, by_rank, delivers, columns = shape
    names = ("id", "now", "n", "g_owner", "g_epoch", "g_facts", "g_awaited", "g_rank", *(f"c_{c}" for c in columns))

    def update_of(r: d.Row) -> Update:
        values: dict[str, Any] = {"updated_at": r["now"], "last_seq": runs.c.last_seq + r["n"]}
        if move is not None:
            values["status"] = str(move.target)
            if move.target not in OWNED:
                values |= {"owner": null(), "due_at": null(), "awaits": null()}
            if move.target in TERMINAL:
                values["finished_at"] = r["now"]
            if move is CLAIM:
                values |= {"epoch": runs.c.epoch + 1, "started_at": func.coalesce(runs.c.started_at, r["now"])}
        if delivers:
            values["facts"] = runs.c.facts + 1
        values |= {name: r[f"c_{name}"] for name in columns}
        # The unary plus keeps the planner from looking up by status: the id is what finds the row.
        held: list[ColumnElement[bool]] = [runs.c.id == r["id"], d.literal("+" + one_of("runs.status", sources))]
        if move is CLAIM:
            held.append(runs.c.due_at.is_(None))
        if fenced:
            held += [runs.c.owner == r["g_owner"], runs.c.epoch == r["g_epoch"]]
        if by_facts:
            held.append(runs.c.facts == r["g_facts"])
        if by_awaited:
            held.append(d.json_has(runs.c.awaits, r["g_awaited"]))
        if by_rank:
            held.append(runs.c.cancel_rank < r["g_rank"])
        return update(runs).values(values).where(*held).returning(*ROW)

    return d.update_statement(names, update_of)

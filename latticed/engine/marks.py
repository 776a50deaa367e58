"""Marks: facts in a run's journal by which an agent of latticed's own tells how far it is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from latticed.engine.context import Context
from latticed.models.records import NewEvent


class Mark(NamedTuple):
    """What is recorded together, in one transaction: a fact, the events that tell it, what the run shows from now on
    (columns of `run_details`)."""

    fact: dict[str, Any]
    events: list[NewEvent]
    shows: dict[str, Any]


def upcoming(ctx: Context) -> str | None:
    """The kind of what is next in the journal, where the code is entered again: what was decided then, whatever would
    be decided now. None if nothing is, so that what the code asks for next is new."""
    branch = ctx.entry.branch()
    return branch.records[branch.cursor].kind if branch.ordered and branch.cursor < len(branch.records) else None


async def mark(ctx: Context, name: str, make: Callable[[int], Mark]) -> tuple[dict[str, Any], bool]:
    """Records what `make` makes of this moment, and gives its fact; entered again, gives the fact that is recorded and
    makes nothing. True: it is new.

    Unlike what user code emits, an event of a mark is told exactly once, and may be of any type.

    Raises:
        Cancelled: a cancel is on record.
        JournalConflict: the journal has something else here.
    """
    entry = ctx.entry
    await entry.admit()
    with entry.asking("mark", name) as asked:
        if asked.found is not None:
            fact: dict[str, Any] = orjson.loads(asked.found.outcome)
            return fact, False
        record = entry.record(asked, "ok")
        made = make(record.started_at)
        entry.x.show(**made.shows)
        record = record._replace(outcome=orjson.dumps(made.fact), finished_at=record.started_at)
        await entry.write(record, events=made.events)
        return orjson.loads(record.outcome), True

"""What runs take on disk: the bytes of their texts, and the same for each row."""

from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, Select, cast, func, select

from latticed.models.limits import ROW_BYTES
from latticed.store import dialects as d
from latticed.store.tables import approvals, bodies, details, events, hook_deliveries, runs, signals, steps


def _bytes(*texts: Any) -> ColumnElement[int]:
    """What rows with these texts take."""
    sizes: ColumnElement[int] = func.count() * ROW_BYTES
    for text in texts:
        sizes += func.coalesce(func.sum(func.length(cast(text, LargeBinary))), 0)
    return sizes


def _of(run_id: Any, *texts: Any) -> Select[Any]:
    return select(_bytes(*texts)).where(run_id.in_(d.id_set()))


EVENT_BYTES = _of(events.c.run_id, events.c.data).where(events.c.position <= d.whole("position"))
SHOWN_BYTES = _of(details.c.run_id, details.c.usage, details.c.story, details.c.output)
OTHER_BYTES = (
    _of(runs.c.id, runs.c.tags, runs.c.output, runs.c.error),
    _of(bodies.c.run_id, bodies.c.goal, bodies.c.inputs),
    _of(steps.c.run_id, steps.c.outcome, steps.c.error).where(steps.c.status.in_(("ok", "failed"))),
    _of(signals.c.run_id, signals.c.data),
    _of(approvals.c.run_id, approvals.c.prompt, approvals.c.schema, approvals.c.answer),
    _of(hook_deliveries.c.run_id, hook_deliveries.c.detail, hook_deliveries.c.output),
    SHOWN_BYTES,
)
"""All but the events; of a set of runs, by their ids."""

"""What a bad end of a run breaks off of its pipeline, told and shown with it."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, select

from latticed.clock import to_text
from latticed.models.pipeline import Story
from latticed.models.records import Change, event
from latticed.store import dialects as d
from latticed.store.tables import details

_STORIES = select(details.c.run_id, details.c.role, details.c.story).where(
    details.c.run_id.in_(d.id_set()), details.c.story.is_not(None)
)


def break_off(connection: Connection, ends: Sequence[tuple[int, Change]]) -> list[tuple[int, Change]]:
    """These ends, each with what it breaks off; that of a pipeline which its own code has brought to an end is as it
    was."""
    found = connection.execute(_STORIES, {"ids": d.json_list(change.run_id for _, change in ends)}).all()
    stories = {run_id: (role, text) for run_id, role, text in found}
    return [(i, _broken_off(change, *stories[change.run_id]) if change.run_id in stories else change)
            for i, change in ends]  # fmt: skip


def _broken_off(end: Change, role: str | None, text: str) -> Change:
    story = Story.model_validate_json(text)
    *before, last = end.events
    told = [event(type, last.at, **data) for type, data in story.break_off(role, to_text(last.at))]
    if not told:
        return end
    shows = {**end.shows, "role": None, "story": story.model_dump_json()}
    return replace(end, events=[*before, *told, last], shows=shows)

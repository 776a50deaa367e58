"""What a workspace may take of the daemon, and what it takes."""

from typing import NamedTuple

from latticed.models.fields import View

ROW_BYTES = 160
"""What a row is taken to need on disk beside its texts: its ids, its numbers and its places in the indexes."""


class LimitsView(View):
    """The limits of a workspace; null is none."""

    active_runs: int | None
    queued_runs: int | None
    submissions_per_minute: int | None
    event_bytes: int | None
    storage_bytes: int | None


class UseView(View):
    """What a workspace takes: runs that are not over, runs that wait in a queue, submissions of the last minute, and
    bytes of events and of all that is kept. The last three are null where they have no limit, since they are not
    counted then."""

    active_runs: int
    queued_runs: int
    submissions_per_minute: int | None
    event_bytes: int | None
    storage_bytes: int | None


class Tally(NamedTuple):
    """What a workspace takes as of one position, counted in the store."""

    active: int
    queued: frozenset[str]
    """The ids of the runs that wait in a queue; only where they have a limit."""
    recent: list[int]
    """When the submissions of the last minute were made; only where they have a limit."""

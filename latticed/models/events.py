"""What happened, as shown to a reader."""

from typing import Any

from latticed.models.fields import View


class Event(View):
    """One entry of a run's timeline. `seq` is gap-free from 1."""

    run_id: str
    seq: int
    type: str
    at: str
    data: dict[str, Any]


class FeedEvent(View):
    """One entry of a workspace's feed. `position` only grows; it may skip numbers.

    Without a `seq` it is about a run that is over, or beside it, and stands in no run's timeline.
    """

    run_id: str
    seq: int | None
    type: str
    at: str
    data: dict[str, Any]
    position: int
    kind: str


class EventPage(View):
    """A page of events, oldest first."""

    items: list[Event]
    next_cursor: str | None


class FeedPage(View):
    """A page of a workspace's feed, oldest first."""

    items: list[FeedEvent]
    next_cursor: str | None

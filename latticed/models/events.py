"""What happened, as shown to a reader."""

from typing import Any

from latticed.models.fields import View

EVENT_TYPES = frozenset({
    "run.queued", "run.started", "run.retrying", "run.waiting", "run.awaiting_approval", "run.woken",
    "run.released", "run.cancelling", "run.recovered", "run.finished", "cancel.escalated", "hook.finished",
    "role.started", "role.finished", "handoff.created", "handoff.accepted", "handoff.completed", "plan.made",
    "plan.reviewed", "review.requested", "review.approved", "review.rejected", "retry.requested", "step.started",
    "step.finished", "step.failed", "tool.called", "tool.returned", "text.delta", "progress", "log", "output",
    "result", "node.started", "node.finished", "node.skipped", "node.failed", "node.waiting", "approval.requested",
    "approval.answered", "approval.expired", "child.started", "child.finished", "flow.processor_started",
    "flow.processor_failed", "flow.processor_restarted", "usage",
})  # fmt: skip
"""Every type that an event can have, beside `x.…`, which are the users' own."""
OWN = "x."


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

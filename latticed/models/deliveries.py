"""Deliveries as they travel between the store, the courier and whoever looks at them. Times are microseconds."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from latticed.models.fields import View
from latticed.models.hooks import DeliveryStatus, HookFailed, Point, Sort

DAY_SECONDS = 86_400.0
"""How long a delivery that nobody can send is kept for sending."""
RETRY_SECONDS = (1.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0, 21_600.0, 36_000.0)
"""The pauses before a webhook is tried again: a day, all in all. Each is made longer by up to a tenth, at random."""


class Undelivered(HookFailed):
    """A receiver could not be reached, or refused.

    `retry_seconds` is how long it wants to be left alone; `again` says whether it is of any use to try once more;
    `gone`, that it wants no more deliveries at all (410).
    """

    def __init__(
        self, reason: str, output: str = "", *, retry_seconds: float | None = None, again: bool = True,
        gone: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(reason, output)
        self.retry_seconds, self.again, self.gone = retry_seconds, again and not gone, gone


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that is to be sent now, with all that its payload is made of."""

    id: str
    workspace: str
    hook: str
    point: Point
    """Where the hook stood when this came about; it may stand elsewhere by now."""
    run_id: str
    attempts: int
    created_at: int
    run: dict[str, Any] | None
    """As models.runs.Run; None if the run is gone."""
    kind: str
    event: dict[str, Any] | None
    """As models.events.Event, for `on_event`."""


class Sent(NamedTuple):
    """What became of an attempt. With `due_at` it is tried again then, and stays pending."""

    id: str
    status: str
    attempts: int
    due_at: int | None
    finished_at: int
    duration_ms: float
    detail: str
    output: str
    due: Due
    told: dict[str, Any]
    """The data of the feed's event."""
    gone: bool = False
    """Its hook is to be disabled."""


class Delivery(View):
    """One execution of a hook."""

    id: str
    workspace: str
    hook: str
    hook_id: str | None
    """`hook_…` of one that was registered; null for one of the configuration file."""
    point: Point
    sort: Sort
    run_id: str
    event_position: int | None
    """The event that it is about, by its position in the feed."""
    status: DeliveryStatus
    attempts: int
    created_at: str
    due_at: str | None
    finished_at: str | None
    duration_ms: float | None
    detail: str | None
    output: str | None


class DeliveryPage(View):
    """A page of deliveries, newest first."""

    items: list[Delivery]
    next_cursor: str | None

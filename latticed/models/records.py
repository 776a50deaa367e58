"""Records as they travel between the store and the engine. Times are microseconds since the epoch."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import orjson

from latticed.clock import to_text
from latticed.models.audit import Act
from latticed.models.hooks import DeliveryRow
from latticed.states import CLAIM, OWNED, Move, Status

CANCEL_RANK: dict[str, int] = {"graceful": 1, "now": 2, "kill": 3}
"""Stop modes in rising hardness; the rung of the cancel ladder at which each begins."""
NOBODY = ""
"""The workspace of runs that are out of reach and about to be deleted. No workspace can have this name."""
STOP_MODES = ("", *CANCEL_RANK)
"""The mode of each rank; rank 0 is no cancel."""


class RunRow(NamedTuple):
    """What every committed change tells of its run: enough for all who act on it."""

    id: str
    workspace: str
    kind: str
    target: str
    queue: str
    priority: int
    status: str
    epoch: int
    attempt: int
    owner: str | None
    last_seq: int
    facts: int
    due_at: int | None
    deadline_at: int | None
    recoveries: int
    parent_run_id: str | None
    detached: bool
    cancel: str | None
    cancel_rank: int
    mode: str


@dataclass
class EventRecord:
    """One committed event. Its frames are encoded once and shared by all who read it."""

    run_id: str
    seq: int
    """Below zero for one that stands in the workspace's feed alone."""
    position: int
    type: str
    workspace: str
    kind: str
    at: int
    data: bytes

    def view(self) -> dict[str, Any]:
        """As models.events.Event."""
        return {
            "run_id": self.run_id,
            "seq": self.seq,
            "type": self.type,
            "at": to_text(self.at),
            "data": orjson.Fragment(self.data),
        }

    def feed_view(self) -> dict[str, Any]:
        """As models.events.FeedEvent."""
        seq = self.seq if self.seq > 0 else None
        return {**self.view(), "seq": seq, "position": self.position, "kind": self.kind}

    @cached_property
    def frame(self) -> bytes:
        """The SSE frame of the run's stream."""
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (self.seq, self.type.encode(), orjson.dumps(self.view()))

    @cached_property
    def feed_frame(self) -> bytes:
        """The SSE frame of the workspace's feed."""
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (self.position, self.type.encode(), orjson.dumps(self.feed_view()))


class NewEvent(NamedTuple):
    """An event to be appended; its number is given at commit. Without data it tells the run's epoch and attempt."""

    type: str
    at: int
    data: bytes = b""


def event(type: str, at: int, /, **data: Any) -> NewEvent:
    """An event of our own making; `data` must be JSON."""
    return NewEvent(type, at, orjson.dumps(data))


LINE = "line"
"""The kind of the record that says that a gather's line has ended. Nobody asks for it, and nobody is shown it."""


class StepRecord(NamedTuple):
    """A record of the journal, as it is written."""

    n: int
    kind: str
    branch: str
    name: str
    occurrence: int
    status: str
    attempt: int
    epoch: int
    started_at: int
    finished_at: int | None
    ref: str | None
    outcome: bytes
    error: bytes


@dataclass(slots=True)
class Birth:
    """A run to be inserted as `queued`, with what it was given."""

    id: str
    workspace: str
    kind: str
    target: str
    name: str
    mode: str
    goal: str
    inputs: bytes
    roles: list[str]
    queue: str
    priority: int
    max_retries: int
    recovery: str
    run_at: int | None
    deadline_seconds: float | None
    tags: dict[str, str]
    created_by: str | None
    created_at: int
    version: int | None = None
    parent_run_id: str | None = None
    detached: bool = False
    rerun_of: str | None = None
    journal: list[StepRecord] = field(default_factory=list)
    act: Act | None = None
    """What of it is for the audit trail; None for a child."""

    @property
    def due_at(self) -> int | None:
        """When it may be claimed; None is now."""
        return self.run_at if self.run_at is not None and self.run_at > self.created_at else None

    @property
    def deadline_at(self) -> int | None:
        """When it must be over."""
        if self.deadline_seconds is None:
            return None
        return max(self.created_at, self.run_at or 0) + int(self.deadline_seconds * 1_000_000)


@dataclass(slots=True)
class Beside:
    """What is written beside a run's row, its events and its journal, in the same transaction."""

    inputs: bytes | None = None
    """The run's inputs from now on, as JSON; None leaves them."""
    deliveries: list[DeliveryRow] = field(default_factory=list)


@dataclass(slots=True)
class Change:
    """What is asked of one existing run, guarded: either all of it is written or nothing.

    With a `move`, the run must be in one of its sources; without one it is only touched, and must be in one of
    `states`. `owner` and `epoch` fence the owner's writes; `facts_seen` guards against a fact delivered since it was
    read; `awaited` needs the run to wait for that fact; `below_cancel_rank` needs its cancel to be softer. `shows` are
    columns of `run_details`. If the guard does not hold, `otherwise` is tried in the same transaction.
    """

    run_id: str
    move: Move | None = None
    states: frozenset[Status] = OWNED
    owner: str | None = None
    epoch: int | None = None
    facts_seen: int | None = None
    awaited: str | None = None
    below_cancel_rank: int | None = None
    delivers: bool = False
    columns: dict[str, Any] = field(default_factory=dict)
    shows: dict[str, Any] = field(default_factory=dict)
    events: list[NewEvent] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)
    births: list[Birth] = field(default_factory=list)
    beside: Beside | None = None
    otherwise: "Change | None" = None
    act: Act | None = None
    """Goes into the audit trail if this change is the one that held."""


def claim_change(run_id: str, owner: str, at: int) -> Change:
    """The claim of a run."""
    return Change(run_id, CLAIM, columns={"owner": owner}, events=[NewEvent("run.started", at)])


@dataclass(slots=True)
class Commit:
    """What one transaction has made true, told to all who act on it, in order."""

    rows: list[RunRow]
    events: list[EventRecord]
    facts: list[tuple[str, str]]
    times: list[int]
    """New times on the calendar, besides those of the rows."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Workspace → bytes that were added to it beside events; only where these are limited."""
    hooks: list[str] = field(default_factory=list)
    """The keys of hooks that have something to be sent."""


class Once(NamedTuple):
    """The idempotency key of a request, where it holds, and what it was asked with."""

    workspace: str
    route: str
    key: str
    fingerprint: str


class Finished(NamedTuple):
    """When a run that is over was made and ended."""

    id: str
    created_at: int
    finished_at: int


@dataclass(slots=True)
class Claimed:
    """A run that this boot owns from now on, with what it was given and its journal."""

    row: RunRow
    goal: str
    inputs: dict[str, Any]
    max_retries: int
    recovery: str
    created_by: str | None
    roles: list[str]
    journal: list[StepRecord]
    view: dict[str, Any] | None = None
    """As models.runs.Run, where hooks are to be asked about it."""
    birth: Birth | None = None
    """What it was born from, where nobody has touched it since."""


@dataclass(slots=True)
class ApprovalRequest:
    """A question to a person, as it is opened."""

    id: str
    prompt: str
    schema: dict[str, Any] | None
    lanes: list[str]
    expires_at: int | None
    node: str | None = None
    subject: dict[str, Any] | None = None
    """What exactly is approved or denied, such as the call of a tool."""


class Ending(NamedTuple):
    """How a run ended."""

    status: str
    output: Any
    error: dict[str, Any] | None


class ReadyEntry(NamedTuple):
    """A run that may be claimed. Entries sort in the order in which they are to be claimed."""

    order: int
    id: str
    target: str
    kind: str
    suspect: bool

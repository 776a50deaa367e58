"""What is asked of runs, and what is shown of them."""

import math
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, JsonValue, StringConstraints, field_validator

from latticed.models.fields import Inputs, Kind, Label, Mode, Name, Recovery, Request, StopMode, Tags, View
from latticed.models.pipeline import Story
from latticed.states import Status


def finite(value: Any) -> Any:
    """Refuses numbers that JSON cannot carry.

    Raises:
        ValueError: NaN or an infinity anywhere inside.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite")
    if isinstance(value, dict):
        for item in value.values():
            finite(item)
    elif isinstance(value, list):
        for item in value:
            finite(item)
    return value


class Submission(Request):
    """A run to be put on disk."""

    kind: Kind = "agent"
    target: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    goal: str
    inputs: Inputs = Field(default_factory=dict)
    roles: Annotated[list[Name], Field(max_length=16)] | None = None
    max_retries: Annotated[int, Field(ge=0, le=5)] | None = None
    queue: Name | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    run_at: AwareDatetime | None = None
    deadline_seconds: Annotated[float, Field(gt=0, le=10 * 366 * 86400, allow_inf_nan=False)] | None = None
    recovery: Recovery | None = None
    mode: Mode = "live"
    tags: Tags = Field(default_factory=dict)
    name: Label | None = None

    @field_validator("goal")
    @classmethod
    def _goal_is_said(cls, goal: str) -> str:
        if not goal.strip():
            raise ValueError("a goal must not be blank: say what the run is to do")
        return goal

    @field_validator("run_at")
    @classmethod
    def _run_at_is_storable(cls, run_at: AwareDatetime | None) -> AwareDatetime | None:
        if run_at is not None and not 1971 <= run_at.year <= 9000:
            raise ValueError("run_at must lie between the years 1971 and 9000")
        return run_at


class CancelView(View):
    """A cancel on record."""

    requested_at: str
    requested_by: str | None
    reason: str | None
    mode: StopMode


class ErrorView(View):
    """Why a run did not end well; `code` is stable."""

    code: str
    message: str
    detail: JsonValue = None


class UsageView(View):
    """What a run has used."""

    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    cost_usd: float = 0.0


class PauseView(View):
    """What an unwound run waits for."""

    kind: Literal["timer", "signal", "child", "approval", "several"]
    facts: list[str]
    wake_at: str | None
    """When it goes on at the latest: a timer is due, or a question expires."""
    approval_ids: list[str]


class RunSummary(View):
    """One run, as it stands in a list."""

    id: str
    kind: Kind
    target: str
    version: int | None
    name: str
    workspace: str
    status: Status
    mode: Mode
    execution_mode: Literal["async"]
    goal: str
    inputs: dict[str, Any]
    requested_roles: list[str]
    max_retries: int
    queue: str
    priority: int
    run_at: str | None
    deadline_seconds: float | None
    recovery: Recovery
    recoveries: int
    attempt: int
    epoch: int
    owner: str | None
    current_role: str | None
    current_node: str | None
    parent_run_id: str | None
    rerun_of: str | None
    tags: dict[str, str]
    created_by: str | None
    created_at: str
    started_at: str | None
    updated_at: str
    finished_at: str | None
    cancel: CancelView | None
    pause: PauseView | None
    abandoned: Literal["thread", "task"] | None
    output: JsonValue
    error: ErrorView | None
    usage: UsageView
    allowed_moves: list[str]
    events_url: str
    stop_url: str


class Run(RunSummary, Story):
    """One run, whole: with the story of its pipeline, if it is one."""


class Accepted(View):
    """The answer to a submission: the run is on disk."""

    run: Run
    execution_mode: Literal["async"]
    accepted: Literal[True]
    events_url: str
    stop_url: str


class RunPage(View):
    """A page of runs, newest first."""

    items: list[RunSummary]
    next_cursor: str | None


class StopRequest(Request):
    """How to stop a run."""

    mode: StopMode = "graceful"
    reason: Annotated[str, StringConstraints(max_length=1000)] | None = None
    children: bool = True


class CancelRequest(Request):
    """`mode: now`, said as a route of its own."""

    reason: Annotated[str, StringConstraints(max_length=1000)] | None = None
    children: bool = True


class StopAnswer(View):
    """What a stop did."""

    stopped: bool
    run_id: str
    status: Status
    cancellation: Literal["cooperative", "immediate"] | None = None
    reason: str | None


class RerunRequest(Request):
    """Where to begin again."""

    from_step: Annotated[str, StringConstraints(max_length=64)] | None = None


class Step(View):
    """A record of the journal."""

    id: str
    kind: Literal["step", "sleep", "ask", "signal", "child", "mark", "hook"]
    name: str
    branch: str
    occurrence: int
    status: Literal["started", "ok", "failed", "waiting"]
    attempt: int
    epoch: int
    started_at: str
    finished_at: str | None
    duration_ms: float | None
    outcome: JsonValue
    error: ErrorView | None


class StepPage(View):
    """A page of the journal, oldest first."""

    items: list[Step]
    next_cursor: str | None


class Frame(View):
    """One event of a timeline, told for a person."""

    index: int
    event: str
    actor: str
    at: str
    why: str | None
    input: JsonValue
    output: JsonValue
    decision: str | None


class FramePage(View):
    """A page of a timeline, oldest first."""

    items: list[Frame]
    next_cursor: str | None


class Why(View):
    """Why a run is not running (or that it is)."""

    run_id: str
    status: Status
    code: Literal[
        "running", "finished", "winding_down", "delayed", "backing_off", "queue_full", "daemon_full", "behind_others",
        "isolated", "agent_missing", "queue_missing", "draining", "timer", "signal", "child", "approval", "several",
        "about_to_start",
    ]  # fmt: skip
    reason: str
    queue: str
    position: int | None
    """How many of its queue and workspace are claimed before it."""
    until: str | None
    waits_for: list[str]


class SignalRequest(Request):
    """Data for a run that waits for it, or will."""

    data: JsonValue = None


class SignalAccepted(View):
    """A signal is on disk."""

    accepted: Literal[True]
    run_id: str
    name: str
    signal_id: str

"""What a role pipeline shows of its work: its plan, its reviews, who handed what to whom."""

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, StringConstraints

from latticed.models.fields import View

STEP_LIMIT = 100
"""The most steps a plan may have."""
DESCRIPTION_LIMIT = 2000
SUMMARY_LIMIT = 500
MEMORY_LIMIT = 10

HANDOFF_ENDS = ("completed", "blocked", "rejected", "retry_requested", "cancelled")
HANDOFF_STATES = ("created", "accepted", "running", *HANDOFF_ENDS)
"""In the order in which they may come; of the ends, one."""

Summary = Annotated[str, StringConstraints(max_length=SUMMARY_LIMIT)]
Outcome = Literal["approve", "reject", "retry"]
Told = tuple[str, dict[str, Any]]
"""An event: its type and its data."""


class PlanStep(View):
    """One step of a plan. `note` says why it was skipped or failed."""

    index: int
    description: str
    status: Literal["planned", "done", "failed", "skipped"] = "planned"
    workflow: str | None = None
    tool: str | None = None
    note: str | None = None


class Plan(View):
    """What the executor is to do. `source`: who made it."""

    plan_id: str
    source: Literal["planner", "inputs", "goal"]
    steps: list[PlanStep]
    made_at: str


class PlanReview(View):
    """Whether the plan may be carried out, as it was judged last. `by`: `rules`, or the role that was asked."""

    plan_id: str
    outcome: Literal["approve", "reject", "retry"]
    reason: str
    notes: str
    by: str
    reviewed_at: str


class ReviewRecord(View):
    """One review of the work; `outcome` is `failed` where the reviewer gave none that can be read."""

    review_id: str
    outcome: Literal["approve", "reject", "retry", "failed"]
    reason: str
    confidence: float | None
    notes: str
    reviewed_at: str


class RetryRecord(View):
    """One time that the work went back to the executor, or the plan to the planner."""

    retry: int
    source: str
    target: str
    reason: str
    notes: str
    requested_at: str


class Retrying(View):
    """How often the work went back so far, and how often it may."""

    number: int
    most: int


class ContextPacket(View):
    """What a role is told by the one before it."""

    packet_id: str
    objective: str
    task_summary: Summary
    memory: list[JsonValue]
    workflow: dict[str, Any]
    tool_outputs: list[JsonValue]
    constraints: list[str]
    reviewer_notes: list[str]
    retry: Retrying


class Handoff(View):
    """Work going from one role to the next. Each state is stamped when it begins."""

    handoff_id: str
    source: str
    target: str
    reason: str
    task_summary: Summary
    context_packet: ContextPacket
    status: Literal[
        "created", "accepted", "running", "completed", "blocked", "rejected", "retry_requested", "cancelled"
    ]
    created_at: str
    accepted_at: str | None = None
    running_at: str | None = None
    completed_at: str | None = None
    blocked_at: str | None = None
    rejected_at: str | None = None
    retry_requested_at: str | None = None
    cancelled_at: str | None = None

    def move(self, status: str, at: str) -> "Told":
        """On to another state; the event that tells it."""
        assert HANDOFF_STATES.index(status) > HANDOFF_STATES.index(self.status), "a handoff only goes on"
        self.status = status  # type: ignore[assignment]  # the index above has found it
        setattr(self, f"{status}_at", at)
        return self.told()

    def told(self) -> "Told":
        """The event of the state that it is in."""
        said = {
            "handoff_id": self.handoff_id, "source": self.source, "target": self.target, "reason": self.reason,
            "packet_id": self.context_packet.packet_id,
        }  # fmt: skip
        return f"handoff.{self.status}", said


class MemorySnapshot(View):
    """What a role has found out, as those after it get it."""

    snapshot_id: str
    scope: Literal["short_term"]
    role: str
    items: Annotated[list[JsonValue], Field(max_length=MEMORY_LIMIT)]
    taken_at: str


class Story(View):
    """All of it, as a run shows it."""

    plan: Plan | None = None
    plan_review: PlanReview | None = None
    review_history: list[ReviewRecord] = Field(default_factory=list)
    retry_history: list[RetryRecord] = Field(default_factory=list)
    handoffs: list[Handoff] = Field(default_factory=list)
    memory_snapshots: list[MemorySnapshot] = Field(default_factory=list)

    def open_handoff(self) -> Handoff | None:
        """The handoff to the role at work, or to the one that is about to begin."""
        newest = self.handoffs[-1] if self.handoffs else None
        return newest if newest is not None and newest.status not in HANDOFF_ENDS else None

    def break_off(self, role: str | None, at: str) -> "list[Told]":
        """Ends what is under way in the middle of the work of `role`; the events that tell it."""
        handoff = self.open_handoff()
        told = [] if handoff is None else [handoff.move("cancelled", at)]
        if role is not None:
            shown = {"role": role, "status": "cancelled", "retry": len(self.retry_history), "reason": None}
            told.append(("role.finished", shown))
        return told

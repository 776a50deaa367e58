"""Context packets: what a role is told by the one before it. Pure, and bounded whatever the work has produced."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latticed.models.pipeline import SUMMARY_LIMIT, ContextPacket, PlanStep, Retrying
from latticed.models.redaction import redact

if TYPE_CHECKING:
    from latticed.agents.pipeline.progress import Progress

OUTPUT_LIMIT = 2_000
"""Characters of a step's output in a packet; the run's output has all of it."""
OUTPUTS = 20
STEP_LIMIT = 200
OBJECTIVE_LIMIT = 8_000
MEMORY_ITEM_LIMIT = 1_000


@dataclass(frozen=True)
class Brief:
    """What a pipeline was given, and what it must keep to. The last two are those of its beginning, whatever its
    configuration says by now."""

    goal: str
    inputs: dict[str, Any]
    most_retries: int
    roles: Sequence[str]
    constraints: Sequence[str]


def cut(text: str, limit: int) -> str:
    """At most so many characters; what was cut is said."""
    if len(text) <= limit:
        return text
    mark = f" … [{len(text)} characters in all]"
    return text[: max(0, limit - len(mark))] + mark[: max(0, limit)]


def make_packet(progress: "Progress", packet_id: str) -> ContextPacket:
    """What is to be told at this moment. No secret is in it."""
    notes = [record.notes or record.reason for record in progress.story.retry_history]
    plan = progress.story.plan
    workflow: dict[str, Any] = {}
    if plan is not None:
        steps = [
            {"index": step.index, "status": step.status, "description": cut(step.description, STEP_LIMIT)}
            for step in plan.steps
        ]
        workflow = {"plan_id": plan.plan_id, "steps": steps}
    outputs: list[dict[str, Any]] = [
        {"step": index, "output": cut(text, OUTPUT_LIMIT)} for index, text in progress.results.items()
    ]
    outputs += [{"role": role, "output": cut(text, OUTPUT_LIMIT)} for role, text in progress.said.items()]
    memory = [cut(item, MEMORY_ITEM_LIMIT) if isinstance(item, str) else item for item in progress.memory]
    return ContextPacket(
        packet_id=packet_id,
        objective=cut(progress.brief.goal, OBJECTIVE_LIMIT),
        task_summary=summarise(progress.brief.goal, progress.steps),
        memory=redact(memory),
        workflow=redact(workflow),
        tool_outputs=redact(outputs[-OUTPUTS:]),
        constraints=list(progress.brief.constraints),
        reviewer_notes=notes,
        retry=Retrying(number=progress.retries, most=progress.brief.most_retries),
    )


def summarise(goal: str, steps: Sequence[PlanStep]) -> str:
    """The task in at most 500 characters: the goal, and how far it is."""
    if not steps:
        return cut(goal, SUMMARY_LIMIT)
    counts = {status: sum(step.status == status for step in steps) for status in ("done", "failed", "skipped")}
    told = ", ".join(f"{number} {status}" for status, number in counts.items() if number) or "none begun"
    state = f" [{len(steps)} steps: {told}]"
    return cut(goal, SUMMARY_LIMIT - len(state)) + state

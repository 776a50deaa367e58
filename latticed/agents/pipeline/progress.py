"""How far a pipeline is: the facts of its journal, told one after the other, and what the run shows of them.

Pure: a fact holds all that was decided at its moment (ids and times too), so that telling the recorded facts again
gives the same picture. Each fact returns the events that tell it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from latticed.agents.pipeline.packets import Brief, make_packet
from latticed.clock import to_text
from latticed.models.pipeline import (
    MEMORY_LIMIT,
    SUMMARY_LIMIT,
    Handoff,
    MemorySnapshot,
    Plan,
    PlanReview,
    PlanStep,
    RetryRecord,
    ReviewRecord,
    Story,
)
from latticed.models.redaction import redact

Told = list[tuple[str, dict[str, Any]]]
Fact = Mapping[str, Any]


class Progress:
    """A pipeline's picture of itself."""

    def __init__(self, brief: Brief) -> None:
        self.brief = brief
        self.story = Story()
        self.has_begun = False
        self.conversations: Counter[str] = Counter()
        """How often each role has spoken with its model in this entry of the code."""
        self.role: str | None = None
        self.results: dict[int, str] = {}
        """What the executor made of each step, by its index."""
        self.said: dict[str, str] = {}
        """What other roles made, by role."""
        self.failed: dict[str, str] = {}
        """The roles that have failed and were not done again, and why."""
        self._facts: dict[str, Callable[[Fact, str], Told]] = {
            "role.started": self._started,
            "role.finished": self._finished,
            "remembered": self._remembered,
            "planned": self._planned,
            "plan.reviewed": self._plan_reviewed,
            "plan.sent_back": self._plan_sent_back,
            "step.done": self._step_done,
            "reviewed": self._reviewed,
            "cancelled": self._cancelled,
        }

    def tell(self, fact: Fact) -> Told:
        """Takes in a fact; the events that tell it."""
        told: Told = redact(self._facts[fact["what"]](fact, to_text(fact["at"])))
        return [(type, data) for type, data in told]

    # What is asked of it

    @property
    def retries(self) -> int:
        """How often the work went back to the executor."""
        return len(self.story.retry_history)

    @property
    def steps(self) -> list[PlanStep]:
        """The steps of the plan."""
        return self.story.plan.steps if self.story.plan is not None else []

    @property
    def complete(self) -> bool:
        """Whether no role has failed for good and no step of the plan was left out or failed."""
        return not self.failed and not any(step.status in ("failed", "skipped") for step in self.steps)

    @property
    def memory(self) -> list[Any]:
        """The newest items that were remembered, at most ten."""
        items = [item for snapshot in self.story.memory_snapshots for item in snapshot.items]
        return items[-MEMORY_LIMIT:]

    def output(self) -> dict[str, Any]:
        """What the run has to give, whole: at its end, or so far."""
        results = [
            {"index": step.index, "description": step.description, "status": step.status, "note": step.note,
             "output": self.results.get(step.index)}
            for step in self.steps
        ]  # fmt: skip
        newest = next((self.results[step.index] for step in reversed(self.steps) if step.index in self.results), None)
        review = self.story.review_history[-1].model_dump() if self.story.review_history else None
        out = {
            "summary": self.said.get("release", newest),
            "results": results,
            "review": review,
            "roles": {role: said for role, said in self.said.items() if role != "release"},
        }
        redacted: dict[str, Any] = redact(out)
        return redacted

    # Facts

    def _started(self, fact: Fact, at: str) -> Told:
        role = self.role = fact["role"]
        if "roles" in fact:
            self.brief = replace(self.brief, roles=fact["roles"], constraints=fact["constraints"])
        self.has_begun = True
        self.failed.pop(role, None)
        told: Told = []
        handoff = self.story.open_handoff()
        if handoff is not None:
            told += [handoff.move("accepted", at), handoff.move("running", at)]
        told.append(("role.started", {"role": role, "retry": self.retries}))
        if role == "executor":
            for step in self.steps:
                step.status, step.note = "planned", None
            self.results.clear()
        if role == "reviewer":
            told.append(("review.requested", {"role": role, "retry": self.retries}))
        return told

    def _finished(self, fact: Fact, at: str) -> Told:
        role, status, reason = fact["role"], fact["status"], fact["reason"]
        if status == "failed":
            self.failed[role] = reason
        elif fact.get("said"):
            self.said[role] = fact["said"]
        told: Told = []
        handoff = self.story.open_handoff()
        if handoff is not None:
            told.append(handoff.move(fact["handed"], at))
        shown = {"role": role, "status": status, "retry": self.retries, "reason": reason[:SUMMARY_LIMIT] or None}
        told.append(("role.finished", shown))
        self.role = None
        if (retry := fact.get("retry")) is not None:
            told.append(self._retry(role, fact["target"], reason, retry["notes"], at))
        if (target := fact.get("target")) is not None:
            told.append(self._hand_over(role, target, reason, fact, at))
        return told

    def _hand_over(self, source: str, target: str, reason: str, fact: Fact, at: str) -> tuple[str, dict[str, Any]]:
        packet = make_packet(self, fact["packet_id"])
        handoff = Handoff(
            handoff_id=fact["handoff_id"], source=source, target=target,
            reason=(reason or f"{source} has finished")[:SUMMARY_LIMIT],
            task_summary=packet.task_summary, context_packet=packet, status="created", created_at=at,
        )  # fmt: skip
        self.story.handoffs.append(handoff)
        return handoff.told()

    def _remembered(self, fact: Fact, at: str) -> Told:
        snapshot = MemorySnapshot(
            snapshot_id=fact["snapshot_id"], scope="short_term", role=fact["role"],
            items=redact(fact["items"])[:MEMORY_LIMIT], taken_at=at,
        )  # fmt: skip
        self.story.memory_snapshots.append(snapshot)
        return []

    def _planned(self, fact: Fact, at: str) -> Told:
        steps = [PlanStep.model_validate(step) for step in fact["steps"]]
        self.story.plan = Plan(plan_id=fact["plan_id"], source=fact["source"], steps=steps, made_at=at)
        shown = [{"index": step.index, "description": step.description[:200]} for step in steps]
        return [("plan.made", {"plan_id": fact["plan_id"], "source": fact["source"], "steps": shown})]

    def _plan_reviewed(self, fact: Fact, at: str) -> Told:
        assert self.story.plan is not None
        review = PlanReview(
            plan_id=self.story.plan.plan_id, outcome=fact["outcome"], reason=fact["reason"],
            notes=fact["notes"], by=fact["by"], reviewed_at=at,
        )  # fmt: skip
        self.story.plan_review = review
        return [("plan.reviewed", review.model_dump())]

    def _plan_sent_back(self, fact: Fact, at: str) -> Told:
        review = self.story.plan_review
        assert review is not None
        return [self._retry(review.by, "planner", review.reason, review.notes, at)]

    def _retry(self, source: str, target: str, reason: str, notes: str, at: str) -> tuple[str, dict[str, Any]]:
        record = RetryRecord(
            retry=self.retries + 1, source=source, target=target, reason=reason, notes=notes, requested_at=at
        )
        self.story.retry_history.append(record)
        return "retry.requested", {**record.model_dump(), "max_retries": self.brief.most_retries}

    def _step_done(self, fact: Fact, at: str) -> Told:
        step = next(step for step in self.steps if step.index == fact["index"])
        step.status, step.note = fact["status"], fact["note"]
        if fact["output"] is not None:
            self.results[step.index] = fact["output"]
        over = sum(step.status != "planned" for step in self.steps)
        message = f"step {step.index} {step.status}: {step.note or step.description}"[:SUMMARY_LIMIT]
        return [("progress", {"done": over, "total": len(self.steps), "message": message})]

    def _reviewed(self, fact: Fact, at: str) -> Told:
        record = ReviewRecord(
            review_id=fact["review_id"], outcome=fact["outcome"], reason=fact["reason"],
            confidence=fact["confidence"], notes=fact["notes"], reviewed_at=at,
        )  # fmt: skip
        self.story.review_history.append(record)
        types = {"approve": "review.approved", "reject": "review.rejected", "failed": "review.failed"}
        type = types.get(record.outcome)
        return [] if type is None else [(type, record.model_dump())]

    def _cancelled(self, fact: Fact, at: str) -> Told:
        role, self.role = self.role, None
        return self.story.break_off(role, at)

"""The picture that facts make: handoffs go on and never back, packets are bounded, telling again changes nothing."""

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from latticed.agents.pipeline.packets import Brief, cut, summarise
from latticed.agents.pipeline.progress import Progress
from latticed.models.pipeline import HANDOFF_ENDS, HANDOFF_STATES, Story
from latticed.models.planning import steps_of

ROLES = ("planner", "executor", "reviewer")
ENDS = {"ok": "completed", "failed": "blocked"}


def brief(goal: str = "build it", **inputs: Any) -> Brief:
    return Brief(goal, inputs, 2, ["planner", "executor", "reviewer"], [])


class Teller:
    """Makes facts with growing times and ids, and keeps them."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.facts, self.told = progress, list[dict[str, Any]](), list[tuple[str, dict[str, Any]]]()

    def tell(self, what: str, **given: Any) -> list[str]:
        number = len(self.facts) + 1
        fact = {"what": what, "at": number * 1_000_000, **given}
        self.facts.append(json.loads(json.dumps(fact)))
        told = self.progress.tell(fact)
        self.told += told
        return [type for type, _ in told]

    def finish(self, role: str, target: str | None = None, how: str = "ok", handed: str = "", **more: Any) -> list[str]:
        number = len(self.facts)
        given = {"role": role, "status": how, "handed": handed or ENDS[how], "reason": "so", "said": None, **more}
        if target is not None:
            given |= {"target": target, "handoff_id": f"hnd_{number}", "packet_id": f"pkt_{number}"}
        return self.tell("role.finished", **given)

    def plan(self, *steps: Any) -> None:
        shown = [step.model_dump() for step in steps_of(list(steps))]
        self.tell("planned", plan_id="plan_1", source="planner", steps=shown)


def test_a_handoff_is_stamped_at_each_state_when_it_happens() -> None:
    teller = Teller(Progress(brief()))
    teller.tell("role.started", role="planner")
    assert teller.finish("planner", "executor") == ["role.finished", "handoff.created"]
    assert teller.tell("role.started", role="executor") == ["handoff.accepted", "handoff.running", "role.started"]
    assert teller.finish("executor", "reviewer") == ["handoff.completed", "role.finished", "handoff.created"]
    first, second = teller.progress.story.handoffs
    stamps = [first.created_at, first.accepted_at, first.running_at, first.completed_at]
    assert [stamp and stamp[17:19] for stamp in stamps] == ["02", "03", "03", "04"]
    assert (first.source, first.target, first.status) == ("planner", "executor", "completed")
    assert (second.status, second.accepted_at) == ("created", None)


def test_a_retry_hands_the_notes_back_and_begins_the_steps_anew() -> None:
    teller = Teller(Progress(brief()))
    teller.tell("role.started", role="executor")
    teller.plan("one", "two")
    teller.tell("step.done", index=1, status="done", note=None, output="first")
    teller.tell("step.done", index=2, status="failed", note="no", output=None)
    teller.finish("executor", "reviewer", how="failed")
    assert not teller.progress.complete
    teller.tell("role.started", role="reviewer")
    retry = {"retry": {"notes": "use two hands"}}
    told = teller.finish("reviewer", "executor", handed="retry_requested", **retry)
    assert told == ["handoff.retry_requested", "role.finished", "retry.requested", "handoff.created"]
    packet = teller.progress.story.handoffs[-1].context_packet
    assert packet.reviewer_notes == ["use two hands"]
    assert packet.retry.model_dump() == {"number": 1, "most": 2}
    teller.tell("role.started", role="executor")
    assert [step.status for step in teller.progress.steps] == ["planned", "planned"]
    assert (teller.progress.results, teller.progress.failed) == ({}, {})
    assert teller.progress.complete


def test_a_cancel_leaves_the_handoff_cancelled() -> None:
    teller = Teller(Progress(brief()))
    teller.tell("role.started", role="planner")
    teller.finish("planner", "executor")
    assert teller.tell("cancelled") == ["handoff.cancelled"], "the next role had not begun"
    assert teller.progress.story.handoffs[0].status == "cancelled"


def test_secrets_are_in_no_packet_event_or_output() -> None:
    teller = Teller(Progress(brief()))
    teller.tell("role.started", role="researcher")
    teller.tell("remembered", role="researcher", items=[{"password": "hidden"}], snapshot_id="mem_1")
    teller.plan("one")
    teller.tell("step.done", index=1, status="done", note=None, output='{"api_key": "hidden", "max_tokens": 5}')
    teller.finish("researcher", "reviewer")
    shown = json.dumps([teller.told, teller.progress.story.model_dump(), teller.progress.output()])
    assert "hidden" not in shown
    assert "max_tokens" in shown


def test_the_newest_ten_memories_are_handed_on() -> None:
    teller = Teller(Progress(brief()))
    for number in range(3):
        teller.tell(
            "remembered", role="researcher", items=[f"{number}.{i}" for i in range(6)], snapshot_id=f"m{number}"
        )
    assert teller.progress.memory == [*(f"1.{i}" for i in range(2, 6)), *(f"2.{i}" for i in range(6))]


@given(st.text(max_size=3000), st.integers(0, 600))
def test_a_cut_text_is_no_longer_than_allowed(text: str, limit: int) -> None:
    assert len(cut(text, limit)) <= max(limit, 0)
    assert cut(text, 3000) == text


@given(goal=st.text(max_size=2000), number=st.integers(0, 100))
def test_a_task_summary_has_at_most_500_characters(goal: str, number: int) -> None:
    assert len(summarise(goal, steps_of(["do it"] * number) if number else [])) <= 500


def courses(draw: Any) -> Iterator[tuple[str, str | None, str, str]]:
    """(role, next role, how it ended, how its handoff ends), as a course could be."""
    position, retries = 0, 0
    while True:
        role = ROLES[position]
        how = draw(st.sampled_from(["ok", "failed"])) if role == "executor" else "ok"
        if role == "reviewer" and retries < 2 and draw(st.booleans()):
            retries += 1
            yield role, "executor", "ok", "retry_requested"
            position = 1
            continue
        target = ROLES[position + 1] if position + 1 < len(ROLES) else None
        yield role, target, how, ENDS[how]
        if target is None:
            return
        position += 1


@given(data=st.data(), size=st.integers(1, 100), text=st.text(max_size=4000))
def test_whatever_happens_packets_are_bounded_and_the_facts_tell_the_same_again(
    data: st.DataObject, size: int, text: str
) -> None:
    teller = Teller(Progress(brief(text or "goal")))
    for role, target, how, handed in courses(data.draw):
        teller.tell("role.started", role=role)
        if role == "planner":
            teller.plan(*[("x" + text)[:2000]] * size)
        if role == "executor":
            for index in range(1, size + 1):
                teller.tell("step.done", index=index, status="done", note=None, output=text * 3)
        more = {"retry": {"notes": text}} if handed == "retry_requested" else {}
        teller.finish(role, target, how, handed, **more)
        stored = teller.progress.story.model_dump_json()
        assert len(stored) < 1 << 20
    for handoff in teller.progress.story.handoffs:
        assert len(handoff.task_summary) <= 500
        assert handoff.status in HANDOFF_ENDS
        reached = [state for state in HANDOFF_STATES if getattr(handoff, f"{state}_at")]
        assert reached[:3] == ["created", "accepted", "running"]
        assert reached[3:] == [handoff.status], "one end, and no other"
        stamps = [getattr(handoff, f"{state}_at") for state in reached]
        assert stamps == sorted(stamps)
    again = Progress(brief(text or "goal"))
    told = [each for fact in teller.facts for each in again.tell(fact)]
    assert again.story == teller.progress.story
    assert [list(each) for each in told] == [list(each) for each in teller.told]
    assert Story.model_validate_json(again.story.model_dump_json()) == again.story

"""What the roles answer in a simulation: always the same, made of nothing but what they were given."""

from latticed.agents.pipeline.answers import Answer, Findings, PlanAnswer, PlannedStep, PlanVerdict, Verdict
from latticed.agents.pipeline.packets import cut
from latticed.agents.pipeline.progress import Progress
from latticed.models.pipeline import PlanStep

GOAL_LIMIT = 300


def simulated(role: str, kind: type[Answer] | None, progress: Progress, step: PlanStep | None) -> str:
    """The text that this role answers; JSON where `kind` asks for that."""
    goal = cut(progress.brief.goal, GOAL_LIMIT)
    if kind is PlanAnswer:
        texts = (f"Look at what is asked: {goal}", f"Do it: {goal}", "Check the result against what was asked")
        return PlanAnswer(steps=[PlannedStep(description=text) for text in texts]).model_dump_json()
    if kind is PlanVerdict:
        return PlanVerdict(
            outcome="approve", reason="simulated: the plan keeps the rules", confidence=1
        ).model_dump_json()
    if kind is Verdict:
        failed = [step.index for step in progress.steps if step.status == "failed"]
        if progress.failed or failed:
            return Verdict(outcome="retry", reason="simulated: something failed", confidence=1).model_dump_json()
        return Verdict(outcome="approve", reason="simulated: every step is done", confidence=1).model_dump_json()
    if kind is Findings:
        return Findings(items=[f"simulated finding on: {goal}"]).model_dump_json()
    if step is not None:
        return f"simulated result of step {step.index}: {cut(step.description, GOAL_LIMIT)}"
    done = sum(step.status == "done" for step in progress.steps)
    return f"simulated {role}: {goal} ({done} of {len(progress.steps)} steps done)"

"""Plans: how one is made of what was given, and the rules that it must keep before anything of it is done."""

from collections.abc import Collection, Sequence
from typing import Any

from latticed.models.pipeline import DESCRIPTION_LIMIT, STEP_LIMIT, PlanStep

NAME_LIMIT = 200
NO_WORKFLOWS = "workflows cannot be run by this version"


class BadPlan(ValueError):
    """What was given cannot be read as a plan; its text says why."""


def steps_of(given: Any) -> list[PlanStep]:
    """The steps of a plan, from a list of texts or of objects with a `description`.

    Their number is for `objection_to` to judge, as is what they name.

    Raises:
        BadPlan: it is no such list, or a step says nothing.
    """
    if not isinstance(given, list):
        raise BadPlan("a plan is a list of steps")
    return [_step(index, item) for index, item in enumerate(given, 1)]


def _step(index: int, given: Any) -> PlanStep:
    if isinstance(given, str):
        given = {"description": given}
    if not isinstance(given, dict):
        raise BadPlan(f"step {index} is neither a text nor an object")
    if unknown := sorted(given.keys() - {"index", "description", "status", "workflow", "tool"}):
        raise BadPlan(f"step {index} has {unknown[0]!r}; a step has description, workflow and tool")
    description = given.get("description")
    if not isinstance(description, str) or not description.strip():
        raise BadPlan(f"step {index} has no description")
    named: dict[str, str | None] = {}
    for key in ("workflow", "tool"):
        value = given.get(key) or None
        if value is not None and not (isinstance(value, str) and len(value) <= NAME_LIMIT):
            raise BadPlan(f"step {index}: its {key} is not a name of at most {NAME_LIMIT} characters")
        named[key] = value
    if named["workflow"] and named["tool"]:
        raise BadPlan(f"step {index} names a workflow and a tool; it can name one of them")
    return PlanStep(index=index, description=description.strip(), workflow=named["workflow"], tool=named["tool"])


def objection_to(steps: Sequence[PlanStep], tools: Collection[str] | None) -> str | None:
    """Why a plan may not be carried out, by the rules that need no model; None if it keeps them.

    `tools` are what the executor can call; None where that is not known before it is asked.
    """
    if not steps:
        return "it has no steps"
    if len(steps) > STEP_LIMIT:
        return f"it has {len(steps)} steps, more than the {STEP_LIMIT} that a plan may have"
    for step in steps:
        if len(step.description) > DESCRIPTION_LIMIT:
            return f"step {step.index} is described in more than {DESCRIPTION_LIMIT} characters"
        if step.tool is not None and tools is not None and step.tool not in tools:
            there = f"it has {', '.join(sorted(tools))}" if tools else "it has none"
            return f"step {step.index} names the tool {step.tool!r}, which the executor does not have; {there}"
    return None

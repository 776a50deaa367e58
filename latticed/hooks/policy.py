"""A `pre_run` hook that judges runs by rules in CEL.

[hooks.policy]
use = "python"
point = "pre_run"
function = "latticed.hooks.policy:Policy"
settings.rules = [
  { when = 'run.created_by == "nightly"', allow = true },
  { when = 'run.goal.contains("DROP TABLE")', block = "not by this daemon" },
  { when = 'run.priority > 50', queue = "urgent", tags = { urgent = "yes" } },
]
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from latticed.expressions import Expression
from latticed.models.fields import Name, Tags
from latticed.models.hooks import Block


class Rule(BaseModel):
    """What is done with runs for which `when` is true."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    when: str = "true"
    allow: Literal[True] | None = None
    """No later rule is looked at."""
    block: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    queue: Name | None = None
    tags: Tags = {}
    """Put to those that the run has."""


class Policy:
    """Looks at one rule after the other, with `run` and `workspace` as names, until one allows or blocks.

    A rule that cannot be judged, such as one that asks for an input that is not there, is an error of the hook, which
    blocks unless its `on_error` says otherwise.
    """

    def __init__(self, *, rules: list[Any]) -> None:
        """Raises:
        ValueError: a rule is not understood; says which and why.
        """
        self._rules: list[tuple[Rule, Expression]] = []
        for number, given in enumerate(rules, 1):
            try:
                rule = Rule.model_validate(given)
                if rule.block is not None and (rule.allow or rule.queue or rule.tags):
                    raise ValueError("a rule that blocks does nothing else")
                self._rules.append((rule, Expression(rule.when)))
            except ValidationError as error:
                first = error.errors()[0]
                raise ValueError(f"rule {number}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
            except ValueError as error:
                raise ValueError(f"rule {number}: {error}") from None

    def __call__(self, payload: dict[str, Any]) -> Block | dict[str, Any] | None:
        """Judges one run."""
        names = {"run": payload["run"], "workspace": payload["workspace"]}
        changes: dict[str, Any] = {}
        for number, (rule, when) in enumerate(self._rules, 1):
            try:
                holds = when.evaluate(names)
            except ValueError as error:
                raise ValueError(f"rule {number}: {error}") from None
            if not isinstance(holds, bool):
                raise ValueError(f"rule {number}: `when` is not true or false but {type(holds).__name__}")
            if not holds:
                continue
            if rule.block is not None:
                return Block(rule.block)
            if rule.queue is not None:
                changes["queue"] = rule.queue
            if rule.tags:
                changes["tags"] = {**changes.get("tags", payload["run"]["tags"]), **rule.tags}
            if rule.allow:
                break
        return changes or None

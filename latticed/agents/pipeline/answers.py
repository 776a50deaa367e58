"""What models answer, read strictly: an answer that is not what was asked for is no answer."""

import re
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from latticed.models.pipeline import MEMORY_LIMIT

Text = Annotated[str, Field(min_length=1)]
TOOL = "final_result"
"""The tool by which a model answers that rather calls than writes JSON."""
A = TypeVar("A", bound="Answer")

_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)\n?\s*```", re.DOTALL)


class BadAnswer(ValueError):
    """What a model said cannot be read; its text says why, for the model too."""


class Answer(BaseModel):
    """What is asked of a model. `EXAMPLE` is what it looks like."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)
    EXAMPLE: ClassVar[str] = "{}"

    @classmethod
    def wanted(cls) -> str:
        """What a model is told of it."""
        return f"Answer by the tool `{TOOL}`, or with one JSON object and nothing else, such as: {cls.EXAMPLE}"


class PlannedStep(Answer):
    """One step of the plan: what is to be done. `tool` is named only if the step is a call of exactly that tool."""

    description: Text
    tool: str | None = None
    workflow: str | None = None


class PlanAnswer(Answer):
    """The plan: its steps in the order in which they are to be done."""

    EXAMPLE = '{"steps": [{"description": "…", "tool": null, "workflow": null}]}'
    steps: Annotated[list[PlannedStep], Field(min_length=1)]

    @field_validator("steps", mode="before")
    @classmethod
    def _texts_are_steps(cls, steps: Any) -> Any:
        if not isinstance(steps, list):
            return steps
        return [{"description": step} if isinstance(step, str) else step for step in steps]


class Verdict(Answer):
    """What a reviewer says of the work. `confidence` is from 0 to 1; `notes` are for whoever does it again."""

    EXAMPLE = (
        '{"outcome": "approve" or "retry" or "reject", "reason": "…", "confidence": 0.0 to 1.0, '
        '"notes": "what to change"}'
    )
    outcome: Literal["approve", "reject", "retry"]
    reason: str = ""
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    notes: str = ""

    @field_validator("notes", mode="before")
    @classmethod
    def _lines(cls, notes: Any) -> Any:
        if notes is None:
            return ""
        return "\n".join(notes) if isinstance(notes, list) and all(isinstance(n, str) for n in notes) else notes


class PlanVerdict(Verdict):
    """What a reviewer says of a plan, before anything of it is done."""


class Findings(Answer):
    """What a researcher has found: at most ten items, each of which stands by itself."""

    EXAMPLE = '{"items": ["…", "…"]}'
    items: Annotated[list[Text], Field(min_length=1, max_length=MEMORY_LIMIT)]


def read(kind: type[A], text: str) -> A:
    """An answer out of a text, which is the JSON alone or has it in one fenced block.

    Raises:
        BadAnswer: it holds no such JSON.
    """
    fenced = _FENCED.findall(text)
    try:
        value = orjson.loads(fenced[0] if len(fenced) == 1 else text)
    except ValueError:
        raise BadAnswer(f"{text.strip()[:80]!r} is not the JSON that was asked for") from None
    if isinstance(value, list) and kind is PlanAnswer:
        value = {"steps": value}
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadAnswer(f"{where or 'the answer'}: {first['msg']}") from None

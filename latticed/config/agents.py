"""The tables of `[agents.NAME]`."""

import re
from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from latticed.config.fields import Name, Table
from latticed.models.fields import STEP_ROLES, Absolute
from latticed.models.runs import Submission

PLACEHOLDER = re.compile(r"\{(?:goal|inputs\.[A-Za-z0-9_.-]+)\}")
"""What a command's argv may hold for a run to fill; always a whole argument."""


def unknown_role(roles: list[str] | None, known: Collection[str]) -> tuple[str, str] | None:
    """An objection to the first role that is none of these."""
    for role in roles or ():
        if role not in known:
            return "roles", f"unknown role {role!r}; there are {', '.join(known)}"
    return None


class AgentBase(Table):
    """What every sort of agent has."""

    max_retries: Annotated[int, Field(ge=0, le=5)] = 0
    recovery: Literal["resume", "requeue", "interrupt"] = "resume"
    queue: Name = "default"
    description: str = ""

    def objection(self, asked: Submission) -> tuple[str, str] | None:
        """What keeps this agent from a run as it was asked for: the field, and what is to be done about it."""
        if asked.mode != "live":
            return "mode", "it has no model to simulate; use mode 'live'"
        return unknown_role(asked.roles, STEP_ROLES)

    def kept_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A run's inputs as they are put on disk, and shown."""
        return inputs


class FunctionConfig(AgentBase):
    """An agent that is a Python function, by dotted path."""

    use: Literal["function"]
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]


class CommandConfig(AgentBase):
    """An agent that is a program. What a run gives fills whole arguments, never a part of one and never the program."""

    use: Literal["command"]
    argv: Annotated[list[str], Field(min_length=1)]
    cwd: Absolute | None = None
    env: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"]

    @field_validator("argv")
    @classmethod
    def _whole_arguments(cls, argv: list[str]) -> list[str]:
        if not argv[0] or PLACEHOLDER.search(argv[0]):
            raise ValueError("the program itself must be fixed, not taken from a run")
        for argument in argv:
            if "\0" in argument:
                raise ValueError("an argument holds a NUL")
            if (found := PLACEHOLDER.search(argument)) and found.group() != argument:
                raise ValueError(f"{found.group()} must be an argument of its own, not a part of {argument!r}")
        return argv

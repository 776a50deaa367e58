"""Field types that several models share."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints

Kind = Literal["agent", "workflow", "flow"]
Mode = Literal["live", "simulation"]
Recovery = Literal["resume", "requeue", "interrupt"]
StopMode = Literal["graceful", "now", "kill"]
Role = Literal["viewer", "operator", "admin"]

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Tags = Annotated[dict[Annotated[str, StringConstraints(min_length=1, max_length=64)], Label], Field(max_length=32)]
Inputs = dict[str, JsonValue]


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"must be an absolute path, not {str(path)!r}")
    return path


Absolute = Annotated[Path, AfterValidator(_absolute)]
"""A path that means the same wherever the daemon was started."""

STEP_ROLES: tuple[str, ...] = ("researcher", "planner", "executor", "reviewer", "release")
"""The roles that every pipeline has. Its configuration may add others."""


class Request(BaseModel):
    """A body that a client sends: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, defer_build=True)


class View(BaseModel):
    """Something the daemon shows."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


Json = Any
"""Any JSON value in a view."""

"""The tables `[limits]` and `[workspaces.NAME]`: what a workspace may take."""

from typing import Annotated, Any

from pydantic import Field, field_validator

from latticed.config.fields import Table

Most = Annotated[int, Field(ge=0, le=1 << 53)]


class LimitsConfig(Table):
    """How much of each at most; None is no limit."""

    active_runs: Most | None = None
    queued_runs: Most | None = None
    submissions_per_minute: Most | None = None
    event_bytes: Most | None = None
    storage_bytes: Most | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _lifted(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError('must be a whole number or "none"')
        return None if value == "none" else value

    def over(self, default: "LimitsConfig") -> "LimitsConfig":
        """These, and those of `default` for what is not said here; `"none"` is said."""
        return default.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})

    @property
    def given(self) -> frozenset[str]:
        """The names of those that there are."""
        return frozenset(name for name in type(self).model_fields if getattr(self, name) is not None)

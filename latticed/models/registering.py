"""Hooks as they are registered over HTTP, changed and shown."""

import difflib
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from latticed.models.events import EVENT_TYPES, OWN
from latticed.models.fields import Name, Request, View
from latticed.models.hooks import HookKind, OnError, Point, SecretReference, Sort, WebhookHook

RESERVED = ("deliveries",)
"""Names that would stand for something else in a path."""
Url = Annotated[str, StringConstraints(max_length=2000, pattern=r"^https?://[^\s]+$")]
EventType = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Target = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Order = Annotated[int, Field(ge=-1_000_000, le=1_000_000)]


def unknown_event(types: list[str]) -> str | None:
    """What is wrong with the first of these that is no event's type; None if all are."""
    for each in types:
        if each not in EVENT_TYPES and not each.startswith(OWN):
            near = difflib.get_close_matches(each, EVENT_TYPES, 1, 0.6)
            hint = f"did you mean {near[0]!r}?" if near else f"a type of your own begins with {OWN!r}"
            return f"{each!r} is no type of event; {hint}"
    return None


def refuse_others(given: Any) -> Any:
    """Says of the other sorts of hooks where they belong, before anything is said about their fields.

    Raises:
        ValueError: it is one.
    """
    use = given.get("use") if isinstance(given, dict) else None
    if use in ("python", "command"):
        raise ValueError(f"use: a {use} hook stands in the configuration file; only webhooks are made here")
    return given


class HookRequest(WebhookHook):
    """A webhook to be registered."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Name
    use: Literal["webhook"] = "webhook"

    @model_validator(mode="before")
    @classmethod
    def _of_this_door(cls, given: Any) -> Any:
        return refuse_others(given)

    @field_validator("name")
    @classmethod
    def _no_path(cls, name: str) -> str:
        if name in RESERVED:
            raise ValueError(f"{name!r} is taken by a path of this interface")
        return name

    @field_validator("events")
    @classmethod
    def _of_known_types(cls, events: list[str]) -> list[str]:
        if wrong := unknown_event(events):
            raise ValueError(wrong)
        return events

    @model_validator(mode="after")
    def _names_events(self) -> Self:
        if self.point == "on_event" and not self.events:
            raise ValueError("events: a hook at on_event names the types of the events that it is told of")
        return self

    @property
    def spec(self) -> WebhookHook:
        """Without the name."""
        return WebhookHook.model_validate(self.model_dump(exclude={"name"}))


class HookPatch(Request):
    """What of a registered hook is to be another. What is not given stays as it is."""

    name: Name | None = None
    point: Point | None = None
    url: Url | None = None
    secret: SecretReference | None = None
    kind: HookKind | None = None
    targets: list[Target] | None = None
    workspaces: list[Name] | None = None
    events: list[EventType] | None = None
    order: Order | None = None
    enabled: bool | None = None
    timeout_seconds: Seconds | None = None
    on_error: OnError | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """What was given. Null takes a secret away; elsewhere it says nothing."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return {name: value for name, value in given.items() if value is not None or name == "secret"}


class Hook(View):
    """A hook. One of the configuration file has no id, and is changed there."""

    id: str | None
    name: str
    source: Literal["file", "registered"]
    workspace: str
    use: Sort
    point: Point
    kind: HookKind
    targets: list[str]
    workspaces: list[str]
    events: list[str]
    order: int
    enabled: bool
    timeout_seconds: float
    on_error: OnError
    url: str | None
    secret: str | None
    """A reference; null: the daemon has a key of its own for it."""
    function: str | None
    argv: list[str] | None
    created_by: str | None
    created_at: str | None
    updated_at: str | None
    signing_secret: str | None = None
    """`whsec_…`, of a webhook without a secret of its own: shown when it is registered, and where it is asked for."""


class HookPage(View):
    """A page of hooks: those of the file by name, then the registered ones, newest first."""

    items: list[Hook]
    next_cursor: str | None

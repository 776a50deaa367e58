"""Hooks: what one is, what it is told, what it may answer, and the record of each of its executions.

Pure. A hook of the configuration file and one that was registered over HTTP are the same `HookSpec`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, get_args

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator

from latticed.models.fields import Absolute, Name

Point = Literal["pre_run", "post_run", "pre_node", "post_node", "pre_tool", "post_tool", "on_event"]
"""Where in a run's life a hook is asked. `on_event` is about any event, by its type."""
Sort = Literal["python", "command", "webhook"]
OnError = Literal["block", "ignore"]
HookKind = Literal["agent", "workflow", "flow", "*"]
DeliveryStatus = Literal["pending", "ok", "blocked", "error", "skipped", "timeout", "dead"]
"""`skipped`: cut short, because its run was cancelled or given back meanwhile. `pending` and `dead` are only of those
that are sent from the outbox."""

POINTS: tuple[str, ...] = get_args(Point)
CHANGEABLE: dict[str, tuple[str, ...]] = {
    "pre_run": ("inputs", "tags", "queue"),
    "pre_node": ("inputs",),
    "pre_tool": ("args",),
}
"""What a hook at each point may change. At the other points what it answers is not looked at."""
DETAIL_CHARS, OUTPUT_CHARS, REASON_CHARS = 500, 4000, 500
EVENT = "hook.finished"
PRE_RUN_BRANCH = "~pre_run"
"""The journal's branch of what was answered before a run's first step. It holds for the run: a journal that is emptied
keeps it, and a rerun, which is another run, does not get it."""

Argument = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00]*$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class HookTable(BaseModel):
    """What every sort of hook has, as the configuration file and the HTTP interface spell it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    point: Point
    kind: HookKind = "*"
    targets: list[Annotated[str, StringConstraints(min_length=1, max_length=200)]] = []
    """Of which targets; empty is all."""
    workspaces: list[Name] = []
    """In which workspaces; empty is all."""
    events: list[Annotated[str, StringConstraints(min_length=1, max_length=100)]] = []
    """For `on_event`: which types; empty is all."""
    order: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 100
    enabled: bool = True
    timeout_seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 10.0
    on_error: Annotated[OnError | None, Field(validate_default=True)] = None
    """Without it a `pre_*` hook blocks what it could not judge; elsewhere an error is only told."""

    @field_validator("on_error")
    @classmethod
    def _closed_before(cls, on_error: OnError | None, info: ValidationInfo) -> OnError:
        return on_error or ("block" if str(info.data.get("point", "")).startswith("pre_") else "ignore")

    @field_validator("events")
    @classmethod
    def _of_events(cls, events: list[str], info: ValidationInfo) -> list[str]:
        if events and info.data.get("point") != "on_event":
            raise ValueError("only a hook at the point on_event chooses events")
        return events


class PythonHook(HookTable):
    """A Python function of the daemon's own process: `(payload) -> None | Block | dict`, async or plain.

    With `settings`, what is found at `function` is called with them once, and what it returns is the hook.
    """

    use: Literal["python"]
    function: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
    settings: dict[str, Any] | None = None


class CommandHook(HookTable):
    """A program: the payload on its stdin, its answer on its stdout. No shell reads `argv`."""

    use: Literal["command"]
    argv: Annotated[list[Argument], Field(min_length=1)]
    cwd: Absolute | None = None
    env: list[Variable] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"]


def _reference(text: str) -> str:
    """Never tells what stood in the place of a reference: it may be the secret itself."""
    if not re.fullmatch(r"secret:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", text):
        raise ValueError("a secret is not written down but referred to, as secret:NAME")
    return text


SecretReference = Annotated[str, AfterValidator(_reference)]


class WebhookHook(HookTable):
    """An HTTPS POST. The only sort that can be registered over HTTP."""

    use: Literal["webhook"]
    url: Annotated[str, StringConstraints(max_length=2000, pattern=r"^https?://[^\s]+$")]
    secret: SecretReference | None = None
    """A reference, never the secret itself; without one the daemon has a key of its own for it."""


AnyHook = Annotated[PythonHook | CommandHook | WebhookHook, Field(discriminator="use")]


@dataclass(frozen=True, slots=True)
class HookSpec:
    """A hook that is in force, whether it stands in the file or was registered. Immutable: a change makes another."""

    name: str
    table: PythonHook | CommandHook | WebhookHook
    id: str | None = None
    """`hook_…` of a registered one; None: it stands in the file."""
    workspace: str | None = None
    """Where it was registered, and then the only place where it is asked."""

    @property
    def key(self) -> str:
        """What its deliveries know it by: never that of another hook, and the same for as long as it is there."""
        return self.id or self.name

    @property
    def point(self) -> Point:
        """Where it is asked."""
        return self.table.point

    @property
    def sort(self) -> Sort:
        """How it is asked."""
        return self.table.use

    @property
    def url(self) -> str | None:
        """Where a webhook leads; None of the other sorts."""
        return self.table.url if isinstance(self.table, WebhookHook) else None

    @property
    def judges(self) -> bool:
        """Whether its answer counts: a hook after the fact can neither block nor change anything."""
        return self.table.point in CHANGEABLE

    @property
    def rank(self) -> tuple[int, str, str]:
        """Hooks of a point are asked in this order."""
        return self.table.order, self.name, self.key

    def is_in(self, workspace: str) -> bool:
        """Whether it is asked about runs of this workspace at all."""
        if self.workspace is not None:
            return self.workspace == workspace
        return not self.table.workspaces or workspace in self.table.workspaces

    def wants(self, kind: str, target: str, event_type: str | None = None) -> bool:
        """Whether it is asked about a run of that kind and target (and, at `on_event`, about such an event)."""
        table = self.table
        return (
            table.kind in ("*", kind)
            and (not table.targets or target in table.targets)
            and (event_type is None or not table.events or event_type in table.events)
        )


# What it is told


def payload(hook: HookSpec, workspace: str, run: Mapping[str, Any], **subject: Any) -> dict[str, Any]:
    """What a hook is told: `run` as models.runs.Run, and its `tool`, `node` or `event`."""
    return {"hook": hook.name, "point": hook.point, "workspace": workspace, "run": run, **subject}


class Occasion(NamedTuple):
    """Which execution of a hook this is: the same however often it is tried."""

    delivery_id: str
    workspace: str
    run_id: str
    at: int
    """When it came about, in microseconds."""


# What it answers


class HookFailed(Exception):
    """A hook gave no answer that can be used; its text says why, `output` what it printed."""

    def __init__(self, reason: str, output: str = "") -> None:
        super().__init__(reason)
        self.output = output


@dataclass(frozen=True, slots=True)
class Block:
    """A hook's veto: what it was asked about does not happen. `reason` is shown to whoever wanted it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a hook said: nothing, a veto, or changes that are still to be validated."""

    block: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    output: str = ""
    """What it printed, or the body of its answer."""

    @classmethod
    def of(cls, value: Any, output: str = "") -> "Answer":
        """From what a function returned, or from the JSON that a program or a receiver gave.

        Raises:
            HookFailed: it is neither nothing, nor a `Block` or `{"block": reason}`, nor an object of changes.
        """
        if value is None:
            return cls(output=output)
        if isinstance(value, Block):
            value = {"block": value.reason}
        if not isinstance(value, dict):
            reason = f"its answer is {type(value).__name__}; it must be nothing, a block, or an object of changes"
            raise HookFailed(reason, output)
        if "block" in value:
            reason = value["block"]
            if len(value) > 1 or not isinstance(reason, str) or not reason.strip():
                raise HookFailed('its answer has a block that is not {"block": "reason"} and no more', output)
            return cls(block=clip(reason.strip(), REASON_CHARS), output=output)
        return cls(changes=value, output=output)

    @classmethod
    def read(cls, body: bytes, output: str = "") -> "Answer":
        """From text: a program's stdout, or the body of a receiver's answer; blank is nothing, as is null.

        Raises:
            HookFailed: it is not JSON, or as for `of`.
        """
        if not body.strip():
            return cls(output=output)
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise HookFailed(f"its answer is not JSON: {error}", output) from None
        if value is not None and not isinstance(value, dict):
            raise HookFailed("its answer is not a JSON object", output)
        return cls.of(value, output)


class Verdict(NamedTuple):
    """What all hooks of a point came to: a veto, or changes that are valid."""

    changes: dict[str, Any]
    hook: str | None = None
    """The name of the one that blocked."""
    reason: str | None = None


def clip(text: str, chars: int) -> str:
    """The beginning of a text, without what cannot be stored."""
    return text[:chars].encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def clip_end(text: str, chars: int) -> str:
    """The end of a text, without what cannot be stored."""
    return clip(text[-chars:], chars)


# The record of an execution


class DeliveryRow(NamedTuple):
    """One execution of a hook, as the store keeps it: the columns of `hook_deliveries`. Times are microseconds."""

    id: str
    workspace: str
    hook: str
    """`HookSpec.key`."""
    point: str
    sort: str
    run_id: str
    position: int | None
    status: str
    attempts: int
    created_at: int
    due_at: int | None
    finished_at: int | None
    duration_ms: float | None
    detail: str
    """JSON of a text, or null."""
    output: str
    """JSON of a text, or null."""

"""Workspaces, tokens, approvals, the audit trail: who may do what, and who did."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, StringConstraints

from latticed.models.fields import Inputs, Label, Name, Request, Role, View
from latticed.models.limits import LimitsView, UseView

EVERYWHERE = "*"
"""In place of a workspace's name: all of them."""

RANK: dict[str, int] = {"viewer": 0, "operator": 1, "admin": 2}
"""Roles in rising order; each may do what those below it may."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking: a token that was checked."""

    token_id: str
    name: str
    role: Role
    workspace: str
    lanes: tuple[str, ...] | None = None
    expires_at: int | None = None

    def may(self, role: str) -> bool:
        """Whether this principal has at least `role`."""
        return RANK[self.role] >= RANK[role]

    def enters(self, workspace: str) -> bool:
        """Whether this principal has a right to `workspace`."""
        return self.workspace in (EVERYWHERE, workspace)


class Whoami(View):
    """The principal, as it sees itself."""

    token_id: str
    name: str
    role: Role
    workspace: str
    lanes: list[str] | None
    expires_at: str | None


class WorkspaceRequest(Request):
    """A workspace to be made."""

    name: Name


class Workspace(View):
    """The isolation boundary."""

    name: str
    created_at: str


class WorkspaceDetail(Workspace):
    """A workspace with its limits and its use of them."""

    limits: LimitsView
    use: UseView


class WorkspacePage(View):
    """A page of workspaces."""

    items: list[Workspace]
    next_cursor: str | None


class TokenRequest(Request):
    """A token to be made."""

    name: Label = "token"
    role: Role
    lanes: Annotated[list[Name], Field(max_length=64)] | None = None
    expires_seconds: Annotated[float, Field(gt=0, le=10 * 366 * 86400, allow_inf_nan=False)] | None = None


class Token(View):
    """A token, without its text."""

    id: str
    name: str
    role: Role
    workspace: str
    lanes: list[str] | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    used_at: str | None
    """When it was last used, to the minute."""


class SignIn(Request):
    """What a browser signs in with."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=256)]


class NewToken(Token):
    """A token with its text, which is shown this once."""

    token: str


class TokenPage(View):
    """A page of tokens."""

    items: list[Token]
    next_cursor: str | None


class Approval(View):
    """A question to a person."""

    id: str
    run_id: str
    node: str | None
    status: Literal["pending", "approved", "denied", "expired", "closed"]
    prompt: str
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")]
    lanes: list[str]
    created_at: str
    expires_at: str | None
    answered_at: str | None
    answered_by: str | None
    answer: JsonValue
    comment: str | None
    subject: dict[str, Any] | None


class ApprovalPage(View):
    """A page of approvals, newest first."""

    items: list[Approval]
    next_cursor: str | None


class Answer(Request):
    """A person's decision."""

    decision: Literal["approve", "deny"]
    data: Inputs = Field(default_factory=dict)
    comment: Annotated[str, StringConstraints(max_length=4000)] = ""


class ToolView(View):
    """A tool that an agent may call."""

    name: str
    use: str
    description: str


class AgentView(View):
    """An agent that a run can target."""

    name: str
    use: str
    description: str
    queue: str
    max_retries: int
    recovery: str
    available: bool
    missing: str | None
    modes: list[Literal["live", "simulation"]]
    model: str | None
    tools: list[ToolView]
    roles: list[str]


class AgentPage(View):
    """The configured agents."""

    items: list[AgentView]
    next_cursor: str | None


class QueueView(View):
    """A queue, its limit and its load in this workspace."""

    name: str
    concurrency: int
    running: int
    queued: int


class QueuePage(View):
    """The configured queues, and the workspace's limits across all of them."""

    items: list[QueueView]
    next_cursor: str | None
    limits: LimitsView
    use: UseView

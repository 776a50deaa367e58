"""The tables of what works on a model: `[models.NAME]`, `[tools.NAME]`, and what their agents have in common."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from latticed.config.agents import AgentBase, unknown_role
from latticed.config.fields import Bytes, Name, Seconds, SecondsOrZero, Table
from latticed.models.fields import STEP_ROLES, Absolute
from latticed.models.fields import Name as Lane
from latticed.models.runs import Submission

Dotted = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
Reference = Annotated[str, Field(pattern=r"^secret:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
"""Where a secret is, never the secret itself."""
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Limit = Annotated[int, Field(ge=0, le=10**12)]
Policy = dict[str, Literal["auto", "ask", "deny"]]
"""A pattern of tools' names, such as `git_*`, and what is done with a call; the first that fits counts."""
Address = Annotated[str, Field(pattern=r"^https?://[^\s/]+\S*$")]


class ModelConfig(Table):
    """A model, where it is reached, and what it costs."""

    provider: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")] = "openai"
    model: Annotated[str, Field(min_length=1)]
    base_url: Address | None = None
    key: Reference | None = None
    timeout_seconds: Seconds = 600.0
    silence_seconds: Seconds = 120.0
    attempts: Annotated[int, Field(ge=1, le=100)] = 6
    longest_wait_seconds: Seconds = 3600.0
    connections: Annotated[int, Field(ge=1, le=10_000)] = 200
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    input_usd_per_million: Price | None = None
    output_usd_per_million: Price | None = None

    @property
    def has_prices(self) -> bool:
        """Whether it can be told what a reply costs."""
        return self.input_usd_per_million is not None or self.base_url is None

    @model_validator(mode="after")
    def _both_prices(self) -> Self:
        if (self.input_usd_per_million is None) != (self.output_usd_per_million is None):
            raise ValueError("input_usd_per_million and output_usd_per_million are set together or not at all")
        return self


class BudgetConfig(Table):
    """What one run may use; None is without limit."""

    max_requests: Limit | None = 100
    max_tokens: Limit | None = None
    max_cost_usd: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class ToolBase(Table):
    """What every sort of tool has."""

    description: str = ""
    timeout_seconds: Seconds | None = None

    def about(self) -> str:
        """What it is, for a model and for who looks at an agent, as far as its table tells."""
        return self.description


class FunctionToolConfig(ToolBase):
    """A Python function; its signature and docstring tell the model what it takes."""

    use: Literal["function"]
    function: Dotted


class McpToolConfig(ToolBase):
    """The tools of an MCP server: a program that is started, or an address."""

    use: Literal["mcp"]
    argv: Annotated[list[str], Field(min_length=1)] | None = None
    cwd: Absolute | None = None
    env: list[Variable] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"]
    secrets: dict[Variable, Reference] = {}
    url: Address | None = None
    headers: dict[str, str] = {}
    shared: bool = False
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,32}$")] = ""
    start_seconds: Seconds = 30.0

    def about(self) -> str:
        """As ToolBase.about; of a program and an address no more than their name, since both may hold secrets."""
        if self.description:
            return self.description
        where = f"at {urlsplit(self.url).hostname}" if self.url else f"started by {Path((self.argv or [''])[0]).name}"
        return f"The tools of an MCP server {where}."

    def references(self) -> list[str]:
        """The secrets that it needs."""
        words = [word for value in self.headers.values() for word in value.split(" ")]
        return [*self.secrets.values(), *(word for word in words if word.startswith("secret:"))]

    @model_validator(mode="after")
    def _one_transport(self) -> Self:
        if (self.argv is None) == (self.url is None):
            raise ValueError("an MCP server has either argv, a program to start, or url, an address")
        urlsplit(self.url or "")  # Raises for what is none.
        return self


class RunToolConfig(ToolBase):
    """An agent or a workflow as a tool: a call is a child run, its output the answer."""

    use: Literal["agent", "workflow"]
    target: Annotated[str, Field(min_length=1, max_length=200)]

    def about(self) -> str:
        """As ToolBase.about."""
        ours = f"Runs the {self.use} {self.target} and gives its output; say what it is to do by the goal."
        return self.description or ours


class CommandToolConfig(ToolBase):
    """Programs that the model may call, with the arguments that it chooses. `allow` are the beginnings of command
    lines: a call must begin with all the words of one of them."""

    use: Literal["command"]
    allow: Annotated[list[Annotated[list[str], Field(min_length=1)]], Field(min_length=1)]
    cwd: Absolute | None = None
    env: list[Variable] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"]
    output_bytes: Bytes = 65_536

    @property
    def allowed(self) -> str:
        """The list, for people and models."""
        return "; ".join(" ".join([*words, "…"]) for words in self.allow)

    def about(self) -> str:
        """As ToolBase.about."""
        return self.description or f"Runs programs: {self.allowed}"


ToolConfig = Annotated[
    FunctionToolConfig | McpToolConfig | RunToolConfig | CommandToolConfig, Field(discriminator="use")
]


class ScriptedCall(Table):
    """A turn of a scripted model: the call of a tool."""

    tool: Annotated[str, Field(min_length=1)]
    args: dict[str, Any] = {}


class ModelledBase(AgentBase):
    """What every agent that works on a model has."""

    model: Annotated[str, Field(min_length=1)] | None = None
    tools: list[Name] = []
    policy: Policy = {}
    lanes: list[Lane] = []
    approval_seconds: Seconds | None = None
    tool_seconds: SecondsOrZero = 600.0
    simulation: list[str | ScriptedCall] = []
    budget: BudgetConfig = BudgetConfig()

    def models(self) -> dict[str, str]:
        """Key → the model that it names, of all that do."""
        return {} if self.model is None else {"model": self.model}

    def models_used(self) -> list[str]:
        """The models that its runs work on unless they say otherwise, each once."""
        return [] if self.model is None else [self.model]

    def tool_names(self) -> list[tuple[str, str]]:
        """Key and tool, of all keys that name one."""
        return [("tools", tool) for tool in self.tools]

    @field_validator("policy")
    @classmethod
    def _patterns(cls, policy: Policy) -> Policy:
        for pattern in policy:
            if not re.fullmatch(r"[A-Za-z0-9_.*?\[\]!-]{1,100}", pattern):
                raise ValueError(f'{pattern!r} is no pattern of tools\' names, such as "git_*"')
        return policy


class PydanticAiConfig(ModelledBase):
    """Any ready pydantic_ai.Agent, by dotted path. Without a `model` it works on its own."""

    use: Literal["pydantic-ai"]
    agent: Dotted

    def objection(self, asked: Submission) -> tuple[str, str] | None:
        """As AgentBase.objection; a simulation is something that it can do."""
        return unknown_role(asked.roles, STEP_ROLES)

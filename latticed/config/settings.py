"""Every key that a file can set."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from latticed.complaint import nearest
from latticed.config.agents import CommandConfig, FunctionConfig
from latticed.config.fields import Bytes, Count, Days, Name, Seconds, SecondsOrZero, Table, wrong
from latticed.config.hooks import AnyHook, WebhooksConfig
from latticed.config.limits import LimitsConfig
from latticed.config.modelled import ModelConfig, ModelledBase, PydanticAiConfig, ToolConfig
from latticed.config.pipeline import PipelineConfig
from latticed.models.fields import Name as ShownName


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class ServerConfig(Table):
    """Where the door is."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8700
    unix_socket: Path | None = None
    request_limit_bytes: Bytes = 1 << 20
    request_seconds: Seconds = 30.0
    ping_seconds: Seconds = 15.0
    allow_public: bool = False

    @model_validator(mode="after")
    def _stays_at_home(self) -> Self:
        if not (self.allow_public or self.unix_socket or _is_loopback(self.host)):
            raise wrong(
                "server.host",
                f"{self.host} can be reached from other machines; set server.allow_public = true if that is meant",
            )
        return self


class StoreConfig(Table):
    """Where runs are kept."""

    url: str | None = None
    busy_seconds: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 2.0

    @field_validator("url")
    @classmethod
    def _known(cls, url: str | None) -> str | None:
        if url is not None and not re.match(r"sqlite\+aiosqlite:///[^:?]", url):
            raise ValueError("must be sqlite+aiosqlite:///PATH, a database in a file")
        return url


class BrokerConfig(Table):
    """What carries wake-ups."""

    url: Literal["memory:"] = "memory:"


class RunsConfig(Table):
    """How runs are driven."""

    concurrency: Count = 1000
    threads: Annotated[int, Field(ge=1, le=4096)] = 32
    park_seconds: SecondsOrZero = 2.0
    grace_seconds: Seconds = 30.0
    kill_seconds: Seconds = 10.0
    drain_seconds: SecondsOrZero = 30.0
    max_recoveries: Annotated[int, Field(ge=1, le=1000)] = 3
    output_limit_bytes: Bytes = 1 << 20


class QueueConfig(Table):
    """One named queue."""

    concurrency: Count = 100


class RetentionConfig(Table):
    """How long finished runs and the audit trail are kept; None is for ever."""

    ok_days: Days | None = None
    failed_days: Days | None = None
    audit_days: Days | None = None


class LogConfig(Table):
    """What is logged."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class SecretsConfig(Table):
    """Where `secret:NAME` is looked for, after the credential directory and before the environment."""

    dir: Path | None = None


AgentConfig = Annotated[FunctionConfig | CommandConfig | PydanticAiConfig | PipelineConfig, Field(discriminator="use")]


class Settings(Table):
    """Every key that a file can set."""

    server: ServerConfig = ServerConfig()
    store: StoreConfig = StoreConfig()
    broker: BrokerConfig = BrokerConfig()
    runs: RunsConfig = RunsConfig()
    queues: Annotated[dict[Name, QueueConfig], Field(validate_default=True)] = {}
    limits: LimitsConfig = LimitsConfig()
    workspaces: dict[Name, LimitsConfig] = {}
    retention: RetentionConfig = RetentionConfig()
    models: dict[Name, ModelConfig] = {}
    tools: dict[Name, ToolConfig] = {}
    agents: dict[Name, AgentConfig] = {}
    hooks: dict[ShownName, AnyHook] = {}
    webhooks: WebhooksConfig = WebhooksConfig()
    log: LogConfig = LogConfig()
    secrets: SecretsConfig = SecretsConfig()

    @field_validator("queues")
    @classmethod
    def _default_queue(cls, queues: dict[str, QueueConfig]) -> dict[str, QueueConfig]:
        return {"default": QueueConfig()} | queues

    @model_validator(mode="after")
    def _queues_exist(self) -> Self:
        for name, agent in self.agents.items():
            if agent.queue not in self.queues:
                raise wrong(
                    f"agents.{name}.queue",
                    f"there is no queue {agent.queue!r}; {nearest(agent.queue, list(self.queues), 'the queues are')}",
                )
        return self

    @model_validator(mode="after")
    def _models_and_tools_exist(self) -> Self:
        for name, agent in self.agents.items():
            if not isinstance(agent, ModelledBase):
                continue
            for key, model in agent.models().items():
                if model not in self.models and not re.match(r"[a-z][a-z0-9_-]*:.", model):
                    there = nearest(model, list(self.models), "the models are") if self.models else "add it"
                    reason = f"there is no table [models.{model}], nor is it provider:model; {there}"
                    raise wrong(f"agents.{name}.{key}", reason)
                config = self.models.get(model)
                if agent.budget.max_cost_usd is not None and config is not None and not config.has_prices:
                    reason = f"what model {model!r} costs is not known: set its input_ and output_usd_per_million"
                    raise wrong(f"agents.{name}.budget.max_cost_usd", reason)
            for key, tool in agent.tool_names():
                if tool not in self.tools:
                    there = nearest(tool, list(self.tools), "the tools are") if self.tools else "none is configured"
                    raise wrong(f"agents.{name}.{key}", f"there is no tool {tool!r}; {there}")
        return self

    def limits_of(self, workspace: str) -> LimitsConfig:
        """What holds for a workspace: its own limits before those for all."""
        own = self.workspaces.get(workspace)
        return self.limits if own is None else own.over(self.limits)

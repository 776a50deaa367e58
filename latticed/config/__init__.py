"""What the daemon is told."""

from latticed.config.agents import PLACEHOLDER, AgentConfig, CommandConfig, FunctionConfig
from latticed.config.fields import ConfigError, Table
from latticed.config.limits import LimitsConfig
from latticed.config.loading import BUILT_IN_AGENTS, Config, load
from latticed.config.settings import QueueConfig, RetentionConfig, RunsConfig, Settings

__all__ = [
    "BUILT_IN_AGENTS",
    "PLACEHOLDER",
    "AgentConfig",
    "CommandConfig",
    "Config",
    "ConfigError",
    "FunctionConfig",
    "LimitsConfig",
    "QueueConfig",
    "RetentionConfig",
    "RunsConfig",
    "Settings",
    "Table",
    "load",
]

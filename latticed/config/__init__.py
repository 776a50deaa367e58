"""What the daemon is told."""

from latticed.config.agents import PLACEHOLDER, CommandConfig, FunctionConfig
from latticed.config.fields import ConfigError, Table
from latticed.config.limits import LimitsConfig
from latticed.config.loading import BUILT_IN_AGENTS, Config, load
from latticed.config.modelled import McpToolConfig, ModelConfig, ModelledBase, PydanticAiConfig, ToolConfig
from latticed.config.pipeline import PipelineConfig
from latticed.config.settings import AgentConfig, QueueConfig, RetentionConfig, RunsConfig, ServerConfig, Settings

__all__ = [
    "BUILT_IN_AGENTS",
    "PLACEHOLDER",
    "AgentConfig",
    "CommandConfig",
    "Config",
    "ConfigError",
    "FunctionConfig",
    "LimitsConfig",
    "McpToolConfig",
    "ModelConfig",
    "ModelledBase",
    "PipelineConfig",
    "PydanticAiConfig",
    "QueueConfig",
    "RetentionConfig",
    "RunsConfig",
    "ServerConfig",
    "Settings",
    "Table",
    "ToolConfig",
    "load",
]

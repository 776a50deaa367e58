"""The agents that are configured or come with installed packages. Built-ins come in by the same way as anybody's."""

import importlib
from importlib.metadata import entry_points
from typing import Any

from latticed.config import AgentConfig, CommandConfig, Config, FunctionConfig
from latticed.errors import LatticedError
from latticed.ports import Agent

ENTRY_POINTS = "latticed.agents"


class BadPlugin(LatticedError):
    """An agent's code cannot be used."""

    exit_code = 78
    title = "Unusable agent"


def load_dotted(path: str) -> Any:
    """The object at `module:attribute`.

    Raises:
        BadPlugin: it cannot be imported, or is not there.
    """
    module, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        raise BadPlugin(f"{path}: cannot import {module}: {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise BadPlugin(f"{path}: {module} has no {attribute}")
        found = getattr(found, part)
    return found


class Agents:
    """The agents by name, with their configuration. A reload makes a new one; code is not imported again."""

    def __init__(self, config: Config) -> None:
        """Loads every agent.

        Raises:
            BadPlugin: one cannot be used; nothing else has changed.
        """
        self._config = config
        self._configured: dict[str, AgentConfig] = dict(config.agents)
        for entry in entry_points(group=ENTRY_POINTS):
            self._configured.setdefault(entry.name, FunctionConfig(use="function", function=entry.value))
        self._agents = {name: self._load(name, agent) for name, agent in self._configured.items()}

    def _load(self, name: str, agent: AgentConfig) -> Agent:
        try:
            return self._make(name, agent)
        except BadPlugin as error:
            raise BadPlugin(f"agents.{name}: {error.detail}") from error

    def _make(self, name: str, agent: AgentConfig) -> Agent:
        if isinstance(agent, CommandConfig):
            from latticed.agents.command import CommandAgent

            return CommandAgent(agent, name, self._config.state_dir)
        from latticed.agents.function import FunctionAgent

        function = load_dotted(agent.function)
        if not callable(function):
            raise BadPlugin(f"{agent.function} is not a function")
        return FunctionAgent(function)

    def find(self, kind: str, target: str) -> Agent | None:
        """An agent that can run now; None if there is none of that name."""
        return self._agents.get(target) if kind == "agent" else None

    def defaults(self, kind: str, target: str) -> AgentConfig | None:
        """What its configuration says of its runs; None if there is none of that name."""
        return self._configured.get(target) if kind == "agent" else None

    def names(self) -> list[str]:
        """The names of all agents."""
        return sorted(self._configured)

    def queues(self) -> dict[str, int]:
        """The queues and their limits."""
        return {name: queue.concurrency for name, queue in self._config.queues.items()}

    def views(self) -> list[dict[str, Any]]:
        """Every agent as models.people.AgentView."""
        return [
            {
                "name": name,
                "use": agent.use,
                "description": agent.description,
                "queue": agent.queue,
                "max_retries": agent.max_retries,
                "recovery": agent.recovery,
                "available": True,
                "missing": None,
            }
            for name, agent in sorted(self._configured.items())
        ]


class Registry:
    """The agents of this moment: what everybody holds while a reload changes what is inside."""

    def __init__(self, agents: Agents) -> None:
        self.agents = agents

    def find(self, kind: str, target: str) -> Agent | None:
        """As Agents.find."""
        return self.agents.find(kind, target)

    def defaults(self, kind: str, target: str) -> AgentConfig | None:
        """As Agents.defaults."""
        return self.agents.defaults(kind, target)

    def names(self) -> list[str]:
        """As Agents.names."""
        return self.agents.names()

    def queues(self) -> dict[str, int]:
        """As Agents.queues."""
        return self.agents.queues()

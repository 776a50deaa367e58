"""The agents that are configured or come with installed packages. Built-ins come in by the same way as anybody's."""

import importlib
import importlib.util
from collections import Counter
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from latticed.config import (
    AgentConfig,
    CommandConfig,
    Config,
    FunctionConfig,
    McpToolConfig,
    ModelledBase,
    PipelineConfig,
    PydanticAiConfig,
)
from latticed.errors import LatticedError
from latticed.ports import Agent
from latticed.secrets import Secrets

if TYPE_CHECKING:
    from latticed.agents.workbench import Workbench

ENTRY_POINTS = "latticed.agents"
PACKAGES = ("pydantic_ai", "openai", "anthropic", "fastmcp")
INSTALL = "the extra agents: pip install 'latticed[agents]'"
"""What agents on a model need, and how it is had."""


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

    def __init__(self, config: Config, before: "Agents | None" = None) -> None:
        """Loads every agent. What those of `before` share is kept if it would be the same.

        Raises:
            BadPlugin: one cannot be used; nothing else has changed.
            ConfigError: a tool cannot be one.
            NoSecret: one that a model or a tool needs is not there.
        """
        self._config = config
        self.lost: Counter[str] = Counter() if before is None else before.lost
        """Calls of tools that were given up and still run."""
        self._bench = _bench(config, before, self.lost)
        self._configured: dict[str, AgentConfig] = dict(config.agents)
        for entry in entry_points(group=ENTRY_POINTS):
            self._configured.setdefault(entry.name, FunctionConfig(use="function", function=entry.value))
        self._lacks: dict[str, str] = {}
        self._own_tools: dict[str, list[dict[str, str]]] = {}
        self._agents = {name: self._load(name, agent) for name, agent in self._configured.items()}

    def _load(self, name: str, agent: AgentConfig) -> Agent | None:
        try:
            return self._make(name, agent)
        except BadPlugin as error:
            raise BadPlugin(f"agents.{name}: {error.detail}") from error

    def _make(self, name: str, agent: AgentConfig) -> Agent | None:
        if isinstance(agent, ModelledBase):
            if self._bench is None:
                self._lacks[name] = INSTALL
                return None
            return self._make_modelled(name, agent, self._bench)
        if isinstance(agent, CommandConfig):
            from latticed.agents.command import CommandAgent

            return CommandAgent(agent, name, self._config.state_dir)
        from latticed.agents.function import FunctionAgent

        function = load_dotted(agent.function)
        if not callable(function):
            raise BadPlugin(f"{agent.function} is not a function")
        return FunctionAgent(function)

    def _make_modelled(self, name: str, agent: ModelledBase, bench: "Workbench") -> Agent:
        problems = [problem for model in agent.models_used() if (problem := bench.models.problem(model)) is not None]
        if problems:
            self._lacks[name] = f"what its model needs: {problems[0]}"
        if isinstance(agent, PipelineConfig):
            from latticed.agents.pipeline.agent import PipelineAgent
            from latticed.agents.pipeline.speaking import Speaking

            return PipelineAgent(Speaking(agent, bench))
        assert isinstance(agent, PydanticAiConfig)
        from latticed.agents.ready import ReadyAgent

        found = ReadyAgent(agent, name, bench, load_dotted(agent.agent))
        self._own_tools[name] = found.own_tools()
        if not found.has_model:
            self._lacks[name] = f"a model: set agents.{name}.model to the name of a table [models.…]"
        return found

    def lacks(self, kind: str, target: str, mode: str) -> str | None:
        """What an agent lacks that it needs to run in this mode; None if nothing."""
        lack = self._lacks.get(target) if kind == "agent" else None
        return lack if mode == "live" or lack == INSTALL else None

    def lacking_models(self) -> dict[str, str]:
        """The tables `[models.NAME]` that cannot be asked, with the reason; none is known without an agent on one."""
        if self._bench is None:
            return {}
        problems = {name: self._bench.models.problem(name) for name in self._config.models}
        return {name: problem for name, problem in problems.items() if problem is not None}

    def shares_with(self, other: "Agents") -> bool:
        """Whether both have the same models and tools."""
        return self._bench is other._bench

    def retire(self) -> None:
        """Others have taken their place: what they share is kept only for the runs that use it."""
        if self._bench is not None:
            self._bench.retire()

    async def close(self) -> None:
        """Ends what the agents share."""
        if self._bench is not None:
            await self._bench.close()

    def find(self, kind: str, target: str) -> Agent | None:
        """An agent that can run now; None if there is none of that name, or if it lacks what its code needs."""
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
                **self._abilities(name, agent),
            }
            for name, agent in sorted(self._configured.items())
        ]

    def _abilities(self, name: str, agent: AgentConfig) -> dict[str, Any]:
        """What it can do, and what it lacks for a live run."""
        modelled = agent if isinstance(agent, ModelledBase) else None
        missing = self._lacks.get(name)
        if missing is None and isinstance(agent, PipelineConfig):
            missing = agent.lacks_model()
        modes = ["live"] if missing is None else []
        if modelled is not None and missing != INSTALL:
            modes.append("simulation")
        tools = [] if modelled is None else list(dict.fromkeys(tool for _, tool in modelled.tool_names()))
        return {
            "available": missing is None,
            "missing": missing,
            "modes": modes,
            "model": None if modelled is None else modelled.model,
            "tools": [*self._own_tools.get(name, ()), *(self._tool(tool) for tool in tools)],
            "roles": list(agent.known_roles) if isinstance(agent, PipelineConfig) else [],
        }

    def _tool(self, name: str) -> dict[str, str]:
        if self._bench is not None:
            return self._bench.tools.describe([name])[0]
        config = self._config.tools[name]
        return {"name": name, "use": config.use, "description": config.about()}


class Registry:
    """The agents of this moment: what everybody holds while a reload changes what is inside."""

    def __init__(self, agents: Agents) -> None:
        self.agents = agents
        self._replaced: list[Agents] = []

    def replace(self, agents: Agents) -> None:
        """Has these from now on; a run goes on with what it has."""
        if not agents.shares_with(self.agents):
            self._replaced.append(self.agents)
            self.agents.retire()
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

    def lacks(self, kind: str, target: str, mode: str) -> str | None:
        """As Agents.lacks."""
        return self.agents.lacks(kind, target, mode)

    async def close(self) -> None:
        """Ends what agents share; also those that a reload has replaced, which runs may have gone on using."""
        for agents in (*self._replaced, self.agents):
            await agents.close()


def _bench(config: Config, before: Agents | None, lost: Counter[str]) -> "Workbench | None":
    """What agents on a model share; None if there are none, or what they need is not installed."""
    secrets = Secrets(config.secrets.dir)
    for model in config.models.values():
        if model.key is not None:
            secrets.resolve(model.key)
    for tool in config.tools.values():
        if isinstance(tool, McpToolConfig):
            for reference in tool.references():
                secrets.resolve(reference)
    if not any(isinstance(agent, ModelledBase) for agent in config.agents.values()):
        return None
    if any(importlib.util.find_spec(package) is None for package in PACKAGES):
        return None
    if before is not None and before._bench is not None and _parts(before._config) == _parts(config):
        return before._bench
    from latticed.agents.workbench import Workbench

    return Workbench(config.models, config.tools, secrets, load_dotted, config.runs.threads, lost)


def _parts(config: Config) -> tuple[Any, ...]:
    return config.models, config.tools, config.secrets, config.runs.threads

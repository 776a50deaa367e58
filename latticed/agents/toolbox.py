"""Tools by name: from `[tools.NAME]` to what a model can call."""

import asyncio
import importlib
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic_ai.tools import RunContext, Tool
from pydantic_ai.toolsets import AbstractToolset, FunctionToolset

from latticed import ids
from latticed.agents.calls import CHILD
from latticed.agents.shell import check, run_allowed
from latticed.config.fields import ConfigError
from latticed.config.modelled import (
    CommandToolConfig,
    FunctionToolConfig,
    McpToolConfig,
    RunToolConfig,
    ToolConfig,
)
from latticed.engine.context import Context
from latticed.secrets import Secrets

if TYPE_CHECKING:
    from latticed.agents.servers import Server
    from latticed.engine.execution import Execution

SERVERS = "latticed.agents.servers"
SHARED = "shared"
"""What begins the id that stands in the place of a run's: of a server that belongs to none."""


class Toolbox:
    """All configured tools. `load` finds what a dotted path names."""

    def __init__(
        self, configs: Mapping[str, ToolConfig], secrets: Secrets, load: Callable[[str], Any]
    ) -> None:  # fmt: skip
        self.configs = configs
        self._secrets = secrets
        self._functions = {
            name: _function(name, config, load(config.function))
            for name, config in configs.items()
            if isinstance(config, FunctionToolConfig)
        }
        self._own: dict[Execution, tuple[AsyncExitStack, dict[str, Server]]] = {}
        self._shared: dict[str, Server] = {}
        self._leaving: asyncio.Task[None] | None = None
        if any(isinstance(config, McpToolConfig) for config in configs.values()):
            importlib.import_module(SERVERS)  # Now, not while runs are under way: it takes a second.

    def describe(self, names: Iterable[str]) -> list[dict[str, str]]:
        """What these tools are, each as models.people.ToolView."""
        return [{"name": name, "use": self.configs[name].use, "description": self.description(name)} for name in names]

    @asynccontextmanager
    async def lasting(self, ctx: Context) -> AsyncIterator[None]:
        """For as long as this lasts, a run's own servers stay from one of its conversations to the next."""
        async with AsyncExitStack() as stack:
            self._own[ctx.entry.x] = stack, {}
            try:
                yield
            finally:
                del self._own[ctx.entry.x]

    async def open(self, ctx: Context, names: Iterable[str]) -> list[AbstractToolset[Any]]:
        """Toolsets for one conversation: what is of its own begins when they are entered.

        Raises:
            ServerFailed: a server that outlasts it cannot be had.
        """
        toolsets: list[AbstractToolset[Any]] = []
        tools = []
        for name in names:
            config = self.configs[name]
            if isinstance(config, McpToolConfig):
                toolsets.append(await self._server(ctx, name, config))
            else:
                tools.append(self._tool(ctx, name, config))
        if tools:
            toolsets.append(FunctionToolset(tools, id="latticed", max_retries=3))
        return toolsets

    async def _server(self, ctx: Context, name: str, config: McpToolConfig) -> "Server":
        from latticed.agents.servers import Server

        if not config.shared:
            own = Server(name, config, self._secrets, ctx.run_id)
            if (lasting := self._own.get(ctx.entry.x)) is None:
                return own
            stack, servers = lasting
            if name not in servers:
                servers[name] = await stack.enter_async_context(own)
            return servers[name]
        shared = self._shared.get(name)
        if shared is None:
            shared = self._shared[name] = Server(name, config, self._secrets, ids.new(SHARED))
        if self._leaving is None:
            await shared.keep()
        return shared

    def _tool(self, ctx: Context, name: str, config: Any) -> Tool[Any]:
        if isinstance(config, FunctionToolConfig):
            return self._functions[name]
        if isinstance(config, RunToolConfig):
            return self._child(name, config)
        assert isinstance(config, CommandToolConfig)

        async def command(argv: list[str]) -> dict[str, Any]:
            return await run_allowed(config, argv, ctx.run_id)

        def allowed(ctx: RunContext[Any], argv: list[str]) -> None:
            check(config, argv)  # Before anybody is asked about it.

        how = "Takes a command line, one argument an item."
        about = f"{config.about()} {how}" + (f" Allowed are: {config.allowed}" if config.description else "")
        return Tool(command, name=name, description=about, timeout=config.timeout_seconds, args_validator=allowed)

    def _child(self, name: str, config: RunToolConfig) -> Tool[Any]:
        async def run(goal: str, inputs: dict[str, Any] | None = None) -> Any:
            raise AssertionError("a child run is no step")

        child: dict[str, Any] = {"kind": config.use, "target": config.target}
        if config.timeout_seconds is not None:
            child["deadline_seconds"] = config.timeout_seconds
        return Tool(run, name=name, description=self.description(name), metadata={CHILD: child})

    def description(self, name: str) -> str:
        """What a tool is, for a model and for who looks at an agent."""
        config = self.configs[name]
        if isinstance(config, FunctionToolConfig):
            return config.about() or summary(self._functions[name].function)
        return config.about()

    def retire(self) -> None:
        """Another has taken its place: from now on a shared server is there only for as long as a run uses it."""
        self._leaving = asyncio.ensure_future(self.close())

    async def close(self) -> None:
        """Ends the shared servers that no run uses."""
        for server in self._shared.values():
            await server.let_go()


def summary(function: Any) -> str:
    """The first paragraph of what a function says about itself, on one line; a model is told the whole."""
    return " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())


def _function(name: str, config: FunctionToolConfig, function: Any) -> Tool[Any]:
    """The tool that a function is.

    Raises:
        ConfigError: a model could not be told how to call it.
    """
    try:
        return Tool(function, name=name, description=config.about() or None, timeout=config.timeout_seconds)
    except Exception as error:
        reason = f"{config.function} cannot be a tool: {type(error).__name__}: {error}"
        raise ConfigError(f"tools.{name}: {' '.join(reason.split())[:500]}") from error

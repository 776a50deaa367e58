"""MCP servers: started or connected to for a run, or once for all runs; renewed when they have died."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from fastmcp.exceptions import ToolError
from mcp import MCPError as McpError
from mcp_types import CONNECTION_CLOSED
from pydantic_ai import RunContext
from pydantic_ai.exceptions import ModelRetry, ToolFailed
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool

from latticed.config.modelled import McpToolConfig
from latticed.errors import RunError
from latticed.secrets import PREFIX, Secrets

LEASH = Path(__file__).with_name("leash.py")
MOST_SECONDS = 86_400.0
"""How long one call may take as far as the protocol is concerned; each agent has its own limit for its tools."""


class ServerFailed(RunError):
    """An MCP server could not be started or reached, or does not speak the protocol."""

    code = "tool_server_failed"


class Server(AbstractToolset[Any]):
    """The tools of one server. Entered, it is there; a session that has died is made anew at the next call."""

    def __init__(self, name: str, config: McpToolConfig, secrets: Secrets, run_id: str) -> None:
        self._name = name
        self._config = config
        self._secrets = secrets
        self._run_id = run_id
        self._session: MCPToolset[Any] | None = None
        self._is_dead = False
        self._users = 0
        self._lock = asyncio.Lock()

    @property
    def id(self) -> str | None:
        """The name that it has in the configuration."""
        return self._name

    @property
    def label(self) -> str:
        """What messages about it say."""
        return f"MCP server {self._name}"

    async def __aenter__(self) -> "Server":
        async with self._lock:
            await self._renew()
            self._users += 1
        return self

    async def __aexit__(self, *args: Any) -> bool | None:
        async with self._lock:
            self._users -= 1
            if self._users == 0:
                await self._end()
        return None

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        """Its tools, by the names that the model calls them by."""
        session = await self._alive()
        prefix = self._config.prefix
        tools = {}
        for name, tool in (await session.get_tools(ctx)).items():
            tool.toolset = self
            if prefix:
                tool.tool_def.name = prefix + name
            tools[prefix + name] = tool
        return tools

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        """Calls one. A server that died under it is made anew for the next call; this one is answered with that."""
        session = await self._alive()
        try:
            return await session.call_tool(name.removeprefix(self._config.prefix), tool_args, ctx, tool)
        except ToolError as error:
            raise ToolFailed(str(error)) from error
        except McpError as error:
            if error.error.code != CONNECTION_CLOSED:
                raise ModelRetry(str(error)) from error
            raise self._gone(session, error) from error
        except Exception as error:
            raise self._gone(session, error) from error

    def _gone(self, session: MCPToolset[Any], error: Exception) -> ToolFailed:
        if session is self._session:
            self._is_dead = True
        return ToolFailed(f"The tool's server went away: {error or type(error).__name__}"[:2000])

    async def _alive(self) -> MCPToolset[Any]:
        async with self._lock:
            return await self._renew()

    async def _renew(self) -> MCPToolset[Any]:
        session = self._session
        if session is not None and not self._is_dead and session.client.is_connected():
            return session
        await self._end()
        session = MCPToolset(
            self._transport(), id=self._name, tool_error_behavior="error", init_timeout=self._config.start_seconds,
            read_timeout=MOST_SECONDS,
        )  # fmt: skip
        try:
            async with asyncio.timeout(self._config.start_seconds):
                await session.__aenter__()
        except Exception as error:
            reason = "it took too long" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
            raise ServerFailed(f"the MCP server {self._name} could not be reached: {reason}"[:2000]) from error
        self._session, self._is_dead = session, False
        return session

    async def _end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                await session.__aexit__(None, None, None)
            except Exception:  # It has died; there is nothing to say good-bye to.
                pass

    def _transport(self) -> StdioTransport | StreamableHttpTransport:
        config = self._config
        if config.url is not None:
            headers = {name: self._filled(value) for name, value in config.headers.items()}
            return StreamableHttpTransport(config.url, headers=headers)
        environment = {name: os.environ[name] for name in config.env if name in os.environ}
        environment |= {name: self._secrets.resolve(reference) for name, reference in config.secrets.items()}
        environment["LATTICED_RUN_ID"] = self._run_id
        return StdioTransport(
            sys.executable, ["-I", "-S", str(LEASH), *(config.argv or ())], env=environment,
            cwd=None if config.cwd is None else str(config.cwd), keep_alive=False, log_file=Path(os.devnull),
        )  # fmt: skip

    def _filled(self, value: str) -> str:
        """A header's value, in which a word `secret:NAME` stands for the secret."""
        return " ".join(self._secrets.resolve(w) if w.startswith(PREFIX) else w for w in value.split(" "))

"""MCP servers: started or connected to for a run, or once for all runs; renewed when they have died."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastmcp.client.transports import StreamableHttpTransport
from fastmcp.exceptions import ToolError
from mcp import MCPError as McpError
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, INVALID_REQUEST
from pydantic import ValidationError
from pydantic_ai import RunContext
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool

from latticed.agents.program import CommandFailed
from latticed.agents.stdio import ProgramTransport
from latticed.config.modelled import McpToolConfig
from latticed.engine.retrying import backoff_seconds
from latticed.errors import RunError
from latticed.secrets import PREFIX, Secrets

log = logging.getLogger("fastmcp")  # It has a handler of its own for stderr, which is the daemon's log already.
log.handlers.clear()
log.propagate = True

MOST_SECONDS = 86_400.0
"""How long one call may take as far as the protocol is concerned; each agent has its own limit for its tools."""

AGAIN_SECONDS = 30.0
"""For how long a server that is away is tried again, if it has no less to be there."""
BACKOFF_SECONDS = (0.25, 5.0)
"""The wait after the first failure, doubled after each, and the longest."""


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
        self._transport: ProgramTransport | StreamableHttpTransport | None = None
        self._is_dead = False
        self._users = 0
        self._is_kept = False
        self._lock = asyncio.Lock()
        self._failure: ServerFailed | None = None
        """Why it did not come up when that was last tried, if it did not."""

    @property
    def id(self) -> str | None:
        """The name that it has in the configuration."""
        return self._name

    @property
    def label(self) -> str:
        """What messages about it say."""
        return f"MCP server {self._name}"

    async def __aenter__(self) -> "Server":
        async with self._up():
            self._users += 1
        return self

    async def __aexit__(self, *args: Any) -> bool | None:
        async with self._lock:
            self._users -= 1
            if self._users == 0:
                await self._end()
        return None

    async def keep(self) -> None:
        """It is there from now on, whether or not anybody uses it, until `let_go`."""
        async with self._up():
            self._users += not self._is_kept
            self._is_kept = True

    async def let_go(self) -> None:
        """It ends with the last who uses it, which may be now."""
        if self._is_kept:
            self._is_kept = False
            await self.__aexit__()

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        """Its tools, by the names that the model calls them by.

        Raises:
            ServerFailed: it does not tell them.
        """
        session = await self._alive()
        try:
            async with asyncio.timeout(self._config.start_seconds):
                found = await session.get_tools(ctx)
        except Exception as error:
            self._doubt(session)
            raise self._failed("did not tell its tools", error) from error
        prefix = self._config.prefix
        tools = {}
        for name, tool in found.items():
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
        limit_seconds = self._config.timeout_seconds
        limit = asyncio.timeout(limit_seconds)
        try:
            async with limit:
                return await session.call_tool(name.removeprefix(self._config.prefix), tool_args, ctx, tool)
        except (ToolError, ValidationError) as error:
            raise ToolFailed(str(error)) from error
        except McpError as error:
            if not self._is_end(error):
                raise ToolFailed(str(error)) from error
            raise self._gone(session, error) from error
        except Exception as error:
            if limit.expired():
                raise ToolFailed(f"The tool took longer than {limit_seconds:g} s and was given up.") from error
            raise self._gone(session, error) from error

    def _is_end(self, error: McpError) -> bool:
        """Whether it says that the session is over. One by HTTP is over when its server does not know it any more."""
        code = error.error.code
        return code == CONNECTION_CLOSED or (code == INVALID_REQUEST and self._config.url is not None)

    def _gone(self, session: MCPToolset[Any], error: Exception) -> ToolFailed:
        reason = self._reason(error)
        self._doubt(session)
        return ToolFailed(f"The tool's server went away: {reason}"[:2000])

    def _doubt(self, session: MCPToolset[Any]) -> None:
        """It is not used any more, unless another has taken its place already."""
        if session is self._session:
            self._is_dead = True

    def _failed(self, what: str, error: Exception) -> ServerFailed:
        return ServerFailed(f"the MCP server {self._name} {what}: {self._reason(error)}"[:2000])

    def _reason(self, error: Exception) -> str:
        """What has gone wrong: what its program came to, if that is known, else what the error says."""
        end = self._transport.end if isinstance(self._transport, ProgramTransport) else None
        if end is not None:
            for reference in self._config.secrets.values():
                end = end.replace(self._secrets.resolve(reference), "[redacted]")
            return end
        return "it took too long" if isinstance(error, TimeoutError) else f"{error or type(error).__name__}"

    async def _alive(self) -> MCPToolset[Any]:
        async with self._up() as session:
            return session

    @asynccontextmanager
    async def _up(self) -> AsyncGenerator[MCPToolset[Any]]:
        """The session, with nobody else at the server. Who waits while it does not come up shares in that failure."""
        before = self._failure
        async with self._lock:
            if self._failure is not None and self._failure is not before:
                raise ServerFailed(self._failure.message)
            try:
                session = await self._renew()
            except ServerFailed as failure:
                self._failure = failure
                raise
            self._failure = None
            yield session

    async def _renew(self) -> MCPToolset[Any]:
        session = self._session
        if session is not None and not self._is_dead and session.client.is_connected():
            return session
        await self._end()
        session = await self._come_up()
        self._session, self._is_dead = session, False
        return session

    async def _come_up(self) -> MCPToolset[Any]:
        loop = asyncio.get_running_loop()
        until = loop.time() + min(self._config.start_seconds, AGAIN_SECONDS)
        failed = 0
        while True:
            try:
                return await self._start()
            except ServerFailed as failure:
                failed += 1
                wait_seconds = backoff_seconds(failed, *BACKOFF_SECONDS)
                if not _may_pass(failure.__cause__) or loop.time() + wait_seconds > until:
                    raise
                log.info("%s; trying again in %.1f s", failure.message, wait_seconds)
            await asyncio.sleep(wait_seconds)

    async def _start(self) -> MCPToolset[Any]:
        self._transport = self._make_transport()
        session = MCPToolset(
            self._transport, id=self._name, tool_error_behavior="error", init_timeout=self._config.start_seconds,
            read_timeout=MOST_SECONDS,
        )  # fmt: skip
        try:
            async with asyncio.timeout(self._config.start_seconds):
                await session.__aenter__()
        except Exception as error:
            raise self._failed("could not be reached", error) from error
        return session

    async def _end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                await session.__aexit__(None, None, None)
            except Exception:  # It has died; there is nothing to say good-bye to.
                pass

    def _make_transport(self) -> ProgramTransport | StreamableHttpTransport:
        config = self._config
        if config.url is not None:
            headers = {name: self._filled(value) for name, value in config.headers.items()}
            return StreamableHttpTransport(config.url, headers=headers)
        environment = {name: os.environ[name] for name in config.env if name in os.environ}
        environment |= {name: self._secrets.resolve(reference) for name, reference in config.secrets.items()}
        return ProgramTransport(config.argv or (), environment, config.cwd or Path.cwd(), self._run_id)

    def _filled(self, value: str) -> str:
        """A header's value, in which a word `secret:NAME` stands for the secret."""
        return " ".join(self._secrets.resolve(w) if w.startswith(PREFIX) else w for w in value.split(" "))


def _may_pass(error: BaseException | None) -> bool:
    """Whether a server that is away for this reason may be back soon; what is no program never is."""
    if isinstance(error, McpError):
        return error.error.code in (CONNECTION_CLOSED, INTERNAL_ERROR)
    cause = None if error is None else error.__cause__
    return cause.code == "spawn_failed" if isinstance(cause, CommandFailed) else not isinstance(error, TimeoutError)

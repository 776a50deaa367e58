"""A pydantic-ai agent made durable, at its two seams: the request to a model and the call of a tool.

Both come in by a capability, so that any agent has them in one of its runs, whatever models, tools, MCP servers and
toolsets it has, without being changed.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models import CompletedStreamedResponse, Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset

from latticed.agents.calls import CHILD, Calls, Wanted
from latticed.agents.requests import Requests
from latticed.agents.turnstile import Turnstile


class DurableModel(WrapperModel):
    """Asks by steps of the run."""

    def __init__(self, wrapped: Model, requests: Requests, calls: Calls) -> None:
        super().__init__(wrapped)
        self._requests = requests
        self._calls = calls

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """The reply, from the model or the journal."""
        reply = await self._requests.reply(self.wrapped, messages, model_settings, model_request_parameters)
        self._calls.expect(reply)
        return reply

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """The reply as a stream, once it is whole: what is streamed is the run's timeline."""
        reply = await self.request(messages, model_settings, model_request_parameters)
        yield CompletedStreamedResponse(reply, model_request_parameters=model_request_parameters, replay_events=True)


@dataclass
class DurableToolset(WrapperToolset[Any]):
    """Calls by steps of the run."""

    calls: Calls
    turnstile: Turnstile

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        """The tool's result, from the tool or the journal."""
        if ctx.tool_call_id is None:
            return await self.wrapped.call_tool(name, tool_args, ctx, tool)
        given: dict[str, Any] = self.calls.plain(tool_args)

        async def call(args: dict[str, Any]) -> Any:
            # What was validated once is taken as it is, unless a hook has changed it.
            valid = tool_args if args == given else tool.args_validator.validate_python(args)
            return await self.wrapped.call_tool(name, valid, ctx, tool)

        child = (tool.tool_def.metadata or {}).get(CHILD)
        wanted = Wanted(name, given, ctx.tool_call_id, child, bool(ctx.tool_call_approved))
        try:
            return await self.calls.call(wanted, call)
        finally:
            await self.turnstile.pass_()


@dataclass
class Durable(AbstractCapability[Any]):
    """Puts both seams into a run, and asks people about the tools that are marked so."""

    requests: Requests
    calls: Calls
    turnstile: Turnstile

    def get_wrapper_model(self, model: Model) -> Model:
        """The seam of the model."""
        return DurableModel(model, self.requests, self.calls)

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        """The seam of the tools."""
        return DurableToolset(toolset, self.calls, self.turnstile)

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[Any], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:  # fmt: skip
        """Asks about each call that needs an approval, about all at the same time; the others are left."""
        if not requests.approvals:
            return None
        asked = [asyncio.ensure_future(self._ask(call)) for call in requests.approvals]
        try:
            await asyncio.wait(asked)
        finally:
            for task in asked:
                task.cancel()
        verdicts = [task.result() for task in asked]
        answers = zip(requests.approvals, verdicts, strict=True)
        approvals: dict[str, bool | ToolApproved | ToolDenied] = {
            call.tool_call_id: ToolApproved() if refusal is None else ToolDenied(refusal) for call, refusal in answers
        }
        return DeferredToolResults(approvals=approvals)

    async def _ask(self, call: ToolCallPart) -> str | None:
        async with self.calls.line(call.tool_call_id):
            return await self.calls.ask(call.tool_name, call.args_as_dict(), call.tool_call_id)

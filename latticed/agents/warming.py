"""A conversation with nobody, so that the first one with somebody holds up nothing.

Libraries build much of themselves at first use: modules, schemas of generic models, tables of prices. On the event loop
that would be a tenth of a second and more for all runs; in a thread beside it, nobody waits longer than a millisecond.
"""

import asyncio
import json
from threading import Thread
from typing import Any

import structlog

log = structlog.get_logger()


def warm_up() -> None:
    """Begins it, in a thread that keeps nobody waiting."""
    Thread(target=_warm_up, name="warming", daemon=True).start()


def _warm_up() -> None:
    try:
        asyncio.run(_converse())
    except Exception as error:  # What is not warm is merely slower once.
        log.debug("not_warm", reason=f"{type(error).__name__}: {error}")


async def _converse() -> None:
    import httpx2
    from openai import AsyncOpenAI
    from pydantic import TypeAdapter
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.models.wrapper import WrapperModel
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
    from pydantic_ai.settings import ModelSettings

    from latticed.agents.wire import join

    class Streaming(WrapperModel):
        async def request(
            self, messages: list[ModelMessage], settings: ModelSettings | None, params: ModelRequestParameters
        ) -> ModelResponse:
            async with self.wrapped.request_stream(messages, settings, params) as stream:
                async for _ in stream:
                    pass
                return stream.get()

    transport = httpx2.MockTransport(_answer)
    async with httpx2.AsyncClient(transport=transport, event_hooks={"response": [join]}) as client:
        sdk = AsyncOpenAI(api_key="none", base_url="http://nowhere.invalid/v1", max_retries=0, http_client=client)
        model = OpenAIChatModel("nobody", provider=OpenAICompatibleProvider("nowhere", openai_client=sdk))
        agent: Agent[None, str] = Agent(instructions="Say something.")

        @agent.tool_plain
        async def echo(n: int) -> int:
            return n

        result = await agent.run("hello", model=Streaming(model))
    replies: TypeAdapter[ModelResponse] = TypeAdapter(ModelResponse)
    replies.validate_python(replies.dump_python(result.response, mode="json"))


def _answer(request: Any) -> Any:
    import httpx2

    asked = json.loads(request.content)
    if any(message["role"] == "tool" for message in asked["messages"]):
        deltas: list[tuple[dict[str, Any], str | None]] = [
            ({"role": "assistant", "content": "some"}, None),
            ({"content": "thing"}, None),
            ({}, "stop"),
        ]
    else:
        call = {"index": 0, "id": "c", "type": "function", "function": {"name": "echo", "arguments": '{"n": 1}'}}
        deltas = [({"role": "assistant", "tool_calls": [call]}, None), ({}, "tool_calls")]
    chunk: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "nobody"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    chunks = [{**chunk, "choices": [{"index": 0, "delta": d, "finish_reason": f}]} for d, f in deltas]
    chunks.append({**chunk, "choices": [], "usage": usage})
    body = "".join(f"data: {json.dumps(each)}\n\n" for each in chunks) + "data: [DONE]\n\n"
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body.encode())

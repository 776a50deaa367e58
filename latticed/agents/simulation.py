"""The scripted model of `mode: simulation`: the same words each time, nothing outside is asked."""

from collections.abc import Sequence
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

from latticed.agents.models import ModelInUse
from latticed.config.modelled import ModelConfig, ScriptedCall

NAME = "simulation"
QUOTED = 200


def scripted(name: str, prompt: str, output: Any, script: Sequence[str | ScriptedCall]) -> ModelInUse:
    """A model that says what `script` says, turn by turn: a text, or the call of a tool.

    Without a script it gives `output`, a text or what fits the agent's type of output; without that either, a text that
    says what it is, or the least that fits. It calls no tool by itself.
    """
    model: Model
    if script:
        model = _from(script)
    elif output is None:
        model = _least(f"Simulated answer of {name} to: {prompt[:QUOTED]}")
    elif isinstance(output, str):
        model = TestModel(call_tools=[], custom_output_text=output, model_name=NAME)
    else:
        model = TestModel(call_tools=[], custom_output_args=output, model_name=NAME)
    return ModelInUse(NAME, model, ModelConfig(model=NAME), streams=False)


def _least(text: str) -> Model:
    by_type = TestModel(call_tools=[], model_name=NAME)

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if info.allow_text_output:
            return ModelResponse([TextPart(text)])
        return await by_type.request(messages, info.model_settings, info.model_request_parameters)

    return FunctionModel(answer, model_name=NAME)


def _from(script: Sequence[str | ScriptedCall]) -> Model:
    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        turn = sum(isinstance(message, ModelResponse) for message in messages)
        said = script[min(turn, len(script) - 1)]
        if isinstance(said, str):
            return ModelResponse([TextPart(said)])
        return ModelResponse([ToolCallPart(said.tool, dict(said.args), tool_call_id=f"call_{turn}")])

    return FunctionModel(answer, model_name=NAME)

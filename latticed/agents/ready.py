"""A ready pydantic_ai.Agent as an agent of the daemon: the goal is its prompt, its output the run's."""

from typing import Any

import orjson
from pydantic import TypeAdapter
from pydantic_ai import Agent
from pydantic_ai.toolsets import FunctionToolset

from latticed.agents.conversation import hold, own_model
from latticed.agents.simulation import scripted
from latticed.agents.toolbox import summary
from latticed.agents.workbench import Workbench
from latticed.config.fields import ConfigError
from latticed.config.modelled import PydanticAiConfig
from latticed.engine.context import Context
from latticed.errors import Final

_output: TypeAdapter[Any] = TypeAdapter(Any)


class ReadyAgent:
    """Runs one. The inputs follow the goal in its prompt, as JSON, where there are any."""

    def __init__(self, config: PydanticAiConfig, name: str, bench: Workbench, agent: Any) -> None:
        """Takes what `config.agent` names.

        Raises:
            ConfigError: it is no such agent.
        """
        if not isinstance(agent, Agent):
            reason = f"{config.agent} is not a pydantic_ai.Agent but a {type(agent).__name__}"
            raise ConfigError(f"agents.{name}.agent: {reason}")
        self._config = config
        self._name = name
        self._bench = bench
        self._agent: Agent[Any, Any] = agent

    @property
    def has_model(self) -> bool:
        """Whether it can run live."""
        return self._config.model is not None or self._agent.model is not None

    def own_tools(self) -> list[dict[str, str]]:
        """The functions that it brings itself, each as models.people.ToolView."""
        own = (
            tool for each in self._agent.toolsets if isinstance(each, FunctionToolset) for tool in each.tools.values()
        )
        return [{"name": tool.name, "use": "function", "description": summary(tool.function)} for tool in own]

    async def run(self, ctx: Context, goal: str, inputs: dict[str, Any]) -> Any:
        """Has the conversation.

        Raises:
            RunError: as `converse`.
        """
        prompt = goal
        if inputs:
            prompt += "\n\nInputs:\n" + orjson.dumps(inputs, option=orjson.OPT_INDENT_2).decode()
        if ctx.mode == "simulation":
            use = scripted(self._name, goal, None, self._config.simulation)
        elif self._config.model is not None:
            use = self._bench.models.use(self._config.model)
        elif self._agent.model is not None:
            use = own_model(self._name)
        else:
            raise Final(
                "model_misconfigured", f"agent {self._name} has no model: set its `model` to a name of [models]"
            )
        answer = await hold(ctx, self._bench, self._config, self._agent, use, name=self._name, prompt=prompt)
        return _output.dump_python(answer.output, mode="json")

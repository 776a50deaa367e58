"""One conversation of a run with a model: any pydantic-ai agent, run so that a crash repeats nothing that has ended.

    answer = await converse(ctx, bench, config, name="planner", prompt=…, instructions=…, output_type=Plan)
    answer.output       # as output_type has it: validated, the same whenever the code is entered again

`ctx` is the run's context, `bench` what all agents share, and `config` the agent's table (`ModelledBase`: its model,
tools, policy and budget), of which `model` and `tools` can be replaced for one role.

Each request to the model is a step `model:NAME` and each call of a tool a step `tool:TOOL` in a branch of its own, so
`converse` is called where `ctx.step` could be: in the run's own code or in a line of `ctx.gather`, one at a time in a
branch. Events `text.delta {text, agent, request, attempt}`, `tool.called {tool, call_id, agent, args}`,
`tool.returned {…, ok, duration_ms, result | error}`, `usage {agent, model, …, total}` and, where a request is made
again, `log` are told as they happen, once. The run's `usage` is kept by the way. Secrets are redacted by key.

A budget is the run's, all conversations together. What ends a conversation is a `RunError` with a stable code: those of
`faults.py`, `budget_exceeded`, `output_invalid` (the model gives neither what `output_type` wants nor calls that a tool
takes, however often it is told), `tool_server_failed`. It is a `Final` where another attempt of the run would not help.

In mode `simulation` a scripted model answers with `simulated` (see simulation.py), whatever the configuration says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from pydantic_ai import Agent
from pydantic_ai.capabilities import AbstractCapability, UseThreadExecutor
from pydantic_ai.exceptions import AgentRunError, UnexpectedModelBehavior, UserError
from pydantic_ai.messages import ModelMessage
from pydantic_ai.settings import ModelSettings, merge_model_settings
from pydantic_ai.toolsets import AbstractToolset
from pydantic_ai.usage import UsageLimits

from latticed.agents.calls import Calls
from latticed.agents.durable import Durable
from latticed.agents.hands import Hands
from latticed.agents.models import ModelInUse
from latticed.agents.requests import Requests, used_so_far
from latticed.agents.simulation import scripted
from latticed.agents.workbench import Workbench
from latticed.config.modelled import ModelConfig, ModelledBase
from latticed.engine.context import Context
from latticed.errors import Final

T = TypeVar("T")
RETRIES = 3
"""How often a model may correct a call, or an answer, that does not fit."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """How a conversation ended: what was asked for, and all that was said."""

    output: T
    messages: list[ModelMessage]


async def converse(
    ctx: Context, bench: Workbench, config: ModelledBase, *, name: str, prompt: str, instructions: str = "",
    output_type: type[T] | Any = str, model: str | None = None, tools: Sequence[str] | None = None,
    toolsets: Sequence[AbstractToolset[Any]] = (), settings: dict[str, Any] | None = None,
    history: Sequence[ModelMessage] = (), simulated: Any = None,
) -> Answer[T]:  # fmt: skip
    """Has a conversation with a model until it has given what was asked for.

    `settings` are pydantic-ai's: temperature, max_tokens and so on. `history` is what was said before, such as the
    messages of an earlier answer. `simulated` is what the scripted model gives as the output.

    Raises:
        RunError: it did not come to that; see above.
    """
    agent: Agent[None, T] = Agent(
        name=name, instructions=instructions or None, output_type=output_type, retries=RETRIES
    )  # fmt: skip
    use = await _model(ctx, bench, config, name, model, prompt, simulated)
    return await hold(
        ctx, bench, config, agent, use, name=name, prompt=prompt, tools=tools, toolsets=toolsets, settings=settings,
        history=history,
    )  # fmt: skip


async def hold(
    ctx: Context, bench: Workbench, config: ModelledBase, agent: Agent[Any, Any], use: ModelInUse, *, name: str,
    prompt: str, tools: Sequence[str] | None = None, toolsets: Sequence[AbstractToolset[Any]] = (),
    settings: dict[str, Any] | None = None, history: Sequence[ModelMessage] = (), deps: Any = None,
) -> Answer[Any]:  # fmt: skip
    """As `converse`, with an agent that is there already. What it has of its own stays: model, tools, output."""
    hands = Hands(bench.places, ctx.entry.x)
    calls = Calls(ctx, name, config, hands)
    requests = Requests(ctx, name, use, config.budget, used_so_far(ctx), bench.turnstile)
    capabilities: list[AbstractCapability[Any]] = [
        Durable(requests, calls, bench.turnstile),
        UseThreadExecutor(hands),
    ]
    await bench.turnstile.pass_()
    own = await bench.tools.open(ctx, config.tools if tools is None else tools)
    try:
        result = await agent.run(
            prompt, model=use.model, deps=deps, toolsets=[*own, *toolsets], capabilities=capabilities,
            message_history=list(history) or None, usage_limits=UsageLimits(request_limit=None),
            model_settings=merge_model_settings(use.settings(), cast(ModelSettings, settings or {})),
        )  # fmt: skip
    except UnexpectedModelBehavior as error:
        raise Final("output_invalid", f"{name}: {error.message}"[:2000]) from error
    except UserError as error:
        raise Final("misconfigured", f"{name}: {error}"[:2000]) from error
    except AgentRunError as error:
        raise Final("agent_failed", f"{name}: {error}"[:2000]) from error
    return Answer(result.output, result.all_messages())


async def _model(
    ctx: Context, bench: Workbench, config: ModelledBase, name: str, model: str | None, prompt: str, simulated: Any
) -> ModelInUse:  # fmt: skip
    if ctx.mode == "simulation":
        return scripted(name, prompt, simulated, config.simulation)
    wanted = model or config.model
    if wanted is None:
        raise Final("model_misconfigured", f"{name} has no model: set its `model` to a name of [models]")
    return bench.models.use(wanted)


def own_model(name: str) -> ModelInUse:
    """In the place of a model that a ready agent brings itself."""
    return ModelInUse(name, None, ModelConfig(model=name))

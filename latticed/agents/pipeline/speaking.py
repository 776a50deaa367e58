"""How a role speaks with its model: its instructions, its settings, its tools, and how its answer is read."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from pydantic_ai import ModelRetry
from pydantic_ai.output import TextOutput, ToolOutput

from latticed.agents.conversation import converse
from latticed.agents.pipeline.answers import TOOL, Answer, BadAnswer, read
from latticed.agents.pipeline.course import EXECUTOR
from latticed.agents.pipeline.progress import Progress
from latticed.agents.pipeline.roles import INSTRUCTIONS
from latticed.agents.pipeline.simulation import simulated
from latticed.agents.workbench import Workbench
from latticed.config.pipeline import PipelineConfig, RoleConfig
from latticed.engine.context import Context
from latticed.engine.marks import upcoming
from latticed.errors import RunError
from latticed.models.pipeline import PlanStep

A = TypeVar("A", bound=Answer)
NOTHING_OF_ITS_OWN = RoleConfig()


class Speaking:
    """What all runs of one pipeline have in common."""

    def __init__(self, config: PipelineConfig, bench: Workbench) -> None:
        self.config = config
        self._bench = bench

    def plannable(self) -> list[str] | None:
        """The tools that a plan can name. None if that is not known: a server tells its tools only when it is asked."""
        names = self.config.tools_of(EXECUTOR)
        return None if any(tool["use"] == "mcp" for tool in self._bench.tools.describe(names)) else names

    def lasting(self, ctx: Context) -> AbstractAsyncContextManager[None]:
        """For as long as this lasts, what the run has for its tools stays from one conversation to the next."""
        return self._bench.tools.lasting(ctx)

    async def ask(
        self, ctx: Context, progress: Progress, role: str, prompt: str, *, step: PlanStep | None = None
    ) -> str:  # fmt: skip
        """What the role says, in text.

        Raises:
            RunError: it has said nothing that can be used; `code` is stable.
        """
        answer = simulated(role, None, progress, step)
        said: str = await self._converse(ctx, progress, role, prompt, self._instructions(role), str, answer)
        return said

    async def ask_for(
        self, kind: type[A], ctx: Context, progress: Progress, role: str, prompt: str, instructions: str | None = None
    ) -> A:  # fmt: skip
        """What the role says, as what was asked for: by a call, or as JSON in its text. It is told what does not fit.

        Raises:
            RunError: it has said nothing that can be used; `code` is stable.
        """
        wanted = f"{instructions or self._instructions(role)}\n\n{kind.wanted()}"
        output = [ToolOutput(kind, name=TOOL, description=kind.__doc__), TextOutput(_reader(kind))]
        answer = simulated(role, kind, progress, None)
        said: A = await self._converse(ctx, progress, role, prompt, wanted, output, answer)
        return said

    async def _converse(
        self, ctx: Context, progress: Progress, role: str, prompt: str, instructions: str, output_type: Any,
        answer: str,
    ) -> Any:  # fmt: skip
        following = upcoming(ctx)
        if following == "mark":  # What could not even be begun, such as with a tool's server away, stays a failure.
            raise RunError(f"the {role} could not begin to speak with its model")
        if following is None and role not in self.config.known_roles:
            raise RunError(f"the role {role!r} is not in the configuration any more")
        own = self.config.roles.get(role, NOTHING_OF_ITS_OWN)
        scripts = own.simulation or [self.config.simulation or answer]
        script = scripts[min(progress.conversations[role], len(scripts) - 1)]
        config = self.config.model_copy(update={"simulation": [script] if isinstance(script, str) else script})
        progress.conversations[role] += 1
        result: Any = await converse(
            ctx, self._bench, config, name=role, prompt=prompt, instructions=instructions, output_type=output_type,
            model=config.model_of(role), tools=config.tools_of(role),
            settings=own.model_dump(include={"temperature", "max_tokens"}, exclude_none=True),
        )  # fmt: skip
        return result.output

    def _instructions(self, role: str) -> str:
        return self.config.roles.get(role, NOTHING_OF_ITS_OWN).system_prompt or INSTRUCTIONS.get(role, "")


def _reader(kind: type[A]) -> Callable[[str], A]:
    def answer(text: str) -> A:
        try:
            return read(kind, text)
        except BadAnswer as error:
            raise ModelRetry(f"{error}. {kind.wanted()}") from None

    return answer

"""An agent that is a Python function: `async def name(ctx, goal, inputs)`, or a plain `def`, run in a thread."""

import inspect
from collections.abc import Callable
from typing import Any

from latticed.engine.context import Context
from latticed.engine.plain import run_plain


class FunctionAgent:
    """Runs one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004  # an object with an async __call__ is async too
        )

    async def run(self, ctx: Context, goal: str, inputs: dict[str, Any]) -> Any:
        """Calls the function with the context, the goal and the inputs."""
        if self._is_async:
            return await self._function(ctx, goal, inputs)
        return await run_plain(self._function, ctx, goal, inputs)

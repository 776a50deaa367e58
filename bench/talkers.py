"""The agents on a model that are measured, and what they are compared with."""

import asyncio
import time
from typing import Any

from pydantic_ai import Agent

from latticed import Context

talker: Agent[None, str] = Agent()


@talker.tool_plain
async def echo(n: int) -> int:
    """Gives back its argument."""
    return n


async def lagging(ctx: Context, goal: str, inputs: dict[str, Any]) -> float:
    """Looks for so many seconds how long the event loop stands still; the longest, in seconds."""
    longest, end = 0.0, time.monotonic() + inputs["seconds"]
    while (before := time.monotonic()) < end and not ctx.cancelled:
        await asyncio.sleep(0.001)
        longest = max(longest, time.monotonic() - before - 0.001)
    return longest

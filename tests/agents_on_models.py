"""Ready pydantic-ai agents, and tools, for the tests. What a tool does is written down in a file, to be counted."""

import asyncio
import os
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, ModelRetry, RunContext, ToolReturn

LEDGER = "LEDGER"
"""The variable that names the file."""


def note(line: str) -> None:
    """Writes a line down, at once."""
    file = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode() + b"\n")
    os.close(file)


class City(BaseModel):
    """Where somebody lives."""

    name: str
    people: int


helper: Agent[None, str] = Agent(instructions="Be brief.", retries=2)
"""Has tools of every sort."""
judge: Agent[None, City] = Agent(output_type=City, retries=1)
"""Gives an object."""


async def add(a: int, b: int) -> int:
    """Adds two numbers."""
    note(f"add {a} {b}")
    return a + b


def plain_add(a: int, b: int) -> int:
    """Adds two numbers in a thread."""
    assert threading.current_thread() is not threading.main_thread()
    note(f"plain_add {a} {b}")
    return a + b


helper.tool_plain(add)
helper.tool_plain(plain_add)


@helper.tool_plain
async def rendezvous(name: str, with_: str) -> str:
    """Answers once its partner has been called too; so both must be under way at the same time."""
    here = Path(os.environ[LEDGER]).parent
    (here / f"met-{name}").touch()
    for _ in range(1000):
        if (here / f"met-{with_}").exists():
            return f"{name} met {with_}"
        await asyncio.sleep(0.005)  # noqa: TID251 - two tools look for each other
    return f"{name} met nobody"


@helper.tool_plain
async def hold(name: str) -> str:
    """Answers once a file of that name is there."""
    note(f"hold {name}")
    while not (Path(os.environ[LEDGER]).parent / name).exists():  # noqa: ASYNC110 - a file says nothing by itself
        await asyncio.sleep(0.005)  # noqa: TID251 - a tool that takes as long as the test wants
    return f"held {name}"


@helper.tool_plain
async def fails(what: str) -> str:
    """Raises."""
    note(f"fails {what}")
    raise RuntimeError(f"no {what} today")


@helper.tool_plain
def leaves(code: int) -> str:
    """Ends as a program's main function does."""
    raise SystemExit(code)


@helper.tool_plain
async def picky(number: int) -> str:
    """Takes only numbers above ten."""
    if number <= 10:
        raise ModelRetry("take a number above ten")
    return f"took {number}"


@helper.tool_plain
async def huge(megabytes: int) -> str:
    """Gives much."""
    return "x" * (megabytes << 20)


@helper.tool_plain
async def hangs() -> str:
    """Never answers."""
    note("hangs")
    await asyncio.Event().wait()
    return "?"


@helper.tool_plain(requires_approval=True)
async def drop(table: str) -> str:
    """Drops a table."""
    note(f"drop {table}")
    return f"dropped {table}"


@helper.tool
async def rich(ctx: RunContext[None], what: str) -> Any:
    """Gives what is no plain JSON."""
    note(f"rich {what}")
    if what == "return":
        return ToolReturn(return_value={"day": date(2026, 1, 2)}, content="look at the day")
    if what == "picture":
        return BinaryContent(b"\x89PNG", media_type="image/png")
    return City(name="Oslo", people=7)


async def weather(city: str) -> str:
    """The weather in a city,
    as it is now.

    Ask for one city at a time.
    """
    note(f"weather {city}")
    return f"rain in {city}"


bare: Agent[None, str] = Agent()
"""Has nothing of its own."""


def occupied(name: str) -> str:
    """Answers, in a thread, once a file of that name is there."""
    note(f"occupied {name}")
    while not (Path(os.environ[LEDGER]).parent / name).exists():
        time.sleep(0.005)  # noqa: TID251 - a tool that takes as long as the test wants
    note(f"free {name}")
    return name


async def deaf(name: str) -> str:
    """Answers once a file of that name is there, whoever cancels it."""
    note(f"deaf {name}")
    while not (Path(os.environ[LEDGER]).parent / name).exists():
        try:
            await asyncio.sleep(0.005)  # noqa: TID251 - a tool that takes as long as the test wants
        except asyncio.CancelledError:
            note(f"cancelled {name}")
    return name

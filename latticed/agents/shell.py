"""The `command` tool: a program that a model chooses from a list, with the arguments that it chooses.

There is no shell. A call must begin with all the words of an entry of the list; what follows is the model's to choose.
"""

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_ai.exceptions import ModelRetry, ToolFailed

from latticed.agents.output import PipeReader
from latticed.agents.program import CommandFailed, Program
from latticed.config.modelled import CommandToolConfig


def is_allowed(argv: Sequence[str], allow: Sequence[Sequence[str]]) -> bool:
    """Whether a command line begins with all the words of one of these."""
    return any(list(argv[: len(words)]) == list(words) for words in allow)


def check(config: CommandToolConfig, argv: Sequence[str]) -> None:
    """Makes sure that a command line is on the list.

    Raises:
        ModelRetry: it is not.
    """
    if not is_allowed(argv, config.allow):
        allowed = "; ".join(" ".join(words) for words in config.allow)
        raise ModelRetry(f"{' '.join(argv)[:200]!r} is not allowed. A call must begin with one of: {allowed}")
    if any("\0" in word for word in argv):
        raise ModelRetry("an argument holds a NUL character")


async def run_allowed(config: CommandToolConfig, argv: list[str], run_id: str) -> dict[str, Any]:
    """Runs it to its end; what it left running is killed.

    Raises:
        ModelRetry: it is not on the list, which a hook may have changed it to.
        ToolFailed: it could not be started.
    """
    check(config, argv)
    environment = {name: os.environ[name] for name in config.env if name in os.environ}
    try:
        if config.cwd is not None:
            return await _run(argv, environment, config.cwd, run_id, config.output_bytes)
        with tempfile.TemporaryDirectory(prefix="latticed-tool-") as folder:
            return await _run(argv, environment, Path(folder), run_id, config.output_bytes)
    except CommandFailed as failed:
        raise ToolFailed(failed.message) from failed


async def _run(argv: list[str], environment: dict[str, str], cwd: Path, run_id: str, limit: int) -> dict[str, Any]:
    program = Program([word.encode("utf-8", "replace").decode() for word in argv], environment, cwd, run_id)
    reading: list[asyncio.Task[tuple[str, bool]]] = []
    try:
        await program.started()
        pipes = (program.stdout, program.stderr)
        reading = [asyncio.ensure_future(_read(pipe, limit)) for pipe in pipes]
        code = await program.ended()
        (stdout, out_cut), (stderr, err_cut) = await asyncio.gather(*reading)
    finally:
        for task in reading:
            task.cancel()
        await program.close()
    answer = {"exit_code": code, "stdout": stdout, "stderr": stderr}
    return answer | {"cut": True} if out_cut or err_cut else answer


async def _read(pipe: PipeReader, limit: int) -> tuple[str, bool]:
    """The beginning of what a pipe gives, and whether there was more; all of it is read, so that nobody is blocked."""
    kept, size = b"", 0
    while chunk := await pipe.read():
        kept += chunk[: limit - len(kept)] if len(kept) < limit else b""
        size += len(chunk)
    return kept.decode("utf-8", "replace"), size > limit

"""The command agent: a configured program, run by a guardian, its lines on the timeline.

What a program can say is in `output.py`, how it is started and signalled in `program.py`, and who makes sure that
nothing of it stays behind in `guardian.py`.
"""

import asyncio
import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latticed.agents.output import Output
from latticed.agents.program import CommandFailed, Program
from latticed.config import PLACEHOLDER, CommandConfig
from latticed.engine.context import Context
from latticed.errors import StepFailed
from latticed.failpoints import hit

STARTING = 4
"""How many are started at once: the event loop stands still for each until the machine has found time to execute it."""


def workplaces(state_dir: Path) -> Path:
    """Where the directories are in which commands work, one a run."""
    return state_dir.absolute() / "work"


class CommandAgent:
    """Runs a program as one step: what it prints is the timeline, how it ends is the outcome.

    The program gets the allowed part of the daemon's environment and `LATTICED_RUN_ID`, `LATTICED_WORKSPACE` and
    `LATTICED_STEP_KEY`; the last is the same when the step runs again after a crash. Its input is empty. Without a
    configured `cwd` it works in `STATE_DIR/work/<run id>`, made for it and kept for as long as the run, so that what it
    wrote can be fetched and a second attempt finds it; only if the run ended well and it is empty is it removed before.
    """

    def __init__(self, config: CommandConfig, name: str, state_dir: Path, *, output_limit_bytes: int = 1 << 20) -> None:
        self._config = config
        self._name = name
        self._work = workplaces(state_dir)
        self._limit = output_limit_bytes
        self._starting = asyncio.Semaphore(STARTING)

    async def run(self, ctx: Context, goal: str, inputs: dict[str, Any]) -> Any:
        """Runs the program to its end.

        Returns:
            The data of its last `result` event, or else the tail of its stdout.

        Raises:
            CommandFailed: it did not run, or did not exit with 0.
        """
        argv = fill(self._config.argv, goal, inputs)
        failure: CommandFailed | None = None

        async def command() -> Any:
            nonlocal failure
            try:
                return await self._command(ctx, argv)
            except CommandFailed as error:
                failure = error
                raise

        try:
            return await ctx.step("command", command)
        except StepFailed as failed:
            if failure is None:  # recorded before a crash: the journal has its code and message
                raise
            raise failure from failed

    async def _command(self, ctx: Context, argv: list[str]) -> Any:
        directory = self._directory(ctx.run_id)
        environment = {name: os.environ[name] for name in self._config.env if name in os.environ}
        environment |= {"LATTICED_WORKSPACE": ctx.workspace, "LATTICED_STEP_KEY": ctx.step_key}
        program = await self._start(argv, environment, directory, ctx.run_id)
        output = Output(ctx.emit, self._limit, program.end)
        reading = [output.pump(program.stdout, "stdout"), output.pump(program.stderr, "stderr")]
        *pumps, flusher = map(asyncio.create_task, (*reading, output.flush_regularly()))
        try:
            hit("command.started")
            with ctx.escalation(program.escalate):
                code = await program.ended()
                await asyncio.gather(*pumps)
                await output.flush()
        finally:
            for task in (*pumps, flusher):
                task.cancel()
            await program.close()
            await asyncio.gather(*pumps, flusher, return_exceptions=True)
        hit("command.ended")
        if output.failure is not None:
            raise output.failure
        if code is None:
            raise program.lost()
        if code != 0:
            raise _exit_status(argv[0], code, output.tail("stderr"))
        if self._config.cwd is None:
            try:
                directory.rmdir()
            except OSError:  # something is in it, or it has removed it itself
                pass
        return output.result

    async def _start(self, argv: list[str], environment: dict[str, str], directory: Path, run_id: str) -> Program:
        async with self._starting:
            program = Program(argv, environment, directory, run_id)
            try:
                await program.started()
            except BaseException:
                await program.close()
                raise
            return program

    def _directory(self, run_id: str) -> Path:
        if self._config.cwd is None:
            directory = self._work / run_id
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return directory
        if not self._config.cwd.is_dir():
            raise CommandFailed("cwd_not_found", f"agent {self._name}: its cwd {self._config.cwd} is not a directory")
        return self._config.cwd


def _exit_status(argv0: str, code: int, stderr: str) -> CommandFailed:
    detail: dict[str, Any] = {"exit_code": code, "signal": None, "stderr": stderr}
    how = f"exited with status {code}"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:  # a real-time signal
            name = f"signal {-code}"
        detail |= {"exit_code": None, "signal": name}
        how = f"was ended by {name}"
    last = stderr.rstrip().rpartition("\n")[2].strip()[:500]
    return CommandFailed("exit_status", f"{argv0} {how}" + (f": {last}" if last else ""), detail)


def fill(argv: Sequence[str], goal: str, inputs: Mapping[str, Any]) -> list[str]:
    """Puts the run's goal and inputs in the place of the arguments that name them. An argument stays one argument.

    Raises:
        CommandFailed: `invalid`; an input is missing, is neither text, number nor truth value, or holds what no
            argument can.
    """
    filled = []
    for argument in argv:
        if PLACEHOLDER.fullmatch(argument):
            name = argument[1:-1]
            value = goal if name == "goal" else _scalar(name, inputs)
            if "\0" in value:
                raise CommandFailed("invalid", f"{name} holds a NUL character, which no argument can")
            try:
                value.encode()
            except UnicodeEncodeError:
                raise CommandFailed("invalid", f"{name} holds half a surrogate pair, which is no text") from None
            argument = value
        filled.append(argument)
    return filled


def _scalar(name: str, inputs: Mapping[str, Any]) -> str:
    key = name.removeprefix("inputs.")
    if key not in inputs:
        raise CommandFailed("invalid", f"{name} is missing: the command needs an input {key!r}")
    value = inputs[key]
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    sort = {dict: "an object", list: "a list", type(None): "null"}.get(type(value), type(value).__name__)
    raise CommandFailed("invalid", f"{name} is {sort}; an argument is text, a number, true or false")

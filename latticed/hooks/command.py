"""Command hooks: a program is told on its stdin, and answers on its stdout.

It runs under a guardian, as a command agent does (`agents/guardian.py`), so that nothing of it is left when it has
ended, was cut short, or the daemon is gone.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from latticed.agents.output import BREATH, PipeReader
from latticed.agents.program import CommandFailed, Program
from latticed.models.hooks import OUTPUT_CHARS, Answer, CommandHook, HookFailed, HookSpec, Occasion, clip_end

STARTING = 4
"""How many are started at once: the event loop stands still for each until the machine has found time to execute it."""
ANSWER_BYTES = 1 << 21
"""The longest answer that is read."""
TAIL_BYTES = 4 * OUTPUT_CHARS


class CommandRunner:
    """Starts programs. Each gets the allowed part of the daemon's environment and `LATTICED_HOOK`, `LATTICED_POINT`,
    `LATTICED_WORKSPACE`, `LATTICED_RUN_ID` and `LATTICED_DELIVERY_ID`, and works in its `cwd`; without one, in a
    directory of its own under the state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._work = state_dir.absolute() / "hooks"
        self._starting = asyncio.Semaphore(STARTING)

    async def run(self, hook: HookSpec, payload: bytes, occasion: Occasion, begun: Callable[[], None]) -> Answer:
        """Asks a hook once. Exit status 0 is an answer, and only with it is stdout read as one."""
        table = hook.table
        assert isinstance(table, CommandHook)
        environment = {name: os.environ[name] for name in table.env if name in os.environ} | {
            "LATTICED_HOOK": hook.name,
            "LATTICED_POINT": hook.point,
            "LATTICED_WORKSPACE": occasion.workspace,
            "LATTICED_DELIVERY_ID": occasion.delivery_id,
        }
        directory = self._directory(hook, table)
        program: Program | None = None
        reading: list[asyncio.Task[None]] = []
        try:
            async with self._starting:
                begun()
                with _readable(payload) as stdin:
                    program = Program(table.argv, environment, directory, occasion.run_id, stdin)
                await program.started()
            said, complained = _Kept(ANSWER_BYTES), _Kept(0)
            reading = [
                asyncio.create_task(said.read(program.stdout)),
                asyncio.create_task(complained.read(program.stderr)),
            ]
            code = await program.ended()
            await asyncio.gather(*reading)
        except CommandFailed as failed:
            raise HookFailed(str(failed)) from None
        finally:
            for task in reading:
                task.cancel()
            if program is not None:
                await program.close()
            await asyncio.gather(*reading, return_exceptions=True)
        return _answer(hook, code, said, complained)

    def _directory(self, hook: HookSpec, table: CommandHook) -> Path:
        directory = table.cwd or self._work / hook.name
        try:
            if table.cwd is None:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HookFailed(f"its directory {directory} cannot be made: {error.strerror}") from None
        if not directory.is_dir():
            raise HookFailed(f"its cwd {directory} is not a directory")
        return directory


class _Kept:
    """What is kept of a stream: its beginning, if it may be an answer, and its end. The rest is read and dropped."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.beginning = b""
        self.length = 0
        self._end = b""

    async def read(self, pipe: PipeReader) -> None:
        """Reads it to its end, with the event loop turning meanwhile."""
        beginning = bytearray()
        number = 0
        while chunk := await pipe.read():
            self.length += len(chunk)
            beginning += chunk[: max(0, self._most - len(beginning))]
            self._end = (self._end + chunk)[-TAIL_BYTES:]
            number += 1
            if number % BREATH == 0:
                await asyncio.sleep(0)
        self.beginning = bytes(beginning)

    @property
    def text(self) -> str:
        """Its end, as text."""
        return self._end.decode("utf-8", "replace")


def _answer(hook: HookSpec, code: int | None, said: _Kept, complained: _Kept) -> Answer:
    output = clip_end(said.text + complained.text, OUTPUT_CHARS)
    if code is None:
        raise HookFailed("its guardian was killed; what was left of it has been ended", output)
    if code != 0:
        raise HookFailed(f"it exited with status {code}" if code > 0 else f"it was ended by signal {-code}", output)
    if not hook.judges:
        return Answer(output=output)
    if said.length > ANSWER_BYTES:
        raise HookFailed(f"its answer has {said.length} bytes, more than the {ANSWER_BYTES} that are read", output)
    return Answer.read(said.beginning, output)


@contextmanager
def _readable(payload: bytes) -> Iterator[int]:
    """A descriptor from which the payload can be read, whether or not anybody does; in memory, where there is that."""
    in_memory = hasattr(os, "memfd_create")
    with os.fdopen(os.memfd_create("payload"), "w+b") if in_memory else TemporaryFile() as file:
        file.write(payload)
        file.flush()
        file.seek(0)
        yield file.fileno()

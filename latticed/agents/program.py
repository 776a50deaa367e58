"""A program under its guardian, seen from the daemon: start it, signal it, wait for its end, leave nothing of it."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from latticed import forks
from latticed.agents.orphans import kill_orphans, kill_session
from latticed.agents.output import PipeReader
from latticed.errors import RunError

GUARDIAN = Path(__file__).with_name("guardian.py")
PYTHON_OPTIONS = ("-I", "-S", "-X", "utf8")
"""Nothing of the environment or the site is read, and arguments are passed on as the bytes that they are."""
ORDERS = {1: b"i", 2: b"t", 3: b"k"}
"""Rung of the cancel ladder → what the guardian is told."""
GUARDIAN_SECONDS = 4.0
"""How long after the last rung the guardian itself is killed; it gives up by itself after three."""
REAP_SECONDS = 0.001


class CommandFailed(RunError):
    """The command did not end well.

    `code` is `exit_status` (the program ran and said so; `detail` has `exit_code` or `signal`, and the tail of
    `stderr`), `command_not_found`, `command_not_executable`, `cwd_not_found`, `invalid` (what the run gave cannot be
    an argument), `spawn_failed` (the machine could not start it) or `command_lost` (its guardian was killed).
    """

    def __init__(self, code: str, message: str, detail: dict[str, Any] | None = None) -> None:
        super().__init__(message, detail)
        self.code = code


class Program:
    """A running program. Making one starts it; whoever makes one awaits `close`, in a `finally`."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path, run_id: str, stdin: int | None = None
    ) -> None:
        """Starts a guardian, which starts the program. Takes half a millisecond and needs a running event loop.

        `stdin` is a descriptor that the program reads; without one its input is empty.

        Raises:
            CommandFailed: `invalid` or `spawn_failed`; nothing was started.
        """
        self._argv0 = argv[0]
        self._run_id = run_id
        self._buffer = b""
        self._code: int | None = None
        self._ended: asyncio.Task[int | None] | None = None
        self._last_resort: asyncio.TimerHandle | None = None
        try:
            self._start(argv, {**environment, "LATTICED_GUARDIAN": run_id}, cwd, stdin)
        except OSError as error:
            if error.errno == errno.E2BIG:
                raise CommandFailed("invalid", f"{argv[0]}: its arguments are longer than the system takes") from error
            if str(error.filename) == str(cwd):
                raise CommandFailed("cwd_not_found", f"{argv[0]}: its cwd {cwd} is not a directory") from error
            raise CommandFailed("spawn_failed", f"{argv[0]} could not be started: {error.strerror}") from error

    def _start(self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path, stdin: int | None) -> None:
        with ExitStack() as ours, ExitStack() as theirs:
            reads, writes = [], []
            for mine, other in ((ours, theirs), (ours, theirs), (ours, theirs), (theirs, ours)):
                read, write = os.pipe()
                mine.callback(os.close, read)
                other.callback(os.close, write)
                reads.append(read)
                writes.append(write)
            out, err, report, guardian_orders = reads
            guardian_out, guardian_err, guardian_report, self._orders = writes
            os.set_blocking(self._orders, False)
            script = [sys.executable, *PYTHON_OPTIONS, str(GUARDIAN), str(guardian_report), str(guardian_orders)]
            self._guardian = subprocess.Popen(
                [*script, *(argument.encode() for argument in argv)],
                env=environment,
                cwd=cwd,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=guardian_out,
                stderr=guardian_err,
                pass_fds=(guardian_report, guardian_orders),
                start_new_session=True,
            )
            self.stdout, self.stderr, self._report = PipeReader(out), PipeReader(err), PipeReader(report)
            ours.pop_all()
        forks.withhold(self._orders)  # its end tells the guardian that the daemon is gone

    async def started(self) -> None:
        """Returns when the program runs.

        Raises:
            CommandFailed: `command_not_found`, `command_not_executable` or `command_lost`.
        """
        word, _, number = (await self._line()).partition(" ")
        if word == "refused":
            self._code = 127  # there is nothing to sweep up
            raise self._refusal(int(number))
        if word != "started":
            await self.ended()
            raise self.lost()

    async def ended(self) -> int | None:
        """Returns when the program and all that it left running have ended.

        Returns:
            Its exit status, or minus the number of the signal that ended it, or None if its guardian was killed and
            nobody knows.
        """
        if self._ended is None or self._ended.cancelled():  # a loop that shuts down cancels every task, this one too
            self._ended = asyncio.create_task(self._follow())
        return await asyncio.shield(self._ended)

    def escalate(self, rung: int) -> None:
        """Climbs the cancel ladder: 1 is SIGINT to the group, 2 SIGTERM, 3 the end of everything."""
        try:
            os.write(self._orders, ORDERS[rung])
        except OSError:  # the guardian has ended, or was closed
            return
        self._signal_guardian(signal.SIGCONT)  # should somebody have stopped it
        if rung == 3 and self._last_resort is None:
            wait = asyncio.get_running_loop().call_later
            self._last_resort = wait(GUARDIAN_SECONDS, self._signal_guardian, signal.SIGKILL)

    def end(self) -> None:
        """Kills the program and everything that it started."""
        self.escalate(3)

    def lost(self) -> CommandFailed:
        return CommandFailed("command_lost", f"{self._argv0}: its guardian was killed; what was left has been ended")

    async def close(self) -> None:
        """Ends what still runs, waits for that even while being cancelled, and gives the descriptors back."""
        if self._guardian.returncode is None:
            self.end()
        cancelled: asyncio.CancelledError | None = None
        while self._guardian.returncode is None:
            try:
                await self.ended()
            except asyncio.CancelledError as error:
                cancelled = error
        if self._last_resort is not None:
            self._last_resort.cancel()
        for pipe in (self.stdout, self.stderr, self._report):
            pipe.close()
        forks.forget(self._orders)
        os.close(self._orders)
        self._orders = -1
        if cancelled is not None:
            raise cancelled

    async def _follow(self) -> int | None:
        while line := await self._line():
            word, _, number = line.partition(" ")
            if word in ("exited", "signaled"):
                self._code = int(number) if word == "exited" else -int(number)
        if self._code is None:
            await asyncio.to_thread(self._sweep)
        while self._guardian.poll() is None:  # noqa: ASYNC110 - in its last microseconds, which nothing announces
            await asyncio.sleep(REAP_SECONDS)
        self.stdout.finish()
        self.stderr.finish()
        return self._code

    async def _line(self) -> str:
        """The guardian's next line, or nothing at its end."""
        while b"\n" not in self._buffer:
            chunk = await self._report.read()
            if not chunk:
                return ""
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def _refusal(self, number: int) -> CommandFailed:
        argv0, reason = self._argv0, os.strerror(number)
        if number in (errno.ENOENT, errno.ENOTDIR):
            return CommandFailed("command_not_found", f"{argv0}: no such program (or the interpreter of it is missing)")
        if number == errno.ENOEXEC:
            return CommandFailed("command_not_executable", f"{argv0} is not a program: a script needs a first line #!…")
        if number in (errno.EACCES, errno.EPERM, errno.EISDIR):
            return CommandFailed("command_not_executable", f"{argv0} may not be executed: {reason}")
        return CommandFailed("spawn_failed", f"{argv0} could not be started: {reason}")

    def _sweep(self) -> None:
        """The guardian is gone and could not do its work. Its session's number is safe: it is not reaped yet."""
        kill_session(self._guardian.pid)
        kill_orphans([self._run_id])

    def _signal_guardian(self, number: int) -> None:
        if self._guardian.returncode is None:  # not reaped, so its number is its own; Popen's own way would reap it
            os.kill(self._guardian.pid, number)

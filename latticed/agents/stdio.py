"""MCP by the stdin and stdout of a program, a message a line.

The program runs under a guardian (`program.py`), so that nothing of it, nor of what it has started, is left once its
session is over or the daemon is gone.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from fastmcp.client.transports import ClientTransport
from fastmcp.client.transports.base import TransportOptions
from mcp import ClientSession
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from latticed.agents.output import PipeReader
from latticed.agents.program import CommandFailed, Program

LINE_BYTES = 8 << 20
"""The longest message that is read; a result may be recorded up to 1 MiB, and be written in several times as much."""
TAIL_BYTES = 1000
END_SECONDS = 2.0
"""How long the program gets to end once its input has ended, and then once more after SIGTERM."""
LAST_WORDS_SECONDS = 0.5

Inbox = MemoryObjectSendStream[SessionMessage | Exception]
Heard = MemoryObjectReceiveStream[SessionMessage | Exception]
Said = MemoryObjectSendStream[SessionMessage]
Outbox = MemoryObjectReceiveStream[SessionMessage]


class ProgramTransport(ClientTransport):
    """Starts the program for a session, and ends it with it."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path, run_id: str) -> None:
        self._start = (argv, environment, cwd, run_id)
        self._tail = b""
        self.end: str | None = None
        """How it came to an end that nobody wanted, with the last of what it had to say."""

    @asynccontextmanager
    async def connect_session(
        self, *, transport_options: TransportOptions | None = None, **session_kwargs: Any
    ) -> AsyncGenerator[ClientSession]:
        """The session, for as long as this lasts.

        Raises:
            CommandFailed: the program cannot be started.
        """
        kind = (transport_options or TransportOptions()).session_class
        async with self._talking() as (heard, said), kind(heard, said, **session_kwargs) as session:
            yield session

    @asynccontextmanager
    async def _talking(self) -> AsyncGenerator[tuple[Heard, Said]]:
        inbox, heard = anyio.create_memory_object_stream[SessionMessage | Exception]()
        said, outbox = anyio.create_memory_object_stream[SessionMessage]()
        tasks: list[asyncio.Task[None]] = []
        program: Program | None = None
        try:
            theirs, ours = os.pipe()
            with closing(_Stdin(ours)) as stdin:
                try:
                    program = Program(*self._start, theirs)
                finally:
                    os.close(theirs)
                await program.started()
                complaining = asyncio.ensure_future(self._overhear(program.stderr))
                tasks = [
                    complaining,
                    asyncio.ensure_future(self._listen(program, inbox, complaining)),
                    asyncio.ensure_future(_speak(outbox, stdin, program)),
                ]
                yield heard, said
        except CommandFailed as failed:
            self.end = failed.message
            raise
        finally:
            for stream in (inbox, heard, said, outbox):
                stream.close()
            try:
                if tasks and program is not None:
                    await _let_end(program)
            finally:
                if program is not None:
                    await program.close()
                for task in tasks:
                    task.cancel()

    async def _listen(self, program: Program, inbox: Inbox, complaining: asyncio.Task[None]) -> None:
        """Passes messages on until the program has said its last, or what is none; then that is the session's end."""
        try:
            async for line in _lines(program.stdout):
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    self._note(line)
                else:
                    await inbox.send(SessionMessage(message))
            self.end = await self._told(program, complaining)
        except _TooLong:
            self.end = f"it wrote a line of more than {LINE_BYTES >> 20} MiB"
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # Nobody listens any more.
        inbox.close()
        async for _ in _chunks(program.stdout):
            pass  # Whoever cannot get rid of what it has to say cannot come to its end.

    async def _told(self, program: Program, complaining: asyncio.Task[None]) -> str:
        try:
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                code = await program.ended()
        except TimeoutError:
            told = "it has closed its stdout"
        else:
            await asyncio.wait((complaining,), timeout=LAST_WORDS_SECONDS)
            told = "its guardian was killed"
            if code is not None:
                told = f"it ended with status {code}" if code >= 0 else f"it was ended by signal {-code}"
        said = " ".join(self._tail.decode("utf-8", "replace").split())
        return f"{told}: {said}" if said else told

    async def _overhear(self, stderr: PipeReader) -> None:
        async for chunk in _chunks(stderr):
            self._note(chunk)

    def _note(self, said: bytes) -> None:
        self._tail = (self._tail + said + b"\n")[-TAIL_BYTES:]


class _TooLong(Exception):
    """A line is longer than any message may be."""


async def _chunks(pipe: PipeReader) -> AsyncGenerator[bytes]:
    """What a pipe gives, with the event loop turning meanwhile, however fast it comes."""
    while chunk := await pipe.read():
        yield chunk
        await asyncio.sleep(0)


async def _lines(stdout: PipeReader) -> AsyncGenerator[bytes]:
    parts: list[bytes] = []
    size = 0
    async for chunk in _chunks(stdout):
        first, *others = chunk.split(b"\n")
        parts.append(first)
        size += len(first)
        for part in others:
            yield b"".join(parts)
            parts, size = [part], len(part)
        if size > LINE_BYTES:
            raise _TooLong


async def _speak(outbox: Outbox, stdin: "_Stdin", program: Program) -> None:
    try:
        async for each in outbox:
            await stdin.write(each.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
    except OSError:  # It does not read any more. What it has said until now is the last that is heard of it.
        program.stdout.finish()


async def _let_end(program: Program) -> None:
    """Its input has ended, so it is to end too; what does not gets a SIGTERM, and then `Program.close`."""
    for rung in (None, 2):
        if rung is not None:
            program.escalate(rung)
        try:
            async with asyncio.timeout(END_SECONDS):
                await program.ended()
            return
        except TimeoutError:
            continue


class _Stdin:
    """The writing end of a pipe."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._ready = asyncio.Event()

    async def write(self, data: bytes) -> None:
        """Writes all of it, as fast as it is read.

        Raises:
            OSError: nobody reads, or it was closed.
        """
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                await self._writable()

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        self._ready.clear()
        loop.add_writer(self._fd, self._ready.set)
        try:
            await self._ready.wait()
        finally:
            if self._fd >= 0:
                loop.remove_writer(self._fd)

    def close(self) -> None:
        """Its reader has everything; who still writes is told that there is nobody."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._ready.set()

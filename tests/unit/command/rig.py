"""What the tests of commands share: a context that keeps what it is told, and the most stubborn of programs."""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import orjson
import psutil

from latticed.config import CommandConfig
from latticed.errors import RunError, StepFailed

Run = Callable[..., Awaitable[Any]]
"""What the fixture `run` is."""
Children = Callable[[], list[psutil.Process]]
"""What the fixture `children` is."""

STUBBORN = """
trap '' INT TERM HUP
sh -c 'echo pid $$; exec sleep 1000' &
(setsid sh -c 'echo pid $$; exec sleep 1000' &)
(env -i setsid /bin/sh -c 'echo pid $$; exec /bin/sleep 1000' &)
echo pid $$
while :; do wait; done
"""
"""Ignores what can be ignored; has a child, one double-forked into a session of its own and one without environment."""


class FakeContext:
    """Keeps what is emitted, runs a step as the engine does: its outcome goes through JSON, its error is StepFailed."""

    workspace, step_key = "default", "key/command/1"

    def __init__(self, run_id: str = "") -> None:
        self.run_id = run_id or f"run_{uuid4()}"
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.climb: Callable[[int], None] | None = None
        self.gate: Callable[[], Awaitable[None]] | None = None

    async def step(self, name: str, fn: Callable[[], Awaitable[Any]], /) -> Any:
        try:
            return json.loads(json.dumps(await fn()))
        except RunError as error:
            raise StepFailed(name, error.code, error.message) from error

    async def emit(self, type: str, /, **data: Any) -> None:
        assert len(orjson.dumps(data)) <= 256 << 10
        if self.gate is not None:
            await self.gate()
        self.events.append((type, data))

    @contextmanager
    def escalation(self, handler: Callable[[int], None], /) -> Iterator[None]:
        self.climb = handler
        yield
        self.climb = None

    def lines(self, stream: str = "stdout") -> list[str]:
        """The lines of a stream, one by one again."""
        found = [data["line"] for kind, data in self.events if kind == "output" and data["stream"] == stream]
        return "\n".join(found).split("\n") if found else []

    def pids(self, count: int) -> list[int]:
        """The pids that the program said, when it has said that many."""
        found = [int(line.split()[1]) for line in self.lines() if line.startswith("pid ")]
        return found if len(found) == count else []

    def of(self, *types: str) -> list[tuple[str, dict[str, Any]]]:
        return [event for event in self.events if event[0] in types]


def config(*argv: str, **keys: Any) -> CommandConfig:
    return CommandConfig(use="command", argv=list(argv), **keys)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def marked(run_id: str) -> list[int]:
    """The processes that carry a run's id in their environment, guardians too."""
    return [p.pid for p in psutil.process_iter(["environ"]) if run_id in (p.info["environ"] or {}).values()]

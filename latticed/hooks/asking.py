"""Asks a hook, of whatever sort it is."""

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from latticed.hooks.registry import Registry
from latticed.models.hooks import Answer, HookFailed, HookSpec, Occasion
from latticed.models.matching import HookIndex


class Runner(Protocol):
    """One sort of hook."""

    async def run(self, hook: HookSpec, payload: bytes, occasion: Occasion, begun: Callable[[], None]) -> Answer:
        """Asks a hook once; `begun` is called when its turn has come. The caller keeps the time from then on, and
        cancels what takes too long; nothing of it may survive that.

        Raises:
            HookFailed: it gave no answer that can be used.
        """
        ...


class Asker:
    """The hooks of this moment, and one runner for each sort: `ports.Hooks`."""

    def __init__(
        self, registry: Registry, runners: Mapping[str, Runner], queues: Callable[[], Collection[str]]
    ) -> None:
        self._registry = registry
        self._runners = runners
        self._queues = queues

    @property
    def index(self) -> HookIndex:
        """Those that are in force."""
        return self._registry.index

    def queues(self) -> Collection[str]:
        """The queues that a run can be put into."""
        return self._queues()

    async def ask(self, hook: HookSpec, payload: bytes, occasion: Occasion, begun: Callable[[], None]) -> Answer:
        """As Runner.run."""
        runner = self._runners.get(hook.sort)
        if runner is None:
            raise HookFailed(f"nothing here runs hooks of the sort {hook.sort!r}")
        return await runner.run(hook, payload, occasion, begun)

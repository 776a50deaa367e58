"""A loop that looks, acts and sleeps until there is something to do; written once."""

import asyncio
from abc import ABC, abstractmethod

import structlog

from latticed.errors import Unavailable

log = structlog.get_logger()

AFTER_FAILURE_SECONDS = 1.0


class Loop(ABC):
    """Start it, stop it, wake it; tests call `tick`."""

    def __init__(self) -> None:
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def tick(self) -> float:
        """Does what is to be done now; after how many seconds to look again at the latest."""

    def wake(self) -> None:
        """Looks again now."""
        self._wake.set()

    def start(self) -> None:
        """Begins."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=type(self).__name__)

    async def stop(self) -> None:
        """Ends after the tick under way has been cut short."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                pause = await self.tick()
            except Unavailable as away:
                log.warning("loop_waits", loop=type(self).__name__, reason=away.detail)
                pause = AFTER_FAILURE_SECONDS
            except Exception as error:
                log.error("loop_failed", loop=type(self).__name__, exc_info=error)
                pause = AFTER_FAILURE_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass

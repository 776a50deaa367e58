"""The watchdog's food: only while the event loop turns and the writer answers, be it with an error."""

from typing import Protocol

from latticed.engine.loop import Loop
from latticed.errors import LatticedError
from latticed.systemd import Notifier


class Pinged(Protocol):
    """What has to answer."""

    async def ping(self) -> None:
        """Passes through the writer and back."""
        ...


class Heartbeat(Loop):
    """Tells systemd that the daemon is alive, if systemd asked for that."""

    def __init__(self, notifier: Notifier, store: Pinged) -> None:
        super().__init__()
        self._notifier = notifier
        self._store = store

    async def tick(self) -> float:
        pause = self._notifier.watchdog_seconds
        if pause is None:
            return 3600.0
        try:
            await self._store.ping()
        except LatticedError:  # An answer too: the disk is full, say, and the writer is not stuck.
            pass
        self._notifier.watchdog()
        return pause / 2

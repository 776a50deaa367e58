"""SIGTERM and SIGINT drain, a second one hurries, SIGHUP reloads."""

import asyncio
import signal
from collections.abc import Callable


class Signals:
    """The process's signals as events of the loop, from the moment that this is made."""

    def __init__(self, on_reload: Callable[[], None] = lambda: None) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self.on_reload = on_reload
        """Called at SIGHUP; may be set once there is something to reload."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self.on_reload())

    def _stop(self) -> None:
        if self.stop.is_set():
            self.hurry.set()
        self.stop.set()

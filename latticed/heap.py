"""Gives memory back to the system after a burst.

The allocator of the C library keeps what is freed within its arenas, of which each thread has one, so that a daemon in
which a thousand runs have gone to sleep would hold what it took to bring them there for as long as it lives.
"""

import asyncio
import sys
from collections.abc import Callable

from latticed.models.records import Commit

QUIET_SECONDS = 0.5
"""No run was moved for that long: the burst is over."""
MANY = 1000
"""Moves of runs from which on there is something worth to be given back. It takes about a millisecond."""


def trim() -> None:
    """Gives back all that is free, where the C library can (glibc's `malloc_trim`)."""
    if sys.platform != "linux":
        return
    import ctypes  # late: most daemons have no burst while somebody looks at their size

    if (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        malloc_trim(0)


class Heap:
    """Sees bursts come and go."""

    def __init__(self, trim: Callable[[], None] = trim) -> None:
        self._trim = trim
        self._moves = 0
        self._seen = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def told(self, commit: Commit) -> None:
        """Something was committed."""
        self._moves += len(commit.rows)
        if self._timer is None and self._moves >= MANY:
            self._look_later()

    def _look_later(self) -> None:
        self._seen = self._moves
        self._timer = self._loop.call_later(QUIET_SECONDS, self._look)

    def _look(self) -> None:
        if self._moves != self._seen:
            self._look_later()
            return
        self._timer = None
        self._moves = 0
        self._trim()

"""What a process that is forked off must not keep of the daemon.

User code may fork, as `multiprocessing` does, and what it forks can outlive a daemon that is killed. With the lock it
would keep the next daemon out, with the door it would hold its port, and with the end of a pipe whoever waits for that
to close would wait for ever. A descriptor that is close-on-exec is closed by an exec alone, so such a process closes
it itself, first of all.
"""

import os
from contextlib import suppress

_withheld: set[int] = set()


def withhold(descriptor: int) -> None:
    """From now on no process that is forked off here keeps this descriptor."""
    _withheld.add(descriptor)


def forget(descriptor: int) -> None:
    """It is about to be closed, and its number may become another's."""
    _withheld.discard(descriptor)


def _close() -> None:
    for descriptor in _withheld:
        with suppress(OSError):
            os.close(descriptor)
    _withheld.clear()


os.register_at_fork(after_in_child=_close)

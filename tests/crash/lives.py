"""One daemon that dies at one failpoint after the other."""

import signal
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import httpx2

from tests.conftest import Daemon


class Lives:
    """One daemon, each life of which but the last ends at the next failpoint."""

    def __init__(self, one: Daemon, in_turn: Sequence[str]) -> None:
        self.one = one
        self._left = [*in_turn, ""]
        self._start()

    def _start(self) -> None:
        self.one.env = {"LATTICED_FAILPOINTS": self._left.pop(0)}
        self.one.start()

    def end(self, act: Callable[[], object]) -> None:
        """What is done now is its death."""
        with suppress(httpx2.TransportError):
            act()
        assert self.one.wait_exit() == -signal.SIGKILL
        self._start()

    def rows(self, sql: str) -> list[Any]:
        """What is on disk. Who asks the daemon uses a token, and that is a write too."""
        with sqlite3.connect(self.one.state_dir / "latticed.db") as db:
            found = db.execute(sql).fetchall()
        db.close()
        return found

    def audited(self, action: str) -> list[str]:
        """The subjects of what was done, in the default workspace or by the admin."""
        return [row[0] for row in self.rows(f"SELECT subject FROM audit WHERE action = '{action}' ORDER BY id")]

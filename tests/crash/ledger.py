"""What the client asked for and what it was told: all that a daemon can be held to."""

import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Submission:
    """A run that was asked for, perhaps several times under one idempotency key."""

    number: int
    body: dict[str, Any]
    key: str | None
    run_ids: set[str] = field(default_factory=set)
    """Every id that an answer named."""
    unanswered: int = 0
    """Requests whose answer never came."""

    @property
    def accepted(self) -> bool:
        return bool(self.run_ids)


@dataclass
class Stop:
    """What a stop was answered: `stopped` is None while no answer has come."""

    run_id: str
    children: bool
    stopped: bool | None = None
    status: str | None = None


@dataclass
class Decision:
    """An answer to an approval; `status` is the HTTP status, None while none has come."""

    approval_id: str
    approve: bool
    data: dict[str, Any]
    status: int | None = None


@dataclass
class Sent:
    """A signal; `status` as above. Times are the client's monotonic seconds."""

    run_id: str
    number: int
    sent_at: float
    status: int | None = None
    answered_at: float | None = None


class Ledger:
    """The client's memory, over all lives of the daemon; threads write to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = 0
        self.submissions: list[Submission] = []
        self.stops: list[Stop] = []
        self.decisions: list[Decision] = []
        self.signals: list[Sent] = []
        self.seen: list[dict[str, Any]] = []
        """The workspace's feed, as it was streamed."""
        self.wrong: list[str] = []
        """What was wrong at once, such as an answer that no daemon may give."""

    def number(self) -> int:
        with self._lock:
            self._numbers += 1
            return self._numbers

    def complain(self, what: str) -> None:
        with self._lock:
            self.wrong.append(what)

    def run_ids(self) -> list[str]:
        """All runs that an answer named, oldest first."""
        return [run_id for each in list(self.submissions) for run_id in sorted(each.run_ids)]

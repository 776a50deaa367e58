"""The in-process broker: tells the engine's parts what became true, and readers of timelines that there is more.

A timeline's reader is a cursor and a wake-up. The last events of each timeline that is being read are kept once for
all its readers, so that one who keeps up reads no disk; one who does not reads the disk, and costs no memory.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

from latticed import ports
from latticed.models.records import Commit, EventRecord
from latticed.states import TERMINAL, Status

KEPT_EVENTS = 512
KEPT_BYTES = 1 << 20
_TURNED = TERMINAL | {Status.AWAITING_APPROVAL}

Listener = Callable[[Commit], None]


class Channel:
    """One timeline that is being read: its latest events and who waits for more. `key` orders its events."""

    def __init__(self, key: Callable[[EventRecord], int]) -> None:
        self.key = key
        self.readers = 0
        self._events: deque[EventRecord] = deque()
        self._bytes = 0
        self._since: int | None = None
        """Every event after this one is kept; None until the first has come."""
        self.more = asyncio.Event()
        """Set at the next event (or at shutdown). Take it before looking: then nothing is missed."""

    def add(self, event: EventRecord) -> None:
        """A committed event, in order."""
        if self._since is None:
            self._since = self.key(event) - 1
        self._events.append(event)
        self._bytes += len(event.data)
        while len(self._events) > 1 and (len(self._events) > KEPT_EVENTS or self._bytes > KEPT_BYTES):
            oldest = self._events.popleft()
            self._bytes -= len(oldest.data)
            self._since = self.key(oldest)

    def ring(self) -> None:
        """Wakes who waits."""
        self.more.set()
        self.more = asyncio.Event()

    def after(self, cursor: int) -> list[EventRecord] | None:
        """What is kept after `cursor`; None if something between is only on disk."""
        if self._since is None or cursor < self._since:
            return None
        found: list[EventRecord] = []
        for event in reversed(self._events):
            if self.key(event) <= cursor:
                break
            found.append(event)
        found.reverse()
        return found


def _seq(event: EventRecord) -> int:
    return event.seq


def _position(event: EventRecord) -> int:
    return event.position


class MemoryBroker:
    """Delivers within this process. The store is the truth; this only tells of it."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._runs: dict[str, Channel] = {}
        self._feeds: dict[str, Channel] = {}
        self._turns: dict[str, set[asyncio.Event]] = {}

    def listen(self, listener: Listener) -> None:
        """`listener` is told every commit, in order."""
        self._listeners.append(listener)

    def publish(self, commit: Commit) -> None:
        """A transaction is committed."""
        if self._runs or self._feeds:
            rung: dict[int, Channel] = {}
            for event in commit.events:
                of_run = self._runs.get(event.run_id) if event.seq > 0 else None
                for channel in (of_run, self._feeds.get(event.workspace)):
                    if channel is not None:
                        channel.add(event)
                        rung[id(channel)] = channel
            for channel in rung.values():
                channel.ring()
        if self._turns:
            for row in commit.rows:
                if row.id in self._turns and row.status in _TURNED:
                    for turn in self._turns[row.id]:
                        turn.set()
        for listener in self._listeners:
            listener(commit)

    def open_run(self, run_id: str) -> Channel:
        """Joins the readers of a run's timeline; call `close` when done."""
        return self._join(self._runs, run_id, _seq)

    def open_feed(self, workspace: str) -> Channel:
        """Joins the readers of a workspace's feed; call `close` when done."""
        return self._join(self._feeds, workspace, _position)

    def _join(self, channels: dict[str, Channel], name: str, key: Callable[[EventRecord], int]) -> Channel:
        channel = channels.get(name)
        if channel is None:
            channel = channels[name] = Channel(key)
        channel.readers += 1
        return channel

    def close(self, channel: ports.Channel) -> None:
        """Leaves; a channel without readers keeps nothing."""
        assert isinstance(channel, Channel)
        channel.readers -= 1
        if channel.readers == 0:
            for channels in (self._runs, self._feeds):
                for name, known in list(channels.items()):
                    if known is channel:
                        del channels[name]

    @contextmanager
    def turn(self, run_id: str) -> Iterator[asyncio.Event]:
        """For as long as it is open: what is set once the run has ended or asks a person, or all are rung."""
        turn = asyncio.Event()
        turns = self._turns.setdefault(run_id, set())
        turns.add(turn)
        try:
            yield turn
        finally:
            turns.discard(turn)
            if not turns:
                self._turns.pop(run_id, None)

    def ring_all(self) -> None:
        """Wakes every reader, to look whether the daemon ends."""
        for turn in chain.from_iterable(self._turns.values()):
            turn.set()
        for channels in (self._runs, self._feeds):
            for channel in channels.values():
                channel.ring()

    @property
    def open_streams(self) -> int:
        """Readers at this moment."""
        return sum(channel.readers for channels in (self._runs, self._feeds) for channel in channels.values())

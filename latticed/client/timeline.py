"""Following a timeline: Server-Sent Events with a cursor that survives broken connections and restarts."""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from latticed.client.transport import Params, Transport
from latticed.clock import Clock, SystemClock
from latticed.errors import Busy, LatticedError, Unavailable

SILENCE_SECONDS = 60.0
"""A stream that says nothing for so long, not even a ping, is taken for dead and opened again."""
RETRY_SECONDS = 1.0
"""The pause before a stream is opened again, until the daemon names another."""
MAX_RETRY_SECONDS = 5.0
"""The longest pause of a client's own choosing while the daemon cannot be reached."""
PATIENCE_SECONDS = 60.0
"""How long a daemon that was there may be away before following it is given up."""

_LINE_END = re.compile(r"\r\n|\n|\r(?!\Z)")


@dataclass(slots=True)
class Frame:
    """One dispatch of an event stream. `id` and `retry_seconds` are None where the frame does not give them."""

    event: str = "message"
    data: str = ""
    id: str | None = None
    retry_seconds: float | None = None


@dataclass(slots=True)
class _Fields:
    """The fields of a frame that is not complete yet."""

    data: list[str] = field(default_factory=list)
    frame: Frame = field(default_factory=Frame)
    any: bool = False

    def take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self.frame.event = value
            case "data":
                self.data.append(value)
            case "id" if "\0" not in value:
                self.frame.id = value
            case "retry" if value.isascii() and value.isdigit():
                self.frame.retry_seconds = int(value) / 1000
            case _:
                return
        self.any = True

    def complete(self) -> Frame:
        self.frame.data = "\n".join(self.data)
        return self.frame


def frames(chunks: Iterable[str]) -> Iterator[Frame | None]:
    """An event stream's text → its frames; None for a chunk that completes none, such as a ping.

    Lines end as WHATWG HTML 9.2.6 says (CR LF, LF or CR and nothing else, so that U+2028 inside a text is text). A
    frame that the end of the stream cuts off is dropped.
    """
    rest, fields = "", _Fields()
    for chunk in chunks:
        *lines, rest = _LINE_END.split(rest + chunk)
        completed = False
        for line in lines:
            if line:
                fields.take(line)
            elif fields.any:
                completed = True
                yield fields.complete()
                fields = _Fields()
        if not completed:
            yield None


class Follower:
    """Reads one timeline from a cursor to its end, across broken connections and restarts of the daemon.

    Args:
        after: begin after this sequence number or position; None leaves the beginning to the daemon.
        until: give up at this time of the clock's `monotonic()`; None is never.
        patience_seconds: how long a daemon that was there may be away.
        notice: told in a sentence when the daemon is lost and when it is there again.
    """

    def __init__(
        self,
        transport: Transport,
        where: str,
        *,
        params: Params | None = None,
        after: int | None = None,
        until: float | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        notice: Callable[[str], None] | None = None,
        clock: Clock | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = transport
        self._where = where
        self._params = {**(params or {}), "after": after}
        self._until = until
        self._patience = patience_seconds
        self._notice = notice or (lambda text: None)
        self._clock = clock or SystemClock()
        self._pause = pause
        self._last_id: str | None = None
        self._retry = RETRY_SECONDS
        self._ended = False
        self._hurried = False
        self._lost_since: float | None = None

    def events(self) -> Iterator[dict[str, Any]]:
        """Every event from the cursor on, each once and in order, until the timeline ends.

        Raises:
            LatticedError: the daemon refused, or it could not be reached at first, or was away for too long.
        """
        was_there, failures = False, 0
        while not self._ended and not self._late():
            try:
                for document in self._one_connection():
                    was_there, failures = True, 0
                    if document is not None:
                        yield document
            except (Unavailable, Busy) as error:
                if not was_there:
                    raise
                self._lost(error)
                self._transport.look_again()
                failures += 1
            if not (self._ended or self._hurried):
                self._pause(min(self._delay(failures), self._left()))

    def _one_connection(self) -> Iterator[dict[str, Any] | None]:
        """What one connection brings; None whenever the daemon is heard of without an event."""
        silence, self._hurried = min(SILENCE_SECONDS, self._left()), False
        headers = {} if self._last_id is None else {"Last-Event-ID": self._last_id}
        with self._transport.stream(
            self._where, params=self._params, headers=headers, silence_seconds=silence
        ) as chunks:
            self._found()
            yield None
            if chunks is None:
                self._ended = True
                return
            for frame in frames(chunks):
                if frame is not None:
                    if frame.retry_seconds is not None:
                        self._retry = frame.retry_seconds
                    self._last_id = frame.id or self._last_id
                    match frame.event:
                        case "end":
                            self._ended = True
                            return
                        case "bye":
                            return
                        case _ if frame.data:
                            yield json.loads(frame.data)
                if self._left() < silence / 2:
                    # Pings would push the end of this wait further and further out: open again with what is left.
                    self._hurried = True
                    return

    def _delay(self, failures: int) -> float:
        """Seconds before the stream is opened again: never sooner than the daemon asked for."""
        doubled: float = self._retry * 2 ** min(max(failures - 1, 0), 10)
        return max(self._retry, min(doubled, MAX_RETRY_SECONDS))

    def _left(self) -> float:
        return float("inf") if self._until is None else max(0.05, self._until - self._clock.monotonic())

    def _late(self) -> bool:
        return self._until is not None and self._clock.monotonic() >= self._until

    def _lost(self, error: LatticedError) -> None:
        if self._late():
            return  # the silence of a stream that was only opened for what was left of a wait
        now = self._clock.monotonic()
        if self._lost_since is None:
            self._lost_since = now
            self._notice(f"lost the daemon ({error.detail}) and trying again for {self._patience:g} s")
        elif now - self._lost_since > self._patience:
            raise error

    def _found(self) -> None:
        if self._lost_since is not None:
            self._lost_since = None
            self._notice("the daemon is there again")

"""The facade's timelines: pages, streams, replay. A reader is a cursor into the log and a wake-up."""

from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import Any

import orjson

from latticed import ids
from latticed.clock import to_text
from latticed.errors import Invalid, NotFound
from latticed.models.people import Principal
from latticed.models.records import EventRecord
from latticed.paging import number_cursor, weighed_page
from latticed.permits import Permit, Permits
from latticed.ports import Broker, Channel, FacadeStore
from latticed.states import TERMINAL

BATCH = 200
"""Events that one look at the disk brings to a stream at most."""
FIRST_BATCH = 16
"""Events that the first look brings, since nobody knows yet how large they are."""
BATCH_BYTES = 256 * 1024
"""What a stream takes up to send at once, and an event more: all that a reader holds who takes nothing."""


class Timeline(ABC):
    """One reader of one timeline."""

    def __init__(
        self, store: FacadeStore, broker: Broker, channel: Channel, cursor: int, permit: Permit
    ) -> None:  # fmt: skip
        self._store = store
        self._broker = broker
        self._channel = channel
        self._cursor = cursor
        self._closed = False
        self.permit = permit
        """Once it has ended the reader must be sent away."""
        self.ended = False
        """At open: the run is over and the cursor is at its end."""
        self.final_status: str | None = None
        """How the run ended, once nothing more will come."""
        self._most = FIRST_BATCH

    async def next(self) -> list[EventRecord]:
        """The next events, once there are some; empty when nothing more will ever come, or the permit has ended."""
        while self._goes_on:
            more = self._channel.more
            kept = self._channel.after(self._cursor)
            found = await self._read() if kept is None else kept
            if kept:
                found = self._held(kept)
                self._cursor = self._channel.key(found[-1])
            wanted = [event for event in found if self._wants(event)]
            if wanted:
                self._see(wanted[-1])
                return wanted
            if not found and self._goes_on and (kept is not None or not self._behind):
                await more.wait()
        return []

    _behind = False

    def _held(self, found: list[EventRecord]) -> list[EventRecord]:
        """As many of these as a reader may hold; the next look at the disk brings about so many."""
        size = 0
        for count, event in enumerate(found, 1):
            size += len(event.data)
            if size > BATCH_BYTES:
                self._most = count
                return found[:count]
        self._most = min(2 * self._most, BATCH)
        return found

    @property
    def _goes_on(self) -> bool:
        return self.final_status is None and not self.permit.ended.is_set()

    @abstractmethod
    async def _read(self) -> list[EventRecord]:
        """What the disk has after the cursor, which moves on."""

    def _wants(self, event: EventRecord) -> bool:
        return True

    def _see(self, last: EventRecord) -> None:
        """The last event that is handed out; a timeline that has an end looks for it here."""
        return

    def close(self) -> None:
        """Leaves; call it however the reading ends."""
        if not self._closed:
            self._closed = True
            self.permit.close()
            self._broker.close(self._channel)


class RunTimeline(Timeline):
    """A reader of one run's timeline; the cursor is a sequence number."""

    run_id: str
    _over: str | None = None
    known: str = ""
    """The run's status when the reading began."""

    async def _read(self) -> list[EventRecord]:
        found = await self._store.list_events(self.run_id, self._cursor, self._most)
        if found and found[0].seq == self._cursor + 1:
            held = self._held(found)
            self._cursor = held[-1].seq
            return held
        # What should be here and is not can only have been removed with its run.
        if self.known in TERMINAL:
            self.final_status = self.known
        elif found or await self._store.find_status(self.permit.workspace, self.run_id) is None:
            self.permit.end()
        return []

    def _see(self, last: EventRecord) -> None:
        if last.type == "run.finished":
            self._over = orjson.loads(last.data)["status"]

    async def next(self) -> list[EventRecord]:
        if self._over is not None:
            self.final_status = self._over
        return await super().next()


class FeedTimeline(Timeline):
    """A reader of a workspace's feed; the cursor is a position."""

    workspace: str
    types: frozenset[str]
    kind: str | None

    async def _read(self) -> list[EventRecord]:
        before = self._cursor
        found, reached = await self._store.list_feed(self.workspace, before, self._most, sorted(self.types), self.kind)
        held = self._held(found)
        self._cursor = reached if len(held) == len(found) else held[-1].position
        self._behind = self._cursor > before
        return held

    def _wants(self, event: EventRecord) -> bool:
        return (not self.types or event.type in self.types) and (self.kind is None or event.kind == self.kind)


class Timelines(ABC):
    """The verbs of timelines, for the facade."""

    _store: FacadeStore
    _broker: Broker
    _permits: Permits

    def say_goodbye(self) -> None:
        """Ends every stream; whoever reads may come again later."""
        self._permits.shut()
        self._broker.ring_all()

    async def _need_run(self, workspace: str, run_id: str) -> tuple[str, int]:
        found = await self._store.find_status(workspace, run_id) if ids.is_id(ids.RUN, run_id) else None
        if found is None:
            raise NotFound("there is no such run")
        return found

    async def open_timeline(
        self, workspace: str, run_id: str, principal: Principal, *, after: int, resumed: bool
    ) -> RunTimeline:
        """A reader of a run's events from after `after` on, for as long as the principal may read.

        Raises:
            NotFound: no such run in this workspace.
            Invalid: beyond the run's last event.
        """
        permit = self._permits.give(principal, workspace)  # Before any wait, so that no revocation falls between.
        with ExitStack() as undo:
            undo.callback(permit.close)
            status, last = await self._need_run(workspace, run_id)
            if after > last:
                raise _beyond(after, last, resumed)
            undo.pop_all()
        timeline = RunTimeline(self._store, self._broker, self._broker.open_run(run_id), after, permit)
        timeline.run_id, timeline.known = run_id, status
        if status in TERMINAL and after == last:
            timeline.ended, timeline.final_status = True, status
        return timeline

    async def open_feed(
        self, workspace: str, principal: Principal, *, after: int | None, resumed: bool, types: list[str],
        kind: str | None,
    ) -> FeedTimeline:  # fmt: skip
        """A reader of a workspace's events from after position `after` on, for as long as the principal may read;
        None: from now.

        Raises:
            NotFound: no such workspace.
            Invalid: beyond the last position.
        """
        permit = self._permits.give(principal, workspace)
        with ExitStack() as undo:
            undo.callback(permit.close)
            await self._need_workspace(workspace)
            channel = self._broker.open_feed(workspace)
            undo.callback(self._broker.close, channel)
            last = await self._store.last_position()
            if after is not None and after > last:
                raise _beyond(after, last, resumed)
            undo.pop_all()
        cursor = last if after is None else after
        timeline = FeedTimeline(self._store, self._broker, channel, cursor, permit)
        timeline.workspace, timeline.types, timeline.kind = workspace, frozenset(types), kind
        return timeline

    @abstractmethod
    async def _need_workspace(self, workspace: str) -> None:
        """Returns if there is such a workspace; else raises NotFound."""

    async def list_events(self, workspace: str, run_id: str, *, after: int, limit: int) -> dict[str, Any]:
        """A page of a run's events, oldest first, as models.events.EventPage."""
        await self._need_run(workspace, run_id)

        async def look(last: dict[str, Any] | None, most: int) -> list[dict[str, Any]]:
            found = await self._store.list_events(run_id, last["seq"] if last else after, most)
            return [event.view() for event in found]

        return await weighed_page(look, limit, "seq")

    async def list_feed(
        self, workspace: str, *, after: int, limit: int, types: list[str], kind: str | None
    ) -> dict[str, Any]:
        """A page of a workspace's events, oldest first, as models.events.FeedPage."""
        await self._need_workspace(workspace)
        cursor = after

        async def look(_last: dict[str, Any] | None, most: int) -> list[dict[str, Any]]:
            nonlocal cursor
            found: list[EventRecord] = []
            while len(found) < most:
                more, reached = await self._store.list_feed(workspace, cursor, most - len(found), types, kind)
                found += more
                if reached <= cursor:
                    break
                cursor = reached
            return [event.feed_view() for event in found]

        return await weighed_page(look, limit, "position")

    async def list_frames(
        self, workspace: str, run_id: str, *, limit: int = 50, cursor: str | None = None
    ) -> dict[str, Any]:
        """A page of a run's timeline as frames, as models.runs.FramePage."""
        await self._need_run(workspace, run_id)
        after = number_cursor(cursor) or 0

        async def look(last: dict[str, Any] | None, most: int) -> list[dict[str, Any]]:
            found = await self._store.list_events(run_id, last["index"] if last else after, most)
            return [_frame(event) for event in found]

        return await weighed_page(look, limit, "index")


def _beyond(after: int, last: int, resumed: bool) -> Invalid:
    name = "Last-Event-ID" if resumed else "after"
    message = f"{name} {after} is beyond the last event, {last}"
    return Invalid(message, [{"loc": ["header" if resumed else "query", name], "msg": message}])


_DECISIONS = {"decision", "outcome"}
_WHY = ("reason", "by", "policy", "detail")


def _frame(event: EventRecord) -> dict[str, Any]:
    data: dict[str, Any] = orjson.loads(event.data)
    why = next((str(data[key]) for key in _WHY if data.get(key)), None)
    if why is None and isinstance(data.get("error"), dict):
        why = data["error"].get("message")
    return {
        "index": event.seq,
        "event": event.type,
        "actor": str(data.get("by") or data.get("name") or data.get("hook") or "latticed"),
        "at": to_text(event.at),
        "why": why,
        "input": data.get("args", data.get("facts")),
        "output": {key: value for key, value in data.items() if key not in _DECISIONS} or None,
        "decision": next((str(data[key]) for key in sorted(_DECISIONS) if key in data), None),
    }

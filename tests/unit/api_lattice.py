"""A facade that answers from memory, and a client that speaks ASGI to the app without a server between."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import unquote

import orjson

from latticed.api import Settings, create_app
from latticed.errors import Invalid, Unauthenticated
from latticed.models.people import Principal
from latticed.models.records import EventRecord
from latticed.notes import Refusal

RUN_ID = "run_01a1fe7f8a0f720a9386d0c880cc01f6"
"""Always the same, since tests are named after it and each worker must find the same tests."""
TOKENS = {
    "root": Principal("tok_root", "root", "admin", "*"),
    "admin": Principal("tok_admin", "admin", "admin", "default"),
    "operator": Principal("tok_operator", "operator", "operator", "default", ("night",), 1_800_000_000_000_001),
    "viewer": Principal("tok_viewer", "viewer", "viewer", "default"),
    "stranger": Principal("tok_stranger", "stranger", "admin", "elsewhere"),
}


def run_view(run_id: str = RUN_ID, **changes: Any) -> dict[str, Any]:
    """A run as models.runs.Run shows it."""
    where = f"/v1/workspaces/default/runs/{run_id}"
    return {
        "id": run_id, "kind": "agent", "target": "digest", "version": None, "name": "digest", "workspace": "default",
        "status": "queued", "mode": "live", "execution_mode": "async", "goal": "look", "inputs": {},
        "requested_roles": [], "max_retries": 0, "queue": "default", "priority": 0, "run_at": None,
        "deadline_seconds": None, "recovery": "resume", "recoveries": 0, "attempt": 0, "epoch": 0, "owner": None,
        "current_role": None, "current_node": None, "parent_run_id": None, "rerun_of": None, "tags": {},
        "created_by": "tok_root", "created_at": "2026-01-01T00:00:00.000000Z", "started_at": None,
        "updated_at": "2026-01-01T00:00:00.000000Z", "finished_at": None, "cancel": None, "pause": None,
        "abandoned": None, "output": None, "error": None,
        "usage": {"input_tokens": 0, "output_tokens": 0, "requests": 0, "cost_usd": 0.0},
        "allowed_moves": ["claim", "cancel"], "events_url": where + "/events", "stop_url": where + "/stop", **changes,
    }  # fmt: skip


def record(seq: int, type: str = "log", **data: Any) -> EventRecord:
    """An event of the one run; its position is a hundred times its number."""
    return EventRecord(RUN_ID, seq, seq * 100, type, "default", "agent", 1_700_000_000_000_000, orjson.dumps(data))


class MemoryTimeline:
    """A cursor into a list that grows."""

    def __init__(self, lattice: "MemoryLattice", cursor: int) -> None:
        self._lattice = lattice
        self._cursor = cursor
        self.permit = SimpleNamespace(ended=lattice.shutdown)
        self.ended = lattice.final_status is not None and cursor >= len(lattice.events)
        self.final_status: str | None = None
        self.closed = False

    async def next(self) -> list[EventRecord]:
        """What is new; nothing once the run is over."""
        while True:
            if self._lattice.trouble is not None:
                raise self._lattice.trouble
            fresh = self._lattice.events[self._cursor :]
            if fresh:
                self._cursor += len(fresh)
                return fresh
            if self._lattice.final_status is not None:
                self.final_status = self._lattice.final_status
                return []
            await self._lattice.grown.wait()

    def close(self) -> None:
        """Counted, since a timeline that is not closed leaks."""
        assert not self.closed
        self.closed = True


@dataclass
class MemoryLattice:
    """Records each call; what it answers can be set by the name of the verb."""

    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    events: list[EventRecord] = field(default_factory=list)
    final_status: str | None = None
    trouble: Exception | None = None
    refusals: list[Refusal] = field(default_factory=list)
    timelines: list[MemoryTimeline] = field(default_factory=list)
    draining: bool = False
    shutdown: asyncio.Event = field(default_factory=asyncio.Event)
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    def grow(self, *records: EventRecord, final_status: str | None = None) -> None:
        """Events are committed; readers are woken."""
        self.events.extend(records)
        self.final_status = final_status
        self.grown.set()
        self.grown = asyncio.Event()

    async def authenticate(self, token: str) -> Principal | None:
        return TOKENS.get(token)

    async def authenticate_session(self, cookie: str) -> Principal | None:
        return TOKENS.get(cookie.removeprefix("cookie-of-"))

    async def sign_in(self, token: str) -> tuple[str, Principal]:
        if token not in TOKENS:
            raise Unauthenticated
        return f"cookie-of-{token}", TOKENS[token]

    async def export_audit(
        self, workspace: str | None, reader: Principal, **filters: Any
    ) -> AsyncGenerator[list[dict[str, Any]]]:
        for batch in self.answers.get("export_audit", []):
            yield batch

    @property
    def notes(self) -> "MemoryLattice":
        return self

    def refused(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)

    def enter(self, workspace: str) -> None:
        """Nothing is removed here."""

    async def metrics(self) -> bytes:
        return b"latticed_up 1\n"

    async def open_timeline(
        self, workspace: str, run_id: str, principal: Principal, *, after: int, resumed: bool
    ) -> MemoryTimeline:
        self.calls.append(("open_timeline", (workspace, run_id), {"after": after, "resumed": resumed}))
        return self._open(after)

    async def open_feed(
        self, workspace: str, principal: Principal, *, after: int | None, **others: Any
    ) -> MemoryTimeline:
        self.calls.append(("open_feed", (workspace,), {"after": after, **others}))
        return self._open(len(self.events) if after is None else after // 100)

    def _open(self, after: int) -> MemoryTimeline:
        if after > len(self.events):
            raise Invalid("beyond the end")
        self.timelines.append(MemoryTimeline(self, after))
        return self.timelines[-1]

    def __getattr__(self, verb: str) -> Any:
        if verb.startswith("_"):
            raise AttributeError(verb)

        async def answer(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((verb, args, kwargs))
            given = self.answers.get(verb, _usual(verb))
            if isinstance(given, Exception):
                raise given
            return given

        return answer


def _usual(verb: str) -> Any:
    if verb in ("submit", "rerun"):
        return run_view(), False
    if verb in ("signal", "create_token", "create_workspace", "create_hook"):
        return {"verb": verb}, False
    if verb in ("get_run", "wait_for"):
        return run_view()
    if verb.startswith("list_"):
        return {"items": [], "next_cursor": None}
    if verb == "stop":
        return {
            "stopped": True,
            "run_id": RUN_ID,
            "status": "cancelling",
            "cancellation": "cooperative",
            "reason": None,
        }
    return {"verb": verb}


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class Connection:
    """One request under way."""

    def __init__(self, body: bytes, chunk: int | None) -> None:
        size = chunk or max(len(body), 1)
        self.parts = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
        self.read = 0
        self.start: dict[str, Any] = {}
        self.received = b""
        self.finished = False
        self.gone = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self._news = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self.read < len(self.parts):
            self.read += 1
            return {
                "type": "http.request", "body": self.parts[self.read - 1], "more_body": self.read < len(self.parts),
            }  # fmt: skip
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.writable.wait()
        if message["type"] == "http.response.start":
            self.start = message
        else:
            self.received += message.get("body", b"")
            self.finished = not message.get("more_body", False)
        self._news.set()

    async def until(self, text: bytes) -> None:
        """Waits until the answer has begun and `text` has come."""
        async with asyncio.timeout(5):
            while text not in self.received or not self.start:
                self._news.clear()
                await self._news.wait()

    def answer(self) -> Answer:
        headers = {name.decode(): value.decode() for name, value in self.start["headers"]}
        return Answer(self.start["status"], headers, self.received)


class Client:
    """Requests to an app over a facade in memory."""

    def __init__(self, lattice: MemoryLattice | None = None, **settings: Any) -> None:
        self.lattice = lattice or MemoryLattice()
        self.app = create_app(cast(Any, self.lattice), Settings(**settings))

    def scope(self, method: str, target: str, token: str | None, headers: dict[str, str]) -> dict[str, Any]:
        """An ASGI scope, decoded the way a server does it."""
        path, _, query = target.partition("?")
        fields = {"host": "test", **headers}
        if token is not None:
            fields["authorization"] = f"Bearer {token}"
        return {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "method": method, "scheme": "http", "path": unquote(path), "raw_path": path.encode(),
            "query_string": query.encode(), "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in fields.items()],
        }  # fmt: skip

    async def __call__(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        token: str | None = "root",
        chunk: int | None = None,
        **headers: str,
    ) -> Answer:
        """One exchange, whole; `body` is sent as it is if it is bytes, else as JSON."""
        raw = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        connection = Connection(raw, chunk)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with asyncio.timeout(5):
            await self.app(self.scope(method, target, token, named), connection.receive, connection.send)
        return connection.answer()

    @asynccontextmanager
    async def open(self, target: str, *, token: str = "root", **headers: str) -> AsyncIterator[Connection]:
        """A stream that is being read; it is left by going away."""
        connection = Connection(b"", None)
        named = {"accept": "text/event-stream", **{name.replace("_", "-"): value for name, value in headers.items()}}
        task = asyncio.create_task(
            self.app(self.scope("GET", target, token, named), connection.receive, connection.send)
        )
        try:
            yield connection
        finally:
            connection.gone.set()
            async with asyncio.timeout(5):
                await task

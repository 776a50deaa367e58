"""The facade's verbs, each one HTTP exchange; documents are dicts just as the daemon shows them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from latticed.client.hooks import HookVerbs
from latticed.client.people import PeopleVerbs
from latticed.client.timeline import PATIENCE_SECONDS, Follower
from latticed.client.transport import ANSWER_SECONDS, Address, Transport, path
from latticed.clock import SystemClock
from latticed.errors import Invalid
from latticed.states import TERMINAL, Status

Document = dict[str, Any]
Words = str | Sequence[str]

MAX_HELD_SECONDS = 60.0
"""How long the daemon holds the answer to a submission at most."""
PAGE = 500
"""The longest page there is."""


class Client(PeopleVerbs, HookVerbs):
    """A daemon, as one token sees one of its workspaces.

    Every verb raises the exceptions of `latticed.errors`: what the daemon refused as the class of its `code`, and
    `Unavailable` if the daemon could not be reached.

    Args:
        url: the daemon's address, such as `http://127.0.0.1:8700` or `unix:/run/latticed/latticed.sock`; or what says
            where it is now, which is asked again when a daemon that was followed is not there any more.
        token: a token's text; None sends none, which only `healthz` and `readyz` accept.
        workspace: the workspace of every verb that needs one; `*` stands for all, for tokens and the audit trail.
        answer_seconds: how long the daemon may be silent before an answer is given up.

    Raises:
        Invalid: `url` is not an address.
    """

    def __init__(
        self,
        url: Address,
        token: str | None = None,
        workspace: str = "default",
        *,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.workspace = workspace
        self._transport = Transport(url, token, answer_seconds)
        self._clock = SystemClock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    # Runs

    def submit(
        self,
        target: str,
        goal: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        *,
        kind: str = "agent",
        roles: Sequence[str] | None = None,
        max_retries: int | None = None,
        queue: str | None = None,
        priority: int | None = None,
        run_at: str | None = None,
        deadline_seconds: float | None = None,
        recovery: str | None = None,
        mode: str | None = None,
        tags: Mapping[str, str] | None = None,
        name: str | None = None,
        wait_seconds: float | None = None,
        idempotency_key: str | None = None,
    ) -> Document:
        """Puts a run on disk → `{"run": …, "accepted": true, …}`, once its row is committed.

        What is None is left to the daemon's own default.

        Args:
            run_at: RFC 3339; not before then.
            deadline_seconds: counted from its making, or from `run_at`.
            wait_seconds: hold the answer until the run has ended or asks a person, at most so long and at most 60 s.
            idempotency_key: the same key and run within 24 h is the same run, not another one.
        """
        body = {
            "kind": kind, "target": target, "goal": goal, "inputs": inputs, "roles": roles, "max_retries": max_retries,
            "queue": queue, "priority": priority, "run_at": run_at, "deadline_seconds": deadline_seconds,
            "recovery": recovery, "mode": mode, "tags": tags, "name": name,
        }  # fmt: skip
        held = None if wait_seconds is None else min(wait_seconds, MAX_HELD_SECONDS)
        return self._post(
            ("runs",),
            _given(body),
            params={"wait": None if held is None else f"{held:g}"},
            longer_seconds=held or 0.0,
            idempotency_key=idempotency_key,
        )

    def get_run(self, run_id: str) -> Document:
        """A run, whole."""
        return self._get("runs", run_id)

    def list_runs(
        self,
        *,
        kind: str | None = None,
        status: str | None = None,
        target: str | None = None,
        tag: Words | None = None,
        parent: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Document:
        """A page of runs, newest first: `{"items": …, "next_cursor": …}`. Of several tags `key:value` all must fit."""
        return self._get(
            "runs", kind=kind, status=status, target=target, tag=tag, parent=parent, limit=limit, cursor=cursor
        )

    def wait(self, run_id: str, timeout_seconds: float | None = None) -> Document:
        """The run as soon as it has ended or asks a person; after `timeout_seconds`, as it is then."""
        run = self.get_run(run_id)
        if settled(run):
            return run
        until = None if timeout_seconds is None else self._clock.monotonic() + timeout_seconds
        for event in self._follow_run(run_id, until=until):
            if event["type"] == "run.awaiting_approval":
                # An old question may have been answered since: the run itself says whether one is open now.
                run = self.get_run(run_id)
                if settled(run):
                    return run
        return self.get_run(run_id)

    def stop(
        self, run_id: str, *, mode: str | None = None, reason: str | None = None, children: bool | None = None
    ) -> Document:
        """Puts a cancel on record. `mode` is `graceful` (the default), `now` or `kill`; a harder one later climbs."""
        return self._post(("runs", run_id, "stop"), _given({"mode": mode, "reason": reason, "children": children}))

    def cancel(self, run_id: str, *, reason: str | None = None, children: bool | None = None) -> Document:
        """`stop` with mode `now`."""
        return self._post(("runs", run_id, "cancel"), _given({"reason": reason, "children": children}))

    def rerun(self, run_id: str, *, from_step: str | None = None, idempotency_key: str | None = None) -> Document:
        """A new run like a finished one → the same answer as `submit`.

        Args:
            from_step: a step's id; what was recorded before it is kept, so that it is not done again.
        """
        return self._post(("runs", run_id, "rerun"), _given({"from_step": from_step}), idempotency_key=idempotency_key)

    def why(self, run_id: str) -> Document:
        """Why a run is not running: its place in the queue, the limit, the time, the person it waits for."""
        return self._get("runs", run_id, "why")

    def list_steps(self, run_id: str, *, limit: int | None = None, cursor: str | None = None) -> Document:
        """A page of what the run has recorded, oldest first."""
        return self._get("runs", run_id, "steps", limit=limit, cursor=cursor)

    def every_step(self, run_id: str) -> Iterator[Document]:
        """Everything the run has recorded, oldest first, page by page."""
        cursor: str | None = None
        while True:
            page = self.list_steps(run_id, limit=PAGE, cursor=cursor)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def replay(self, run_id: str, *, limit: int | None = None, cursor: str | None = None) -> Document:
        """A page of the run's timeline told for a person, oldest first."""
        return self._get("runs", run_id, "replay", limit=limit, cursor=cursor)

    def signal(self, run_id: str, name: str, data: Any = None) -> Document:
        """Delivers `data` to a run that waits for it, or will."""
        return self._post(("runs", run_id, "signals", name), {"data": data})

    # Timelines

    def list_events(self, run_id: str, *, after: int | None = None, limit: int | None = None) -> Document:
        """A page of a run's events, oldest first, from the one after sequence number `after`."""
        return self._get("runs", run_id, "events", after=after, limit=limit)

    def every_event(self, run_id: str, *, after: int | None = None) -> Iterator[Document]:
        """A run's events up to now, oldest first, page by page."""
        while True:
            page = self.list_events(run_id, after=after, limit=PAGE)
            yield from page["items"]
            if page["next_cursor"] is None or not page["items"]:
                return
            after = page["items"][-1]["seq"]

    def list_feed(
        self,
        *,
        after: int | None = None,
        limit: int | None = None,
        types: Words | None = None,
        kind: str | None = None,
    ) -> Document:
        """A page of the workspace's events, oldest first, from the one after position `after`."""
        return self._get("events", after=after, limit=limit, types=_joined(types), kind=kind)

    def follow(
        self,
        run_id: str,
        *,
        after: int | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        notice: Callable[[str], None] | None = None,
    ) -> Iterator[Document]:
        """A run's events as they happen, each once and in order, until its last one.

        A broken connection or a restart of the daemon is bridged: the stream goes on where it was.

        Args:
            after: begin after this sequence number; None is from the first.
            patience_seconds: how long a daemon that was there may be away.
            notice: told in a sentence when the daemon is lost and when it is there again.

        Raises:
            Unavailable: the daemon cannot be reached, or was away for longer than `patience_seconds`.
        """
        return self._follow_run(run_id, after=after, patience_seconds=patience_seconds, notice=notice)

    def follow_feed(
        self,
        *,
        after: int | None = None,
        types: Words | None = None,
        kind: str | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        notice: Callable[[str], None] | None = None,
    ) -> Iterator[Document]:
        """The workspace's events as they happen, without an end; from now on, unless `after` is a position."""
        return Follower(
            self._transport,
            self._path("events"),
            params={"types": _joined(types), "kind": kind},
            after=after,
            patience_seconds=patience_seconds,
            notice=notice,
            clock=self._clock,
        ).events()

    # People

    def list_approvals(
        self,
        *,
        status: str | None = None,
        lane: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Document:
        """A page of questions to people, newest first."""
        return self._get("approvals", status=status, lane=lane, limit=limit, cursor=cursor)

    def answer(
        self, approval_id: str, decision: str, *, data: Mapping[str, Any] | None = None, comment: str | None = None
    ) -> Document:
        """Answers a question → the approval as it is then.

        Args:
            decision: `approve` or `deny`.
            data: what the asking code gets; it must fit the approval's schema.

        Raises:
            Conflict: it is answered, expired or closed already.
            Invalid: `data` does not fit.
        """
        return self._post(("approvals", approval_id), _given({"decision": decision, "data": data, "comment": comment}))

    # The rest

    def list_agents(self, *, limit: int | None = None, cursor: str | None = None) -> Document:
        """A page of the agents that a run can target, by name."""
        return self._get("agents", limit=limit, cursor=cursor)

    def list_queues(self, *, limit: int | None = None, cursor: str | None = None) -> Document:
        """A page of the queues by name, with their limits and loads."""
        return self._get("queues", limit=limit, cursor=cursor)

    # How

    def _path(self, *segments: str) -> str:
        if not self.workspace:
            raise Invalid("the workspace's name is empty")
        return path("v1", "workspaces", self.workspace, *segments)

    def _get(self, *segments: str, **params: Any) -> Document:
        return self._document("GET", self._path(*segments), params=params)

    def _post(
        self,
        segments: tuple[str, ...],
        body: Document,
        *,
        params: Mapping[str, Any] | None = None,
        longer_seconds: float = 0.0,
        idempotency_key: str | None = None,
    ) -> Document:
        headers = None if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self._document(
            "POST", self._path(*segments), body=body, params=params, headers=headers, longer_seconds=longer_seconds
        )

    def _document(self, method: str, where: str, **how: Any) -> Document:
        document: Document = self._transport.request(method, where, **how)
        return document

    def _follow_run(
        self,
        run_id: str,
        *,
        after: int | None = None,
        until: float | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        notice: Callable[[str], None] | None = None,
    ) -> Iterator[Document]:
        return Follower(
            self._transport,
            self._path("runs", run_id, "events"),
            after=after,
            until=until,
            patience_seconds=patience_seconds,
            notice=notice,
            clock=self._clock,
        ).events()


def settled(run: Document) -> bool:
    """Whether a run has ended or asks a person: nothing more happens by itself."""
    return run["status"] in TERMINAL or run["status"] == Status.AWAITING_APPROVAL


def _given(body: Document) -> Document:
    return {name: value for name, value in body.items() if value is not None}


def _joined(words: Words | None) -> str | None:
    return words if words is None or isinstance(words, str) else ",".join(words)

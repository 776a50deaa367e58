"""What the engine and the facade need of the outside, and what each guarantees."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from latticed.errors import Busy
from latticed.models.audit import Act
from latticed.models.hooks import Answer as HookAnswer
from latticed.models.hooks import HookSpec, Occasion, Point, Verdict
from latticed.models.matching import HookIndex
from latticed.models.people import Answer, Principal
from latticed.models.records import (
    ApprovalRequest,
    Birth,
    Change,
    Claimed,
    Ending,
    EventRecord,
    Once,
    ReadyEntry,
    RunRow,
    StepRecord,
)


class Writes(Protocol):
    """The truth, as far as it is written. Every method of a store that writes is one transaction, on disk (fsync
    included) when it returns, and raises `Unavailable` with nothing written if the store is away. All that a
    transaction made true is told to the broker, in commit order, before its caller gets the outcome."""

    async def change(self, *changes: Change) -> list[RunRow | None]:
        """Makes each change whose guard holds; None for one that lost."""
        ...

    def bear(self, births: Sequence[Birth]) -> "asyncio.Future[list[RunRow]]":
        """Orders runs to be inserted as queued. What is ordered after it, by anybody, comes after it."""
        ...


class Store(Writes, Protocol):
    """What the engine asks of the store."""

    def order(self, *changes: Change) -> "asyncio.Future[list[RunRow | None]]":
        """Orders changes without waiting; orders are carried out in the order in which they are given."""
        ...

    async def claim(self, ids: Sequence[str], owner: str) -> list[Claimed]:
        """Claims those that can still be claimed: each claim raises the epoch, the fence of all later writes."""
        ...

    async def take_signal(self, change: Change, name: str, record: StepRecord) -> bytes | None:
        """Takes the oldest signal and journals it, both or neither."""
        ...

    async def open_approval(self, change: Change, request: ApprovalRequest) -> RunRow | None:
        """Opens an approval and makes the change, both or neither."""
        ...

    async def find_approval(self, approval_id: str) -> tuple[str, Any, str | None] | None:
        """Status, answer and comment."""
        ...

    async def find_ending(self, run_id: str) -> Ending | None:
        """How a run ended; None while it has not."""
        ...

    async def recall(self, row: RunRow, limit: int) -> list[dict[str, Any]]:
        """Goal and summary of the newest runs before this one that ended well, of its workspace, target and mode."""
        ...

    async def ready_shares(self) -> list[tuple[str, str]]:
        """Each (queue, workspace) in which something can be claimed."""
        ...

    async def list_ready(self, queue: str, workspace: str, limit: int) -> list[ReadyEntry]:
        """The first runs of a share, in the order in which they are to be claimed."""
        ...

    async def due(self, now: int, limit: int) -> list[tuple[str, str]]:
        """Sleepers whose time has come."""
        ...

    async def overdue(self, now: int, limit: int) -> list[str]:
        """Runs that nobody runs and whose deadline has passed."""
        ...

    async def expire_approvals(self, now: int, limit: int) -> int:
        """Closes approvals whose time is over and tells their runs."""
        ...

    async def next_due(self, now: int) -> int | None:
        """When there is something to do next."""
        ...

    async def list_owned(self) -> list[tuple[RunRow, str]]:
        """Every run in the hands of an owner, with its recovery policy."""
        ...

    async def find_run(self, workspace: str, run_id: str) -> dict[str, Any] | None:
        """A run as models.runs.Run."""
        ...

    async def requeue(self, changes: Sequence[Change]) -> list[RunRow | None]:
        """Makes each change and, where it holds, empties the run's journal after its children have their cancel."""
        ...


class FacadeStore(Writes, Protocol):
    """What the facade asks of the store. A method that reads sees everything whose write has returned, and raises
    `Unavailable` if the store is away. Where a method takes a workspace, nothing of another one is found. Pages have
    at most `limit` items, from beyond a cursor; views are as the named model."""

    async def check(self) -> None:
        """Reads something, and commits a write that changes nothing; returns if both went well."""
        ...

    # Runs

    async def submit_once(
        self, birth: Birth, once: Once, refusal: Busy | None = None
    ) -> tuple[str, bool]:  # fmt: skip
        """Inserts a run unless its key was used in the last 24 hours: (run id, whether that was so). Raises `Conflict`
        if it was used with another fingerprint, and in place of inserting the `refusal`. Of several at once with one
        key, one inserts. So does every method that takes a key."""
        ...

    async def find_run(self, workspace: str, run_id: str) -> dict[str, Any] | None:
        """A run as models.runs.Run."""
        ...

    async def find_status(self, workspace: str, run_id: str) -> tuple[str, int] | None:
        """Status and last sequence number of a run, as of one moment."""
        ...

    async def find_due(self, run_id: str) -> str | None:
        """The time before which a run is not claimed, if it has one."""
        ...

    async def find_cancel(self, run_id: str) -> str | None:
        """The cancel on record, as JSON."""
        ...

    async def list_runs(
        self, workspace: str, filters: dict[str, Any], tags: list[tuple[str, str]], before: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """Runs newest first, each as models.runs.RunSummary. `filters` are columns and the values they may have."""
        ...

    async def place_in_queue(self, workspace: str, queue: str, priority: int, run_id: str) -> int:
        """How many runs of the same queue and workspace are claimed before this one."""
        ...

    async def active_counts(self) -> list[tuple[str, str, str, int]]:
        """How many runs there are of each (workspace, queue, status) that is not over."""
        ...

    async def list_steps(self, run_id: str, after: int, limit: int) -> list[dict[str, Any]]:
        """The journal, oldest first, each as models.runs.Step."""
        ...

    async def copy_journal(self, run_id: str, before: int) -> list[StepRecord]:
        """What is recorded before record number `before`, for another run to begin with."""
        ...

    async def send_signal(
        self, workspace: str, run_id: str, name: str, data: Any, by: Principal, once: Once | None = None,
        refusal: Busy | None = None,
    ) -> tuple[str, bool]:  # fmt: skip
        """Keeps a signal and wakes the run if it waits for it, both or neither: (signal id, whether the key was used
        before). Raises `NotFound`, `Conflict` for a run that is over or being cancelled, or the `refusal`."""
        ...

    # Timelines

    async def list_events(self, run_id: str, after: int, limit: int) -> list[EventRecord]:
        """A run's events with a sequence number above `after`, oldest first, without a gap."""
        ...

    async def list_feed(
        self, workspace: str, after: int, limit: int, types: Sequence[str] = (), kind: str | None = None
    ) -> tuple[list[EventRecord], int]:
        """A workspace's events above position `after`, oldest first, and the position up to which this look was
        complete: nothing will ever be found at or below it that was not found now."""
        ...

    async def last_position(self) -> int:
        """The highest position that was ever given, also if its event is gone; 0 if there was none."""
        ...

    # People

    async def list_approvals(
        self, workspace: str, status: str | None, lane: str | None, before: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """Approvals newest first, each as models.people.Approval."""
        ...

    async def find_approval_view(self, workspace: str, approval_id: str) -> dict[str, Any] | None:
        """An approval as models.people.Approval."""
        ...

    async def answer(self, workspace: str, approval_id: str, answer: Answer, by: Principal) -> None:
        """Answers an approval and tells its run, both or neither. One answer wins; `Conflict` for every other, and for
        one that comes too late."""
        ...

    async def list_workspaces(self, before: tuple[int, str] | None, limit: int, only: str | None) -> list[Any]:
        """Workspaces, newest first, each with `name` and `created_at` (microseconds)."""
        ...

    async def create_workspace(self, name: str, by: Principal | str, once: Once | None = None) -> bool:
        """Makes a workspace; whether the key was used before. Raises `Conflict` if it is there already, or not wholly
        gone."""
        ...

    async def find_workspace(self, name: str) -> Any | None:
        """A workspace that was not removed, with `name` and `created_at` (microseconds)."""
        ...

    async def has_workspace(self, name: str) -> bool:
        """Whether there is such a workspace, not removed."""
        ...

    async def remove_workspace(self, name: str, by: Principal, *, force: bool) -> None:
        """Marks a workspace as removed; no run is born in it from then on but a child. Raises `NotFound`, or `Conflict`
        if runs are active in it and `force` is not given."""
        ...

    async def count_active(self, workspace: str) -> tuple[int, int]:
        """How many runs of a workspace are not over, and how many of them wait in a queue."""
        ...

    async def add_token(
        self, values: dict[str, Any], by: Principal | str, once: Once | None = None
    ) -> tuple[str, bool]:  # fmt: skip
        """Keeps a token (its digest, not its text): (its id, whether the key was used before). Raises `NotFound` if its
        workspace was removed."""
        ...

    async def find_token(self, digest: str) -> Principal | None:
        """Who holds the token with this sha256, unless it was revoked or its workspace removed (its expiry is for the
        caller)."""
        ...

    async def list_tokens(self, workspace: str, before: str | None, limit: int) -> list[dict[str, Any]]:
        """Tokens of a workspace, newest first, each as models.people.Token."""
        ...

    async def find_token_view(self, workspace: str, token_id: str) -> dict[str, Any] | None:
        """A token of a workspace as models.people.Token."""
        ...

    async def revoke_token(self, workspace: str, token_id: str, by: Principal) -> bool:
        """Ends a token and its sessions; False if there is none in this workspace."""
        ...

    async def add_session(self, digest: str, expires_at: int, by: Principal) -> None:
        """Keeps a browser's session (the digest of its cookie, not the cookie)."""
        ...

    async def find_session(self, digest: str) -> Principal | None:
        """Who is signed in by the cookie with this sha256, with the session's expiry, unless its token is worth nothing
        any more."""
        ...

    async def end_session(self, digest: str, by: Principal) -> None:
        """Ends a session, if it is there."""
        ...

    # The audit trail. Every method that changes something for a principal writes its row in the same transaction.

    async def note(self, acts: Sequence[Act], used: Mapping[str, int]) -> None:
        """Writes acts that belong to no change, and when tokens were last used, by their ids."""
        ...

    async def list_audit(
        self, workspace: str | None, filters: Mapping[str, Any], *, before: int | None = None, after: int | None = None,
        limit: int,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Rows of the trail of a workspace, or of all, each as models.audit.AuditRow: newest first from below `before`,
        or with `after` oldest first from above it."""
        ...


class Channel(Protocol):
    """One timeline that is being read, shared by all its readers. It keeps only its latest events."""

    @property
    def more(self) -> asyncio.Event:
        """Set at the next event, or when all are rung. Taken before looking, it lets nothing be missed."""
        ...

    def key(self, event: EventRecord) -> int:
        """What a cursor into this timeline counts: a run's sequence numbers, or a feed's positions."""
        ...

    def after(self, cursor: int) -> list[EventRecord] | None:
        """Every event after `cursor`, oldest first; None if one of them may be only in the store."""
        ...


class Broker(Protocol):
    """What wakes readers. It is told each commit once, in order, and keeps nothing that the store does not have."""

    def open_run(self, run_id: str) -> Channel:
        """Joins the readers of a run's timeline. What is committed from now on is seen; end it with `close`."""
        ...

    def open_feed(self, workspace: str) -> Channel:
        """Joins the readers of a workspace's feed. What is committed from now on is seen; end it with `close`."""
        ...

    def close(self, channel: Channel) -> None:
        """Leaves a channel that this broker opened, once for each time it was opened."""
        ...

    def turn(self, run_id: str) -> AbstractContextManager[asyncio.Event]:
        """For as long as it is open: what is set once the run has ended or asks a person, or all are rung."""
        ...

    def ring_all(self) -> None:
        """Wakes every reader, to look whether the daemon ends."""
        ...

    @property
    def open_streams(self) -> int:
        """Readers at this moment."""
        ...


class Agent(Protocol):
    """What a run targets."""

    async def run(self, ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
        """Does the work by the context; what it returns is the run's output."""
        ...


class Registry(Protocol):
    """The configured agents."""

    def find(self, kind: str, target: str) -> Agent | None:
        """An agent that can run now; None if there is none of that name."""
        ...


class Hooks(Protocol):
    """The hooks of this moment, and how to ask one."""

    @property
    def index(self) -> HookIndex:
        """Those that are in force; another one after a reload or a registration."""
        ...

    def queues(self) -> Collection[str]:
        """The queues that a run can be put into."""
        ...

    async def ask(
        self, hook: HookSpec, payload: bytes, occasion: Occasion, begun: Callable[[], None]
    ) -> HookAnswer:  # fmt: skip
        """Asks a hook once; `begun` is called when its turn has come. The caller keeps the time from then on, and
        cancels what takes too long.

        Raises:
            HookFailed: it gave no answer that can be used.
        """
        ...


class HookChain(Protocol):
    """What an agent calls around its tools and its nodes: the chain of hooks at a point, of `execution.chain`.

    Costs one look-up where no hook is. Not to be called inside a step. `key` tells this occasion from every other of
    the run and is the same when the run is entered again: each answer is recorded under it, and nobody who answered is
    asked again.
    """

    async def before(self, point: Point, x: Any, subject: dict[str, Any], key: str) -> Verdict:
        """Asks about what is about to happen: at `pre_tool` with `subject` `{"name", "args"}`, at `pre_node` with the
        node. `Verdict.hook` is set if it may not happen; else `changes` may have `args` (of a node: `inputs`).

        Raises:
            Cancelled, Suspended: the run is to end, or to be given back.
        """
        ...

    async def after(self, point: Point, x: Any, subject: dict[str, Any], key: str) -> None:
        """Tells what has happened, at `post_tool` or `post_node`; nothing that a hook does here changes it.

        Raises:
            Cancelled, Suspended: the run is to end, or to be given back.
        """
        ...

"""Every state of a run and every move between them, declared once.

Guards in the store, the CHECK on the status column, the buttons of a console and `docs/state_machine.md` are
derived from here. A state is terminal if no move leaves it.
"""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Where a run is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    WAITING = "waiting"
    AWAITING_APPROVAL = "awaiting_approval"
    CANCELLING = "cancelling"
    OK = "ok"
    RETRIED_OK = "retried_ok"
    PARTIAL = "partial"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


HOLDS: dict[Status, str] = {
    Status.QUEUED: "On disk, owned by nobody; claimed when its time, its queue and the limits allow.",
    Status.RUNNING: "One owner executes it under one epoch.",
    Status.RETRYING: "An attempt failed; it waits for its backoff, then is claimed again.",
    Status.WAITING: "Unwound; it waits for a timer, a signal, a callback, a poll or a child and holds no slot.",
    Status.AWAITING_APPROVAL: "Unwound; it waits for a person and holds no slot.",
    Status.CANCELLING: "A cancel is on record; the owner is winding down.",
    Status.OK: "Finished.",
    Status.RETRIED_OK: "Finished after at least one retry.",
    Status.PARTIAL: "Finished; some parts were skipped or failed as its definition tolerates.",
    Status.FAILED: "Finished with an error that has a stable code.",
    Status.REJECTED: "A pre_run hook blocked it, or a denied approval was not caught.",
    Status.CANCELLED: "Its cancel took effect.",
    Status.INTERRUPTED: "Its process died or was drained, and its recovery policy says not to go on.",
}
"""What is true of a run in each state."""


class Actor(StrEnum):
    """Who may make a move, which decides what guards it."""

    OWNER = "owner"
    """Guarded by state, owner and epoch."""
    ANYONE = "anyone"
    """Guarded by the state alone."""


@dataclass(frozen=True, slots=True)
class Move:
    """One arrow of the state machine."""

    name: str
    sources: frozenset[Status]
    target: Status
    actor: Actor
    doc: str


S = Status
_ASLEEP = (S.QUEUED, S.RETRYING, S.WAITING, S.AWAITING_APPROVAL)


def _move(name: str, sources: tuple[Status, ...], target: Status, actor: Actor, doc: str) -> Move:
    return Move(name, frozenset(sources), target, actor, doc)


CLAIM = _move("claim", (S.QUEUED, S.RETRYING), S.RUNNING, Actor.ANYONE, "An executor takes it; the epoch rises.")
BACK_OFF = _move("back_off", (S.RUNNING,), S.RETRYING, Actor.OWNER, "An attempt failed and others are left.")
WAIT = _move("wait", (S.RUNNING,), S.WAITING, Actor.OWNER, "It is unwound until what it waits for happens.")
ASK = _move("ask", (S.RUNNING,), S.AWAITING_APPROVAL, Actor.OWNER, "It is unwound until a person answers.")
WAKE = _move("wake", (S.WAITING, S.AWAITING_APPROVAL), S.QUEUED, Actor.ANYONE, "What it waited for happened.")
RELEASE = _move("release", (S.RUNNING,), S.QUEUED, Actor.OWNER, "A drain, an orphan, another queue, or its code stays.")
SUCCEED = _move("succeed", (S.RUNNING,), S.OK, Actor.OWNER, "It returned.")
SUCCEED_RETRIED = _move("succeed", (S.RUNNING,), S.RETRIED_OK, Actor.OWNER, "It returned after a retry.")
FINISH_PARTIAL = _move("finish_partial", (S.RUNNING,), S.PARTIAL, Actor.OWNER, "It returned; parts are missing.")
FAIL = _move("fail", (S.RUNNING,), S.FAILED, Actor.OWNER, "It raised and no attempt is left.")
REJECT = _move("reject", (S.RUNNING,), S.REJECTED, Actor.OWNER, "A hook blocked it, or a denial was not caught.")
EXPIRE = _move("expire", (S.RUNNING,), S.FAILED, Actor.OWNER, "Its deadline passed; it was wound down first.")
EXPIRE_ASLEEP = _move("expire", _ASLEEP, S.FAILED, Actor.ANYONE, "Its deadline passed while nobody ran it.")
REQUEST_CANCEL = _move("request_cancel", (S.RUNNING,), S.CANCELLING, Actor.ANYONE, "A cancel is put on record.")
CANCEL = _move("cancel", _ASLEEP, S.CANCELLED, Actor.ANYONE, "Nobody runs it, so a cancel takes effect at once.")
CANCEL_WOUND_DOWN = _move("cancel", (S.CANCELLING,), S.CANCELLED, Actor.OWNER, "Its owner has wound it down.")
INTERRUPT = _move("interrupt", (S.RUNNING,), S.INTERRUPTED, Actor.OWNER, "Its recovery policy says not to go on.")

MOVES: tuple[Move, ...] = (
    CLAIM, BACK_OFF, WAIT, ASK, WAKE, RELEASE, SUCCEED, SUCCEED_RETRIED, FINISH_PARTIAL, FAIL, REJECT, EXPIRE,
    EXPIRE_ASLEEP, REQUEST_CANCEL, CANCEL, CANCEL_WOUND_DOWN, INTERRUPT,
)  # fmt: skip

TERMINAL: frozenset[Status] = frozenset(Status) - frozenset(s for move in MOVES for s in move.sources)
"""The states that no move leaves."""

ACTIVE: frozenset[Status] = frozenset(Status) - TERMINAL
"""The states that some move leaves."""

WELL: frozenset[Status] = frozenset({S.OK, S.RETRIED_OK, S.PARTIAL})
"""The ends after which there is an output to go on with."""

BADLY: frozenset[Status] = TERMINAL - WELL
"""The other ends."""

CLAIMABLE: frozenset[Status] = CLAIM.sources
UNWOUND: frozenset[Status] = WAKE.sources
OWNED: frozenset[Status] = frozenset({S.RUNNING, S.CANCELLING})
"""The states in which an owner executes; the only ones in which a journal may be written."""


def allowed_moves(status: Status) -> list[str]:
    """The names of the moves that leave `status`, in the order of the table."""
    return list(dict.fromkeys(move.name for move in MOVES if status in move.sources))

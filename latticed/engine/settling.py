"""How a run's end, or its pause, is recorded. Each function makes one guarded move; what loses obeys the winner."""

from typing import Any

import orjson

from latticed.clock import to_text
from latticed.engine.execution import Execution
from latticed.engine.outcomes import Blocked, Failed, Interrupted, Refused, Returned
from latticed.engine.retrying import backoff_seconds
from latticed.failpoints import hit
from latticed.models.audit import act
from latticed.models.records import NewEvent, event
from latticed.states import (
    ASK,
    BACK_OFF,
    CANCEL_WOUND_DOWN,
    EXPIRE,
    FAIL,
    FINISH_PARTIAL,
    INTERRUPT,
    REJECT,
    RELEASE,
    SUCCEED,
    SUCCEED_RETRIED,
    WAIT,
    Move,
)

DEADLINE_ERROR = {"code": "deadline_exceeded", "message": "its deadline has passed", "detail": None}


def finished(at: int, move: Move, **more: Any) -> NewEvent:
    """The one terminal event."""
    return event("run.finished", at, status=str(move.target), **more)


def _of_abandoned(what: str | None) -> dict[str, str]:
    """What an event, or a run's columns, tell of code that was given up; nothing if it has ended."""
    return {} if what is None else {"abandoned": what}


async def _end(x: Execution, move: Move, columns: dict[str, Any], **told: Any) -> bool:
    hit("end.before")
    row = await x.commit(move=move, columns=columns, events=[finished(x.clock.now(), move, **told)])
    hit("end.after")
    return row is not None


_GOOD_ENDS = {str(move.target): move for move in (SUCCEED, SUCCEED_RETRIED, FINISH_PARTIAL)}


async def settle_returned(x: Execution, outcome: Returned) -> bool:
    """It returned."""
    status = outcome.status or ("ok" if x.row.attempt == 1 else "retried_ok")
    move = _GOOD_ENDS[status]
    if not await _end(x, move, {"output": outcome.output.decode()}):
        await settle_stopped(x)
    return False


async def settle_failed(
    x: Execution, outcome: Failed | Refused | Interrupted, abandoned: str | None = None
) -> bool:  # fmt: skip
    """It raised: another attempt after a wait, or the end."""
    if isinstance(outcome, Failed) and outcome.again and x.row.attempt <= x.claimed.max_retries:
        now = x.clock.now()
        next_at = now + int(backoff_seconds(x.row.attempt) * 1_000_000)
        hit("retry.before")
        row = await x.commit(
            move=BACK_OFF,
            columns={"due_at": next_at, "attempt": x.row.attempt + 1},
            events=[event("run.retrying", now, error=outcome.error, next_at=to_text(next_at))],
        )
        hit("retry.after")
        if row is None:
            await settle_stopped(x)
        return False
    move = {Failed: FAIL, Refused: REJECT, Interrupted: INTERRUPT}[type(outcome)]
    columns = {"error": orjson.dumps(outcome.error).decode()} | _of_abandoned(abandoned)
    if not await _end(x, move, columns, error=outcome.error, **_of_abandoned(abandoned)):
        await settle_stopped(x, abandoned)
    return False


async def settle_unwound(x: Execution, abandoned: str | None = None) -> bool:
    """It was left on purpose: because the daemon drains, or because it waits. True: look again, a fact has come."""
    if not x.waits.unwound:
        await release(x, "drain")
        return False
    if x.waits.missed:
        return True
    facts, wake_at = x.waits.awaited()
    move = ASK if any(fact.startswith("approval:") for fact in facts) else WAIT
    hit("wait.before")
    seen = x.facts
    told = event(
        "run.awaiting_approval" if move is ASK else "run.waiting",
        x.clock.now(),
        facts=facts,
        wake_at=None if wake_at is None else to_text(wake_at),
        **_of_abandoned(abandoned),
    )
    row = await x.commit(
        move=move,
        columns={"due_at": wake_at, "awaits": orjson.dumps(facts).decode()},
        facts_seen=seen,
        events=[told],
    )
    hit("wait.after")
    if row is not None:
        return False
    if x.cancel_rank == 0 and x.facts != seen:
        return True
    await settle_stopped(x, abandoned)
    return False


async def settle_left_behind(x: Execution, abandoned: str) -> None:
    """Its code was to leave in order to wait, and has not: the run waits all the same, or goes on in another entry."""
    if await settle_unwound(x, abandoned):
        told = event("run.released", x.clock.now(), reason="abandoned", abandoned=abandoned)
        if await x.commit(move=RELEASE, events=[told]) is None:
            await settle_stopped(x, abandoned)


async def settle_blocked(x: Execution, outcome: Blocked) -> None:
    """A hook said no: the run ends, and who wanted it, and whoever looks after this workspace, can read why."""
    why = {"hook": outcome.hook, "reason": outcome.reason}
    error = {"code": "blocked", "message": f"{outcome.hook}: {outcome.reason}", "detail": why}
    row = None
    if not (x.cancel_rank or x.expired):
        hit("block.before")
        row = await x.commit(
            move=REJECT,
            columns={"error": orjson.dumps(error).decode()},
            steps=[outcome.record],
            events=[finished(x.clock.now(), REJECT, error=error)],
            act=act(x.row.workspace, f"hook:{outcome.hook}", "run.blocked", x.run_id, **why),
        )
        hit("block.after")
    if row is None:  # A cancel or the deadline was faster; what the hook has said stays on record.
        hit("overtaken.before")
        await x.commit(steps=[outcome.record])
        hit("overtaken.after")
        await settle_stopped(x)


async def settle_moved(x: Execution, queue: str) -> None:
    """A hook has chosen another queue: the run is given back, to be claimed there."""
    hit("queue.before")
    told = event("run.released", x.clock.now(), reason="queue", queue=queue)
    row = await x.commit(move=RELEASE, columns={"queue": queue}, events=[told])
    hit("queue.after")
    if row is None:
        await settle_stopped(x)


async def release(x: Execution, reason: str) -> None:
    """Gives the run back, or ends it if its policy says not to go on."""
    hit("release.before")
    now = x.clock.now()
    if x.claimed.recovery == "interrupt":
        message = f"it was given back ({reason}); its policy is interrupt"
        error = {"code": "interrupted", "message": message, "detail": None}
        move, told = INTERRUPT, finished(now, INTERRUPT, error=error)
        row = await x.commit(move=move, columns={"error": orjson.dumps(error).decode()}, events=[told])
    else:
        told = event("run.released", now, reason=reason)
        by = _requeue(x) if x.claimed.recovery == "requeue" else None
        row = await x.commit(move=RELEASE, events=[told], by=by)
    hit("release.after")
    if row is None:
        await settle_stopped(x)


def _requeue(x: Execution) -> Any:
    async def requeue(change: Any) -> Any:
        return (await x.store.requeue([change]))[0]

    return requeue


async def settle_cancelled(x: Execution, abandoned: str | None = None) -> None:
    """Its cancel takes effect."""
    hit("cancel.before_end")
    told = finished(x.clock.now(), CANCEL_WOUND_DOWN, **_of_abandoned(abandoned))
    await x.commit(move=CANCEL_WOUND_DOWN, columns=_of_abandoned(abandoned), events=[told])
    hit("cancel.after_end")


async def settle_stopped(x: Execution, abandoned: str | None = None) -> None:
    """The move that it would have made lost, or its time is over: a cancel on record comes first, then the deadline.
    If neither is there the run belongs to somebody else, and there is nothing to write."""
    if x.expired and not x.cancel_rank:
        columns = {"error": orjson.dumps(DEADLINE_ERROR).decode()} | _of_abandoned(abandoned)
        if await _end(x, EXPIRE, columns, error=DEADLINE_ERROR):
            return
    await settle_cancelled(x, abandoned)

"""A stop as a change of a run, whatever state that is in."""

import orjson

from latticed.models.audit import Act
from latticed.models.records import CANCEL_RANK, Change, event
from latticed.states import CANCEL, REQUEST_CANCEL, Status


def stop_change(
    run_id: str, *, by: str, reason: str | None, mode: str, children: bool, now: int, act: Act | None = None
) -> Change:  # fmt: skip
    """Puts a cancel on record: it winds down what runs, ends at once what does not, and climbs if it is harder."""
    rank = CANCEL_RANK[mode]
    cancel = orjson.dumps({"requested_at": now, "requested_by": by, "reason": reason, "children": children}).decode()
    on_record = {"cancel": cancel, "cancel_rank": rank}
    said = {"by": by, "reason": reason, "mode": mode}
    climb = Change(
        run_id, states=frozenset({Status.CANCELLING}), below_cancel_rank=rank, columns={"cancel_rank": rank}, act=act
    )  # fmt: skip
    at_once = Change(
        run_id, CANCEL, columns=on_record, events=[event("run.finished", now, status="cancelled", cancel=said)],
        otherwise=climb, act=act,
    )  # fmt: skip
    return Change(
        run_id, REQUEST_CANCEL, columns=on_record, events=[event("run.cancelling", now, **said)], otherwise=at_once,
        act=act,
    )  # fmt: skip

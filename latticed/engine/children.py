"""A run's children: born in the transaction that journals them, awaited like any other fact."""

from typing import Any

import orjson

from latticed.engine.entry import Asked, Entry
from latticed.engine.outcomes import clean
from latticed.engine.pauses import coded
from latticed.engine.waiting import Wait
from latticed.errors import ChildFailed, RunError
from latticed.failpoints import hit
from latticed.models.records import Birth, StepRecord, event
from latticed.states import WELL, Status


class Children:
    """The children of one entry."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._x = entry.x

    async def run(self, wanted: dict[str, Any], detached: bool) -> Any:
        """Starts a child, a submission as `wanted`, and gives its output, or, detached, its id."""
        await self._entry.admit()
        with self._entry.asking("child", f"{wanted['kind']}:{wanted['target']}") as asked:
            record = asked.found
            if record is None:
                record = await self._bear(asked, wanted, detached)
            if record.status == "waiting":
                record = await self._await_end(record)
            if record.status == "ok":
                return orjson.loads(record.outcome)
            error = orjson.loads(record.error)
            if error["code"] != ChildFailed.code:
                raise coded(error["code"], error["message"])
            raise ChildFailed(error["detail"]["run_id"], error["detail"]["status"], error["detail"]["error"])

    async def _bear(self, asked: Asked, wanted: dict[str, Any], detached: bool) -> StepRecord:
        x, entry = self._x, self._entry
        record = entry.record(asked)
        lineage = {"created_by": x.run_id, "parent_run_id": x.run_id, "detached": detached}
        try:
            birth: Birth = x.admit(wanted, x.row.workspace, **lineage)
        except RunError as refusal:
            record = _failed(record, refusal, record.started_at)
            await entry.write(record)
            return record
        record = record._replace(ref=birth.id)
        if detached:
            record = record._replace(status="ok", outcome=orjson.dumps(birth.id), finished_at=record.started_at)
        told = event(
            "child.started", record.started_at, run_id=birth.id, kind=birth.kind, target=birth.target, detached=detached
        )
        hit("child.before")
        await entry.write_once(record, states=frozenset({Status.RUNNING}), births=[birth], events=[told])
        hit("child.after")
        return record

    async def _await_end(self, record: StepRecord) -> StepRecord:
        x, entry = self._x, self._entry
        child_id = record.ref or ""
        until = entry.patience(x.clock.now())
        while True:
            seen = entry.waits.delivered
            ending = await x.persist(lambda: x.store.find_ending(child_id))
            if ending is not None:
                now = x.clock.now()
                if ending.status in WELL:
                    done = record._replace(status="ok", outcome=orjson.dumps(ending.output), finished_at=now)
                else:
                    failure = ChildFailed(child_id, ending.status, ending.error)
                    failure.detail["error"] = ending.error
                    done = _failed(record, failure, now)
                return entry.note(done)
            entry.check()
            if seen == entry.waits.delivered:
                await entry.wait(Wait(until, fact=f"child:{child_id}"))


def _failed(record: StepRecord, error: RunError, at: int) -> StepRecord:
    told = {"code": error.code, "message": clean(error.message), "detail": error.detail}
    return record._replace(status="failed", finished_at=at, error=orjson.dumps(told))

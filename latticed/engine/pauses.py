"""What a run waits for: a time, a signal, a person."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from latticed import ids
from latticed.clock import to_text
from latticed.engine.entry import Asked, Entry
from latticed.engine.lasting import unbroken
from latticed.engine.outcomes import DETAIL_LIMIT, clean, describe, to_json
from latticed.engine.waiting import Wait, micros
from latticed.errors import ApprovalExpired, Denied, Misuse, RunError, SignalTimeout
from latticed.failpoints import hit
from latticed.models.fields import NAME_PATTERN
from latticed.models.records import ApprovalRequest, StepRecord, event
from latticed.schemas import Schema


class Pauses:
    """The waits of one entry."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._x = entry.x

    async def sleep(self, until: Callable[[int], int]) -> None:
        """Waits for the time that `until` makes of now; it is journalled first."""
        entry, clock = self._entry, self._x.clock
        await entry.admit()
        with entry.asking("sleep", "sleep") as asked:
            record = asked.found
            if record is None:
                record = entry.record(asked)
                record = record._replace(ref=str(until(record.started_at)))
                await entry.write(record)
            if record.status == "ok":
                return
            wake_at = int(record.ref or 0)
            while (now := clock.now()) < wake_at:
                soon = wake_at <= entry.patience(now)
                await entry.wait(Wait(wake_at if soon else now, wake_at=wake_at))
            entry.note(record._replace(status="ok", finished_at=now))

    async def signal(self, name: str, schema: dict[str, Any] | None, timeout_seconds: float | None) -> Any:
        """Takes the next signal of this name."""
        checked = Schema.of(schema, "ctx.wait_signal")
        timeout = None if timeout_seconds is None else micros(timeout_seconds, "ctx.wait_signal's timeout_seconds")
        await self._entry.admit()
        if isinstance(name, str) and ("/" in name or name in (".", "..")):
            raise Misuse(f"a signal called {name!r} could not be sent: its name is a part of a path")
        with self._entry.asking("signal", name) as asked:
            record = asked.found
            if record is None or record.status == "waiting":
                record = await self._await_signal(asked, timeout)
                hit("signal.taken")
            if record.status == "failed":
                raise SignalTimeout(orjson.loads(record.error)["message"])
            value = orjson.loads(record.outcome)
            if problem := checked.problem(value):
                raise coded("invalid_signal", f"signal {name!r}: {problem}")
            return value

    async def _await_signal(self, asked: Asked, timeout: int | None) -> StepRecord:
        entry, x = self._entry, self._x
        record, journalled = asked.found or entry.record(asked), asked.found is not None
        if timeout is not None and not journalled:
            record = record._replace(ref=str(record.started_at + timeout))
        wake_at = None if record.ref is None else int(record.ref)
        until = entry.patience(x.clock.now())
        while True:
            seen, now = entry.waits.delivered, x.clock.now()
            if taken := await unbroken(self._take(record._replace(status="ok", finished_at=now))):
                return taken
            entry.check()
            if wake_at is not None and now >= wake_at:
                error = describe(SignalTimeout(f"no signal {asked.name!r} came in time"))
                failed = record._replace(status="failed", finished_at=now, error=orjson.dumps(error))
                await entry.write(failed)
                return failed
            if not journalled:
                await entry.write(record)
                journalled = True
            if seen == entry.waits.delivered:
                await entry.wait(Wait(until, fact=f"signal:{asked.name}", wake_at=wake_at))

    async def _take(self, record: StepRecord) -> StepRecord | None:
        x = self._x
        take = partial(x.store.take_signal, name=record.name, record=record)
        data: bytes | None = await x.persist(lambda: take(x.fenced()))
        if data is None:
            return None
        taken = record._replace(outcome=data)
        x.journal.add(taken)
        return taken

    async def ask(
        self, prompt: str, schema: dict[str, Any] | None, lanes: list[str] | None, expires_seconds: float | None,
        subject: dict[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """Opens an approval and waits for its answer."""
        entry = self._entry
        Schema.of(schema, "ctx.ask")
        if not isinstance(prompt, str):
            raise Misuse("ctx.ask needs a prompt, which is a text")
        to_json(subject, DETAIL_LIMIT, "ctx.ask's subject")
        if not isinstance(lanes, list | tuple | None) or not all(map(_is_lane, lanes or ())):
            raise Misuse("ctx.ask's lanes are a list of names, such as a token may have")
        expires = None if expires_seconds is None else micros(expires_seconds, "ctx.ask's expires_seconds")
        await entry.admit()
        with entry.asking("ask", "ask") as asked:
            record = asked.found
            if record is None:
                request = ApprovalRequest(
                    ids.new(ids.APPROVAL), clean(prompt), schema, list(lanes or ()), expires, subject=subject
                )  # fmt: skip
                record = await self._open_approval(asked, request)
            if record.status == "waiting":
                record = await self._await_answer(record)
            if record.status == "ok":
                return orjson.loads(record.outcome)
            error = orjson.loads(record.error)
            kind = Denied if error["code"] == Denied.code else ApprovalExpired
            raise kind(error["message"], error["detail"])

    async def _open_approval(self, asked: Asked, request: ApprovalRequest) -> StepRecord:
        x = self._x
        record = self._entry.record(asked, ref=request.id)
        if request.expires_at is not None:
            request.expires_at += record.started_at
        told = event(
            "approval.requested",
            record.started_at,
            approval_id=request.id,
            prompt=request.prompt,
            lanes=request.lanes,
            subject=request.subject,
            expires_at=None if request.expires_at is None else to_text(request.expires_at),
        )
        await self._entry.write_once(
            record, events=[told], by=lambda change: x.store.open_approval(change, request)
        )  # fmt: skip
        return record

    async def _await_answer(self, record: StepRecord) -> StepRecord:
        entry, x = self._entry, self._x
        approval_id = record.ref or ""
        while True:
            seen, now = entry.waits.delivered, x.clock.now()
            status, answer, comment = await x.persist(lambda: x.store.find_approval(approval_id)) or ("closed", 0, 0)
            error: RunError | None = None
            if status == "denied":
                error = Denied(f"denied: {comment}" if comment else None, {"approval_id": approval_id})
            elif status == "expired":
                error = ApprovalExpired(None, {"approval_id": approval_id})
            if error is not None:
                failed = record._replace(status="failed", error=orjson.dumps(describe(error)), finished_at=now)
                return entry.note(failed)
            if status == "approved":
                return entry.note(record._replace(status="ok", outcome=orjson.dumps(answer), finished_at=now))
            entry.check()
            if seen == entry.waits.delivered:
                await entry.wait(Wait(now, fact=f"approval:{approval_id}"))


def _is_lane(lane: Any) -> bool:
    return isinstance(lane, str) and re.fullmatch(NAME_PATTERN, lane) is not None


def coded(code: str, message: str) -> RunError:
    """A RunError of one's own code."""
    error = RunError(message)
    error.code = code
    return error

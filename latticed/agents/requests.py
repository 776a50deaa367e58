"""Requests to a model as steps: each reply is recorded once it is there, so that it is paid for once."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import orjson
from pydantic import TypeAdapter
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from latticed.agents.faults import Fault, fault
from latticed.agents.models import ModelInUse
from latticed.agents.spending import MODEL_STEP, Used, recorded
from latticed.agents.turnstile import Turnstile
from latticed.config.modelled import BudgetConfig
from latticed.engine.context import Context
from latticed.engine.execution import Execution
from latticed.engine.retrying import backoff_seconds
from latticed.errors import Final, OutcomeTooLarge, RunError, StepFailed
from latticed.failpoints import hit
from latticed.models.records import NewEvent, event
from latticed.models.redactor import Redactor

JOIN_SECONDS = 0.08
"""How long text is joined before it is told; with the time that the disk takes, a reader is not 100 ms behind."""
TEXT_LIMIT = 32_768
FRAME = 1_024
"""What the record of a reply has around it, with some to spare."""
NONSENSE_ATTEMPTS = 3
"""How often a model is asked again that answers nonsense: it may well do so for ever."""
_FINAL = frozenset(
    {"budget_exceeded", "model_unauthorized", "model_quota_exceeded", "model_not_found", "context_too_long",
     "model_rejected", "model_misconfigured", "too_large"}
)  # fmt: skip
"""Codes of errors that another attempt of the run would only meet again."""

_replies: TypeAdapter[ModelResponse] = TypeAdapter(ModelResponse)
_used: "WeakKeyDictionary[Execution, Used]" = WeakKeyDictionary()


class Requests:
    """The requests of one conversation."""

    def __init__(
        self, ctx: Context, name: str, model: ModelInUse, budget: BudgetConfig, used: Used, turnstile: Turnstile
    ) -> None:  # fmt: skip
        self._ctx = ctx
        self._x = ctx.entry.x
        self._name = name
        self._model = model
        self._budget = budget
        self._used = used
        """What the whole run has used."""
        self._turnstile = turnstile
        self._limit = self._x.settings.output_limit_bytes
        self._number = 0

    async def reply(
        self, model: Model, messages: list[ModelMessage], settings: ModelSettings | None, params: ModelRequestParameters
    ) -> ModelResponse:
        """The model's reply, asked for or from the journal.

        What may be better later is asked again after a durable wait, as long as its server wants.

        Raises:
            Final: it cannot be had; `code` is stable.
            RunError: it could not be had now.
        """
        self._number += 1
        attempt = 0
        while True:
            attempt += 1
            ask = partial(self._ask, model, messages, settings, params, attempt)
            try:
                said = await self._ctx.step(MODEL_STEP + self._name, ask)
            except StepFailed as failed:
                kind = Final if failed.code in _FINAL else _coded
                raise kind(failed.code, failed.reason) from failed
            if "again_seconds" not in said:
                break
            await self._ctx.sleep(said["again_seconds"])
        await self._turnstile.pass_()
        if (code := said.get("code")) is not None:
            raise Final(code, said["message"])
        return _replies.validate_python(said["reply"])

    # Inside the step

    async def _ask(
        self, model: Model, messages: list[ModelMessage], settings: ModelSettings | None,
        params: ModelRequestParameters, attempt: int,
    ) -> dict[str, Any]:  # fmt: skip
        await self._turnstile.pass_()
        if (spent := self._used.spent(self._budget)) is not None:
            raise Final("budget_exceeded", f"{spent}; another request would exceed it")
        hit("model.before_request")
        fields = {"agent": self._name, "request": self._number, "attempt": attempt}
        seconds = 0.0 if self._model.joins else JOIN_SECONDS
        told = _Text(self._x.say, self._x.clock.now, fields, seconds)
        request = self._stream(model, messages, settings, params, told)
        try:
            response = await self._until_cut(request, self._model.config.timeout_seconds)
        except OutcomeTooLarge:
            raise
        except Exception as error:
            return self._later(fault(error, self._model.name), attempt)
        hit("model.after_reply")
        used = Used(1, response.usage.input_tokens, response.usage.output_tokens, self._model.cost(response))
        self._used.add(used)
        self._x.say(self._usage(used), lazy=True)
        self._x.show(usage=orjson.dumps(self._used.view()).decode())
        reply = _replies.dump_python(_distinct(response), mode="json")
        if len(orjson.dumps(reply)) + FRAME > self._limit:
            message = f"model {self._model.name}: the reply has more than the {self._limit} bytes that may be recorded"
            return {"used": used.view(), "code": OutcomeTooLarge.code, "message": message}
        said = {"reply": reply, "used": used.view()}
        over = self._used.over(self._budget)
        return said if over is None else {**said, "code": "budget_exceeded", "message": over}

    async def _stream(
        self, model: Model, messages: list[ModelMessage], settings: ModelSettings | None,
        params: ModelRequestParameters, told: "_Text",
    ) -> ModelResponse:  # fmt: skip
        try:
            if not self._model.streams:
                response = await model.request(messages, settings, params)
                told.add(response.text or "")
                return response
            async with model.request_stream(messages, settings, params) as stream:
                size = 0
                async for each in stream:
                    if isinstance(each, PartStartEvent) and isinstance(each.part, TextPart):
                        told.add(each.part.content)
                    elif isinstance(each, PartDeltaEvent) and isinstance(each.delta, TextPartDelta):
                        told.add(each.delta.content_delta)
                    size += _length(each)
                    if size > self._limit:  # It cannot be recorded, and may go on for ever.
                        break
                return stream.get()
        finally:
            told.end()

    async def _until_cut(self, request: Coroutine[Any, Any, ModelResponse], seconds: float) -> ModelResponse:
        """The request, cut at once by a cancel, of any mode: half a reply is worth nothing, and goes on costing."""
        task = asyncio.ensure_future(request)

        def cut(rung: int) -> None:
            task.cancel()

        with self._ctx.escalation(cut):
            try:
                async with asyncio.timeout(seconds):
                    return await task
            except asyncio.CancelledError:
                self._ctx.check_cancelled()
                raise
            finally:
                task.cancel()

    def _later(self, failed: Fault, attempt: int) -> dict[str, Any]:
        """What is recorded of a failed request that is to be made again.

        Raises:
            RunError: it is not.
        """
        config = self._model.config
        most = min(config.attempts, NONSENSE_ATTEMPTS) if failed.code == "model_nonsense" else config.attempts
        message = self._model.without_key(failed.message)
        if not failed.again:
            raise _coded(failed.code, message)
        if attempt >= most:
            raise _coded(failed.code, f"{message} (asked {attempt} times)" if attempt > 1 else message)
        seconds = backoff_seconds(attempt) if failed.after_seconds is None else failed.after_seconds
        if seconds > config.longest_wait_seconds:
            wants = f"it asks to wait {seconds:.0f} s, more than longest_wait_seconds allows"
            raise _coded(failed.code, f"{message}; {wants}")
        data = {"level": "warning", "message": message, "code": failed.code, "again_seconds": round(seconds, 3)}
        self._x.say(event("log", self._x.clock.now(), agent=self._name, attempt=attempt, **data), lazy=True)
        return {"again_seconds": seconds, "code": failed.code, "message": message}

    def _usage(self, used: Used) -> Any:
        data = {"agent": self._name, "model": self._model.name, **used.view(), "total": self._used.view()}
        return event("usage", self._x.clock.now(), **data)


class _Text:
    """A reply's text on its way to the timeline, joined."""

    def __init__(
        self, say: Callable[[NewEvent], object], now: Callable[[], int], fields: dict[str, Any], seconds: float
    ) -> None:  # fmt: skip
        self._seconds = seconds
        self._say = say
        self._now = now
        self._fields = fields
        self._parts: list[str] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._redactor = Redactor()

    def add(self, text: str) -> None:
        """A piece more."""
        if not text:
            return
        self._parts.append(text)
        self._size += len(text)
        if self._size >= TEXT_LIMIT:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self.flush)

    def flush(self) -> None:
        """Tells what there is, but for what may be a secret."""
        self._tell(self._redactor.feed(self._take()))

    def end(self) -> None:
        """Tells the rest: there is no more."""
        self._tell(self._redactor.feed(self._take()) + self._redactor.end())

    def _take(self) -> str:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        text, self._parts, self._size = "".join(self._parts), [], 0
        return text

    def _tell(self, text: str) -> None:
        clean = text.encode("utf-8", "replace").decode("utf-8")
        for start in range(0, len(clean), TEXT_LIMIT):
            self._say(event("text.delta", self._now(), text=clean[start : start + TEXT_LIMIT], **self._fields))


def used_so_far(ctx: Context) -> Used:
    """What the run has used, as far as it is recorded; one object for all its conversations."""
    x = ctx.entry.x
    used = _used.get(x)
    if used is None:
        used = _used[x] = recorded(x.journal.records.values())
    return used


def _length(told: Any) -> int:
    """Characters by which a reply has grown."""
    piece = getattr(told, "part", None) or getattr(told, "delta", None)
    names = ("content", "args") if isinstance(told, PartStartEvent) else ("content_delta", "args_delta")
    return sum(len(text) for name in names if isinstance(text := getattr(piece, name, None), str))


def _distinct(response: ModelResponse) -> ModelResponse:
    """A reply in which no two calls have the same id, by which results are told apart."""
    seen: set[str] = set()
    parts = []
    for part in response.parts:
        if isinstance(part, ToolCallPart):
            base, number = part.tool_call_id, 1
            while part.tool_call_id in seen:
                number += 1
                part = replace(part, tool_call_id=f"{base}_{number}")
            seen.add(part.tool_call_id)
        parts.append(part)
    return replace(response, parts=parts)


def _coded(code: str, message: str) -> RunError:
    error = RunError(message)
    error.code = code
    return error

"""Tool calls as steps: what a tool has answered is recorded, so that it is called once.

The calls of one reply are made side by side. Each has a branch of the journal by its place in the reply, and the reply
is recorded before any of them begins: entered again, each finds its own records whatever order they end in.
"""

import asyncio
import fnmatch
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolFailed, ToolRetryError
from pydantic_ai.messages import ModelResponse, ToolReturn, tool_return_ta

from latticed.agents import tool_hooks
from latticed.agents.hands import Hands
from latticed.config.modelled import ModelledBase
from latticed.engine.context import Context
from latticed.engine.lines import Lines
from latticed.engine.marks import Mark, mark, upcoming
from latticed.errors import ApprovalExpired, ChildFailed, Denied, Final, Misuse, OutcomeTooLarge, RunError, StepFailed
from latticed.failpoints import hit
from latticed.models.records import event
from latticed.models.redaction import redact

CHILD = "latticed.child"
"""The metadata of a tool whose call is a child run in place of a step."""
DENIED = "The policy of this agent does not allow this tool."
RESULT_SHOWN = 4_000
"""Characters of a result that its event shows; the whole is in the step."""
_returns: TypeAdapter[Any] = TypeAdapter(ToolReturn)

Call = Callable[[dict[str, Any]], Awaitable[Any]]
"""The tool itself; takes its arguments as JSON has them."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The call of a tool, as the model wants it. `child` says what run it is, if it is one."""

    tool: str
    args: dict[str, Any]
    call_id: str
    child: dict[str, Any] | None = None
    approved: bool = False
    """Whether a person has approved it, because the tool is marked so."""


class Calls:
    """The tool calls of one conversation."""

    def __init__(self, ctx: Context, name: str, config: ModelledBase, hands: Hands) -> None:
        self._ctx = ctx
        self._hands = hands
        self._x = ctx.entry.x
        self._name = name
        self._config = config
        self._lines: Lines | None = None
        self._places: dict[str, int] = {}
        self._rounds: dict[str, int] = {}

    def expect(self, reply: ModelResponse) -> None:
        """A reply has come, whose calls, if it has any, are the next to be made."""
        calls = reply.tool_calls
        if calls:
            self._lines = Lines(self._ctx.entry)
            self._places = {call.tool_call_id: place for place, call in enumerate(calls)}
            self._rounds = {}

    @asynccontextmanager
    async def line(self, call_id: str) -> AsyncIterator[None]:
        """The branch of a call. One that comes again, such as after an approval, has another each time."""
        if self._lines is None or call_id not in self._places:
            raise Misuse(f"a tool call {call_id!r} was made that is not in the model's last reply")
        again = self._rounds.get(call_id, 0)
        self._rounds[call_id] = again + 1
        async with self._lines.line(self._places[call_id] + again * len(self._places)):
            yield

    def plain(self, args: Any) -> Any:
        """Arguments as JSON has them."""
        return _plain(args)

    async def ask(self, tool: str, args: Any, call_id: str) -> str | None:
        """Asks a person whether this tool may be called with these arguments; None if so, or why not.

        It is an answer to exactly this call: the reply that holds its arguments is in the journal.
        """
        if self._policy(tool) == "deny" and upcoming(self._ctx) != "ask":
            return DENIED
        shown = orjson.dumps(redact(args), option=orjson.OPT_INDENT_2).decode()
        prompt = f"Agent {self._name} wants to call the tool {tool} with {shown}"
        digest = hashlib.sha256(orjson.dumps(args, option=orjson.OPT_SORT_KEYS)).hexdigest()
        subject = {"tool": tool, "args": redact(args), "args_sha256": digest, "call_id": call_id}
        try:
            await self._ctx.ask(
                prompt, lanes=self._config.lanes, expires_seconds=self._config.approval_seconds, subject=subject
            )
        except Denied as denied:
            return f"The call was denied by a person ({denied.message})."
        except ApprovalExpired:
            return "The call was not made: nobody approved it in time."
        except OutcomeTooLarge:
            return f"The call was not made: its arguments, {len(shown)} characters, are too long to ask a person about."
        return None

    async def call(self, wanted: Wanted, call: Call) -> Any:
        """Makes a call, or gives its recorded result.

        Raises:
            ModelRetry, ToolFailed: what the model is to be told in place of a result.
            ApprovalRequired, CallDeferred: as the tool has raised them.
        """
        async with self.line(wanted.call_id):
            wanted, refusal = await self._admit(wanted)
            if wanted.child is not None and (upcoming(self._ctx) or ("step" if refusal else "mark")) == "mark":
                answer = await self._run_child(wanted, wanted.child)
            else:
                try:
                    answer = await self._ctx.step(f"tool:{wanted.tool}", self._perform, wanted, refusal, call)
                except StepFailed as failed:
                    raise Final(failed.code, failed.reason) from failed
            await tool_hooks.post_tool(self._ctx, wanted.tool, wanted.args, answer)
        return _result(answer)

    async def _admit(self, wanted: Wanted) -> tuple[Wanted, str | None]:
        """The call as it is to be made, and why it must not be, if so.

        A call that was made, or that somebody was asked about, stays so; what comes after that goes by the policy and
        the hooks of this moment.
        """
        recorded, policy = upcoming(self._ctx), self._policy(wanted.tool)
        forbidden = DENIED if policy == "deny" else None
        if forbidden and recorded is None:
            return wanted, forbidden
        asks = policy == "ask" and not wanted.approved
        hooked = await tool_hooks.pre_tool(self._ctx, wanted.tool, wanted.args)
        if isinstance(hooked, str):
            forbidden = f"The call was blocked: {hooked}"
        else:  # Whoever approved other arguments has not approved these.
            asks = asks or (wanted.approved and hooked != wanted.args)
            wanted = replace(wanted, args=hooked)
        if recorded == "ask" or (recorded is None and forbidden is None and asks):
            refusal = await self.ask(wanted.tool, wanted.args, wanted.call_id)
            return wanted, refusal or forbidden
        return wanted, forbidden

    async def _run_child(self, wanted: Wanted, child: dict[str, Any]) -> dict[str, Any]:
        fields = self._fields(wanted)
        await self._tell("tool.called", {**fields, "args": redact(wanted.args)})
        goal, inputs = str(wanted.args.get("goal", "")), wanted.args.get("inputs") or {}
        mode = self._ctx.mode
        try:
            output = await self._ctx.run(**child, goal=goal, inputs=inputs, mode=mode)
            answer = self._recordable({"run": output})
            answer = {"returned": answer["returned"]["run"]} if "returned" in answer else answer
        except ChildFailed as failed:
            answer = {"failed": f"The run {failed.run_id} ended {failed.status}: {failed.message}"}
        except Final:
            raise
        except RunError as refused:
            answer = {"failed": refused.message}
        await self._tell("tool.returned", {**fields, "ok": "returned" in answer, **_shown(answer)})
        return answer

    async def _tell(self, type: str, data: dict[str, Any]) -> None:
        await mark(self._ctx, type, lambda at: Mark({}, [event(type, at, **data)], {}))

    def _fields(self, wanted: Wanted) -> dict[str, Any]:
        return {"tool": wanted.tool, "call_id": wanted.call_id, "agent": self._name}

    def _policy(self, tool: str) -> str:
        for pattern, policy in self._config.policy.items():
            if fnmatch.fnmatchcase(tool, pattern):
                return policy
        return "auto"

    # Inside the step

    async def _perform(self, wanted: Wanted, refusal: str | None, call: Call) -> dict[str, Any]:
        began, fields = self._x.clock.now(), self._fields(wanted)
        self._x.say(event("tool.called", began, **fields, args=redact(wanted.args)), lazy=True)
        hit("tool.before_call")
        tool = f"{self._name}:{wanted.tool}"
        refusal = refusal or self._hands.refusal(tool)
        answer = {"failed": refusal} if refusal is not None else await self._answer(tool, wanted.args, call)
        hit("tool.after_call")
        now = self._x.clock.now()
        told = {"ok": "returned" in answer or "tool_return" in answer, "duration_ms": (now - began) / 1000}
        self._x.say(event("tool.returned", now, **fields, **told, **_shown(answer)), lazy=True)
        return answer

    async def _answer(self, tool: str, args: dict[str, Any], call: Call) -> dict[str, Any]:
        seconds = self._config.tool_seconds or None
        try:
            return await self._hands.call(tool, self._told(args, call, seconds), seconds)
        except TimeoutError:
            return _given_up(seconds)

    async def _told(self, args: dict[str, Any], call: Call, seconds: float | None) -> dict[str, Any]:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                value = await call(args)
            return self._recordable(value)
        except ModelRetry as retry:
            return {"retry": retry.message}
        except ToolFailed as failed:
            return {"failed": failed.message}
        except ToolRetryError as retry:
            return {"retry": str(retry)}
        except ValidationError as wrong:
            return {"retry": f"The arguments do not fit: {wrong}"}
        except ApprovalRequired as wanted:
            return {"approval": _plain(wanted.metadata)}
        except CallDeferred as deferred:
            return {"deferred": _plain(deferred.metadata), "kind": deferred.kind}
        except Final:
            raise
        except (Exception, SystemExit) as error:  # A program's main function ends by SystemExit.
            if isinstance(error, TimeoutError) and limit.expired():
                return _given_up(seconds)
            text = str(error)[:2000]
            return {"failed": f"The tool raised {type(error).__name__}: {text}".encode("utf-8", "replace").decode()}

    def _recordable(self, value: Any) -> dict[str, Any]:
        limit = self._x.settings.output_limit_bytes
        if isinstance(value, str | bytes) and len(value) > limit:
            return _too_large(len(value), limit)
        if isinstance(value, ToolReturn):
            answer = {"tool_return": _returns.dump_python(value, mode="json", by_alias=True)}
        else:
            answer = {"returned": _plain(value)}
        size = len(orjson.dumps(answer))
        return _too_large(size, limit) if size > limit - 100 else answer


def _given_up(seconds: float | None) -> dict[str, Any]:
    return {"failed": f"The tool took longer than {seconds:g} s and was given up."}


def _too_large(size: int, limit: int) -> dict[str, Any]:
    return {
        "failed": f"The tool's result has {size} bytes, more than the {limit} that may be recorded; "
        "ask it for less, or for a reference."
    }


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    return tool_return_ta.dump_python(value, mode="json", by_alias=True)


def _shown(answer: dict[str, Any]) -> dict[str, Any]:
    """What the event of an answer tells of it."""
    for key in ("returned", "tool_return"):
        if key in answer:
            value = redact(answer[key])
            text = value if isinstance(value, str) else orjson.dumps(value).decode()
            return {"result": value} if len(text) <= RESULT_SHOWN else {"result": text[:RESULT_SHOWN], "cut": True}
    if "approval" in answer or "deferred" in answer:
        return {"result": None, "deferred": True}
    return {"error": (answer.get("failed") or answer.get("retry") or "")[:RESULT_SHOWN]}


def _result(answer: dict[str, Any]) -> Any:
    if "failed" in answer:
        raise ToolFailed(answer["failed"])
    if "retry" in answer:
        raise ModelRetry(answer["retry"])
    if "approval" in answer:
        raise ApprovalRequired(answer["approval"])
    if "deferred" in answer:
        raise CallDeferred(answer["deferred"], kind=answer["kind"])
    if "tool_return" in answer:
        return _returns.validate_python(answer["tool_return"])
    return answer["returned"]

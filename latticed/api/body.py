"""Request bodies: read within a limit, understood as JSON, validated by a model."""

import asyncio
import re
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.types import Receive

from latticed.api.queries import complaints
from latticed.errors import Invalid, TooLarge, Unreadable

DRAIN_BYTES = 8 * 1024 * 1024
"""How much of a refused body is read and dropped, so that a client that is still sending sees the answer."""

M = TypeVar("M", bound=BaseModel)
_MANY_DIGITS = re.compile(rb"[0-9]{19}")
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1


class Undrained(TooLarge):
    """The body is far larger than allowed."""


class TooSlow(Unreadable):
    """The body did not come in time."""


class Gone(Exception):
    """The client went away before its request was whole."""


async def read_body(
    receive: Receive, declared: bytes | None, limit: int, *, waits_for_leave: bool = False, seconds: float | None = None
) -> bytes:
    """The whole body, of at most `limit` bytes, which must have come within so many `seconds`.

    `declared` is the Content-Length; `waits_for_leave` that the client sent `Expect: 100-continue` and so has not
    begun to send.

    Raises:
        TooLarge: the body was larger, and what came of it was read and dropped.
        Undrained: it is so much larger that it was left where it is; the connection must be closed.
        TooSlow: it took too long; the connection must be closed.
        Gone: the client went away.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _read(receive, declared, limit, waits_for_leave)
    except TimeoutError:
        raise TooSlow(f"the body did not come within {seconds:g} s") from None


async def _read(receive: Receive, declared: bytes | None, limit: int, waits_for_leave: bool) -> bytes:
    most = limit + DRAIN_BYTES
    if declared is not None and len(declared) > 6 and declared.isdigit():
        length = int(declared[:20])
        if length > most or (length > limit and waits_for_leave):
            raise Undrained(_too_large(limit))
    message = await receive()
    if message["type"] != "http.request":
        raise Gone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > limit:
            raise TooLarge(_too_large(limit))
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        if size > limit:
            parts.clear()
        if size > most:
            raise Undrained(_too_large(limit))
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        part = message.get("body", b"")
        size += len(part)
        parts.append(part)
    if size > limit:
        raise TooLarge(_too_large(limit))
    return b"".join(parts)


def _too_large(limit: int) -> str:
    return f"a body may have at most {limit} bytes"


def understand(raw: bytes, model: type[M], *, optional: bool) -> tuple[Any, M]:
    """The body as plain JSON and as `model`. Types are strict: `"5"` is no number.

    Raises:
        Unreadable: it is not JSON (NaN, broken UTF-8, lone surrogates, nested too deeply).
        Invalid: it is, and does not fit.
    """
    if not raw and optional:
        raw = b"{}"
    try:
        # What orjson takes is what can be sent out again; the model's own parser would let NaN pass.
        sent = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if not raw:
            raise Unreadable("the body is empty; send JSON") from None
        raise Unreadable(f"the body is not readable JSON: {error.msg} at character {error.pos}") from None
    if _MANY_DIGITS.search(raw):
        _refuse_large_numbers(raw)
    try:
        return sent, model.model_validate_json(raw, strict=True)
    except ValidationError as error:
        if error.errors(include_url=False, include_context=False, include_input=False)[0]["type"] == "json_invalid":
            raise Unreadable("the body is not readable JSON: it is nested too deeply") from None
        raise complaints(error, "body") from None


def _refuse_large_numbers(raw: bytes) -> None:
    """Whole numbers beyond 64 bits would be rounded in silence.

    Raises:
        Unreadable: nested too deeply.
        Invalid: there is one.
    """
    try:
        value = from_json(raw)
    except ValueError:
        raise Unreadable("the body is not readable JSON: it is nested too deeply") from None
    pending: list[tuple[list[str | int], Any]] = [(["body"], value)]
    while pending:
        loc, item = pending.pop()
        if isinstance(item, dict):
            pending.extend(([*loc, name[:100]], part) for name, part in item.items())
        elif isinstance(item, list):
            pending.extend(([*loc, index], part) for index, part in enumerate(item))
        elif isinstance(item, int) and not _SMALLEST <= item <= _LARGEST:
            raise Invalid("whole numbers must fit in 64 bits", [{"loc": loc, "msg": "does not fit in 64 bits"}])

"""How user code ended, and how values and errors become JSON."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from latticed.errors import Denied, Final, NotJson, OutcomeTooLarge, RunError, StepInterrupted, TooLarge
from latticed.models.records import StepRecord

MESSAGE_LIMIT = 2000
DETAIL_LIMIT = 65_536


@dataclass(frozen=True, slots=True)
class Finished:
    """What an agent returns that judges its own work: an output, and which good end it is."""

    output: Any
    status: Literal["ok", "retried_ok", "partial"] = "ok"


@dataclass(frozen=True, slots=True)
class Returned:
    """User code returned; `output` is JSON. Without a `status` the attempt decides."""

    output: bytes
    status: Literal["ok", "retried_ok", "partial"] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """User code raised."""

    error: dict[str, Any]
    again: bool
    """Whether another attempt could do better."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A denial was not caught."""

    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A step that must not run twice was under way at a crash, and user code let that pass."""

    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unwound:
    """User code was left on purpose: it waits, drains, is cancelled or has expired."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """A hook said no before user code was entered; `record` is its answer, to be written with the run's end."""

    hook: str
    reason: str
    record: StepRecord


@dataclass(frozen=True, slots=True)
class Moved:
    """A hook has chosen another queue, where the run is to be claimed."""

    queue: str


Outcome = Returned | Failed | Refused | Interrupted | Unwound | Blocked | Moved


def to_json(value: Any, limit: int, what: str) -> bytes:
    """A value of user code's as JSON.

    Raises:
        NotJson: it is not.
        OutcomeTooLarge: it is larger than `limit` bytes.
    """
    try:
        data = orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_DATACLASS)
        if b"null" in data:  # What orjson makes of NaN, too.
            _need_finite(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJson(f"{what} is not JSON ({error}); return str, int, float, bool, None, lists and dicts") from None
    if len(data) > limit:
        raise OutcomeTooLarge(
            f"{what} has {len(data)} bytes, more than the {limit} that may be recorded; "
            "store it elsewhere and return a reference"
        )
    return data


def _need_finite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number that JSON has")
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for item in value:
        _need_finite(item)


def describe(error: BaseException) -> dict[str, Any]:
    """An error of user code's as models.runs.ErrorView."""
    error = _leaf(error)
    if isinstance(error, RunError):
        message, detail = _text(error) or type(error).__name__, getattr(error, "detail", None)
    else:
        message, detail = _text(error), {"type": type(error).__name__}
        if isinstance(error, TimeoutError):
            message = message or "it took too long"
        else:
            message = f"{type(error).__name__}: {message or '(no message)'}"
    return {"code": code_of(error), "message": clean(message), "detail": _detail(detail)}


def _leaf(error: BaseException) -> BaseException:
    """What stands for a group of errors: the first of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # It is user code too, and may raise whatever that may.
        return "(its text cannot be had)"


def code_of(error: BaseException) -> str:
    """The stable code of an error of user code's."""
    if isinstance(error, RunError | TooLarge):
        return str(error.code)
    if isinstance(error, TimeoutError):
        return "timeout"
    return "error"


def clean(text: str) -> str:
    """Text that can be stored: bounded, without lone surrogates."""
    return text[:MESSAGE_LIMIT].encode("utf-8", "replace").decode("utf-8")


def _detail(detail: Any) -> Any:
    try:
        return orjson.loads(to_json(detail, DETAIL_LIMIT, "the detail"))
    except (NotJson, OutcomeTooLarge):
        return None


def failure(error: BaseException, never_again: tuple[type[RunError], ...]) -> Outcome:
    """The outcome that an exception which left user code amounts to; of a group, its first one counts."""
    error = _leaf(error)
    if isinstance(error, Denied):
        return Refused(describe(error))
    if isinstance(error, StepInterrupted):
        return Interrupted(describe(error))
    # By code, since a step that failed of such an error says so by its code only.
    again = not isinstance(error, Final) and code_of(error) not in {kind.code for kind in never_again}
    return Failed(describe(error), again=again)

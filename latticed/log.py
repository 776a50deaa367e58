"""The log: one line an event on stderr, JSON unless somebody watches.

Any part asks `structlog.get_logger()`; what it binds in structlog's context variables (run, workspace, epoch, request)
is on every line below it. What libraries log through `logging` comes out the same way.
"""

import json
import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, cast

import orjson

# structlog would load rich for tracebacks that are never drawn here: 30 ms of every start and 3 MB for as long as it
# runs. It takes rich for not installed if that is what `sys.modules` says while it is loaded.
_rich = sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None is what makes an import of it fail
try:
    import structlog
finally:
    if _rich is None:
        sys.modules.pop("rich", None)

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50, "exception": 40}


fields: ContextVar[Callable[[], dict[str, Any]] | None] = ContextVar("latticed_log_fields", default=None)
"""What this task is about, asked for only when a line is written: binding it to every task would cost more."""


def _from_context(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    ask = fields.get()
    return event if ask is None else {**ask(), **event}


class _Threshold:
    """Drops what is below the level. A processor, so that loggers already handed out follow a reload."""

    def __init__(self) -> None:
        self.level = LEVELS["info"]

    def __call__(self, logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if LEVELS.get(method, 0) < self.level:
            raise structlog.DropEvent
        return event


_threshold = _Threshold()


class _Stderr:
    """Stderr for as long as somebody reads it: a log that cannot be written must not fail a run."""

    def __init__(self, below: Any) -> None:
        self._below = below

    def write(self, data: Any) -> int:
        try:
            return int(self._below.write(data))
        except (OSError, ValueError):
            return len(data)

    def flush(self) -> None:
        try:
            self._below.flush()
        except (OSError, ValueError):
            return


class _FromLogging(logging.Handler):
    """Hands a record of the standard library's `logging` to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        say: Callable[..., Any] = getattr(structlog.get_logger(), record.levelname.lower(), structlog.get_logger().info)
        say(record.getMessage(), logger=record.name, **({"exc_info": record.exc_info} if record.exc_info else {}))


def _to_json(event: Any, **_: Any) -> bytes:
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # a number beyond 64 bits or a lone surrogate, which the slower one takes
        return json.dumps(event, default=str, skipkeys=True).encode()


def setup(level: str = "info") -> None:
    """Says where the log goes and from which level on: debug, info, warning or error. Again at any time."""
    _threshold.level = LEVELS[level]
    logging.basicConfig(handlers=[_FromLogging()], level=max(LEVELS[level], logging.WARNING), force=True)
    if structlog.is_configured():
        return
    last: list[structlog.typing.Processor]
    if sys.stderr.isatty():
        factory: Any = structlog.WriteLoggerFactory(cast(Any, _Stderr(sys.stderr)))
        last = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    else:
        factory = structlog.BytesLoggerFactory(cast(Any, _Stderr(sys.stderr.buffer)))
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_to_json)]
    structlog.configure(
        processors=[
            _threshold,
            structlog.contextvars.merge_contextvars,
            _from_context,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )

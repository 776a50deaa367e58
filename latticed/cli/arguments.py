"""What is typed on a command line → values."""

import json
import re
from datetime import datetime
from typing import Any, NoReturn

import typer

from latticed.clock import from_text, to_text
from latticed.errors import Invalid

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?", re.ASCII)


def pairs(option: str, texts: list[str], separators: str = "=") -> dict[str, str]:
    """`k=v` for each text → a dict; a name that comes twice has its last value.

    Raises:
        Invalid: a text without a name or a separator.
    """
    found = {}
    for text in texts:
        name, mark, value = _split(text, separators)
        if not name or not mark:
            raise Invalid(f"{option} {text!r} is not a pair: say it as NAME=VALUE")
        found[name] = value
    return found


def inputs(texts: list[str], document: str | None) -> dict[str, Any]:
    """`--input` pairs over an `--inputs-json` object; a value that is JSON is that, any other is text.

    Raises:
        Invalid: a pair without a name, or a document that is not a JSON object.
    """
    base = {} if document is None else json_object("--inputs-json", document)
    return {**base, **{name: _json_or_text(value) for name, value in pairs("--input", texts).items()}}


def json_value(option: str, text: str) -> Any:
    """A JSON value.

    Raises:
        Invalid: the text is not JSON.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise Invalid(f"{option} is not JSON ({error}); a text needs its quotes: '\"…\"'") from error


def json_object(option: str, text: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        Invalid: the text is not one.
    """
    value = json_value(option, text)
    if not isinstance(value, dict):
        raise Invalid(f"{option} must be a JSON object, such as '{{\"name\": 1}}'")
    return value


def seconds(option: str, text: str) -> float:
    """`90`, `90s`, `5m`, `2h`, `30d` → seconds.

    Raises:
        Invalid: the text is none of these.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise Invalid(f"{option} {text!r} is not a duration: say it like 90, 90s, 5m, 2h or 30d")
    return float(match[1]) * _UNITS[match[2] or "s"]


def moment(option: str, text: str, now: int) -> str:
    """RFC 3339, or `+5m` from now → RFC 3339; a time without an offset is local time.

    Raises:
        Invalid: the text is neither.
    """
    if text.startswith("+"):
        return to_text(now + round(seconds(option, text[1:]) * 1_000_000))
    return _time(option, text, "+5m")


def past(option: str, text: str, now: int) -> str:
    """RFC 3339, or `5m` before now → RFC 3339; a time without an offset is local time.

    Raises:
        Invalid: the text is neither.
    """
    if _DURATION.fullmatch(text.strip()):
        return to_text(max(now - round(seconds(option, text) * 1_000_000), 0))
    return _time(option, text, "5m")


def usage(error: typer.TyperException) -> str:
    """What is wrong with a command line, and where to read how it is right."""
    message = " ".join(error.format_message().split()).replace("Value error, ", "", 1).rstrip(".")
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message}; see {context.command_path} --help"


def _time(option: str, text: str, or_say: str) -> str:
    try:
        when = datetime.fromisoformat(text)
        return to_text(from_text(when.astimezone().isoformat() if when.tzinfo is None else text))
    except (ValueError, OverflowError) as error:
        raise Invalid(f"{option} {text!r} is not a time: say it like 2030-01-31T12:00:00Z or {or_say}") from error


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _split(text: str, separators: str) -> tuple[str, str, str]:
    """The text before and after the first separator there is, and that separator."""
    at = min((i for i in (text.find(mark) for mark in separators) if i >= 0), default=-1)
    return (text, "", "") if at < 0 else (text[:at], text[at], text[at + 1 :])

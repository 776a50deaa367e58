"""What is wrong with a configuration, in one line: where it was set, the key, the fault, and the nearest right key."""

import difflib
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

PREFIX = "LATTICED_"
ENVIRONMENT, CREDENTIALS = "environment", "credential directory"
"""The two places that write a key as `LATTICED_TABLE__KEY`."""


def explain(error: ValidationError, root: type[BaseModel], origins: dict[str, str]) -> str:
    """The first of pydantic's errors, unknown keys before all others, since they are often why one is missing.

    `origins` says for each dotted key which place set it.
    """
    details = sorted(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")
    item = details[0]
    path, table = _follow([str(part) for part in item["loc"] if part != "[key]"], root)
    key = item.get("ctx", {}).get("key") or ".".join(path)
    place = _origin(key, origins)
    reason = _unknown(path, table, root, place) if item["type"] == "extra_forbidden" else _reason(item)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return " ".join(f"{place}: {spell(key, place)}: {reason}{more}".splitlines())


def nearest(word: str, known: list[str], otherwise: str) -> str:
    """`did you mean X?`, or, when nothing is near, all that is known."""
    if close := difflib.get_close_matches(word, known, 1, 0.6):
        return f"did you mean {close[0]}?"
    return f"{otherwise} {', '.join(known)}"


def spell(key: str, place: str) -> str:
    """A dotted key as its place writes it."""
    return PREFIX + key.replace(".", "__").upper() if place in (ENVIRONMENT, CREDENTIALS) else key


def _follow(loc: list[str], root: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """Pydantic's location → the path in the file, and the table that its last part is or should be a key of.

    They differ where a union was told apart by a tag: pydantic puts the tag into the location.
    """
    path: list[str] = []
    table = root
    here: Any = root
    for part in loc:
        tagged = _tags(here)
        if part in tagged:
            here = tagged[part]
            continue
        path.append(part)
        if isinstance(here, type) and issubclass(here, BaseModel):
            table = here
            field = here.model_fields.get(part)
            here = field.annotation if field else None
        elif get_origin(here) is dict:
            here = get_args(here)[1]
    return path, table


def _tags(annotation: Any) -> dict[str, Any]:
    """Tag → table, for a union of tables that differ in the literal of a discriminator."""
    if get_origin(annotation) is not Annotated:
        return {}
    union, field = get_args(annotation)[:2]
    discriminator = getattr(field, "discriminator", None)
    if discriminator is None:
        return {}
    return {tag: table for table in get_args(union) for tag in get_args(table.model_fields[discriminator].annotation)}


def _origin(key: str, origins: dict[str, str]) -> str:
    """Who set `key`, or something in it, or in the table that it is missing from."""
    while key:
        for known, place in reversed(origins.items()):
            if known == key or known.startswith(f"{key}."):
                return place
        key = key.rpartition(".")[0]
    return "configuration"


def _reason(item: ErrorDetails) -> str:
    match item["type"]:
        case "union_tag_invalid":
            return f"{item['ctx']['discriminator']} must be one of {item['ctx']['expected_tags']}"
        case "union_tag_not_found":
            return f"{item['ctx']['discriminator']} is needed"
        case "missing":
            return "is needed"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be a table"
        case "value_error" | "rule":
            return item["msg"].removeprefix("Value error, ")
    text = item["msg"].replace("Input should be", "must be").replace("String should", "must")
    return f"{text}, not {str(item['input'])[:60]!r}"


def _unknown(path: list[str], table: type[BaseModel], root: type[BaseModel], place: str) -> str:
    """Looks for the key of this table that is spelt most like it, else for the same key in another table."""
    *parents, key = path
    close = difflib.get_close_matches(key, table.model_fields, 1, 0.6)
    right = [".".join([*parents, name]) for name in close] or [
        f"{name}.{key}"
        for name, field in root.model_fields.items()
        if key in getattr(field.annotation, "model_fields", ())
    ]
    if right:
        return f"unknown key; did you mean {spell(right[0], place)}?"
    return f"unknown key; known here are {', '.join(table.model_fields)}"

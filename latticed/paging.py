"""Lists, a page at a time. A cursor is the place where the page before ended; the last page has none."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from latticed import ids
from latticed.errors import Invalid

PAGE_BYTES = 4 * 1024 * 1024
"""What a page holds of items that may be large, and one of them more."""
FIRST_LOOK, MOST_LOOK = 16, 64
"""How many of those are read at once, since nobody knows how large they are."""
MOST_DIGITS = 18
"""Of a number that is a cursor; more is no number that was ever given."""


def page(found: Sequence[dict[str, Any]], limit: int, key: str = "id") -> dict[str, Any]:
    """A page of what was found, of which one more than `limit` was asked for; `key` names what cursors are made of."""
    items = found[:limit]
    return {"items": items, "next_cursor": str(items[-1][key]) if len(found) > limit else None}


async def weighed_page(
    look: Callable[[dict[str, Any] | None, int], Awaitable[Sequence[dict[str, Any]]]], limit: int, key: str = "id"
) -> dict[str, Any]:
    """A page of items that may be large: it ends early once it holds `PAGE_BYTES`, but not before its first item.

    `look` is given the last item so far, and finds at most so many that follow it; fewer are the last ones.
    """
    found: list[dict[str, Any]] = []
    size, most = 0, FIRST_LOOK
    while True:
        wanted = 1 if size >= PAGE_BYTES else min(most, limit + 1 - len(found))
        more = await look(found[-1] if found else None, wanted)
        for item in more:
            if len(found) == limit or size >= PAGE_BYTES:
                return page([*found, item], len(found), key)
            found.append(item)
            size += len(orjson.dumps(item))
        if len(more) < wanted:
            return page(found, limit, key)
        most = min(2 * most, MOST_LOOK)


def page_by_name(whole: Sequence[dict[str, Any]], limit: int, cursor: str | None) -> dict[str, Any]:
    """A page of a list that is at hand, sorted by its `name`."""
    return page([item for item in whole if cursor is None or item["name"] > cursor], limit, "name")


def made_up() -> Invalid:
    """What was sent as a cursor cannot be one."""
    message = "this cursor was made up; use next_cursor of an earlier page"
    return Invalid(message, [{"loc": ["query", "cursor"], "msg": message}])


def id_cursor(prefix: str, cursor: str | None) -> str | None:
    """A cursor that is an id.

    Raises:
        Invalid: it is none.
    """
    if cursor is not None and not ids.is_id(prefix, cursor):
        raise made_up()
    return cursor


def number_cursor(cursor: str | None, prefix: str = "") -> int | None:
    """A cursor that is a number behind `prefix`.

    Raises:
        Invalid: it is none.
    """
    number = None if cursor is None else number_behind(prefix, cursor)
    if cursor is not None and number is None:
        raise made_up()
    return number


def number_behind(prefix: str, text: str) -> int | None:
    """`step_7` behind `step_` → 7; None if the text is nothing of the kind."""
    digits = text.removeprefix(prefix)
    if text.startswith(prefix) and digits.isascii() and digits.isdecimal() and len(digits) <= MOST_DIGITS:
        return int(digits)
    return None

"""`Idempotency-Key`: the same key and body make one thing.

A route that makes something takes a key if its entry in the table says `idempotent`, its handler passes `once(call)`
on, and the store does the work by `at_most_once`.
"""

import hashlib
import re
from typing import Any

import orjson

from latticed.api.exchange import Call, Reply, json_reply
from latticed.errors import Invalid
from latticed.models.people import EVERYWHERE
from latticed.models.records import Once

REPLAYED = (b"idempotency-replayed", b"true")
_VISIBLE = re.compile(rb"[\x21-\x7e]{1,255}")


def once(call: Call[Any, Any]) -> Once | None:
    """The idempotency key of a request; None without one. Its scope is the workspace and the path; what was asked with
    it is the body, however that is written.

    Raises:
        Invalid: the key is not 1 to 255 visible ASCII characters.
    """
    raw = call.headers.get(b"idempotency-key")
    if raw is None:
        return None
    if not _VISIBLE.fullmatch(raw):
        message = "must be 1 to 255 visible ASCII characters"
        raise Invalid(f"Idempotency-Key {message}", [{"loc": ["header", "Idempotency-Key"], "msg": message}])
    asked = call.path.encode() + b"\n" + orjson.dumps(call.sent, option=orjson.OPT_SORT_KEYS)
    route = call.path.removeprefix("/v1/").removeprefix(f"workspaces/{call.workspace}/")
    return Once(call.workspace or EVERYWHERE, route, raw.decode("ascii"), hashlib.sha256(asked).hexdigest())


def made_reply(status: int, view: dict[str, Any], replayed: bool) -> Reply:
    """What was made: with `status`, or, if the key had made it before, as it is now."""
    return json_reply(200, view, REPLAYED) if replayed else json_reply(status, view)

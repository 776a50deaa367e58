"""The audit trail: pages of JSON, or the whole of it as JSON lines."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
import structlog
from starlette.types import Receive, Scope, Send

from latticed.api.exchange import NO_SNIFFING, NO_STORE, Call, Reply, json_reply
from latticed.api.queries import AuditQuery, WholeAuditQuery, invalid_query
from latticed.clock import from_datetime
from latticed.errors import LatticedError

JSON_LINES = "application/x-ndjson"
log = structlog.get_logger(__name__)


async def list_audit(call: Call[AuditQuery, None]) -> Reply:
    """Who did what in a workspace: a page, newest first, or as JSON lines all of it, oldest first."""
    return await _trail(call, call.workspace)


async def list_whole_audit(call: Call[WholeAuditQuery, None]) -> Reply:
    """Who did what in any workspace and, under `*`, in none: a page, newest first, or as JSON lines all of it, oldest
    first."""
    return await _trail(call, call.query.workspace)


async def _trail(call: Call[Any, None], workspace: str | None) -> Reply:
    query: AuditQuery = call.query
    filters = {
        "action": query.action,
        "principal": query.principal,
        "subject": query.subject,
        "since": None if query.since is None else from_datetime(query.since),
        "until": None if query.until is None else from_datetime(query.until),
    }
    accepted = call.headers.get(b"accept", b"").lower()
    if query.format == "jsonl" or (query.format is None and JSON_LINES.encode() in accepted):
        for name in ("limit", "cursor"):
            if name in query.model_fields_set:
                raise invalid_query(name, "JSON lines are the whole trail; narrow it with since and until")
        batches = call.lattice.export_audit(workspace, call.principal, **filters)
        return Reply(200, stream=_Lines(await anext(batches, []), batches, call.request_id))
    page = await call.lattice.list_audit(workspace, limit=query.limit, cursor=query.cursor, **filters)
    return json_reply(200, page)


class _Lines:
    """One JSON object a line, as they are read: no more than a batch of them is held."""

    def __init__(self, first: list[dict[str, Any]], others: AsyncGenerator[list[dict[str, Any]]], request_id: bytes):
        self._batch = first
        self._others = others
        self._request_id = request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Speaks ASGI."""
        headers = [(b"content-type", JSON_LINES.encode()), NO_STORE, NO_SNIFFING, (b"x-request-id", self._request_id)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async with aclosing(self._others):
                while self._batch and scope["method"] != "HEAD":
                    lines = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in self._batch)
                    await send({"type": "http.response.body", "body": lines, "more_body": True})
                    self._batch = await anext(self._others, [])
        except LatticedError as error:
            # The server closes the connection, since the answer is not whole: the reader must not take it for that.
            log.warning("export_cut", code=error.code, detail=error.detail)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

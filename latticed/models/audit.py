"""The audit trail: what principals did, and what they were refused."""

from typing import Any, NamedTuple

import orjson
from pydantic import JsonValue

from latticed.models.fields import View
from latticed.models.people import Principal


class Act(NamedTuple):
    """A row of the trail that is to be written with what it tells of. The workspace is `*` for what is done to the
    daemon as a whole or by nobody who is known; the principal is empty for nobody who is known."""

    workspace: str
    principal: str
    action: str
    subject: str
    detail: bytes


def act(workspace: str, by: Principal | str | None, action: str, subject: str, /, **detail: Any) -> Act:
    """What `by` did; a text is a part of the daemon itself. `detail` is JSON and holds no secret."""
    if isinstance(by, Principal):
        return Act(workspace, by.name, action, subject, orjson.dumps({"token_id": by.token_id, **detail}))
    return Act(workspace, by or "", action, subject, orjson.dumps(detail))


class AuditRow(View):
    """One act of a principal, or a refusal. `principal` is the name that its token had."""

    id: int
    at: str
    workspace: str
    principal: str | None
    token_id: str | None
    action: str
    subject: str
    detail: dict[str, JsonValue]


class AuditPage(View):
    """A page of the audit trail, newest first."""

    items: list[AuditRow]
    next_cursor: str | None

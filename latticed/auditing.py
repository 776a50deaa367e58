"""The facade's audit trail: who did what, and who was refused."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import closing
from typing import Any

from latticed.errors import Unauthenticated
from latticed.models.people import EVERYWHERE, Principal
from latticed.notes import Notes
from latticed.paging import number_cursor, page
from latticed.permits import Permits
from latticed.ports import FacadeStore

BATCH = 500
"""Rows that an export holds at a time."""


class Auditing(ABC):
    """The verbs of the audit trail, for the facade. A workspace of None is all of them, and what belongs to none."""

    _store: FacadeStore
    _permits: Permits
    notes: Notes

    async def list_audit(
        self, workspace: str | None, *, limit: int = 50, cursor: str | None = None, **filters: Any
    ) -> dict[str, Any]:  # fmt: skip
        """A page of the trail, newest first, as models.audit.AuditPage.

        Filters that are None are none: `action` (whole, or its beginning if it ends with a dot), `principal` (a name or
        a token's id), `subject`, `since` and (not included) `until` in microseconds.

        Raises:
            NotFound: no such workspace.
            Invalid: a made-up cursor.
        """
        await self._need_trail(workspace)
        before = number_cursor(cursor)
        return page(await self._store.list_audit(workspace, _given(filters), before=before, limit=limit + 1), limit)

    async def export_audit(
        self, workspace: str | None, reader: Principal, **filters: Any
    ) -> AsyncGenerator[list[dict[str, Any]]]:
        """The whole trail as it is now, oldest first, a batch at a time. Filters as for `list_audit`.

        Raises:
            NotFound: no such workspace.
            Unauthenticated: the reader may not read on.
        """
        with closing(self._permits.give(reader, workspace or EVERYWHERE)) as permit:
            await self._need_trail(workspace)
            newest = await self._store.list_audit(workspace, {}, limit=1)
            last, after = (newest[0]["id"] if newest else 0), 0
            while after < last:
                found = await self._store.list_audit(workspace, _given(filters), after=after, limit=BATCH)
                if permit.ended.is_set():
                    raise Unauthenticated
                if within := [row for row in found if row["id"] <= last]:
                    yield within
                if len(found) < BATCH:
                    return
                after = found[-1]["id"]

    async def _need_trail(self, workspace: str | None) -> None:
        """What belongs to no workspace has a trail as well. What was refused until now is in it."""
        await self.notes.flush()
        if workspace is not None and workspace != EVERYWHERE:
            await self._need_workspace(workspace)

    @abstractmethod
    async def _need_workspace(self, workspace: str) -> None:
        """Returns if there is such a workspace; else raises NotFound."""


def _given(filters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in filters.items() if value is not None}

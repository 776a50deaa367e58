"""The facade's workspaces: making and removing them, what they may take, and what they take."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from latticed.clock import to_text
from latticed.engine.limits import Limits
from latticed.errors import Conflict, NotFound
from latticed.failpoints import hit
from latticed.models.people import EVERYWHERE, Principal, WorkspaceRequest
from latticed.models.records import Once
from latticed.paging import made_up, number_behind, page_by_name
from latticed.plugins import Registry
from latticed.ports import FacadeStore


class Workspaces(ABC):
    """The verbs of workspaces, for the facade."""

    _store: FacadeStore
    _limits: Limits
    _registry: Registry
    _removed: set[str]
    """Workspaces that are not there any more for anybody, and not wholly gone either."""
    _prune: Callable[[], None]
    draining: bool

    def enter(self, workspace: str) -> None:
        """Returns if the workspace has not been removed; asked at each request, it reads nothing.

        Raises:
            NotFound: it was.
        """
        if workspace in self._removed:
            raise NotFound("there is no such workspace")

    async def list_workspaces(
        self, principal: Principal, *, limit: int = 50, cursor: str | None = None
    ) -> dict[str, Any]:  # fmt: skip
        """A page of the workspaces that this principal may enter, newest first.

        Raises:
            Invalid: a made-up cursor.
        """
        only = None if principal.workspace == EVERYWHERE else principal.workspace
        rows = await self._store.list_workspaces(None if cursor is None else _place(cursor), limit + 1, only)
        items = [{"name": row.name, "created_at": to_text(row.created_at)} for row in rows[:limit]]
        return {"items": items, "next_cursor": _cursor(rows[limit - 1]) if len(rows) > limit else None}

    async def create_workspace(
        self, request: WorkspaceRequest, principal: Principal, once: Once | None = None
    ) -> tuple[dict[str, Any], bool]:  # fmt: skip
        """Makes a workspace, as models.people.Workspace. True: the key was used before.

        Raises:
            Conflict: it is there already, or being removed; or the key was used with another body.
            NotFound: what the key made is gone.
            Unavailable: draining, or the store is away.
        """
        self._need_open("workspaces")
        if request.name in self._removed:
            raise Conflict(f"workspace {request.name!r} is still being removed; its name is free again once it is gone")
        hit("workspace.before")
        replayed = await self._store.create_workspace(request.name, principal, once)
        hit("workspace.after")
        found = await self._store.find_workspace(request.name)
        if found is None:
            raise NotFound("the workspace that this key made has been removed since")
        return {"name": found.name, "created_at": to_text(found.created_at)}, replayed

    async def get_workspace(self, workspace: str) -> dict[str, Any]:
        """A workspace, its limits and its use of them, as models.people.WorkspaceDetail.

        Raises:
            NotFound: no such workspace.
        """
        found = await self._store.find_workspace(workspace)
        if found is None:
            raise NotFound("there is no such workspace")
        active, queued = await self._store.count_active(workspace)
        told = self._limits.view(workspace, active, queued)
        return {"name": found.name, "created_at": to_text(found.created_at), **told}

    async def delete_workspace(self, workspace: str, principal: Principal, *, force: bool = False) -> None:
        """Removes a workspace. When this returns it is gone for everybody, and will not come back after a crash; what
        runs in it has its cancel, and what it holds is deleted little by little.

        Raises:
            NotFound: no such workspace.
            Conflict: runs are active in it, and `force` is not given.
        """
        hit("remove.before")
        await self._store.remove_workspace(workspace, principal, force=force)
        hit("remove.marked")
        self._removed.add(workspace)
        self._forget_workspace(workspace)
        self._limits.forget(workspace)
        self._prune()

    @abstractmethod
    def _forget_workspace(self, workspace: str) -> None:
        """Nobody comes in by a token of this workspace, and nobody reads or waits on in it."""

    @abstractmethod
    def _need_open(self, what: str) -> None:
        """Returns unless the daemon drains, and takes nothing new; else raises Unavailable."""

    @abstractmethod
    async def _need_workspace(self, workspace: str) -> None:
        """Returns if there is such a workspace; else raises NotFound."""

    async def list_queues(self, workspace: str, *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
        """A page of queues by name, with their load in this workspace and its limits; as models.people.QueuePage."""
        await self._need_workspace(workspace)
        counts: dict[tuple[str, str], int] = {}
        for of, queue, status, number in await self._store.active_counts():
            if of == workspace:
                counts[queue, status] = number
        items = [
            {
                "name": name,
                "concurrency": limit,
                "running": counts.get((name, "running"), 0) + counts.get((name, "cancelling"), 0),
                "queued": counts.get((name, "queued"), 0) + counts.get((name, "retrying"), 0),
            }
            for name, limit in sorted(self._registry.queues().items())
        ]
        queued = sum(n for (_, status), n in counts.items() if status in ("queued", "retrying"))
        told = self._limits.view(workspace, sum(counts.values()), queued)
        return page_by_name(items, limit, cursor) | told


def _cursor(row: Any) -> str:
    return f"{row.created_at}-{row.name}"


def _place(cursor: str) -> tuple[int, str]:
    """The time and the name in a cursor.

    Raises:
        Invalid: it was made up.
    """
    created_at, dash, name = cursor.partition("-")
    number = number_behind("", created_at)
    if number is None or not (dash and name):
        raise made_up()
    return number, name

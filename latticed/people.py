"""The facade's workspaces and tokens: who may come in, and where."""

import hashlib
import secrets
from typing import Any

import orjson

from latticed import ids
from latticed.clock import Clock, to_text
from latticed.errors import Forbidden, Invalid, NotFound
from latticed.models.people import Principal, TokenRequest, WorkspaceRequest
from latticed.models.views import token_view
from latticed.ports import FacadeStore

TOKEN_PREFIX = "lat_"
EVERYWHERE = "*"
_CACHE = 10_000


def digest(token: str) -> str:
    """What is kept of a token: its sha256. The token has 256 random bits, so no slow hash is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def new_token_text() -> str:
    """A token with 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


async def make_token(
    store: FacadeStore, clock: Clock, *, workspace: str, role: str, name: str, lanes: list[str] | None,
    expires_seconds: float | None, text: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Makes a token and keeps its digest; as models.people.NewToken, with the text that is shown this once."""
    text = text or new_token_text()
    now = clock.now()
    row = {
        "id": ids.new(ids.TOKEN),
        "digest": digest(text),
        "name": name,
        "role": role,
        "workspace": workspace,
        "lanes": None if lanes is None else orjson.dumps(lanes).decode(),
        "created_at": now,
        "expires_at": None if expires_seconds is None else now + int(expires_seconds * 1_000_000),
        "revoked_at": None,
    }
    await store.add_token(row)
    return {**token_view(_Row(row)), "token": text}


class _Row:
    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)


class People:
    """The verbs of workspaces and tokens, for the facade."""

    _store: FacadeStore
    _clock: Clock
    _principals: dict[str, Principal]
    _known_workspaces: set[str]

    async def authenticate(self, token: str) -> Principal | None:
        """Who holds this token; None if nobody does, or it has expired or was revoked."""
        key = digest(token)
        principal = self._principals.get(key)
        if principal is None:
            principal = await self._store.find_token(key)
            if principal is None:
                return None
            if len(self._principals) >= _CACHE:
                self._principals.clear()
            self._principals[key] = principal
        if principal.expires_at is not None and principal.expires_at <= self._clock.now():
            return None
        return principal

    async def _need_workspace(self, workspace: str) -> None:
        if workspace not in self._known_workspaces:
            if not await self._store.has_workspace(workspace):
                raise NotFound("there is no such workspace")
            self._known_workspaces.add(workspace)

    def _need_lane(self, principal: Principal, lanes: list[str]) -> None:
        if lanes and principal.lanes is not None and not set(lanes) & set(principal.lanes):
            raise Forbidden(f"this is for {' or '.join(sorted(lanes))}; the token has not that lane")

    async def list_workspaces(
        self, principal: Principal, *, limit: int = 50, cursor: str | None = None
    ) -> dict[str, Any]:  # fmt: skip
        """The workspaces that this principal may enter."""
        only = None if principal.workspace == EVERYWHERE else principal.workspace
        rows = await self._store.list_workspaces(cursor, limit, only)
        items = [{"name": row.name, "created_at": to_text(row.created_at)} for row in rows]
        return {"items": items, "next_cursor": items[-1]["name"] if len(items) == limit else None}

    async def create_workspace(self, request: WorkspaceRequest, principal: Principal) -> dict[str, Any]:
        """Makes a workspace.

        Raises:
            Conflict: it is there already.
        """
        created = await self._store.create_workspace(request.name)
        return {"name": request.name, "created_at": to_text(created)}

    async def list_tokens(self, workspace: str, *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
        """Tokens of a workspace, newest first, without their texts."""
        await self._need_workspace(workspace)
        if cursor is not None and not ids.is_id(ids.TOKEN, cursor):
            message = "this cursor was made up; use next_cursor of an earlier page"
            raise Invalid(message, [{"loc": ["query", "cursor"], "msg": message}])
        items = await self._store.list_tokens(workspace, cursor, limit)
        return {"items": items, "next_cursor": items[-1]["id"] if len(items) == limit else None}

    async def create_token(self, workspace: str, request: TokenRequest, principal: Principal) -> dict[str, Any]:
        """Makes a token for this workspace; its text is shown this once."""
        await self._need_workspace(workspace)
        return await make_token(
            self._store, self._clock, workspace=workspace, role=request.role, name=request.name,
            lanes=request.lanes, expires_seconds=request.expires_seconds,
        )  # fmt: skip

    async def revoke_token(self, workspace: str, token_id: str, principal: Principal) -> None:
        """Ends a token, at once.

        Raises:
            NotFound: no such token in this workspace.
        """
        if not ids.is_id(ids.TOKEN, token_id) or not await self._store.revoke_token(workspace, token_id):
            raise NotFound("there is no such token")
        for key, known in list(self._principals.items()):
            if known.token_id == token_id:
                del self._principals[key]

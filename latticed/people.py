"""The facade's tokens and sessions: who may come in, and where."""

import hashlib
import secrets
from abc import ABC
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson

from latticed import ids
from latticed.clock import Clock, to_text
from latticed.errors import Forbidden, NotFound, Unauthenticated, Unavailable
from latticed.failpoints import hit
from latticed.models.people import EVERYWHERE, Principal, TokenRequest
from latticed.models.records import Once
from latticed.models.views import token_view
from latticed.notes import Notes
from latticed.paging import id_cursor, page
from latticed.permits import Permits
from latticed.ports import FacadeStore

TOKEN_PREFIX = "lat_"
SESSION_PREFIX = "ses_"
SESSION_SECONDS = 12 * 3600
"""How long a browser stays signed in, if its token lasts that long."""
DAEMON = "latticed"
"""Who did what nobody asked for over HTTP, in the audit trail."""
_CACHE = 10_000


def digest(text: str) -> str:
    """What is kept of a token or a cookie: its sha256. It has 256 random bits, so no slow hash is needed, and how long
    it takes to look that up says nothing about the text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def new_token_text() -> str:
    """A token with 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


async def make_token(
    store: FacadeStore, clock: Clock, *, workspace: str, role: str, name: str, lanes: list[str] | None,
    expires_seconds: float | None, by: Principal | str, text: str | None = None, once: Once | None = None,
) -> tuple[str, dict[str, Any] | None]:  # fmt: skip
    """Makes a token and keeps its digest: its id, and it as models.people.NewToken, with the text that is shown this
    once; or None if the key was used before, since nobody has the text any more."""
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
        "used_at": None,
    }
    token_id, replayed = await store.add_token(row, by, once)
    return token_id, None if replayed else {**token_view(_Row(row)), "token": text}


class _Row:
    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)


class _Known:
    """A principal that was found before, and the time at which its use is worth noting again."""

    __slots__ = ("principal", "use_due")

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.use_due = 0


class Roster:
    """Who is known by the digest of what they show, so that most requests ask no store."""

    def __init__(self) -> None:
        self.known: dict[str, _Known] = {}
        self._forgotten = 0

    async def ask(self, key: str, find: Callable[[str], Awaitable[Principal | None]]) -> _Known | None:
        """Finds and remembers; None if nobody shows that."""
        while True:
            forgotten = self._forgotten
            principal = await find(key)
            if principal is None:
                return None
            if forgotten == self._forgotten:  # Else it may have been read before it was revoked.
                if len(self.known) >= _CACHE:
                    self.known.clear()
                self.known[key] = known = _Known(principal)
                return known

    def forget(self, meant: Callable[[Principal], bool]) -> None:
        """From now on these are asked for again."""
        self._forgotten += 1
        for key, known in list(self.known.items()):
            if meant(known.principal):
                del self.known[key]


class People(ABC):
    """The verbs of tokens and sessions, for the facade."""

    _store: FacadeStore
    _clock: Clock
    _permits: Permits
    _known_workspaces: set[str]
    draining: bool
    notes: Notes

    def __init__(self) -> None:
        self.draining = False
        self._tokens = Roster()
        self._sessions = Roster()

    async def authenticate(self, token: str) -> Principal | None:
        """Who holds this token; None if nobody does, or it has expired or was revoked."""
        key = digest(token)
        known = self._tokens.known.get(key) or await self._tokens.ask(key, self._store.find_token)
        return None if known is None else self._admitted(known)

    async def authenticate_session(self, cookie: str) -> Principal | None:
        """Who is signed in by this cookie; None if nobody is, or not any more."""
        key = digest(cookie)
        known = self._sessions.known.get(key) or await self._sessions.ask(key, self._store.find_session)
        return None if known is None else self._admitted(known)

    def _admitted(self, known: _Known) -> Principal | None:
        principal = known.principal
        now = self._clock.now()
        if principal.expires_at is not None and principal.expires_at <= now:
            return None
        if now >= known.use_due:
            known.use_due = self.notes.use(principal.token_id, now)
        return principal

    def _forget(self, meant: Callable[[Principal], bool]) -> None:
        """What these principals came in by is worth nothing any more: they are asked again, and their streams end."""
        self._tokens.forget(meant)
        self._sessions.forget(meant)
        self._permits.end(lambda permit: meant(permit.principal))

    def _forget_workspace(self, workspace: str) -> None:
        """A workspace is gone: so are its tokens, and all streams that read it."""
        self._known_workspaces = self._known_workspaces - {workspace}  # Another set: see `_need_workspace`.
        self._forget(lambda principal: principal.workspace == workspace)
        self._permits.end(lambda permit: permit.workspace == workspace)

    async def sign_in(self, token: str) -> tuple[str, Principal]:
        """Opens a browser's session: the text of its cookie, which is shown this once, and whom it stands for.

        Raises:
            Unauthenticated: the token is unknown, expired or revoked.
        """
        holder = await self.authenticate(token)
        if holder is None:
            raise Unauthenticated("this token is unknown, expired or revoked")
        cookie = SESSION_PREFIX + secrets.token_urlsafe(32)
        until = self._clock.now() + SESSION_SECONDS * 1_000_000
        expires_at = until if holder.expires_at is None else min(until, holder.expires_at)
        hit("sign_in.before")
        await self._store.add_session(digest(cookie), expires_at, holder)
        hit("sign_in.after")
        return cookie, replace(holder, expires_at=expires_at)

    async def sign_out(self, cookie: str, principal: Principal) -> None:
        """Ends a browser's session, and its streams, at once."""
        session = await self.authenticate_session(cookie)
        if session is not None:
            hit("sign_out.before")
            await self._store.end_session(digest(cookie), principal)
            hit("sign_out.after")
            # Another session that expires in the same microsecond is only asked for again.
            self._forget(lambda who: who == session)

    def _need_open(self, what: str) -> None:
        if self.draining:
            raise Unavailable(f"the daemon is stopping and takes no new {what}; try again when it is back")

    async def _need_workspace(self, workspace: str) -> None:
        known = self._known_workspaces
        if workspace not in known:
            if not await self._store.has_workspace(workspace):
                raise NotFound("there is no such workspace")
            known.add(workspace)  # Which is forgotten if it was removed while that was looked up.

    def _need_lane(self, principal: Principal, lanes: list[str]) -> None:
        if lanes and principal.lanes is not None and not set(lanes) & set(principal.lanes):
            raise Forbidden(f"this is for {' or '.join(sorted(lanes))}; the token has not that lane")

    async def list_tokens(self, workspace: str, *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
        """Tokens of a workspace, or of those for all, newest first, without their texts."""
        await self._need_scope(workspace)
        before = id_cursor(ids.TOKEN, cursor)
        return page([self._used(each) for each in await self._store.list_tokens(workspace, before, limit + 1)], limit)

    async def get_token(self, workspace: str, token_id: str) -> dict[str, Any]:
        """A token without its text, as models.people.Token.

        Raises:
            NotFound: no such token in this workspace.
        """
        found = await self._store.find_token_view(workspace, token_id) if ids.is_id(ids.TOKEN, token_id) else None
        if found is None:
            raise NotFound("there is no such token")
        return self._used(found)

    def _used(self, token: dict[str, Any]) -> dict[str, Any]:
        """What is on disk about a token's use may be a second behind."""
        noted = self.notes.used_at(token["id"])
        return token if noted is None else {**token, "used_at": to_text(noted)}

    async def _need_scope(self, workspace: str) -> None:
        if workspace != EVERYWHERE:
            await self._need_workspace(workspace)

    async def create_token(
        self, workspace: str, request: TokenRequest, principal: Principal, once: Once | None = None
    ) -> tuple[dict[str, Any], bool]:  # fmt: skip
        """Makes a token for this workspace, or for all; its text is shown this once. True: the key was used before, and
        this is the token without its text.

        Raises:
            Forbidden: it could do more than the one that asks for it.
            Conflict: the key was used with another body.
            Unavailable: draining, or the store is away.
        """
        self._need_open("tokens")
        await self._need_scope(workspace)
        if not (principal.may(request.role) and principal.enters(workspace)):
            raise Forbidden("a token cannot make one that may do more than itself")
        if principal.lanes is not None and (request.lanes is None or not set(request.lanes) <= set(principal.lanes)):
            mine = ", ".join(principal.lanes) or "none"
            raise Forbidden(f"a token cannot give lanes that it does not have; name some of its own: {mine}")
        hit("token.before")
        token_id, made = await make_token(
            self._store, self._clock, workspace=workspace, role=request.role, name=request.name,
            lanes=request.lanes, expires_seconds=request.expires_seconds, by=principal, once=once,
        )  # fmt: skip
        hit("token.kept")
        return (made, False) if made is not None else (await self.get_token(workspace, token_id), True)

    async def revoke_token(self, workspace: str, token_id: str, principal: Principal) -> None:
        """Ends a token, its sessions and all streams that were opened by either, at once.

        Raises:
            NotFound: no such token in this workspace.
        """
        hit("revoke.before")
        if not ids.is_id(ids.TOKEN, token_id) or not await self._store.revoke_token(workspace, token_id, principal):
            raise NotFound("there is no such token")
        hit("revoke.after")
        self._forget(lambda who: who.token_id == token_id)
        self.notes.forget(token_id)

"""Workspaces, tokens and the sessions of browsers."""

import asyncio
from typing import Any

from latticed.api.auth import COOKIE, SECURE_COOKIE, is_secure, session_cookie
from latticed.api.exchange import Call, Reply, json_reply
from latticed.api.idempotency import made_reply, once
from latticed.api.queries import ForceQuery, NoQuery, PageQuery
from latticed.clock import to_text
from latticed.errors import Unauthenticated
from latticed.models.people import EVERYWHERE, Principal, SignIn, TokenRequest, WorkspaceRequest
from latticed.people import SESSION_SECONDS

_COOKIE = b"%b=%b; Max-Age=%d; Path=/; HttpOnly; SameSite=Strict"


async def list_workspaces(call: Call[PageQuery, None]) -> Reply:
    """A page of the workspaces that the token has a right to."""
    page = await call.lattice.list_workspaces(call.principal, limit=call.query.limit, cursor=call.query.cursor)
    return json_reply(200, page)


async def create_workspace(call: Call[NoQuery, WorkspaceRequest]) -> Reply:
    """Makes a workspace."""
    return made_reply(201, *await call.lattice.create_workspace(call.body, call.principal, once(call)))


async def get_workspace(call: Call[NoQuery, None]) -> Reply:
    """A workspace, its limits, and its use of them."""
    return json_reply(200, await call.lattice.get_workspace(call.workspace))


async def delete_workspace(call: Call[ForceQuery, None]) -> Reply:
    """Removes a workspace with all that it holds, at once for everybody. What runs in it is stopped; its name is free
    again when all of it is gone."""
    await call.lattice.delete_workspace(call.workspace, call.principal, force=call.query.force)
    return Reply(204)


async def list_tokens(call: Call[PageQuery, None]) -> Reply:
    """A page of a workspace's tokens, without their texts."""
    scope = call.workspace or EVERYWHERE
    page = await call.lattice.list_tokens(scope, limit=call.query.limit, cursor=call.query.cursor)
    return json_reply(200, page)


async def create_token(call: Call[NoQuery, TokenRequest]) -> Reply:
    """Makes a token, which can do no more than the one that asks for it; its text is shown this once."""
    scope = call.workspace or EVERYWHERE
    return made_reply(201, *await call.lattice.create_token(scope, call.body, call.principal, once(call)))


async def get_token(call: Call[NoQuery, None]) -> Reply:
    """One token, without its text."""
    return json_reply(200, await call.lattice.get_token(call.workspace or EVERYWHERE, call.params["token_id"]))


async def revoke_token(call: Call[NoQuery, None]) -> Reply:
    """Makes a token worthless at once, with the sessions and streams that it opened."""
    await call.lattice.revoke_token(call.workspace or EVERYWHERE, call.params["token_id"], call.principal)
    return Reply(204)


async def list_wide_tokens(call: Call[PageQuery, None]) -> Reply:
    """A page of the tokens for all workspaces, without their texts."""
    return await list_tokens(call)


async def create_wide_token(call: Call[NoQuery, TokenRequest]) -> Reply:
    """Makes a token for all workspaces; its text is shown this once."""
    return await create_token(call)


async def get_wide_token(call: Call[NoQuery, None]) -> Reply:
    """One token for all workspaces, without its text."""
    return await get_token(call)


async def revoke_wide_token(call: Call[NoQuery, None]) -> Reply:
    """Makes a token for all workspaces worthless at once; it may be the one that asks."""
    return await revoke_token(call)


async def whoami(call: Call[NoQuery, None]) -> Reply:
    """The token that asks, as it is seen here; of a browser's session it tells the session's expiry."""
    return json_reply(200, _whoami(call.principal))


def _whoami(who: Principal) -> dict[str, Any]:
    return {
        "token_id": who.token_id,
        "name": who.name,
        "role": who.role,
        "workspace": who.workspace,
        "lanes": None if who.lanes is None else list(who.lanes),
        "expires_at": None if who.expires_at is None else to_text(who.expires_at),
    }


async def sign_in(call: Call[NoQuery, SignIn]) -> Reply:
    """Signs a browser in: sets a cookie (HttpOnly, SameSite=Strict) that is worth what the token is, for at most twelve
    hours. `Origin`, if it is sent, must be where this daemon is."""
    secure = is_secure(call.headers)
    now = asyncio.get_running_loop().time()
    call.site.attempts.need_leave(call.address, now)
    try:
        text, principal = await call.lattice.sign_in(call.body.token)
    except Unauthenticated:
        call.site.attempts.failed(call.address, now)
        raise
    name = SECURE_COOKIE if secure else COOKIE
    return json_reply(200, _whoami(principal), _set_cookie(name, text.encode(), SESSION_SECONDS))


async def sign_out(call: Call[NoQuery, None]) -> Reply:
    """Ends the session of the cookie that is sent, and its streams, at once. Without one there is nothing to end."""
    name, text = session_cookie(call.headers)
    if text:
        await call.lattice.sign_out(text, call.principal)
    return Reply(204, headers=[_set_cookie(name, b"", 0)])


def _set_cookie(name: bytes, text: bytes, seconds: int) -> tuple[bytes, bytes]:
    cookie = _COOKIE % (name, text, seconds)
    return b"set-cookie", cookie + b"; Secure" if name == SECURE_COOKIE else cookie

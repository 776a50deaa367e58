"""What there is beside runs: agents, queues, workspaces, tokens, and the state of the daemon."""

from latticed.api.exchange import JSON, Call, Reply, json_reply
from latticed.api.queries import NoQuery, PageQuery
from latticed.clock import to_text
from latticed.models.people import TokenRequest, WorkspaceRequest

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
NOTHING_FROM_ELSEWHERE = (
    b"content-security-policy",
    b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)


async def list_agents(call: Call[NoQuery, None]) -> Reply:
    """The agents that a run can target."""
    return json_reply(200, await call.lattice.list_agents(call.workspace))


async def list_queues(call: Call[NoQuery, None]) -> Reply:
    """The queues, their limits and their load."""
    return json_reply(200, await call.lattice.list_queues(call.workspace))


async def list_workspaces(call: Call[PageQuery, None]) -> Reply:
    """A page of the workspaces that the token has a right to."""
    page = await call.lattice.list_workspaces(call.principal, limit=call.query.limit, cursor=call.query.cursor)
    return json_reply(200, page)


async def create_workspace(call: Call[NoQuery, WorkspaceRequest]) -> Reply:
    """Makes a workspace."""
    return json_reply(201, await call.lattice.create_workspace(call.body, call.principal))


async def list_tokens(call: Call[PageQuery, None]) -> Reply:
    """A page of a workspace's tokens, without their texts."""
    page = await call.lattice.list_tokens(call.workspace, limit=call.query.limit, cursor=call.query.cursor)
    return json_reply(200, page)


async def create_token(call: Call[NoQuery, TokenRequest]) -> Reply:
    """Makes a token; its text is shown this once."""
    return json_reply(201, await call.lattice.create_token(call.workspace, call.body, call.principal))


async def revoke_token(call: Call[NoQuery, None]) -> Reply:
    """Makes a token worthless."""
    await call.lattice.revoke_token(call.workspace, call.params["token_id"], call.principal)
    return Reply(204)


async def whoami(call: Call[NoQuery, None]) -> Reply:
    """The token that asks, as it is seen here."""
    who = call.principal
    view = {
        "token_id": who.token_id,
        "name": who.name,
        "role": who.role,
        "workspace": who.workspace,
        "lanes": None if who.lanes is None else list(who.lanes),
        "expires_at": None if who.expires_at is None else to_text(who.expires_at),
    }
    return json_reply(200, view)


async def healthz(call: Call[NoQuery, None]) -> Reply:
    """The process is up."""
    return json_reply(200, {"status": "up"})


async def readyz(call: Call[NoQuery, None]) -> Reply:
    """The store and the broker answer, and the daemon is not draining."""
    await call.lattice.ready()
    return json_reply(200, {"status": "ready"})


async def metrics(call: Call[NoQuery, None]) -> Reply:
    """Figures for Prometheus."""
    return Reply(200, await call.lattice.metrics(), [(b"content-type", PROMETHEUS.encode())])


async def openapi(call: Call[NoQuery, None]) -> Reply:
    """This interface, as an OpenAPI 3.1 document."""
    return Reply(200, call.site.openapi, [JSON])


async def docs(call: Call[NoQuery, None]) -> Reply:
    """This interface, as a page to read; it loads nothing from anywhere."""
    return Reply(200, call.site.docs, [(b"content-type", b"text/html; charset=utf-8"), NOTHING_FROM_ELSEWHERE])

"""What there is beside runs and people: agents, queues, and the state of the daemon."""

from latticed.api.exchange import JSON, Call, Reply, json_reply
from latticed.api.queries import NoQuery, PageQuery

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
NOTHING_FROM_ELSEWHERE = (
    b"content-security-policy",
    b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)


async def list_agents(call: Call[PageQuery, None]) -> Reply:
    """A page of the agents that a run can target, by name."""
    page = await call.lattice.list_agents(call.workspace, limit=call.query.limit, cursor=call.query.cursor)
    return json_reply(200, page)


async def list_queues(call: Call[PageQuery, None]) -> Reply:
    """A page of the queues, by name, with their limits and their load."""
    page = await call.lattice.list_queues(call.workspace, limit=call.query.limit, cursor=call.query.cursor)
    return json_reply(200, page)


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

"""Hooks, and what was sent to them."""

from latticed.api.exchange import Call, Reply, json_reply
from latticed.api.idempotency import made_reply, once
from latticed.api.queries import DeliveriesQuery, HookQuery, NoQuery, PageQuery
from latticed.models.registering import HookPatch, HookRequest


async def list_hooks(call: Call[PageQuery, None]) -> Reply:
    """A page of a workspace's hooks: those of the configuration file, then the registered ones."""
    page = await call.lattice.list_hooks(call.workspace, limit=call.query.limit, cursor=call.query.cursor)
    return json_reply(200, page)


async def create_hook(call: Call[NoQuery, HookRequest]) -> Reply:
    """Registers a webhook. Without a secret of its own it gets a key, which is shown this once."""
    return made_reply(201, *await call.lattice.create_hook(call.workspace, call.body, call.principal, once(call)))


async def get_hook(call: Call[HookQuery, None]) -> Reply:
    """One hook, by its id or its name."""
    view = await call.lattice.get_hook(
        call.workspace, call.params["hook"], call.principal, signing_secret=call.query.signing_secret
    )
    return json_reply(200, view)


async def update_hook(call: Call[NoQuery, HookPatch]) -> Reply:
    """Changes a registered hook. One whose secret is taken away gets a key, which is shown this once."""
    return json_reply(
        200, await call.lattice.update_hook(call.workspace, call.params["hook"], call.body, call.principal)
    )


async def delete_hook(call: Call[NoQuery, None]) -> Reply:
    """Removes a registered hook. Those of the configuration file are removed there."""
    await call.lattice.delete_hook(call.workspace, call.params["hook"], call.principal)
    return Reply(204)


async def list_deliveries(call: Call[DeliveriesQuery, None]) -> Reply:
    """A page of executions of hooks."""
    query = call.query
    page = await call.lattice.list_deliveries(
        call.workspace,
        status=query.status,
        hook=query.hook,
        point=query.point,
        run=query.run,
        limit=query.limit,
        cursor=query.cursor,
    )
    return json_reply(200, page)


async def get_delivery(call: Call[NoQuery, None]) -> Reply:
    """One execution of a hook."""
    return json_reply(200, await call.lattice.get_delivery(call.workspace, call.params["delivery_id"]))


async def redeliver(call: Call[NoQuery, None]) -> Reply:
    """Sends a delivery again, under the same id, however it ended."""
    return json_reply(202, await call.lattice.redeliver(call.workspace, call.params["delivery_id"], call.principal))

"""The facade's hooks: who is asked and told, what was sent to whom, and sending it again."""

from abc import ABC, abstractmethod
from typing import Any

import orjson
from pydantic import ValidationError

from latticed import ids
from latticed.clock import to_text
from latticed.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from latticed.failpoints import hit
from latticed.hooks.registry import Registry
from latticed.models.hooks import CHANGEABLE, CommandHook, DeliveryRow, HookSpec, PythonHook, WebhookHook
from latticed.models.people import Principal
from latticed.models.records import Once
from latticed.models.registering import HookPatch, HookRequest
from latticed.outbox import HooksStore, Receivers
from latticed.paging import id_cursor, made_up, page

EVERYWHERE = "*"


def registered(row: Any) -> HookSpec:
    """A row of `hooks` as a hook in force."""
    table = WebhookHook.model_validate({**orjson.loads(row.spec), "enabled": bool(row.enabled)})
    return HookSpec(row.name, table, row.id, row.workspace)


class Hooking(ABC):
    """The verbs of hooks and deliveries, for the facade."""

    _hooks: Registry
    _hooks_store: HooksStore
    _receivers: Receivers

    async def list_hooks(self, workspace: str, *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
        """A page of the hooks of a workspace, as models.registering.HookPage.

        Raises:
            Invalid: a made-up cursor.
        """
        await self._need_workspace(workspace)
        rows = {row.id: row for row in await self._hooks_store.list_registered() if row.workspace == workspace}
        file = sorted(hook.name for hook in self._hooks.index if hook.id is None and hook.is_in(workspace))
        keys = [*file, *sorted(rows, reverse=True)]
        if cursor is not None:
            if cursor in file:
                keys = keys[keys.index(cursor) + 1 :]
            elif ids.is_id(ids.HOOK, cursor):
                keys = [key for key in keys[len(file) :] if key < cursor]
            else:
                raise made_up()
        views = [self._view(workspace, registered(rows[key]) if key in rows else self._of_file(key), rows.get(key))
                 for key in keys[:limit]]  # fmt: skip
        return {"items": views, "next_cursor": keys[limit - 1] if len(keys) > limit else None}

    async def get_hook(
        self, workspace: str, ref: str, principal: Principal, *, signing_secret: bool = False
    ) -> dict[str, Any]:  # fmt: skip
        """A hook by its id or name, as models.registering.Hook; if that is asked for, with the key that the daemon has
        for a webhook of the configuration file.

        Raises:
            NotFound: no such hook in this workspace.
            Forbidden: the key of a hook of all workspaces, for a token of one.
        """
        hook, row = await self._find_hook(workspace, ref)
        view = self._view(workspace, hook, row)
        if signing_secret and hook.sort == "webhook" and hook.id is None:
            if principal.workspace != EVERYWHERE:
                raise Forbidden("the key of a hook of the configuration file is for tokens for all workspaces")
            view["signing_secret"] = self._receivers.signing_secret(hook)
        return view

    async def create_hook(
        self, workspace: str, request: HookRequest, principal: Principal, once: Once | None = None
    ) -> tuple[dict[str, Any], bool]:  # fmt: skip
        """Registers a webhook; it is in force when this returns. As models.registering.Hook, with the key of its
        signatures if it has no secret of its own. True: the key was used before, and this is the hook without that.

        Raises:
            Invalid: its URL may not be called, or its secret is not there.
            Conflict: there is a hook of that name; or the key was used with another body.
            Forbidden: it names a secret, for a token of one workspace.
            Unavailable: draining, or the store is away.
        """
        self._need_open("hooks")
        await self._need_workspace(workspace)
        _may_sign(principal, request)
        hook = HookSpec(request.name, self._in(workspace, request), ids.new(ids.HOOK), workspace)
        await self._check(hook)
        hook_id, replayed = await self._hooks_store.add_hook(
            workspace, hook.key, hook.name, request.spec, principal, once
        )
        if not replayed:
            self._hooks.put(hook)
        view = self._view(workspace, *await self._find_hook(workspace, hook_id))
        return view | {"signing_secret": None if replayed else self._receivers.signing_secret(hook)}, replayed

    async def update_hook(
        self, workspace: str, ref: str, patch: HookPatch, principal: Principal
    ) -> dict[str, Any]:  # fmt: skip
        """Makes a registered hook another; what it waits to be sent goes where it leads from now on. As
        models.registering.Hook, with the key of its signatures if its secret was taken away.

        Raises:
            NotFound: no such hook in this workspace.
            Conflict: it is one of the configuration file, or the new name is another's.
            Forbidden: it would sign with a secret, for a token of one workspace.
            Invalid: what it would be cannot be.
        """
        old, _ = await self._find_hook(workspace, ref)
        hook_id = self._need_registered(old)
        assert isinstance(old.table, WebhookHook)
        given = {**old.table.model_dump(), "name": old.name, **patch.changes}
        if (given["point"] in CHANGEABLE) is not old.judges:
            given["on_error"] = patch.on_error  # What held where it only was told is no word about where it judges.
        if given["point"] != "on_event" and patch.events is None:
            given["events"] = []
        try:
            request = HookRequest.model_validate(given)
        except ValidationError as error:
            raise _wrong(error) from None
        if (request.secret, request.url) != (old.table.secret, old.table.url):
            _may_sign(principal, request)
        hook = HookSpec(request.name, self._in(workspace, request), hook_id, workspace)
        await self._check(hook, url=request.url != old.table.url)
        hit("changed.before")
        await self._hooks_store.change_hook(workspace, hook_id, hook.name, request.spec, principal)
        hit("changed.after")
        self._hooks.put(hook)
        hook, row = await self._find_hook(workspace, hook_id)
        view = self._view(workspace, hook, row)
        if old.table.secret is not None:
            view["signing_secret"] = self._receivers.signing_secret(hook)
        return view

    async def delete_hook(self, workspace: str, ref: str, principal: Principal) -> None:
        """Removes a registered hook; it is told nothing more.

        Raises:
            NotFound: no such hook in this workspace.
            Conflict: it is one of the configuration file.
        """
        hook, _ = await self._find_hook(workspace, ref)
        hook_id = self._need_registered(hook)
        # First here, then on disk: what ends in between must put nothing into the outbox that nobody takes out.
        self._hooks.drop(hook_id)
        hit("dropped.before")
        try:
            await self._hooks_store.remove_hook(workspace, hook_id, principal)
        except Unavailable:
            self._hooks.put(hook)
            raise
        hit("dropped.after")

    # Deliveries

    async def list_deliveries(
        self, workspace: str, *, status: str | None = None, hook: str | None = None, point: str | None = None,
        run: str | None = None, limit: int = 50, cursor: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """A page of executions of hooks, newest first, as models.deliveries.DeliveryPage.

        Raises:
            Invalid: a made-up cursor.
        """
        await self._need_workspace(workspace)
        before = id_cursor(ids.DELIVERY, cursor)
        asked = {"status": status, "point": point, "run_id": run}
        filters = {column: {value} for column, value in asked.items() if value is not None}
        if hook is not None:
            named = {each.key for each in self._hooks.index if each.name == hook and each.is_in(workspace)}
            filters["hook"] = named | {hook}
        rows = await self._hooks_store.list_deliveries(workspace, filters, before, limit + 1)
        return page([self._delivery(row) for row in rows], limit)

    async def get_delivery(self, workspace: str, delivery_id: str) -> dict[str, Any]:
        """One execution of a hook, as models.deliveries.Delivery.

        Raises:
            NotFound: no such delivery in this workspace.
        """
        row = await self._hooks_store.find_delivery(workspace, delivery_id)
        if row is None:
            raise NotFound("there is no such delivery")
        return self._delivery(row)

    async def redeliver(self, workspace: str, delivery_id: str, principal: Principal) -> dict[str, Any]:
        """Sends a delivery again, under the same id, as models.deliveries.Delivery.

        Raises:
            NotFound: no such delivery in this workspace.
            Conflict: it was part of a run, or its hook is not there any more.
        """
        row = await self._hooks_store.find_delivery(workspace, delivery_id)
        if row is None:
            raise NotFound("there is no such delivery")
        hook = self._hooks.index.find(row.hook)
        if hook is None:
            raise Conflict("its hook is not there any more")
        if not hook.table.enabled:
            raise Conflict(f"its hook {hook.name!r} is disabled; enable it first")
        await self._hooks_store.redeliver(workspace, delivery_id, principal)
        return await self.get_delivery(workspace, delivery_id)

    # How

    @abstractmethod
    def _need_open(self, what: str) -> None:
        """Returns unless the daemon drains, and takes nothing new; else raises Unavailable."""

    @abstractmethod
    async def _need_workspace(self, workspace: str) -> None:
        """Returns if there is such a workspace; else raises NotFound."""

    async def _find_hook(self, workspace: str, ref: str) -> tuple[HookSpec, Any]:
        """A hook and, of a registered one, its row."""
        for row in await self._hooks_store.list_registered():
            if row.workspace == workspace and ref in (row.id, row.name):
                return registered(row), row
        await self._need_workspace(workspace)
        hook = self._hooks.index.find(ref)
        if hook is None or hook.id is not None or not hook.is_in(workspace):
            raise NotFound("there is no such hook")
        return hook, None

    def _of_file(self, name: str) -> HookSpec:
        hook = self._hooks.index.find(name)
        assert hook is not None
        return hook

    def _need_registered(self, hook: HookSpec) -> str:
        if hook.id is None:
            raise Conflict(f"{hook.name!r} is a hook of the configuration file; change it there and reload")
        return hook.id

    def _in(self, workspace: str, request: HookRequest) -> WebhookHook:
        """What it is, for this workspace alone."""
        if set(request.workspaces) - {workspace}:
            message = f"a hook that is registered here is asked in {workspace!r} alone; leave workspaces out"
            raise Invalid(message, [{"loc": ["body", "workspaces"], "msg": message}])
        return request.spec

    async def _check(self, hook: HookSpec, *, url: bool = True) -> None:
        """Whether it could be called."""
        assert isinstance(hook.table, WebhookHook)
        if any(each.name == hook.name and each.id is None for each in self._hooks.index):
            raise Conflict(f"there is a hook {hook.name!r} in the configuration file")
        field = "url"
        try:
            if url:
                await self._receivers.judge(hook.table.url)
            field = "secret"
            self._receivers.check_secret(hook)
        except Invalid as error:
            raise Invalid(f"{field}: {error.detail}", [{"loc": ["body", field], "msg": error.detail}]) from None

    def _view(self, workspace: str, hook: HookSpec, row: Any) -> dict[str, Any]:
        table = hook.table
        told = row if isinstance(row, dict) or row is None else row._mapping
        return {
            "id": hook.id,
            "name": hook.name,
            "source": "file" if hook.id is None else "registered",
            "workspace": workspace,
            "use": table.use,
            "point": table.point,
            "kind": table.kind,
            "targets": table.targets,
            "workspaces": table.workspaces,
            "events": table.events,
            "order": table.order,
            "enabled": table.enabled,
            "timeout_seconds": table.timeout_seconds,
            "on_error": table.on_error,
            "url": hook.url,
            "secret": table.secret if isinstance(table, WebhookHook) else None,
            "function": table.function if isinstance(table, PythonHook) else None,
            "argv": table.argv if isinstance(table, CommandHook) else None,
            "created_by": told["created_by"] if told else None,
            "created_at": to_text(told["created_at"]) if told else None,
            "updated_at": to_text(told["updated_at"]) if told else None,
            "signing_secret": None,
        }

    def _delivery(self, row: DeliveryRow) -> dict[str, Any]:
        hook = self._hooks.index.find(row.hook)
        return {
            "id": row.id,
            "workspace": row.workspace,
            "hook": row.hook if hook is None else hook.name,
            "hook_id": row.hook if ids.is_id(ids.HOOK, row.hook) else None,
            "point": row.point,
            "sort": row.sort,
            "run_id": row.run_id,
            "event_position": row.position,
            "status": row.status,
            "attempts": row.attempts,
            "created_at": to_text(row.created_at),
            "due_at": None if row.due_at is None else to_text(row.due_at),
            "finished_at": None if row.finished_at is None else to_text(row.finished_at),
            "duration_ms": row.duration_ms,
            "detail": orjson.loads(row.detail),
            "output": orjson.loads(row.output),
        }


def _may_sign(principal: Principal, request: HookRequest) -> None:
    """Secrets are the daemon's: whoever may name one learns that it is there, and has it sign what is sent to him.

    Raises:
        Forbidden: one is named, for a token of one workspace.
    """
    if request.secret is not None and principal.workspace != EVERYWHERE:
        raise Forbidden(
            "a secret is named by tokens for all workspaces; without one the daemon makes a key for the hook"
        )


def _wrong(error: ValidationError) -> Invalid:
    found = error.errors(include_url=False, include_context=False, include_input=False)[:20]
    errors = [{"loc": ["body", *item["loc"]], "msg": item["msg"].removeprefix("Value error, ")} for item in found]
    return Invalid(str(errors[0]["msg"]), errors)

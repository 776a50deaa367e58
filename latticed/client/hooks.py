"""The client's verbs of hooks and deliveries."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from latticed.client.transport import Transport

Document = dict[str, Any]


class HookVerbs(ABC):
    """Hooks of the workspace, and what was sent to them; all need the role `admin`."""

    _transport: Transport

    @abstractmethod
    def _path(self, *segments: str) -> str: ...

    @abstractmethod
    def _get(self, *segments: str, **params: Any) -> Document: ...

    @abstractmethod
    def _document(self, method: str, where: str, **how: Any) -> Document: ...

    def list_hooks(self, *, limit: int | None = None, cursor: str | None = None) -> Document:
        """A page of hooks: those of the configuration file, then the registered ones, newest first."""
        return self._get("hooks", limit=limit, cursor=cursor)

    def get_hook(self, hook: str, *, signing_secret: bool = False) -> Document:
        """A hook by its id or name.

        Args:
            signing_secret: with the key that the daemon has for a webhook of the configuration file.
        """
        return self._get("hooks", hook, signing_secret="true" if signing_secret else None)

    def create_hook(
        self,
        name: str,
        point: str,
        url: str,
        *,
        secret: str | None = None,
        kind: str | None = None,
        targets: Sequence[str] | None = None,
        events: Sequence[str] | None = None,
        order: int | None = None,
        enabled: bool | None = None,
        timeout_seconds: float | None = None,
        on_error: str | None = None,
    ) -> Document:
        """Registers a webhook → its document; without `secret`, with the key of its signatures under
        `signing_secret`, which is shown this once.

        Args:
            secret: a reference, `secret:NAME`, to a secret that the daemon has.
            events: at the point `on_event`, the types of the events that it is told of.

        Raises:
            Invalid: the URL may not be called, or the secret is not there.
            Conflict: there is a hook of that name.
        """
        body = {
            "name": name, "use": "webhook", "point": point, "url": url, "secret": secret, "kind": kind,
            "targets": targets, "events": events, "order": order, "enabled": enabled,
            "timeout_seconds": timeout_seconds, "on_error": on_error,
        }  # fmt: skip
        given = {field: value for field, value in body.items() if value is not None}
        return self._document("POST", self._path("hooks"), body=given)

    def update_hook(self, hook: str, changes: Mapping[str, Any]) -> Document:
        """Changes what is given of a registered hook, by the names of `create_hook` → its document.

        Raises:
            Conflict: it is a hook of the configuration file.
        """
        return self._document("PATCH", self._path("hooks", hook), body=dict(changes))

    def delete_hook(self, hook: str) -> None:
        """Removes a registered hook; what it was still to be sent is not sent.

        Raises:
            Conflict: it is a hook of the configuration file.
        """
        self._transport.request("DELETE", self._path("hooks", hook))

    def list_deliveries(
        self,
        *,
        status: str | None = None,
        hook: str | None = None,
        point: str | None = None,
        run: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Document:
        """A page of executions of hooks, newest first."""
        return self._get(
            "hooks", "deliveries", status=status, hook=hook, point=point, run=run, limit=limit, cursor=cursor
        )

    def get_delivery(self, delivery_id: str) -> Document:
        """One execution of a hook."""
        return self._get("hooks", "deliveries", delivery_id)

    def redeliver(self, delivery_id: str) -> Document:
        """Sends a delivery again, under the same id → the delivery as it is then.

        Raises:
            Conflict: it was part of a run, or its hook is disabled or not there any more.
        """
        return self._document("POST", self._path("hooks", "deliveries", delivery_id, "redeliver"))

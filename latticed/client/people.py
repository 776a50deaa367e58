"""The verbs of workspaces, tokens and the audit trail."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from latticed.client.transport import Transport, path

Document = dict[str, Any]
EVERYWHERE = "*"
"""As a client's workspace: its tokens are those for all workspaces, and its audit trail is that of everything."""


class PeopleVerbs(ABC):
    """Who may come in, where, and what they did."""

    workspace: str
    _transport: Transport

    def whoami(self) -> Document:
        """Whom the daemon takes this token for."""
        return self._document("GET", path("v1", "whoami"))

    def list_workspaces(self, *, limit: int | None = None, cursor: str | None = None) -> Document:
        """A page of the workspaces that the token may see."""
        return self._document("GET", path("v1", "workspaces"), params={"limit": limit, "cursor": cursor})

    def create_workspace(self, name: str) -> Document:
        """Makes a workspace."""
        return self._document("POST", path("v1", "workspaces"), body={"name": name})

    def get_workspace(self, name: str | None = None) -> Document:
        """A workspace, this client's own unless another is named, with its limits and its use of them."""
        return self._document("GET", path("v1", "workspaces", name or self.workspace))

    def delete_workspace(self, name: str, *, force: bool = False) -> None:
        """Removes a workspace and all that it holds.

        Args:
            force: also if runs are active in it; they are stopped.

        Raises:
            Conflict: runs are active in it, and `force` is not given.
        """
        params = {"force": "true"} if force else None
        self._transport.request("DELETE", path("v1", "workspaces", name), params=params)

    def list_tokens(self, *, limit: int | None = None, cursor: str | None = None) -> Document:
        """A page of the workspace's tokens, without their texts."""
        return self._document("GET", self._scoped("tokens"), params={"limit": limit, "cursor": cursor})

    def get_token(self, token_id: str) -> Document:
        """A token of the workspace, without its text."""
        return self._document("GET", self._scoped("tokens", token_id))

    def create_token(
        self,
        role: str,
        *,
        name: str | None = None,
        lanes: Sequence[str] | None = None,
        expires_seconds: float | None = None,
    ) -> Document:
        """Makes a token of the workspace → its document with the text under `token`, which is shown this once.

        Args:
            role: `viewer`, `operator` or `admin`.
            lanes: which approvals it may answer; None is all.
        """
        given = {"role": role, "name": name, "lanes": lanes, "expires_seconds": expires_seconds}
        body = {name: value for name, value in given.items() if value is not None}
        return self._document("POST", self._scoped("tokens"), body=body)

    def revoke_token(self, token_id: str) -> None:
        """Ends a token's validity, its sessions and its streams."""
        self._transport.request("DELETE", self._scoped("tokens", token_id))

    def list_audit(
        self,
        *,
        action: str | None = None,
        principal: str | None = None,
        subject: str | None = None,
        since: str | None = None,
        until: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Document:
        """A page of who did what, newest first.

        Args:
            action: whole, or its beginning if it ends with a dot: `run.submit`, `run.`.
            principal: the name or the id of a token.
            subject: an id or a name.
            since, until: RFC 3339; `until` is not included.
        """
        params = {
            "action": action, "principal": principal, "subject": subject, "since": since, "until": until,
            "limit": limit, "cursor": cursor,
        }  # fmt: skip
        return self._document("GET", self._scoped("audit"), params=params)

    def export_audit(
        self,
        *,
        action: str | None = None,
        principal: str | None = None,
        subject: str | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> Iterator[Document]:
        """All who did what up to now, oldest first, as it comes. The arguments are those of `list_audit`.

        Raises:
            Unavailable: it broke off; what came so far is not all.
        """
        params = {
            "action": action, "principal": principal, "subject": subject, "since": since, "until": until,
            "format": "jsonl",
        }  # fmt: skip
        return self._transport.lines(self._scoped("audit"), params=params)

    def _scoped(self, *segments: str) -> str:
        return path("v1", *segments) if self.workspace == EVERYWHERE else self._path(*segments)

    @abstractmethod
    def _path(self, *segments: str) -> str: ...

    @abstractmethod
    def _document(self, method: str, where: str, **how: Any) -> Document: ...

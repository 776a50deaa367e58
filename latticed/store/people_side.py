"""What the facade asks of the store about people: workspaces, tokens, sessions, the audit trail."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Select, delete, exists, or_, select, tuple_, update
from sqlalchemy.dialects.sqlite import insert as insert_ignoring

from latticed.clock import to_text
from latticed.errors import Conflict, NotFound
from latticed.models.audit import Act
from latticed.models.people import EVERYWHERE, Principal
from latticed.models.records import Once
from latticed.models.views import token_view
from latticed.store import dialects as d
from latticed.store.engine_side import EngineSide
from latticed.store.idempotency import at_most_once
from latticed.store.tables import audit, sessions, tokens, workspaces
from latticed.store.transaction import Transaction

_ALIVE = (
    tokens.c.revoked_at.is_(None),
    or_(
        tokens.c.workspace == EVERYWHERE,
        exists().where(workspaces.c.name == tokens.c.workspace, workspaces.c.removed_at.is_(None)),
    ),
)
"""What a token must be to be worth anything, beside not expired; that is for the caller, who knows the time."""

_THERE = workspaces.c.removed_at.is_(None)

_USED = d.update_statement(
    ("id", "at"), lambda row: update(tokens).values(used_at=row["at"]).where(tokens.c.id == row["id"])
)


class PeopleSide(EngineSide):
    """Who may come in, where, and what they did."""

    async def list_workspaces(self, before: tuple[int, str] | None, limit: int, only: str | None) -> list[Any]:
        """Workspaces, newest first, from below a time of creation and a name."""
        age = (workspaces.c.created_at, workspaces.c.name)
        statement = select(workspaces).where(_THERE).order_by(*(column.desc() for column in age)).limit(limit)
        if before is not None:
            statement = statement.where(tuple_(*age) < before)
        if only is not None:
            statement = statement.where(workspaces.c.name == only)
        return list(await self.read(statement))

    async def create_workspace(self, name: str, by: Principal | str = "latticed", once: Once | None = None) -> bool:
        """Makes a workspace unless its key was used before; whether that was so.

        Raises:
            Conflict: it is there already, or not wholly gone; or the key was used with another body.
        """

        def work(t: Transaction) -> str:
            made = t.connection.execute(
                insert_ignoring(workspaces).values(name=name, created_at=t.now).on_conflict_do_nothing()
            )
            if made.rowcount == 0:
                found = t.connection.execute(select(workspaces.c.removed_at).where(workspaces.c.name == name)).one()
                if found.removed_at is None:
                    raise Conflict(f"there is a workspace {name!r} already")
                raise Conflict(f"workspace {name!r} is still being removed; its name is free again once it is gone")
            t.gone.discard(name)
            t.audit(EVERYWHERE, by, "workspace.create", name)
            return name

        created: tuple[str, bool] = await self.writer.submit(at_most_once(once, work))
        return created[1]

    async def find_workspace(self, name: str) -> Any | None:
        """A workspace, with `name` and `created_at` (microseconds)."""
        rows = await self.read(select(workspaces).where(workspaces.c.name == name, _THERE))
        return rows[0] if rows else None

    async def has_workspace(self, name: str) -> bool:
        """Whether there is such a workspace."""
        return await self.find_workspace(name) is not None

    async def add_token(
        self, values: dict[str, Any], by: Principal | str, once: Once | None = None
    ) -> tuple[str, bool]:  # fmt: skip
        """Keeps a token (its digest, not its text) unless its key was used before: (token id, whether that was so).

        Raises:
            NotFound: its workspace was removed.
            Conflict: the key was used with another body.
        """

        def work(t: Transaction) -> str:
            if values["workspace"] in t.gone:
                raise NotFound("there is no such workspace")
            t.connection.execute(tokens.insert().values(values))
            told = {key: values[key] for key in ("name", "role")}
            t.audit(values["workspace"], by, "token.create", values["id"], **told)
            made: str = values["id"]
            return made

        kept: tuple[str, bool] = await self.writer.submit(at_most_once(once, work))
        return kept

    async def find_token(self, digest: str) -> Principal | None:
        """Who holds the token with this sha256, unless it was revoked or its workspace removed."""
        rows = await self.read(select(tokens).where(tokens.c.digest == digest, *_ALIVE))
        return _principal(rows[0], rows[0].expires_at) if rows else None

    async def has_tokens(self) -> bool:
        """Whether any token was ever made."""
        return bool(await self.read(select(tokens.c.id).limit(1)))

    async def list_tokens(self, workspace: str, before: str | None, limit: int) -> list[dict[str, Any]]:
        """Tokens of a workspace, newest first, each as models.people.Token."""
        statement = select(tokens).where(tokens.c.workspace == workspace)
        return [token_view(row) for row in await self.read(newest_first(statement, tokens.c.id, before).limit(limit))]

    async def find_token_view(self, workspace: str, token_id: str) -> dict[str, Any] | None:
        """A token of a workspace as models.people.Token."""
        rows = await self.read(select(tokens).where(tokens.c.id == token_id, tokens.c.workspace == workspace))
        return token_view(rows[0]) if rows else None

    async def revoke_token(self, workspace: str, token_id: str, by: Principal) -> bool:
        """Ends a token and its sessions; False if there is none in this workspace."""

        def work(t: Transaction) -> bool:
            where = (tokens.c.id == token_id, tokens.c.workspace == workspace)
            found = t.connection.execute(select(tokens.c.revoked_at).where(*where)).first()
            if found is None:
                return False
            if found.revoked_at is None:
                t.connection.execute(update(tokens).where(*where).values(revoked_at=t.now))
                t.connection.execute(delete(sessions).where(sessions.c.token_id == token_id))
                t.audit(workspace, by, "token.revoke", token_id)
            return True

        revoked: bool = await self.writer.submit(work)
        return revoked

    async def add_session(self, digest: str, expires_at: int, by: Principal) -> None:
        """Keeps a browser's session (the digest of its cookie, not the cookie)."""

        def work(t: Transaction) -> None:
            t.connection.execute(
                sessions.insert().values(
                    digest=digest, token_id=by.token_id, created_at=t.now, expires_at=expires_at
                )
            )  # fmt: skip
            t.audit(by.workspace, by, "session.create", by.token_id, expires_at=to_text(expires_at))

        await self.writer.submit(work)

    async def find_session(self, digest: str) -> Principal | None:
        """Who is signed in by the cookie with this sha256, unless the token is worth nothing any more. The principal's
        expiry is the session's, which is never later than the token's."""
        statement = (
            select(tokens, sessions.c.expires_at.label("until"))
            .join_from(sessions, tokens, tokens.c.id == sessions.c.token_id)
            .where(sessions.c.digest == digest, *_ALIVE)
        )
        rows = await self.read(statement)
        return _principal(rows[0], rows[0].until) if rows else None

    async def end_session(self, digest: str, by: Principal) -> None:
        """Ends a session, if it is there."""

        def work(t: Transaction) -> None:
            if t.connection.execute(delete(sessions).where(sessions.c.digest == digest)).rowcount:
                t.audit(by.workspace, by, "session.delete", by.token_id)

        await self.writer.submit(work)

    async def note(self, acts: Sequence[Act], used: Mapping[str, int]) -> None:
        """Writes acts that belong to no change, and when tokens were last used, by their ids."""

        def work(t: Transaction) -> None:
            _USED.execute(t.connection, list(used.items()))
            t.acts += acts

        await self.writer.submit(work)

    async def list_audit(
        self, workspace: str | None, filters: Mapping[str, Any], *, before: int | None = None, after: int | None = None,
        limit: int,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Rows of the audit trail of a workspace, or of all, each as models.audit.AuditRow: newest first from below
        `before`, or with `after` oldest first from above it."""
        statement = select(audit).where(*_wanted(filters)).limit(limit)
        if workspace is not None:
            statement = statement.where(audit.c.workspace == workspace)
        if after is not None:
            statement = statement.where(audit.c.id > after).order_by(audit.c.id)
        else:
            statement = newest_first(statement, audit.c.id, before)
        return [_audit_view(row) for row in await self.read(statement)]


def _principal(row: Any, expires_at: int | None) -> Principal:
    lanes = None if row.lanes is None else tuple(orjson.loads(row.lanes))
    return Principal(row.id, row.name, row.role, row.workspace, lanes, expires_at)


def _wanted(filters: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    for name, value in filters.items():
        match name:
            case "action":
                whole = not value.endswith(".")
                found.append(audit.c.action == value if whole else audit.c.action.startswith(value, autoescape=True))
            case "principal":
                found.append(or_(audit.c.principal == value, d.json_text(audit.c.detail, "token_id") == value))
            case "subject":
                found.append(audit.c.subject == value)
            case "since":
                found.append(audit.c.at >= value)
            case "until":
                found.append(audit.c.at < value)
    return found


def newest_first(statement: Select[Any], column: Any, before: Any) -> Select[Any]:
    """Newest first, from below a cursor."""
    return (statement if before is None else statement.where(column < before)).order_by(column.desc())


def _audit_view(row: Any) -> dict[str, Any]:
    detail = orjson.loads(row.detail)
    return {
        "id": row.id,
        "at": to_text(row.at),
        "workspace": row.workspace,
        "principal": row.principal or None,
        "token_id": detail.pop("token_id", None),
        "action": row.action,
        "subject": row.subject,
        "detail": detail,
    }

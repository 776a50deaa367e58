"""Creating something once: the key of a request is kept with what it made, in one transaction."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, select

from latticed.errors import Busy, Conflict
from latticed.models.records import Once
from latticed.store.tables import idempotency_keys
from latticed.store.transaction import Transaction

DAY = 86_400_000_000
"""How long a key is remembered."""


def _mine(once: Once) -> tuple[ColumnElement[bool], ...]:
    k = idempotency_keys.c
    return (k.workspace == once.workspace, k.route == once.route, k.key == once.key)


def lookup(once: Once) -> Select[Any]:
    """The row of a key, if there is one; for `made_by`."""
    k = idempotency_keys.c
    return select(k.fingerprint, k.run_id, k.created_at).where(*_mine(once))


def made_by(found: Any, once: Once, now: int) -> str | None:
    """The id of what the key of this row has made in the last 24 hours; None if it may be used.

    Raises:
        Conflict: it was used with another body.
    """
    if found is None or found.created_at <= now - DAY:
        return None
    if found.fingerprint != once.fingerprint:
        raise Conflict(f"the idempotency key {once.key!r} was used with another body; use a new key")
    made: str = found.run_id
    return made


def at_most_once(
    once: Once | None, create: Callable[[Transaction], str], refusal: Busy | None = None
) -> Callable[[Transaction], tuple[str, bool]]:  # fmt: skip
    """The work of a writer: makes something unless the key has made it before → (its id, whether that was so).

    `create` gives the id of what it made. `refusal` is raised in place of making anything, but not of a replay.
    """

    def work(t: Transaction) -> tuple[str, bool]:
        found = None if once is None else t.connection.execute(lookup(once)).first()
        if once is not None and (used := made_by(found, once, t.now)) is not None:
            return used, True
        if refusal is not None:
            raise refusal
        made = create(t)
        if once is not None:
            if found is not None:
                t.connection.execute(delete(idempotency_keys).where(*_mine(once)))
            t.connection.execute(idempotency_keys.insert().values(**once._asdict(), run_id=made, created_at=t.now))
        return made, False

    return work

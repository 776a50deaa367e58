"""The rows of hooks' executions, written in the transaction of what they are about."""

from collections.abc import Sequence

from sqlalchemy import Connection

from latticed.models.hooks import DeliveryRow
from latticed.store import dialects as d
from latticed.store.tables import hook_deliveries

_DELIVERY = d.insert_statement(hook_deliveries, DeliveryRow._fields, replace=True)


def keep(connection: Connection, rows: Sequence[DeliveryRow]) -> None:
    """Writes executions; one with an id that is there already takes its place."""
    if rows:
        _DELIVERY.execute(connection, rows)

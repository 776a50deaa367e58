"""Reading: queries on connections that can write nothing, beside the writer."""

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine

from latticed.store.dialects import Prepared
from latticed.store.faults import translate
from latticed.store.spawning import AsyncEngine

HELD = 2
"""Connections that are kept for prepared queries."""


class Reader:
    """The readers' pool. A prepared query is one hop to a connection's thread, any other statement is five."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._held: list[tuple[Connection, Any]] = []
        self._turn = 0
        self._opening = asyncio.Lock()

    async def rows(self, statement: Any, parameters: dict[str, Any] | None = None) -> Sequence[Any]:
        """Rows of a statement that writes nothing.

        Raises:
            Unavailable: the store is away.
        """
        try:
            return await self._engine.run(_all, statement, parameters or {})
        except Exception as error:
            raise translate(error) from error

    async def fetch(self, query: Prepared, **parameters: Any) -> list[Any]:
        """Rows of a prepared query.

        Raises:
            Unavailable: the store is away.
        """
        try:
            driver = await self._driver()
            return query.rows(await driver.execute_fetchall(query.text, query.constants | parameters))
        except Exception as error:
            await self._let_go()
            raise translate(error) from error

    async def _driver(self) -> Any:
        """The next of the kept connections, as its driver knows it."""
        if len(self._held) < HELD:
            async with self._opening:
                if len(self._held) < HELD:
                    self._held.append(await self._engine.run(_open))
        self._turn = (self._turn + 1) % len(self._held)
        return self._held[self._turn][1]

    async def _let_go(self) -> None:
        held, self._held = self._held, []
        for connection, _ in held:
            await self._engine.run(lambda _, connection: connection.close(), connection)

    async def close(self) -> None:
        """Closes all connections."""
        await self._let_go()
        await self._engine.dispose()


def _all(engine: Engine, statement: Any, parameters: dict[str, Any]) -> Sequence[Any]:
    with engine.connect() as connection:
        return connection.execute(statement, parameters).all()


def _open(engine: Engine) -> tuple[Connection, Any]:
    """A connection, and the same as its driver knows it."""
    connection = engine.connect()
    return connection, connection.connection.driver_connection

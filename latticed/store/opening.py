"""Opening a store: the lock, the schema's version, the engines, the writer."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.engine import URL, make_url

from latticed.clock import Clock
from latticed.errors import Invalid
from latticed.models.matching import HookIndex
from latticed.models.records import Commit
from latticed.store import migrating
from latticed.store.facade_side import FacadeSide
from latticed.store.faults import translate
from latticed.store.hooks_side import HooksSide
from latticed.store.reading import Reader
from latticed.store.sqlite import Lock, reading_engine, writing_engine
from latticed.store.writer import Writer


class Store(FacadeSide, HooksSide):
    """An open store."""

    def __init__(self, writer_engine: Engine, reader: Reader, clock: Clock, lock: Lock | None) -> None:
        self.reader = reader
        self._writer_engine = writer_engine
        self._clock = clock
        self._lock = lock

    def start(
        self, on_commit: Callable[[Commit], None], observe: Callable[[int, float], None] = lambda n, seconds: None
    ) -> None:
        """Starts the writer; `on_commit` is told everything that becomes true, in order."""
        self.writer = Writer(self._writer_engine, self._clock, on_commit, observe)

    def ask_hooks(self, hooks: HookIndex) -> None:
        """From the next transaction on these hooks, and no others, are told what becomes true."""
        self.writer.hooks = hooks

    async def ping(self) -> None:
        """Passes through the writer and back.

        Raises:
            Unavailable: the store is away.
        """
        await self.writer.submit(lambda t: t.connection.execute(text("SELECT 1")).scalar())

    async def check(self) -> None:
        """Passes through a reader and the writer; both must answer.

        Raises:
            Unavailable: the store is away.
        """
        await self.read(text("SELECT 1"))
        await self.ping()

    async def close(self) -> None:
        """Commits what is ordered, closes all connections and gives the lock back."""
        if hasattr(self, "writer"):
            await self.writer.close()
        await self.reader.close()
        self._writer_engine.dispose()
        if self._lock is not None:
            self._lock.release()


def database_path(url: str | URL) -> Path:
    """The file of an SQLite URL."""
    database = make_url(url).database
    if not database:
        raise Invalid("store.url names no file")
    return Path(database)


def upgrade(url: str) -> str:
    """Brings the schema to this program's version, under the lock; says what was done.

    Raises:
        Unavailable: another process uses the database, or it cannot be opened.
        WrongVersion: the database is newer than the program.
    """
    lock = Lock(database_path(url))
    engine = writing_engine(make_url(url))
    try:
        return migrating.upgrade(engine)
    except Exception as error:
        raise translate(error) from error
    finally:
        engine.dispose()
        lock.release()


async def open_store(url: str, clock: Clock, *, exclusive: bool = True) -> Store:
    """Opens (and, if exclusive, brings up to date) the store at `url`.

    Raises:
        Unavailable: another process uses the database, or it cannot be opened.
        WrongVersion: the database is newer than the program, or (not exclusive) older.
    """
    parsed = make_url(url)
    lock = Lock(database_path(parsed)) if exclusive else None
    engine = writing_engine(parsed)
    work: Callable[[Engine], Any] = partial(migrating.upgrade, apart=True) if exclusive else migrating.check
    try:
        await asyncio.to_thread(work, engine)
    except Exception as error:
        engine.dispose()
        if lock is not None:
            lock.release()
        raise translate(error) from error
    return Store(engine, Reader(reading_engine(parsed)), clock, lock)

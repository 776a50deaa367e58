"""Opening a store: the lock, the schema's version, the engines, the writer."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, text
from sqlalchemy.engine import URL, make_url

from latticed.clock import Clock
from latticed.errors import Invalid
from latticed.models.matching import HookIndex
from latticed.models.records import Commit
from latticed.store import migrating
from latticed.store.facade_side import FacadeSide
from latticed.store.faults import CannotOpen, cannot_open, translate
from latticed.store.hooks_side import HooksSide
from latticed.store.limits_side import LimitsSide
from latticed.store.pruner_side import PrunerSide
from latticed.store.reading import Reader
from latticed.store.sqlite import (
    BUSY_SECONDS,
    Lock,
    lay_out_journal,
    make_private,
    prove_writable,
    reading_engine,
    touch,
    writing_engine,
)
from latticed.store.writer import Writer


class Store(FacadeSide, LimitsSide, PrunerSide, HooksSide):
    """An open store."""

    def __init__(self, writer_engine: Engine, reader: Reader, clock: Clock, lock: Lock | None) -> None:
        self.reader = reader
        self._writer_engine = writer_engine
        self.clock = clock
        self._lock = lock

    def start(
        self, on_commit: Callable[[Commit], None], observe: Callable[[int, float], None] = lambda n, seconds: None
    ) -> None:
        """Starts the writer; `on_commit` is told everything that becomes true, in order."""
        self.writer = Writer(self._writer_engine, self.clock, on_commit, observe)

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
        """Reads something, and commits a write that changes nothing: what cannot be written may still be read.

        Raises:
            Unavailable: the store is away.
        """
        await self.read(text("SELECT 1"))
        await self.writer.submit(lambda t: touch(t.connection))

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


def _find(path: Path) -> None:
    """Looks that a database is there, which opening it would make."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise CannotOpen(f"there is no database {path}; name the daemon's own state directory, or start it") from None
    except OSError:
        return  # Opening it will say why.


def upgrade(url: str, busy_seconds: float = BUSY_SECONDS) -> str:
    """Brings the schema to this program's version, under the lock; says what was done.

    Raises:
        Unavailable: another process uses the database.
        CannotOpen: it cannot be opened, or not written.
        WrongVersion: the database is newer than the program.
    """
    path = database_path(url)
    lock = Lock(path)
    make_private(path)
    engine = writing_engine(make_url(url), busy_seconds)
    try:
        return migrating.upgrade(engine)
    except Exception as error:
        if (fault := cannot_open(error, path)) is None:
            raise
        raise fault from error
    finally:
        engine.dispose()
        lock.release()


async def open_store(url: str, clock: Clock, *, exclusive: bool = True, busy_seconds: float = BUSY_SECONDS) -> Store:
    """Opens (and, if exclusive, brings up to date) the store at `url`. A write waits for another program's lock for at
    most `busy_seconds`.

    Raises:
        Unavailable: another process uses the database, or (not exclusive) it cannot be opened.
        CannotOpen: it cannot be opened, or not written, or (not exclusive) is not there.
        WrongVersion: the database is newer than the program, or (not exclusive) older.
    """
    parsed = make_url(url)
    if not exclusive:
        _find(database_path(parsed))
    lock = Lock(database_path(parsed)) if exclusive else None
    engine = writing_engine(parsed, busy_seconds)

    def prepare() -> None:
        if exclusive:
            make_private(database_path(parsed))
            prove_writable(engine)
            migrating.upgrade(engine, apart=True)
            lay_out_journal(engine, database_path(parsed))
        else:
            migrating.check(engine)

    try:
        await asyncio.to_thread(prepare)
    except Exception as error:
        engine.dispose()
        if lock is not None:
            lock.release()
        fault = cannot_open(error, database_path(parsed)) if exclusive else translate(error)
        if fault is None:
            raise
        raise fault from error
    return Store(engine, Reader(reading_engine(parsed, busy_seconds)), clock, lock)

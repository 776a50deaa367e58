"""SQLite: engines, pragmas and the lock that keeps a second daemon out."""

import fcntl
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import StaticPool

from latticed import forks
from latticed.errors import Unavailable
from latticed.store.faults import CannotOpen
from latticed.store.spawning import AsyncEngine, create_async_engine

BUSY_SECONDS = 2.0
READERS = 4
CHECKPOINT_PAGES = 4000
"""Pages in the journal that make the writer move them into the database: the more there are, the more often a page was
written again meanwhile and need not be moved. 16 MB, which a start after a crash reads in a twentieth of a second."""
STATEMENTS = 96
"""Prepared statements that the writer keeps: a set-valued one has a text for each number of rows, so that under load a
few dozen are in use, and to prepare one takes longer than to run it."""
JOURNAL_BYTES = (CHECKPOINT_PAGES + 96) * 4096
LEFT_FREE = 16
"""The journal is laid out only where it takes at most this part of the space that is free."""


def lock_path(database: Path) -> Path:
    """Where the lock of a database lies: beside it."""
    return database.with_name(database.name + ".lock")


class Lock:
    """`<db>.lock`, held for as long as the process lives; no process that it starts, or forks off, inherits it."""

    def __init__(self, database: Path) -> None:
        """Takes the lock.

        Raises:
            Unavailable: another process holds it.
            CannotOpen: its file cannot be written.
        """
        self.path = lock_path(database)
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CannotOpen(f"cannot open {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._file)
            raise Unavailable(f"{database} is locked by another latticed (process {holder}); stop it first") from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        forks.withhold(self._file)

    def release(self) -> None:
        """Gives the lock back."""
        forks.forget(self._file)
        os.close(self._file)


def make_private(database: Path) -> None:
    """Makes the file of a new database its owner's alone, wherever it lies; the journal's files take after it. One that
    is there keeps the rights that it was given, and why none can be made is for whoever opens it to say."""
    with suppress(OSError):
        os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _set(engine: Engine, *pragmas: str) -> None:
    """Has every connection begin with these."""

    def set_pragmas(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine, "connect", set_pragmas)


def _busy(seconds: float) -> str:
    return f"busy_timeout = {int(seconds * 1000)}"


def _checkpoint(pages: int) -> str:
    return f"wal_autocheckpoint = {pages}"


def _driver(connection: Connection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, connection.connection.driver_connection)


def begun(connection: Connection) -> bool:
    """Whether a transaction is open."""
    return _driver(connection).in_transaction


def begin(connection: Connection) -> None:
    """Begins a transaction IMMEDIATE, and so do Core's own. What Core does around it is spared: for a commit of one
    step that is a twentieth of its time."""
    driver = _driver(connection)
    if not driver.in_transaction:
        driver.execute("BEGIN IMMEDIATE")


def commit(connection: Connection) -> None:
    """Commits what was begun, by whomever."""
    if connection.in_transaction():
        connection.commit()
    else:
        _driver(connection).commit()


def roll_back(connection: Connection) -> None:
    """Takes back what was begun, by whomever; nothing if nothing was."""
    connection.rollback()
    _driver(connection).rollback()


def writing_engine(url: URL, busy_seconds: float = BUSY_SECONDS) -> Engine:
    """The engine of the one writing connection, which begins every transaction IMMEDIATE."""
    engine = create_engine(
        url.set(drivername="sqlite"),
        poolclass=StaticPool,
        # The connection lives in the writer's thread; the driver's own transactions are off.
        connect_args={"isolation_level": None, "check_same_thread": False, "cached_statements": STATEMENTS},
    )
    # WAL lets readers read while the writer writes; FULL makes each commit an fsync.
    _set(
        engine, _busy(busy_seconds), "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON",
        "cache_size = -512", "temp_store = MEMORY", _checkpoint(CHECKPOINT_PAGES),
    )  # fmt: skip
    event.listen(engine, "begin", begin)
    return engine


def reading_engine(url: URL, busy_seconds: float = BUSY_SECONDS) -> AsyncEngine:
    """The engine of the readers, which can write nothing."""
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        pool_size=READERS,
        max_overflow=0,
        pool_timeout=30,
        # Nothing to roll back, which would be two more hops to the connection's thread for every read.
        pool_reset_on_return=None,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        connect_args={"isolation_level": None},
    )
    _set(engine.sync_engine, _busy(busy_seconds), "query_only = ON", "cache_size = -256")
    return engine


class Patience:
    """Whether the writing connection waits for another program's write, and a commit may stay to move a journal that
    has grown long into the database. It does, at first."""

    def __init__(self) -> None:
        self._waits = True
        self._busy = ""

    def set(self, connection: Connection, waits: bool) -> None:
        """Changes it, between two transactions."""
        if waits is self._waits:
            return
        execute = _driver(connection).execute
        if waits:
            pragmas = self._busy, _checkpoint(CHECKPOINT_PAGES)
        else:
            self._busy = f"busy_timeout = {execute('PRAGMA busy_timeout').fetchone()[0]}"
            pragmas = "busy_timeout = 0", _checkpoint(0)
        for pragma in pragmas:
            execute(f"PRAGMA {pragma}")
        self._waits = waits


def prove_writable(engine: Engine) -> None:
    """Commits a write that changes nothing: a read-only database takes BEGIN IMMEDIATE for BEGIN, and only what is kept
    meets a full disk.

    Raises:
        DBAPIError: it cannot be written.
    """
    with engine.connect() as connection:
        touch(connection)
        connection.commit()


def lay_out_journal(engine: Engine, database: Path) -> None:
    """Fills the journal's file with zeros up to the size that it grows to anyway: an fsync of what overwrites blocks
    that were written before takes half the time of one that makes the file longer, whose new blocks and size the file
    system has to keep too. SQLite reads no further than the last frame of its own (its file format, 4.3).

    Under the write lock, since another process might lengthen the journal meanwhile. Only speed depends on it: where
    there is no room for it, the journal grows by itself.
    """
    path = database.with_name(database.name + "-wal")
    with engine.begin(), suppress(OSError), path.open("r+b", buffering=0) as journal:
        size = journal.seek(0, os.SEEK_END)
        space = os.fstatvfs(journal.fileno())
        if size < JOURNAL_BYTES <= space.f_bavail * space.f_frsize // LEFT_FREE:
            journal.write(bytes(JOURNAL_BYTES - size))


def touch(connection: Connection) -> None:
    """Writes what is there already: a page, in the transaction that is open."""
    connection.exec_driver_sql("PRAGMA user_version = 0")


def version() -> tuple[int, ...]:
    """The version of the SQLite library in use."""
    return sqlite3.sqlite_version_info

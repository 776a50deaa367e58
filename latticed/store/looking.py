"""A look at a database that takes no lock and writes nothing: what is there, whether it is whole, and who has it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from latticed.store.faults import cannot_open, translate
from latticed.store.migrating import HEAD
from latticed.store.opening import database_path
from latticed.store.sqlite import lock_path

LOCKS = Path("/proc/locks")
"""The kernel's list of who holds which lock: to try the lock would be to take it, and keep out a daemon that starts."""


class Found(NamedTuple):
    """A database as it was found."""

    revision: str | None
    """None: it has no schema yet."""
    damage: str | None
    """The first thing that `PRAGMA quick_check` complains about."""
    head: str = HEAD
    """The revision that this program wants; older ones are smaller."""


def look(url: str) -> Found | None:
    """What is at `url`; None if nothing is there.

    Raises:
        CannotOpen: it cannot be read, or is no database.
        Unavailable: another program has locked it.
    """
    path = database_path(url)
    if not path.exists():
        return None
    # Where there is no index of a journal nobody has it open, and SQLite would make both, only to read, and leave them.
    how = "readonly_shm=1" if path.with_name(path.name + "-shm").exists() else "immutable=1"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro&{how}", uri=True)) as database:
            (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
            known = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            row = database.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
    except sqlite3.Error as error:
        raise cannot_open(error, path) or translate(error) from error
    return Found(row[0] if row else None, None if said == "ok" else said)


def holder(url: str) -> str | None:
    """The pid of who holds the lock of the database at `url`, as it wrote it there; None if nobody does."""
    path = lock_path(database_path(url))
    try:
        pid, file = path.read_text("ascii", "replace").strip(), path.stat()
    except OSError:
        return None
    try:
        locks = [line.split() for line in LOCKS.read_text().splitlines()]
    except OSError:  # Without that list: whether it is still alive.
        return pid if pid.isdigit() and Path(f"/proc/{pid}").exists() else None
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
    for _, sort, _, _, owner, place, *_ in (each for each in locks if each[1] != "->"):
        where, _, inode = place.rpartition(":")
        # Some file systems have another device here than there.
        if sort == "FLOCK" and inode == str(file.st_ino) and (where == device or owner == pid):
            return pid or owner
    return None

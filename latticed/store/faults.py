"""Driver errors, translated at the boundary by code, never by their text."""

import sqlite3

from sqlalchemy.exc import DBAPIError

from latticed.errors import Internal, LatticedError, Unavailable

_AWAY: dict[int, str] = {
    sqlite3.SQLITE_BUSY: "the database is locked by another process",
    sqlite3.SQLITE_LOCKED: "the database is locked",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the database is read-only",
    sqlite3.SQLITE_IOERR: "the disk does not read or write",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
    sqlite3.SQLITE_PERM: "the database file may not be used",
    sqlite3.SQLITE_AUTH: "the database file may not be used",
    sqlite3.SQLITE_PROTOCOL: "the database is locked by another process",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged",
    sqlite3.SQLITE_NOTADB: "the database file is damaged",
}
"""Primary result codes that say the store cannot be used now, whoever asks."""
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}


class CannotOpen(LatticedError):
    """The store cannot be opened."""


def translate(error: BaseException) -> LatticedError:
    """A driver's error → one of ours: `Unavailable` with the reason if the store is away, else `Internal`."""
    if isinstance(error, LatticedError):
        return error
    if reason := _AWAY.get(_code(error)):
        return Unavailable(f"the store is away: {reason}; nothing was written, try again")
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return Unavailable("the store is away: the connection is lost; nothing was written, try again")
    ours = Internal()
    ours.__cause__ = error
    return ours


def cannot_open(error: BaseException, path: object) -> LatticedError | None:
    """What keeps a program from having the store at `path` for itself: `Unavailable` if another has locked it, else
    `CannotOpen` with the reason; None if it is something that nobody has thought of."""
    if isinstance(error, LatticedError):
        return error
    if _code(error) in _LOCKED:
        return translate(error)
    if reason := _AWAY.get(_code(error)):
        return CannotOpen(f"cannot open {path}: {reason}")
    return None


def _code(error: BaseException) -> int:
    """SQLite's primary result code; -1 for what does not come from there."""
    driver_error = error.orig if isinstance(error, DBAPIError) else error
    code: int = getattr(driver_error, "sqlite_errorcode", -1)
    return code & 0xFF if code >= 0 else code

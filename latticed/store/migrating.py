"""The schema's version: checked at each start with one query, changed by Alembic only when it is behind.

A daemon lets another process do that (`__main__.py`): Alembic would cost it 9 MB for as long as it runs.
"""

import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from latticed.errors import LatticedError, Unavailable
from latticed.failpoints import hit
from latticed.store.faults import CannotOpen

HEAD = "0004"
"""The newest revision in `migrations/`; a test compares."""


class WrongVersion(LatticedError):
    """The database belongs to another version of latticed."""


def scripts() -> Path:
    """Where the migrations are: inside the installed wheel, or beside the package in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "_migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _newer(revision: str) -> WrongVersion:
    return WrongVersion(
        f"the database is newer ({revision}) than this latticed ({HEAD}); "
        "install the latticed that last used it, or a newer one"
    )


def check(engine: Engine) -> None:
    """Checks that the schema is this program's.

    Raises:
        WrongVersion: it is not.
    """
    with engine.connect() as connection:
        revision = _revision(connection)
    if revision is None or revision < HEAD:
        raise WrongVersion(
            "the database is older than this latticed, or empty; run `latticed migrate` or start the daemon"
        )
    if revision > HEAD:
        raise _newer(revision)


@contextmanager
def _deaf() -> Generator[None]:
    """What is started inside does not hear the signals that are the daemon's, though whoever stops a daemon may send
    them to the whole process group. A thread's mask is inherited, so there is no moment at which it would."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def upgrade(engine: Engine, *, apart: bool = False) -> str:
    """Brings the schema to `HEAD`, or lets another process do it (`apart`); says what was done.

    Raises:
        WrongVersion: the database is newer than the program.
        Unavailable: another process has locked the database.
        CannotOpen: the process that does it has failed.
    """
    with engine.connect() as connection:
        revision = _revision(connection)
    if revision == HEAD:
        return f"the database is up to date ({HEAD})"
    if revision is not None and revision > HEAD:
        raise _newer(revision)
    if apart:
        engine.dispose()
        url = engine.url.render_as_string(hide_password=False)
        hit("migrate.before")
        with _deaf():
            done = subprocess.run([sys.executable, "-m", "latticed.store", url], stderr=subprocess.PIPE, text=True)
        hit("migrate.after")
        if done.returncode != 0:
            said = done.stderr.strip().rpartition("\n")[2] or f"the migration ended with {done.returncode}"
            raise Unavailable(said) if done.returncode == Unavailable.exit_code else CannotOpen(said)
        return f"the database is now {HEAD}"
    from alembic import command  # late: 100 ms that a start with an up-to-date database need not pay
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts()))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    return f"the database is now {HEAD}" + (f", was {revision}" if revision else "")

"""The migrations make the schema that the code sees, also of a database with runs of the first version."""

import importlib.util
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from latticed.store import migrating, upgrade
from latticed.store.tables import metadata


def _words(statement: str) -> list[str]:
    """The parts of a CREATE statement, whatever their order: SQLite adds a column at the end."""
    flat = re.sub(r"\s+", " ", statement.replace('"', "")).strip()
    head, _, body = flat.partition("(")
    parts = re.split(r",(?![^(]*\))", body.rstrip().removesuffix(")"))
    return [head.strip(), *sorted(part.strip() for part in parts)]


def _url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def _scripts() -> list[Any]:
    """The migrations as modules, oldest first."""
    modules = []
    for path in sorted((migrating.scripts() / "versions").glob("*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        modules.append(module)
    return modules


def test_the_newest_migration_is_the_one_that_the_code_wants() -> None:
    scripts = _scripts()
    assert [script.down_revision for script in scripts] == [None, *(script.revision for script in scripts[:-1])]
    assert scripts[-1].revision == migrating.HEAD


def test_a_database_of_the_first_version_keeps_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "latticed.db"
    with sqlite3.connect(path) as db:
        for statement in _scripts()[0].STATEMENTS:
            db.execute(statement)
        db.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        db.execute("INSERT INTO alembic_version VALUES ('0001')")
        db.execute("INSERT INTO workspaces (name, created_at) VALUES ('default', 7)")
        for seq in (1, 2):
            db.execute("INSERT INTO events VALUES (?, 'run_1', ?, 'log', 7, 'default', 'agent', '{}')", (40 + seq, seq))
        db.execute("DELETE FROM events WHERE position = 42")
        step = ("run_1", 1, "step", "", "one", 0, "ok", 1, 1, 7, 8, None, "[1]", "null")
        db.execute(f"INSERT INTO steps VALUES ({', '.join('?' * len(step))})", step)
    db.close()
    assert upgrade(_url(path)) == f"the database is now {migrating.HEAD}, was 0001"
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT name, created_at, removed_at FROM workspaces").fetchall() == [("default", 7, None)]
        assert db.execute("SELECT * FROM events").fetchall() == [(41, "run_1", 1, "log", 7, "default", "agent", "{}")]
        assert db.execute("SELECT * FROM floors").fetchall() == [("events.position", 42)]
        assert db.execute("SELECT * FROM steps").fetchall() == [step]
    db.close()


def test_the_migrations_make_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "latticed.db"
    upgrade(_url(path))
    with sqlite3.connect(path) as db:
        made = db.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' "
            "AND name <> 'alembic_version'"
        )
        found = {name: _words(sql) for name, sql in made}
    db.close()
    dialect = sqlite.dialect()  # type: ignore[no-untyped-call]
    wanted = {}
    for table in metadata.tables.values():
        wanted[table.name] = _words(str(CreateTable(table).compile(dialect=dialect)))
        for index in table.indexes:
            wanted[str(index.name)] = _words(str(CreateIndex(index).compile(dialect=dialect)))
    assert found == wanted


KILLED = """
import os, signal, sys
from alembic import op

execute, left = op.execute, [int(sys.argv[2])]

def dying(statement):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    execute(statement)

op.execute = dying
from latticed.store import upgrade
upgrade(sys.argv[1])
"""


@pytest.mark.parametrize("nth", [5, 11])
def test_an_upgrade_that_is_killed_has_changed_nothing(tmp_path: Path, nth: int) -> None:
    path = tmp_path / "latticed.db"
    *before, newest = _scripts()
    assert nth <= len(newest.STATEMENTS)
    with sqlite3.connect(path) as db:
        for statement in [statement for script in before for statement in script.STATEMENTS]:
            db.execute(statement)
        db.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        db.execute("INSERT INTO alembic_version VALUES (?)", (before[-1].revision,))
        db.execute("INSERT INTO events VALUES (41, 'run_1', 1, 'log', 7, 'default', 'agent', '{}')")
        there = db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    db.close()
    died = subprocess.run([sys.executable, "-c", KILLED, _url(path), str(nth)], check=False)
    assert died.returncode == -signal.SIGKILL
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall() == there
        assert db.execute("SELECT version_num FROM alembic_version").fetchall() == [(before[-1].revision,)]
    db.close()
    assert upgrade(_url(path)) == f"the database is now {migrating.HEAD}, was {before[-1].revision}"
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT position FROM events").fetchall() == [(41,)]
    db.close()

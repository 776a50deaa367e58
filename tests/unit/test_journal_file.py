"""The store's write-ahead journal is laid out before it is used, and what it held when a process died still counts."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from latticed.clock import SystemClock
from latticed.store import open_store, sqlite
from latticed.store.tables import workspaces


async def _opened(database: Path) -> Any:
    store = await open_store(f"sqlite+aiosqlite:///{database}", SystemClock())
    store.start(lambda commit: None)
    return store


def _journal(database: Path) -> Path:
    return database.with_name(database.name + "-wal")


async def test_it_has_its_size_before_the_first_commit(tmp_path: Path) -> None:
    store = await _opened(tmp_path / "a.db")
    assert _journal(tmp_path / "a.db").stat().st_size == sqlite.JOURNAL_BYTES
    await store.close()


async def test_what_a_dead_process_committed_is_there_behind_it_nothing(tmp_path: Path) -> None:
    store = await _opened(tmp_path / "a.db")
    await store.writer.submit(
        lambda t: t.connection.execute(workspaces.insert().values(name="kept", created_at=t.now)) and None
    )
    for name in ("a.db", "a.db-wal"):  # As they are on disk when a process is killed here.
        shutil.copy(tmp_path / name, tmp_path / name.replace("a", "b", 1))
    await store.close()
    again = await _opened(tmp_path / "b.db")
    assert "kept" in {row.name for row in await again.read(select(workspaces.c.name))}
    assert _journal(tmp_path / "b.db").stat().st_size == sqlite.JOURNAL_BYTES
    await again.close()


async def test_it_leaves_a_small_file_system_its_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstatvfs

    def nearly_full(file: int) -> os.statvfs_result:
        told = list(real(file))
        told[4] = sqlite.JOURNAL_BYTES * (sqlite.LEFT_FREE - 1) // told[1]  # f_bavail, in blocks of f_frsize
        return os.statvfs_result(told)

    monkeypatch.setattr(os, "fstatvfs", nearly_full)
    store = await _opened(tmp_path / "a.db")
    assert _journal(tmp_path / "a.db").stat().st_size < sqlite.JOURNAL_BYTES
    await store.close()

"""Small files, on disk with their names."""

import os
import stat
from pathlib import Path

import pytest

from latticed.files import write_private


def test_a_file_is_on_disk_and_then_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[bool, list[str]]] = []

    def fsync(number: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(number).st_mode), os.listdir(tmp_path)))

    monkeypatch.setattr(os, "fsync", fsync)
    write_private(tmp_path / "key", "secret", 0o600)
    assert synced == [(False, ["key.part"]), (True, ["key"])]
    assert (tmp_path / "key").read_text() == "secret"

"""What the digest agent finds out about one file, and what becomes of all of it."""

import hashlib
import mimetypes
from collections.abc import Iterable
from typing import Any

import orjson

SNIFF_BYTES = 8 << 10
MAGIC = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"%PDF-": "application/pdf",
    b"PK\x03\x04": "application/zip",
    b"\x1f\x8b": "application/gzip",
    b"\x28\xb5\x2f\xfd": "application/zstd",
    b"\x7fELF": "application/x-elf",
    b"SQLite format 3\0": "application/vnd.sqlite3",
}
SHOWN = {"media_types": 50, "largest": 10, "duplicates": 50, "files": 1_000, "errors": 100}
SHOWN_BYTES = 128 << 10
"""How much of each list is in the report; together far below what an output may have."""
SHOWN_COPIES = 20


class Counter:
    """Counts and hashes what it is fed; holds none of it. Words are what `wc -w` counts in ASCII."""

    def __init__(self, name: str) -> None:
        self.bytes = 0
        self._name = name
        self._hash = hashlib.sha256()
        self._head = b""
        self._lines = 0
        self._words = 0
        self._in_word = False

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes."""
        self.bytes += len(chunk)
        self._hash.update(chunk)
        if len(self._head) < SNIFF_BYTES:
            self._head += chunk[: SNIFF_BYTES - len(self._head)]
        if b"\0" not in self._head:
            self._lines += chunk.count(b"\n")
            self._words += len(chunk.split()) - (self._in_word and not chunk[:1].isspace())
            self._in_word = not chunk[-1:].isspace()

    def record(self, declared: str = "") -> dict[str, Any]:
        """What was counted; lines and words only of text, which is what has no NUL near its beginning."""
        is_text = b"\0" not in self._head
        guess = declared or next((kind for magic, kind in MAGIC.items() if self._head.startswith(magic)), None)
        guess = (
            guess or mimetypes.guess_type(self._name)[0] or ("text/plain" if is_text else "application/octet-stream")
        )
        counted = {"lines": self._lines, "words": self._words} if is_text else {}
        return {"bytes": self.bytes, "sha256": self._hash.hexdigest(), "media_type": guess, **counted}


class Report:
    """Adds up records, in the order in which they come."""

    def __init__(self, roots: list[str], urls: list[str]) -> None:
        self.is_cut = False
        """Whether there were more files than were asked for."""
        self._sources = [*roots, *urls]
        self._files: list[dict[str, Any]] = []
        self._errors: list[dict[str, str]] = []
        self._symlinks = 0
        self._special = 0
        self._totals = {"files": 0, "bytes": 0, "lines": 0, "words": 0, "text_files": 0}
        self._manifest = hashlib.sha256()

    def add(self, path: str, record: dict[str, Any]) -> None:
        """Adds what was found out about one file or page."""
        if "error" in record:
            self.fail(path, record["error"])
            return
        self._files.append({"path": path, **record})
        self._manifest.update(f"{record['sha256']}  {path}\n".encode())
        self._totals["files"] += 1
        self._totals["text_files"] += "lines" in record
        for key in ("bytes", "lines", "words"):
            self._totals[key] += record.get(key, 0)

    def fail(self, path: str, error: str) -> None:
        """Adds what could not be read."""
        self._errors.append({"path": path, "error": error})

    def skip(self, symlinks: int, special: int) -> None:
        """Adds what was not looked into: symbolic links; sockets, devices and pipes."""
        self._symlinks += symlinks
        self._special += special

    def summary(self) -> str:
        """One line for people."""
        totals = self._totals
        files = "1 file" if totals["files"] == 1 else f"{totals['files']:,} files"
        errors = f", {len(self._errors):,} unreadable" if self._errors else ""
        return f"{files}, {_human(totals['bytes'])}, {totals['lines']:,} lines, {totals['words']:,} words{errors}"

    def to_json(self) -> dict[str, Any]:
        """The whole report."""
        duplicates = self._duplicates()
        wasted = sum(group["wasted_bytes"] for group in duplicates)
        largest = sorted(self._files, key=lambda file: (-file["bytes"], file["path"]))
        return {
            "summary": self.summary() + (f"; {_human(wasted)} in duplicates" if wasted else ""),
            "sources": _fitting(self._sources, SHOWN["files"]),
            "totals": {
                **self._totals,
                "errors": len(self._errors),
                "symlinks": self._symlinks,
                "special": self._special,
                "duplicate_groups": len(duplicates),
                "wasted_bytes": wasted,
            },
            "stopped_at_max_files": self.is_cut,
            "manifest_sha256": self._manifest.hexdigest(),
            "media_types": _fitting(self._media_types(), SHOWN["media_types"]),
            "largest": _fitting(({k: file[k] for k in ("path", "bytes")} for file in largest), SHOWN["largest"]),
            "duplicates": _fitting(duplicates, SHOWN["duplicates"]),
            "files": _fitting(self._files, SHOWN["files"]),
            "errors": _fitting(self._errors, SHOWN["errors"]),
        }

    def _media_types(self) -> list[dict[str, Any]]:
        kinds: dict[str, dict[str, Any]] = {}
        for file in self._files:
            kind = kinds.setdefault(file["media_type"], {"media_type": file["media_type"], "files": 0, "bytes": 0})
            kind["files"] += 1
            kind["bytes"] += file["bytes"]
        return sorted(kinds.values(), key=lambda kind: (-kind["bytes"], kind["media_type"]))

    def _duplicates(self) -> list[dict[str, Any]]:
        """Files of the same content that is not nothing, the most wasteful first."""
        copies: dict[str, list[dict[str, Any]]] = {}
        for file in self._files:
            if file["bytes"]:
                copies.setdefault(file["sha256"], []).append(file)
        groups = [
            {
                "sha256": sha256,
                "bytes": files[0]["bytes"],
                "copies": len(files),
                "wasted_bytes": files[0]["bytes"] * (len(files) - 1),
                "paths": [file["path"] for file in files[:SHOWN_COPIES]],
            }
            for sha256, files in copies.items()
            if len(files) > 1
        ]
        return sorted(groups, key=lambda group: (-group["wasted_bytes"], group["paths"][0]))


def _fitting(items: Iterable[Any], limit: int) -> list[Any]:
    """The first ones, as many as are allowed and fit."""
    kept: list[Any] = []
    left = SHOWN_BYTES
    for item in items:
        left -= len(orjson.dumps(item)) + 1
        if left < 0 or len(kept) >= limit:
            break
        kept.append(item)
    return kept


def _human(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    raise AssertionError(size)

"""The digest agent: what is in these files, folders or web pages? Sizes, hashes, line and word counts, duplicates.

It is an ordinary function agent: it lists, then reads, a batch a step, so that after a crash it goes on with the batch
that was under way, and a stop takes effect within a megabyte. What cannot be read is in the report and fails nothing.
"""

import asyncio
import base64
import fnmatch
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

from latticed import Context
from latticed.agents.digest_report import Counter, Report
from latticed.errors import RunError, StepFailed

LIST_ENTRIES = 2_000
LIST_BYTES = 128 << 10
"""What one step lists at most; below what it may record, even if every byte of a name is escaped."""
EXAMINED_ENTRIES = 100_000
"""What one step looks at in order to find them."""
BATCH_FILES = 100
BATCH_BYTES = 64 << 20
BATCH_PATH_BYTES = 64 << 10
"""What one step reads at most, unless a single file is larger."""
CHUNK_BYTES = 1 << 20
MOST_FILES = 100_000
MOST_SOURCES = 1_000
URL_BYTES = 64 << 20
URL_SECONDS = 60.0
URL_RETRY = {"attempts": 3, "backoff_seconds": 0.5}

WANTED = (
    "digest wants an existing file or folder, or an http(s) address: as the goal, or as the input path, paths, url or "
    "urls; further inputs are pattern (such as *.py) and max_files"
)
INPUTS = ("path", "paths", "url", "urls", "pattern", "max_files")

Packed = str | dict[str, str]
"""A path as JSON: as it is, or, where it is not UTF-8, its bytes in base64."""


class DigestFailed(RunError):
    """Nothing could be digested; `code` is `invalid`, `not_found` or, within a step, `fetch_failed`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


async def digest(ctx: Context, goal: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Digests what the goal or the inputs name.

    Inputs: `path` and `paths` (files and folders; a relative one is taken from where the daemon works), `url` and
    `urls`, `pattern` (a glob for the names of files in folders, or, with a slash in it, for their paths there) and
    `max_files` (10,000). Symbolic links inside a folder are counted, not followed.

    Returns:
        `summary`, `totals`, `manifest_sha256` (of what `sha256sum` would print of all files, in this order), and, cut
        to what a record can hold, `media_types`, `largest`, `duplicates`, `files` and `errors`.

    Raises:
        DigestFailed: `invalid` or `not_found`; what is wrong with what was asked for.
    """
    unknown = sorted(inputs.keys() - set(INPUTS))
    if unknown:
        raise DigestFailed("invalid", f"unknown input {', '.join(unknown)}: {WANTED}")
    paths, urls = _texts(inputs, "path", "paths"), _texts(inputs, "url", "urls")
    pattern, most = _text(inputs.get("pattern", "*"), "pattern"), _count(inputs.get("max_files", 10_000))
    named_by_goal = not paths and not urls
    if named_by_goal:
        (urls if goal.strip().startswith(("http://", "https://")) else paths).append(goal.strip())
    if wrong := [url for url in urls if not url.startswith(("http://", "https://"))]:
        raise DigestFailed("invalid", f"{wrong[0]!r} is not an http(s) address")
    try:
        roots = await ctx.step("find", find, paths, named_by_goal) if paths else []
    except StepFailed as failed:
        raise DigestFailed(failed.code, failed.reason) from failed

    report = Report(roots=[_shown(root["path"]) for root in roots], urls=urls)
    listed: list[tuple[str, str, int]] = []
    for root in roots:
        await _list(ctx, report, listed, root, pattern, most)
    total = len(listed) + len(urls)
    await ctx.progress(0, total, f"found {len(listed)} files")
    done = 0
    for batch in batches(listed):
        records = await ctx.step("read", read, batch, ctx.check_cancelled)
        for (directory, name, _), record in zip(batch, records, strict=True):
            report.add(_shown(name if len(roots) == 1 else os.path.join(directory, name)), record)
        done += len(batch)
        await ctx.progress(done, total, report.summary())
    if urls:
        await _fetch_all(ctx, report, urls, done, total)
    return report.to_json()


async def _list(
    ctx: Context, report: Report, listed: list[tuple[str, str, int]], root: dict[str, Any], pattern: str, most: int
) -> None:
    """Adds the files below a root: their directory, their name below it, and their size."""
    path = _unpack(root["path"])
    if root["file"]:
        listed.append((os.path.dirname(path), os.path.basename(path), root["bytes"]))
        return
    after: Packed | None = ""
    while after is not None and len(listed) < most:
        room = min(LIST_ENTRIES, most - len(listed))
        found = await ctx.step("list", list_files, path, after, pattern, room)
        listed += [(path, _unpack(name), size) for name, size in found["files"]]
        report.skip(found["symlinks"], found["special"])
        for name, error in found["errors"]:
            report.fail(_shown(name), error)
        after = found["after"]
    report.is_cut |= after is not None


async def _fetch_all(ctx: Context, report: Report, urls: list[str], done: int, total: int) -> None:
    import httpx2  # a heavy import, needed only here

    async with httpx2.AsyncClient(timeout=URL_SECONDS, follow_redirects=True) as client:

        async def fetch(url: str) -> dict[str, Any]:
            counter = Counter(url)
            try:
                async with asyncio.timeout(URL_SECONDS), client.stream("GET", url) as answer:
                    if answer.status_code >= 500 or answer.status_code == 429:
                        raise DigestFailed("fetch_failed", f"HTTP status {answer.status_code}")
                    if answer.status_code >= 400:
                        return {"error": f"HTTP status {answer.status_code}"}
                    async for chunk in answer.aiter_bytes(64 << 10):
                        counter.feed(chunk)
                        if counter.bytes > URL_BYTES:
                            return {"error": f"larger than {URL_BYTES} bytes"}
                    declared = answer.headers.get("content-type", "").partition(";")[0].strip()
                    return counter.record(declared) | {"url": str(answer.url), "status": answer.status_code}
            except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
                return {"error": str(error)}
            except (httpx2.HTTPError, TimeoutError) as error:
                raise DigestFailed("fetch_failed", str(error) or "it took too long") from error

        for url in urls:
            try:
                report.add(url, await ctx.step("fetch", fetch, url, retry=URL_RETRY))
            except StepFailed as failed:
                report.fail(url, failed.reason)
            done += 1
            await ctx.progress(done, total, report.summary())


# --- steps: plain functions, run in the thread pool ------------------------------------------------------------------


def find(paths: list[str], named_by_goal: bool) -> list[dict[str, Any]]:
    """Each path made absolute and real, and whether it is a file.

    Raises:
        DigestFailed: `not_found` or `invalid`; it is not there, or is neither file nor folder.
    """
    roots = []
    for path in dict.fromkeys(paths):
        real = path
        try:
            real = os.path.realpath(os.path.expanduser(path))
            status = os.stat(real)
        except FileNotFoundError:
            if named_by_goal and " " in path and "/" not in path:
                raise DigestFailed("invalid", f"{path[:100]!r} is no path: {WANTED}") from None
            raise DigestFailed("not_found", f"{real}: there is no such file or folder") from None
        except (OSError, ValueError) as error:  # ValueError: no name of a file can hold it
            raise DigestFailed("invalid", f"{path[:200]!r} cannot be looked at: {error}") from None
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise DigestFailed("invalid", f"{real} is neither a file nor a folder")
        roots.append({"path": _pack(real), "file": stat.S_ISREG(status.st_mode), "bytes": status.st_size})
    return roots


def list_files(root: str, after: Packed, pattern: str, limit: int) -> dict[str, Any]:
    """The next at most `limit` files below a folder, in the order of their paths' parts, and where to go on."""
    files: list[tuple[Packed, int]] = []
    errors: list[tuple[Packed, str]] = []
    counts = {"symlinks": 0, "special": 0}
    last: Packed | None = after
    spent = 0
    walk = _walk(root, _unpack(after))
    for path, entry in itertools.islice(walk, EXAMINED_ENTRIES):
        last = _pack(path)
        try:
            if isinstance(entry, OSError):
                raise entry
            if entry.is_symlink():
                counts["symlinks"] += 1
            elif not entry.is_file(follow_symlinks=False):
                counts["special"] += 1
            elif fnmatch.fnmatchcase(path if "/" in pattern else entry.name, pattern):
                files.append((last, entry.stat(follow_symlinks=False).st_size))
                spent += len(os.fsencode(path)) + 16
        except OSError as error:
            errors.append((last, error.strerror or str(error)))
            spent += len(os.fsencode(path)) + 64
        if spent > LIST_BYTES or len(files) + len(errors) >= limit:
            break
    if next(walk, None) is None:
        last = None
    return {"files": files, "errors": errors, **counts, "after": last}


def _walk(root: str, after: str) -> Iterator[tuple[str, "os.DirEntry[str] | OSError"]]:
    """What is below a folder and is no folder, after a given one; folders that cannot be listed as their error."""
    passed = after.split("/") if after else []
    levels = [_entries(root, "", passed)]
    while levels:
        for path, entry in levels[-1]:
            if isinstance(entry, OSError) or not entry.is_dir(follow_symlinks=False):
                yield path, entry
            else:
                parts = path.split("/")
                levels.append(_entries(root, path, passed if passed[: len(parts)] == parts else []))
                break
        else:
            levels.pop()


def _entries(root: str, folder: str, passed: list[str]) -> Iterator[tuple[str, "os.DirEntry[str] | OSError"]]:
    """The entries of one folder in order, without those that were passed."""
    depth = folder.count("/") + 1 if folder else 0
    at = os.fsencode(passed[depth]) if len(passed) > depth else b""
    try:
        with os.scandir(os.path.join(root, folder)) as found:
            entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        yield folder, error
        return
    for entry in entries:
        name = os.fsencode(entry.name)
        if name > at or (name == at and depth < len(passed) - 1):
            yield f"{folder}/{entry.name}" if folder else entry.name, entry


def batches(listed: list[tuple[str, str, int]]) -> Iterator[list[tuple[str, str, int]]]:
    """The files in parts of which each is a step."""
    batch: list[tuple[str, str, int]] = []
    size = length = 0
    for file in listed:
        if batch and (len(batch) >= BATCH_FILES or size + file[2] > BATCH_BYTES or length > BATCH_PATH_BYTES):
            yield batch
            batch, size, length = [], 0, 0
        batch.append(file)
        size += file[2]
        length += len(file[1])
    if batch:
        yield batch


def read(batch: list[tuple[str, str, int]], check: Callable[[], None]) -> list[dict[str, Any]]:
    """A record for each file: what is in it, or why it could not be read. `check` is called every megabyte."""
    return [_read_file(os.path.join(directory, name), check) for directory, name, _ in batch]


def _read_file(path: str, check: Callable[[], None]) -> dict[str, Any]:
    counter = Counter(os.path.basename(path))
    try:
        # Nothing that was put in the place of the file since it was listed may be followed, or block for ever.
        with open(path, "rb", buffering=0, opener=_open_safely) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return {"error": "it is not a file any more"}
            while chunk := file.read(CHUNK_BYTES):
                check()
                counter.feed(chunk)
    except OSError as error:
        return {"error": error.strerror or str(error)}
    return counter.record()


def _open_safely(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


# --- what was asked for ----------------------------------------------------------------------------------------------


def _texts(inputs: dict[str, Any], one: str, many: str) -> list[str]:
    given = inputs.get(many, [])
    values = [*([inputs[one]] if one in inputs else []), *(given if isinstance(given, list) else [given])]
    if len(values) > MOST_SOURCES:
        raise DigestFailed("invalid", f"{many} are {len(values)}, more than {MOST_SOURCES}")
    return [_text(value, many) for value in values]


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DigestFailed("invalid", f"the input {name} must be text, not {value!r:.100}")
    return value


def _count(value: Any) -> int:
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MOST_FILES:
        raise DigestFailed("invalid", f"the input max_files must be from 1 to {MOST_FILES}, not {value!r:.100}")
    return number


def _pack(path: str) -> Packed:
    try:
        path.encode()
    except UnicodeEncodeError:
        return {"base64": base64.b64encode(os.fsencode(path)).decode()}
    return path


def _unpack(path: Packed) -> str:
    return path if isinstance(path, str) else os.fsdecode(base64.b64decode(path["base64"]))


def _shown(path: Packed) -> str:
    """A path for people: what is not UTF-8 in it is replaced."""
    return os.fsencode(_unpack(path)).decode(errors="replace")

"""The digest agent: real files and a real web server in, a report out."""

import asyncio
import hashlib
import json
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from latticed.agents import digest as agent
from latticed.agents.digest import DigestFailed, digest
from latticed.agents.digest_report import Counter
from latticed.errors import Cancelled, RunError, StepFailed


class FakeContext:
    """Runs steps as the engine does: outcomes go through JSON and are bounded, errors are StepFailed; keeps all."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, Any]] = []
        self.progressed: list[tuple[float, float]] = []
        self.after_step: Callable[[str], None] = lambda name: None
        self.is_cancelled = False

    async def step(self, name: str, fn: Callable[..., Any], *args: Any, retry: dict[str, Any] | None = None) -> Any:
        for left in reversed(range((retry or {}).get("attempts", 1))):
            try:
                outcome = fn(*args)
                text = json.dumps(await outcome if isinstance(outcome, Awaitable) else outcome)
            except RunError as error:
                if not left:
                    raise StepFailed(name, error.code, error.message) from error
            else:
                assert len(text) <= 1 << 20
                self.steps.append((name, json.loads(text)))
                self.after_step(name)
                return json.loads(text)
        raise AssertionError

    async def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        self.progressed.append((done, total or 0))

    def check_cancelled(self) -> None:
        if self.is_cancelled:
            raise Cancelled


@pytest.fixture
def ctx() -> FakeContext:
    return FakeContext()


@pytest.fixture
def run(ctx: FakeContext) -> Callable[..., Awaitable[dict[str, Any]]]:
    async def start(goal: object = "what is in there?", **inputs: Any) -> dict[str, Any]:
        return await digest(ctx, str(goal), inputs)  # type: ignore[arg-type]  # a fake

    return start


Run = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    (root / "b" / "deep").mkdir(parents=True)
    (root / "a.txt").write_text("one two\nthree\n")
    (root / "b" / "c.md").write_text("# é\n" * 1000)
    (root / "b" / "deep" / "copy.txt").write_text("one two\nthree\n")
    (root / "b.bin").write_bytes(b"\x00\x01" * 100)
    (root / "empty").touch()
    (root / "image").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    return root


def shown(report: dict[str, Any]) -> list[str]:
    return [file["path"] for file in report["files"]]


async def test_a_folder_becomes_a_report(run: Run, ctx: FakeContext, folder: Path) -> None:
    report = await run(folder)
    assert shown(report) == ["a.txt", "b/c.md", "b/deep/copy.txt", "b.bin", "empty", "image"]
    assert report["files"][0] == {
        "path": "a.txt",
        "bytes": 14,
        "sha256": hashlib.sha256(b"one two\nthree\n").hexdigest(),
        "media_type": "text/plain",
        "lines": 2,
        "words": 3,
    }
    assert report["files"][1]["media_type"] == "text/markdown"
    assert report["files"][-1]["media_type"] == "image/png"
    assert "lines" not in report["files"][3]
    totals = report["totals"]
    assert (totals["files"], totals["text_files"], totals["lines"], totals["words"]) == (6, 4, 1004, 2006)
    assert totals["bytes"] == 14 + 5000 + 14 + 200 + 10
    (group,) = report["duplicates"]
    assert (group["paths"], group["wasted_bytes"]) == (["a.txt", "b/deep/copy.txt"], 14)
    assert report["largest"][0] == {"path": "b/c.md", "bytes": 5000}
    assert report["summary"] == "6 files, 5.1 KiB, 1,004 lines, 2,006 words; 14 bytes in duplicates"
    assert report["errors"] == []
    assert ctx.progressed[0] == (0, 6)
    assert ctx.progressed[-1] == (6, 6)
    assert report == await run("the same by input", path=str(folder))


async def test_the_manifest_is_that_of_sha256sum(run: Run, folder: Path) -> None:
    report = await run(folder)
    process = await asyncio.create_subprocess_exec(
        "sha256sum", *shown(report), cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert report["manifest_sha256"] == hashlib.sha256(printed).hexdigest()


async def test_files_and_folders_can_be_named_together(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder / "b")
    report = await run(paths=[str(folder / "a.txt"), str(tmp_path / "link")], path=str(folder / "a.txt"))
    assert shown(report) == [str(folder / name) for name in ("a.txt", "b/c.md", "b/deep/copy.txt")]
    assert shown(await run(folder / "a.txt")) == ["a.txt"]


async def test_a_pattern_chooses_by_name_or_by_path(run: Run, folder: Path) -> None:
    assert shown(await run(folder, path=str(folder), pattern="*.txt")) == ["a.txt", "b/deep/copy.txt"]
    assert shown(await run(folder, path=str(folder), pattern="b/*")) == ["b/c.md", "b/deep/copy.txt"]


async def test_links_are_counted_and_not_followed_and_what_is_no_file_is_not_opened(run: Run, folder: Path) -> None:
    (folder / "b" / "loop").symlink_to(folder)
    (folder / "self").symlink_to("self")
    (folder / "twin").symlink_to("a.txt")
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        report = await run(folder)
    assert report["totals"]["files"] == 6
    assert (report["totals"]["symlinks"], report["totals"]["special"]) == (3, 2)


async def test_what_cannot_be_read_is_in_the_report_and_fails_nothing(run: Run, ctx: FakeContext, folder: Path) -> None:
    def meanwhile(name: str) -> None:
        if name == "list":
            (folder / "a.txt").unlink()
            (folder / "b.bin").unlink()
            os.mkfifo(folder / "b.bin")
            (folder / "empty").unlink()
            (folder / "empty").symlink_to("/etc/passwd")

    ctx.after_step = meanwhile
    report = await run(folder)
    assert shown(report) == ["b/c.md", "b/deep/copy.txt", "image"]
    assert [error["path"] for error in report["errors"]] == ["a.txt", "b.bin", "empty"]
    assert report["errors"][0]["error"] == "No such file or directory"
    assert report["totals"]["errors"] == 3
    assert report["summary"].endswith("3 unreadable")


async def test_a_folder_that_vanishes_is_an_error_in_the_report(run: Run, ctx: FakeContext, folder: Path) -> None:
    ctx.after_step = lambda name: folder.rename(folder.with_name("moved")) if name == "find" else None
    report = await run(folder)
    assert report["totals"]["files"] == 0
    assert report["errors"] == [{"path": "", "error": "No such file or directory"}]


async def test_a_name_that_is_not_utf8_is_read_and_shown(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    (root / os.fsdecode(b"caf\xe9")).write_text("x")
    (root / "new\nline \\ \U0001f600").write_text("y")
    assert shown(await run(root)) == ["caf�", "new\nline \\ \U0001f600"]


async def test_a_large_folder_is_listed_and_read_in_steps_and_in_order(
    run: Run, ctx: FakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{a}{s}{b}/{c}" for a in "xyz" for s in ("", "-", "/sub/") for b in "12" for c in "ab"]
    for name in names:
        (tmp_path / "many" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "many" / name).write_text(name)
    whole = await run(tmp_path / "many")
    assert sorted(shown(whole)) == sorted(names)
    assert [name for name, _ in ctx.steps] == ["find", "list", "read"]
    for limit in (1, 2, 5):
        ctx.steps.clear()
        monkeypatch.setattr(agent, "LIST_ENTRIES", limit)
        monkeypatch.setattr(agent, "EXAMINED_ENTRIES", 3)
        monkeypatch.setattr(agent, "BATCH_FILES", limit)
        assert await run(tmp_path / "many") == whole
        assert [name for name, _ in ctx.steps].count("read") == -(-len(names) // limit)
    assert ctx.progressed[-1] == (len(names), len(names))


async def test_there_is_a_limit_of_files_that_says_so(run: Run, folder: Path) -> None:
    report = await run(path=str(folder), max_files=2)
    assert shown(report) == ["a.txt", "b/c.md"]
    assert report["stopped_at_max_files"]
    report = await run(path=str(folder), max_files="6")
    assert not report["stopped_at_max_files"]


async def test_outcomes_stay_small_whatever_the_names_are(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "long"
    for letter in "abcd":
        deep = root.joinpath(*(letter * 200 for _ in range(8)))
        deep.mkdir(parents=True)
        for index in range(150):
            (deep / ("\x01" * 200 + str(index))).touch()
    report = await run(root)  # the fake context refuses an outcome over 1 MiB
    assert report["totals"]["files"] == 600
    assert 10 < len(report["files"]) < 600
    assert len(json.dumps(report)) < 1 << 20


async def test_a_stop_takes_effect_inside_a_file(run: Run, ctx: FakeContext, folder: Path) -> None:
    ctx.is_cancelled = True
    with pytest.raises(Cancelled):
        await run(folder)


@pytest.mark.parametrize(
    ("goal", "inputs", "code", "says"),
    [
        ("/does/not/exist", {}, "not_found", "/does/not/exist: there is no such file"),
        ("x", {"path": "/does/not/exist"}, "not_found", "/does/not/exist"),
        ("Digest the documentation", {}, "invalid", "digest wants an existing file or folder"),
        ("x", {"paths": [1]}, "invalid", "paths must be text"),
        ("x", {"path": ""}, "invalid", "must be text"),
        ("x", {"path": "a\0b"}, "invalid", "cannot be looked at"),
        ("/dev/null", {}, "invalid", "neither a file nor a folder"),
        ("x", {"url": "ftp://localhost"}, "invalid", "'ftp://localhost' is not"),
        ("x", {"path": "/", "depth": 1}, "invalid", "unknown input depth"),
        ("x", {"path": "/", "max_files": 0}, "invalid", "max_files"),
        ("x", {"path": "/", "max_files": True}, "invalid", "max_files"),
        ("x", {"paths": ["/"] * 1001}, "invalid", "1001"),
    ],
)
async def test_what_cannot_be_digested_is_a_clear_error(
    run: Run, goal: str, inputs: dict[str, Any], code: str, says: str
) -> None:
    with pytest.raises(DigestFailed) as caught:
        await run(goal, **inputs)
    assert (caught.value.code, says in caught.value.message) == (code, True), caught.value.message


class Pages(BaseHTTPRequestHandler):
    """`/` is a page, `/moved` leads there, `/shaky` works the second time, `/down` never, `/big` is big."""

    asked: dict[str, int]

    def do_GET(self) -> None:
        self.asked[self.path] = self.asked.get(self.path, 0) + 1
        status = {"/moved": 302, "/down": 503, "/missing": 404}.get(self.path, 200)
        if self.path == "/shaky" and self.asked[self.path] == 1:
            status = 500
        body = b"x" * 300_000 if self.path == "/big" else b"<p>Hello there</p>\n"
        self.send_response(status)
        self.send_header("Location", "/")
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:  # who reads has had enough
            return

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A web server's address."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    Pages.asked = {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


async def test_pages_are_fetched_each_in_a_step(
    run: Run, ctx: FakeContext, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "URL_BYTES", 200_000)
    urls = [f"{site}{path}" for path in ("/", "/moved", "/shaky", "/down", "/missing", "/big")]
    nobody = "http://127.0.0.1:1/"
    report = await run(urls=[*urls, nobody], url=urls[0])
    page = {
        "path": urls[0],
        "bytes": 19,
        "sha256": hashlib.sha256(b"<p>Hello there</p>\n").hexdigest(),
        "media_type": "text/html",
        "lines": 1,
        "words": 2,
        "url": urls[0],
        "status": 200,
    }
    assert report["files"] == [page, page, {**page, "path": urls[1]}, {**page, "path": urls[2], "url": urls[2]}]
    assert [error["path"] for error in report["errors"]] == [*urls[3:], nobody]
    assert [error["error"] for error in report["errors"]][:3] == [
        "HTTP status 503",
        "HTTP status 404",
        "larger than 200000 bytes",
    ]
    assert Pages.asked["/down"] == 3
    assert ctx.progressed[-1] == (8, 8)


async def test_an_address_can_be_the_goal(run: Run, site: str) -> None:
    assert (await run(f" {site}/ "))["totals"]["files"] == 1


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_counts_do_not_depend_on_how_the_bytes_arrive(size: int) -> None:
    text = b"  two words\n\nand three more\twords here \n last"
    counter = Counter("x")
    for at in range(0, len(text), size):
        counter.feed(text[at : at + size])
    record = counter.record()
    assert (record["lines"], record["words"]) == (3, len(text.split()))
    assert record["sha256"] == hashlib.sha256(text).hexdigest()

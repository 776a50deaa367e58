"""The project's own promises: its lock, its generated pages, its layout."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tools.check_sizes import LIMIT, too_long
from tools.state_machine import TARGET, render

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@cache
def locked() -> dict[str, Version]:
    """Name → version of every line of the lock."""
    lines = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in lines}


def project_files() -> list[Path]:
    """Every file of the project that git keeps or would keep; all of them where there is no git."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        made = {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
        return [path for path in ROOT.rglob("*") if path.is_file() and not made & set(path.relative_to(ROOT).parts)]
    return [path for name in filter(None, names) if (path := ROOT / name).is_file()]


def test_the_lock_holds_names_versions_and_hashes_and_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    allowed = re.compile(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [line for line in text.splitlines() if not allowed.fullmatch(line)] == []
    assert text.count("==") > 40


def test_the_lock_satisfies_what_the_project_asks_for() -> None:
    asked = PYPROJECT["project"]["dependencies"] + PYPROJECT["dependency-groups"]["dev"]
    wrong = []
    for requirement in map(Requirement, asked):
        version = locked().get(canonicalize_name(requirement.name))
        if version is None or version not in requirement.specifier:
            wrong.append(f"{requirement}: locked is {version}; run make lock")
    assert wrong == []


def test_the_page_on_the_state_machine_is_what_the_code_says() -> None:
    assert TARGET.read_text(encoding="utf-8") == render(), "run make docs"


def test_no_file_is_too_long() -> None:
    assert too_long(ROOT) == []


def test_a_file_that_is_too_long_is_found(tmp_path: Path) -> None:
    (tmp_path / "latticed" / "store").mkdir(parents=True)
    (tmp_path / "latticed" / "store" / "long.py").write_text("x = 1\n" * (LIMIT + 1))
    (tmp_path / "latticed" / "fits.py").write_text("x = 1\n" * LIMIT)
    assert too_long(tmp_path) == [("latticed/store/long.py", LIMIT + 1)]


def test_no_file_names_a_place_on_the_machine_it_was_written_on() -> None:
    private = re.compile(rf"/(?:home|Users)/[\w.-]+/|/root/|{re.escape(str(ROOT))}/")
    found = []
    for path in project_files():
        if path.resolve() == Path(__file__).resolve():
            continue  # it holds the pattern itself
        if path.parent == ROOT / "tests" / "booted":
            continue  # its places are those of the machine that it boots
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}:{n}: {line}" for n, line in enumerate(lines, 1) if private.search(line)]
    assert found == []


def test_the_migrations_are_frozen_and_import_nothing_of_the_program() -> None:
    scripts = list((ROOT / "migrations").rglob("*.py"))
    assert scripts
    for path in scripts:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert [name for name in names if name.split(".")[0] == "latticed"] == [], path.name


WORDS = """
run attempt epoch lease step journal node event hook flow topic processor blueprint lane recovery drain cursor
workspace token agent queue
"""


@pytest.mark.parametrize("word", WORDS.split())
def test_every_word_of_the_trade_is_explained_once(word: str) -> None:
    text = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    assert len(re.findall(rf"^\*\*{word}\*\*: ", text, re.MULTILINE)) == 1


def test_no_concept_is_explained_twice() -> None:
    text = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    words = re.findall(r"^\*\*(.+?)\*\*: ", text, re.MULTILINE)
    assert sorted(words) == sorted(set(words))


def test_each_decision_says_context_decision_and_consequences() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{n:04d}" for n in range(1, len(pages) + 1)]
    for page in pages:
        headings = re.findall(r"^## (\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert {"Context", "Decision", "Consequences"} <= set(headings), page.name


def test_the_daemon_imports_nothing_heavy_that_an_idle_one_never_needs() -> None:
    heavy = ["sqlalchemy.orm", "alembic", "httpx2", "rich", "pydantic_settings", "pydantic_ai", "jsonschema_rs", "cel"]
    program = (
        f"import sys, latticed.cli.daemon, latticed.daemon; print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"

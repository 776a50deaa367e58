"""The wheel works by itself: built from the checkout, installed into an empty venv, run in an empty directory."""

import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import httpx2
import pytest
from packaging.requirements import Requirement

from tests.conftest import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = target.glob("*.whl")
    return built


def requirements_of(wheel: Path) -> list[Requirement]:
    """What the wheel's own metadata asks for here, without extras."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    asked = [Requirement(line.removeprefix("Requires-Dist: ")) for line in lines if line.startswith("Requires-Dist: ")]
    return [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]


def link_dependencies(wheel: Path, site: Path) -> None:
    """Makes what the wheel asks for importable from `site`, and nothing else, without a network: by links."""
    wanted, seen = requirements_of(wheel), set[tuple[str, str]]()
    while wanted:
        requirement = wanted.pop()
        extras = {"", *requirement.extras}
        fresh = {extra for extra in extras if (requirement.name.lower(), extra) not in seen}
        seen |= {(requirement.name.lower(), extra) for extra in fresh}
        if not fresh:
            continue
        found = distribution(requirement.name)
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))))
        for line in found.requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in fresh):
                wanted.append(needed)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts' directory of a venv that has the wheel and what it asks for."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, capture_output=True)
    python = venv / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (site,) = (venv / "lib").glob("python*/site-packages")
    link_dependencies(wheel, site)
    return venv / "bin"


@pytest.fixture
def outside(tmp_path: Path) -> dict[str, str]:
    """An environment that knows nothing of the checkout or of this user."""
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "LANG": "C.UTF-8"}


@pytest.fixture
def served(installed: Path, outside: dict[str, str], tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    empty = tmp_path / "empty"
    empty.mkdir()
    command = [str(installed / "latticed"), "serve", "--port", "0", "--state-dir", str(tmp_path / "state")]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=empty, env=outside, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process, tmp_path / "state"
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_the_wheel_brings_all_that_it_needs_at_run_time(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    migrations = {p.relative_to(ROOT / "migrations").as_posix() for p in (ROOT / "migrations").rglob("*.py")}
    assert migrations
    assert {f"latticed/_migrations/{name}" for name in migrations} <= names
    assert "latticed/_config/latticed.toml" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"latticed"}
    assert [name for name in names if "__pycache__" in name] == []


def test_the_program_is_the_wheels_and_not_the_checkouts(
    installed: Path, outside: dict[str, str], tmp_path: Path
) -> None:
    command = [str(installed / "python"), "-c", "import latticed; print(latticed.__file__)"]
    where = subprocess.run(command, cwd=tmp_path, env=outside, check=True, capture_output=True, text=True).stdout
    assert Path(where.strip()).is_relative_to(installed.parent)


def test_the_daemon_runs_in_an_empty_directory(
    served: tuple[subprocess.Popen[bytes], Path], installed: Path, outside: dict[str, str], tmp_path: Path
) -> None:
    process, state = served
    address = state / "address"
    wait_until(lambda: process.poll() is not None or address.exists(), timeout=30)
    assert process.poll() is None, (tmp_path / "log").read_text()

    url = address.read_text().strip()
    assert httpx2.get(f"{url}/healthz").status_code == 200
    ctl = [str(installed / "latticectl"), "--json", "whoami"]
    me = subprocess.run(ctl, env=outside | {"LATTICED_STATE_DIR": str(state)}, check=True, capture_output=True)
    assert b'"admin"' in me.stdout

    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    assert list((tmp_path / "empty").iterdir()) == []


def test_nothing_that_only_tests_need_is_within_reach(installed: Path, outside: dict[str, str], tmp_path: Path) -> None:
    command = [str(installed / "python"), "-c", "import pytest"]
    assert subprocess.run(command, cwd=tmp_path, env=outside, capture_output=True, check=False).returncode != 0

"""`latticed doctor`: what it says of a configuration, a state, a database and a daemon; and it changes none of them."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Daemon, to_toml

Make = Callable[..., Daemon]
Report = dict[str, list[tuple[str, str]]]
CHECKS = ["configuration", "secrets", "agents", "hooks", "state directory", "disk", "database", "daemon", "open files"]


def examine(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    ours = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"} | env
    command = [sys.executable, "-m", "latticed.cli.daemon", "doctor", *args]
    return subprocess.run(command, env=ours, capture_output=True, text=True, timeout=60, check=False)


def report(state_dir: Path, config: Path | str = os.devnull, **env: str) -> tuple[int, Report]:
    """The exit code, and for each check its results with what was said."""
    done = examine("--state-dir", str(state_dir), "--config", str(config), "--json", **env)
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["exit_code"] == done.returncode
    found: Report = {}
    for each in told["checks"]:
        found.setdefault(each["check"], []).append((each["result"], each["said"]))
    return done.returncode, found


def written(home: Path, config: Mapping[str, Any]) -> Path:
    file = home / "latticed.toml"
    file.write_text(to_toml(config))
    return file


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_before_the_first_start_all_is_well_and_nothing_is_made(tmp_path: Path) -> None:
    code, found = report(tmp_path / "state")
    assert (code, list(found)) == (0, CHECKS)
    assert found["database"] == [("ok", f"{tmp_path}/state/latticed.db is not there; the first start makes it")]
    assert not (tmp_path / "state").exists()
    said = [f"{result:<8} {check}: {text}" for check, each in found.items() for result, text in each]
    shown = examine("--state-dir", str(tmp_path / "state"), "--config", os.devnull).stdout.splitlines()
    number = re.compile("[0-9]+")  # The room on the disk is another by now.
    assert [number.sub("N", line) for line in shown] == [number.sub("N", line) for line in said]


def test_a_configuration_that_cannot_be_read_ends_it_with_78(tmp_path: Path) -> None:
    code, found = report(tmp_path, written(tmp_path, {"server": {"prot": 1}}))
    assert (code, list(found)) == (78, ["configuration"])
    assert "did you mean server.port?" in found["configuration"][0][1]


def test_all_that_a_start_would_refuse_is_told_at_once(tmp_path: Path) -> None:
    function = {"use": "function", "function": "not_there_1:f"}
    webhook = {"use": "webhook", "point": "post_run", "url": "https://example.org/", "secret": "secret:notify"}
    python = {"use": "python", "point": "pre_run", "function": "not_there_2:f"}
    config = written(
        tmp_path, {"agents": {"a": function, "b": function}, "hooks": {"notify": webhook, "policy": python}}
    )
    code, found = report(tmp_path / "state", config)
    assert code == 78
    ((result, said),) = found["secrets"]
    assert (result, said.startswith("hooks.notify: there is no secret 'notify'")) == ("failure", True)
    assert [(result, said.split(":")[0]) for result, said in found["agents"]] == [
        ("failure", "agents.a"),
        ("failure", "agents.b"),
    ]
    assert [(result, said.split(":")[0]) for result, said in found["hooks"]] == [("failure", "hooks.policy.function")]


def test_what_an_agent_lacks_is_a_warning(tmp_path: Path) -> None:
    config = {"agents": {"tidy": {"use": "command", "argv": ["no-such-program"]}, "plan": {"use": "pipeline"}}}
    code, found = report(tmp_path / "state", written(tmp_path, config))
    assert (code, [result for result, _ in found["agents"]]) == (0, ["ok", "warning", "warning"])
    assert "plan lacks " in found["agents"][1][1]
    assert "tidy: there is no program no-such-program" in found["agents"][2][1]


def test_a_model_without_its_secret_and_then_with_it(tmp_path: Path) -> None:
    model = {"model": "qwen3", "base_url": "http://127.0.0.1:9/v1", "key": "secret:local"}
    config = written(tmp_path, {"models": {"local": model}, "agents": {"plan": {"use": "pipeline", "model": "local"}}})
    code, found = report(tmp_path / "state", config)
    assert (code, found["secrets"][0][1].split(":")[0]) == (78, "models.local")
    code, found = report(tmp_path / "state", config, LATTICED_SECRET_LOCAL="k-1234")
    assert (code, [result for result, _ in found["agents"]]) == (0, ["ok"])
    assert "k-1234" not in str(found)


def test_what_an_agents_code_prints_is_no_part_of_the_report(tmp_path: Path) -> None:
    (tmp_path / "loud_agent.py").write_text("print('hello')\nasync def f(ctx, goal, inputs): ...\n")
    config = written(tmp_path, {"agents": {"loud": {"use": "function", "function": "loud_agent:f"}}})
    done = examine("--config", str(config), "--state-dir", str(tmp_path), "--app-dir", str(tmp_path), "--json")
    assert (done.returncode, json.loads(done.stdout)["exit_code"], done.stderr) == (0, 0, "hello\n")


def test_of_a_daemon_that_runs_it_says_who_it_is_and_that_it_answers(live: Daemon) -> None:
    code, found = report(live.state_dir, live.config_file)
    said = f"process {live.process.pid} holds the lock and is ready at {live.url}"
    assert (code, found["daemon"]) == (0, [("ok", said)])
    assert [result for result, _ in found["database"]] == ["ok"]
    assert live.run("echo")["status"] == "ok"


def test_a_daemon_that_does_not_answer_where_it_said_is_a_failure(daemon: Make) -> None:
    one = daemon()
    (one.state_dir / "address").write_text("http://127.0.0.1:9\n")
    code, found = report(one.state_dir, one.config_file)
    assert (code, found["daemon"][0][0]) == (70, "failure")
    (one.state_dir / "address").unlink()
    code, found = report(one.state_dir, one.config_file)
    assert (code, found["daemon"][0][0]) == (0, "warning")


@pytest.mark.parametrize("end", [Daemon.stop, Daemon.kill])
def test_it_reads_what_a_daemon_has_left_and_writes_nothing(daemon: Make, end: Callable[[Daemon], int]) -> None:
    one = daemon()
    one.run("echo")
    end(one)
    before = contents(one.state_dir)
    code, found = report(one.state_dir, one.config_file)
    assert (code, found["daemon"]) == (0, [("ok", "none runs on this state")])
    assert (found["database"][0][0], "is whole" in found["database"][0][1]) == ("ok", True)
    assert contents(one.state_dir) == before


@pytest.mark.parametrize(
    ("revision", "code", "said"), [("9999", 70, ("failure", "is newer")), ("0001", 0, ("warning", "is older"))]
)
def test_a_database_of_another_version(daemon: Make, revision: str, code: int, said: tuple[str, str]) -> None:
    one = daemon()
    one.stop()
    with sqlite3.connect(one.state_dir / "latticed.db") as database:
        database.execute("update alembic_version set version_num = ?", (revision,))
    database.close()
    ended, found = report(one.state_dir, one.config_file)
    ((result, told), *_) = found["database"]
    assert (ended, result, said[1] in told) == (code, said[0], True)


@pytest.mark.parametrize("at", [0, 100])
def test_a_damaged_database_is_a_failure(daemon: Make, at: int) -> None:
    one = daemon()
    one.stop()
    with (one.state_dir / "latticed.db").open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 5000)
    code, found = report(one.state_dir, one.config_file)
    assert (code, found["database"][0][0]) == (70, "failure")
    assert "damaged" in found["database"][0][1]


def test_rights_that_are_too_wide_are_told_with_what_to_do(daemon: Make) -> None:
    one = daemon()
    one.stop()
    for path, mode in ((one.state_dir, 0o755), (one.state_dir / "admin.token", 0o644)):
        path.chmod(mode)
    code, found = report(one.state_dir, one.config_file)
    warnings = [said for result, said in found["state directory"] if result == "warning"]
    assert code == 0
    assert f"chmod 700 {one.state_dir}" in warnings[0]
    assert f"chmod 600 {one.state_dir / 'admin.token'}" in warnings[1]


def test_a_state_directory_that_cannot_be_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        code, found = report(path)
        assert (code, found["state directory"][0][0]) == (70, "failure")

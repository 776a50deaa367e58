"""`latticed` from outside: what it prints, what it leaves, and with which code it ends."""

import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.conftest import ROOT, Daemon, wait_until

AGENT = """
from helper_of_mine import GREETING

async def hello(ctx, goal, inputs):
    return f"{GREETING}, {goal}"
"""


def latticed(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end, in an environment of its own."""
    ours = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "PYTHONPATH": str(ROOT)} | env
    command = [sys.executable, "-m", "latticed.cli.daemon", *args]
    return subprocess.run(command, env=ours, capture_output=True, text=True, timeout=60, check=False)


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed command says."""
    (line,) = done.stderr.splitlines()
    return line


# --- without a daemon ------------------------------------------------------------------------------------------------


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert latticed("--version").stdout == f"latticed {project['version']}\n"


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['latticed', '--help']\n"
        "from latticed.cli.daemon import main\n"
        "try: main()\n"
        "finally: print(*(m for m in ('latticed.daemon', 'sqlalchemy', 'starlette', 'uvicorn', 'rich', 'alembic')"
        " if m in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(f"\n  {command} " in done.stdout for command in ("serve", "migrate", "doctor", "token", "config"))
    assert done.stderr == "\n"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["serve", "--port", "99999"], 78, "latticed: flag: server.port: must be less than or equal to 65535"),
        (["serve", "--port", "abc"], 78, "latticed: flag: server.port: must be a valid integer"),
        (["serve", "--host", "0.0.0.0"], 78, "set server.allow_public = true if that is meant"),
        (["serve", "--config", "/no/such.toml"], 78, "latticed: /no/such.toml: cannot be read: No such file"),
        (["config", "show", "--config", "/no/such.toml"], 78, "latticed: /no/such.toml: cannot be read: No such file"),
        (["serve", "--state-dir", "/dev/null/x"], 78, "latticed: /dev/null/x: cannot be the state directory"),
        (["token", "create", "--workspace", "w", "--role", "admin", "--expires", "soon"], 2, "is not a duration"),
        (["token", "create", "--workspace", "w", "--role", "admin", "--expires", "999999w"], 2, "expires_seconds: "),
        (["token", "create", "--workspace", "w", "--role", "admin", "--lane", ""], 2, "lanes.0: "),
        (["token", "create", "--workspace", "w", "--role", "admin", "--name", "x" * 201], 2, "name: "),
    ],
)
def test_what_cannot_be_used_is_one_line_and_a_code(args: list[str], code: int, said: str) -> None:
    done = latticed(*args)
    assert (done.returncode, said in complaint(done), done.stdout) == (code, True, "")


def test_a_variable_that_sets_nothing_is_refused() -> None:
    done = latticed("config", "show", LATTICED_SERVER__PROT="1")
    assert done.returncode == 78
    assert complaint(done).endswith("LATTICED_SERVER__PROT: unknown key; did you mean LATTICED_SERVER__PORT?")


@pytest.mark.parametrize(
    ("command", "args", "said"),
    [
        ("", ["bogus"], "No such command 'bogus'"),
        (" serve", ["extra"], "Got unexpected extra argument(s) (extra)"),
        (" serve", ["--nope"], "No such option: --nope"),
        (" token create", ["--role", "admin"], "Missing option '--workspace'"),
        (
            " token create",
            ["--role", "a"],
            "Invalid value for '--role': 'a' is not one of 'viewer', 'operator', 'admin'",
        ),
    ],
)
def test_a_command_line_that_is_not_understood_is_one_line_and_2(command: str, args: list[str], said: str) -> None:
    done = latticed(*command.split(), *args)
    line = f"latticed: {said}; see latticed{command} --help"
    assert (done.returncode, complaint(done), done.stdout) == (2, line, "")


@pytest.mark.parametrize("args", [[], ["token"], ["config"]])
def test_half_a_command_shows_how_it_goes_on(args: list[str]) -> None:
    done = latticed(*args)
    assert (done.returncode, done.stdout, "Commands:\n" in done.stderr) == (2, "", True)


def test_config_show_prints_what_holds_and_where_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "latticed.toml"
    file.write_text('[runs]\nthreads = 7\n[agents."a.b"]\nuse = "command"\nargv = ["/bin/ü", "{goal}"]\n')
    options = ("--config", str(file), "--state-dir", str(tmp_path / "state"))
    text = latticed("config", "show", *options, LATTICED_SERVER__PORT="0").stdout
    assert "port = 0  # environment\n" in text
    assert "threads = 7  # file\n" in text
    assert "park_seconds = 2.0\n" in text
    shown = json.loads(latticed("config", "show", "--json", *options, LATTICED_SERVER__PORT="0").stdout)
    assert shown["origins"]["server.port"] == "environment"
    assert (shown["file"], shown["state_dir"]) == (str(file), str(tmp_path / "state"))
    read_back = tomllib.loads(text)
    assert read_back["agents"]["a.b"]["argv"] == ["/bin/ü", "{goal}"]
    for table, values in read_back.items():
        known = shown["config"][table]
        assert values == {key: value for key, value in known.items() if value is not None} or table == "agents"
    assert not (tmp_path / "state").exists()


# --- with one --------------------------------------------------------------------------------------------------------

Make = Callable[..., Daemon]


def test_when_it_serves_it_says_where_and_keeps_its_state_to_itself(executed: Make) -> None:
    one = executed(bare=True)
    address = (one.state_dir / "address").read_text()
    assert address.startswith("http://127.0.0.1:")
    assert address.count("\n") == 1
    assert httpx2.get(f"{one.url}/readyz").status_code == 200
    assert stat.S_IMODE(one.state_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((one.state_dir / "admin.token").stat().st_mode) == 0o600
    assert (one.state_dir / "latticed.db").exists()
    assert [line["event"] for line in one.log_lines].count("ready") == 1


def test_a_signal_drains_it_and_it_ends_with_0(executed: Make) -> None:
    one = executed()
    for signum in (signal.SIGTERM, signal.SIGINT):
        run = one.run("echo", "before")
        assert one.end(signum) == 0
        assert one.start().get(run["id"])["output"] == {"goal": "before", "inputs": {}}


def test_a_second_signal_hurries(daemon: Make) -> None:
    one = daemon(config={"runs": {"drain_seconds": 600.0}})
    run = one.post_run("stepper_long")
    one.wait_event(run["id"], "step.started")
    one.process.send_signal(signal.SIGTERM)
    wait_until(lambda: httpx2.get(f"{one.url}/readyz").status_code == 503)
    one.process.send_signal(signal.SIGTERM)
    assert one.wait_exit(20) == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_stopped_with_its_whole_group_as_it_makes_its_database_it_drains(executed: Make, signum: int) -> None:
    one = executed(start=False, bare=True).launch()
    family = psutil.Process(one.process.pid)
    wait_until(lambda: any("latticed.store" in child.cmdline() for child in family.children()), interval=0.001)
    os.killpg(one.process.pid, signum)
    assert one.wait_exit() == 0, one.log
    assert one.start().run("echo")["status"] == "ok"


@pytest.mark.parametrize("port", ["its own", "another"])
def test_a_second_daemon_on_the_same_state_ends_with_75(live: Daemon, port: str) -> None:
    number = live.url.rpartition(":")[2] if port == "its own" else "0"
    done = latticed("serve", "--port", number, "--config", str(live.config_file), "--state-dir", str(live.state_dir))
    assert done.returncode == 75
    last = done.stderr.splitlines()[-1]
    assert last.startswith("latticed: ")
    assert "lock" in last
    assert live.run("echo")["status"] == "ok"


def answers(path: Path) -> bool:
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path))) as client:
        return client.get("http://localhost/healthz").status_code == 200


def test_a_second_daemon_leaves_the_socket_of_the_first_where_it_is(daemon: Make, tmp_path: Path) -> None:
    path = tmp_path / "door.sock"
    config = {"server": {"unix_socket": str(path)}}
    one = daemon(start=False, config=config)
    one.launch()
    wait_until(lambda: "ready" in one.log)
    assert (one.state_dir / "address").read_text() == f"unix:{path}\n"
    for state_dir, code in ((one.state_dir, 75), (tmp_path / "elsewhere", 70)):
        done = latticed("serve", "--config", str(one.config_file), "--state-dir", str(state_dir),
                        PYTHONPATH=one.environment["PYTHONPATH"])  # fmt: skip
        assert (done.returncode, answers(path)) == (code, True), done.stderr
    assert complaint(done) == f"latticed: cannot listen on {path}: another process does"


def test_of_what_lies_in_the_way_of_a_socket_only_a_dead_daemons_own_goes(daemon: Make, tmp_path: Path) -> None:
    path = tmp_path / "door.sock"
    path.write_text("precious")
    one = daemon(start=False, config={"server": {"unix_socket": str(path)}})
    assert one.launch().wait_exit() == 70
    assert path.read_text() == "precious"
    path.unlink()
    for _ in range(2):
        one.launch()
        wait_until(lambda: (one.state_dir / "address").exists())
        assert answers(path)
        one.kill()
        assert path.is_socket()


def test_a_port_that_is_taken_ends_it_with_70_and_a_line(daemon: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        one = daemon(start=False, args=("--port", str(port)))
        assert one.launch().wait_exit() == 70
    last = one.log.splitlines()[-1]
    assert last.startswith("latticed: ")
    assert str(port) in last
    assert not (one.state_dir / "address").exists()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_it_lives_and_ends_well_without_a_place_to_read_or_write(tmp_path: Path, closed: str) -> None:
    state_dir = tmp_path / "state"
    serve = [sys.executable, "-m", "latticed.cli.daemon", "serve", "--port", "0", "--state-dir", str(state_dir)]
    with subprocess.Popen(
        ["bash", "-c", f'exec "$@" {closed}', "bash", *serve],
        cwd=ROOT,
        env=os.environ | {"LATTICED_CONFIG": os.devnull},
    ) as process:
        try:
            wait_until(lambda: (state_dir / "address").exists() or process.poll() is not None, 30)
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_a_database_newer_than_the_program_is_refused(executed: Make) -> None:
    one = executed()
    one.stop()
    with sqlite3.connect(one.state_dir / "latticed.db") as database:
        database.execute("update alembic_version set version_num = '9999'")
    database.close()
    assert one.launch().wait_exit() == 70
    last = one.log.splitlines()[-1]
    assert last.startswith("latticed: ")
    assert "newer" in last


def test_the_banner_says_where_it_is_and_what_to_try_and_that_works(executed: Make) -> None:
    digest = {"use": "function", "function": "latticed.agents.digest:digest"}
    one = executed(config={"agents": {"digest": digest}}, args=("--banner",))
    (one.home / "page.md").write_text("two words")
    wait_until(lambda: "whoami" in one.log)
    assert one.url in one.log
    assert str(one.state_dir / "admin.token") in one.log
    commands = [line.strip() for line in one.log.splitlines() if line.startswith("  ") and "latticectl" in line]
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(command, shell=True, cwd=one.home, env=one.environment, capture_output=True, check=False)
        assert done.returncode == 0, (command, done.stderr)


def test_agents_of_ones_own_are_found_in_the_app_dir(executed: Make, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "agents_of_mine.py").write_text(AGENT)
    (app / "helper_of_mine.py").write_text("GREETING = 'hello'\n")
    own = {"use": "function", "function": "agents_of_mine:hello"}
    one = executed(config={"agents": {"mine": own}}, args=("--app-dir", str(app)))
    assert one.run("mine", "world")["output"] == "hello, world"


def test_an_agent_that_cannot_be_imported_is_a_configuration_that_cannot_be_used(executed: Make) -> None:
    broken = {"use": "function", "function": "no_such_module:agent"}
    one = executed(start=False, config={"agents": {"broken": broken}})
    assert one.launch().wait_exit() == 78
    last = one.log.splitlines()[-1]
    assert last.startswith("latticed: ")
    assert "broken" in last
    assert "no_such_module" in last


def test_a_reload_brings_new_agents_and_a_bad_file_changes_nothing(daemon: Make) -> None:
    one = daemon()

    def ask_for_later() -> int:
        answer = one.client.post(one.path("runs"), json={"kind": "agent", "target": "later", "goal": "g"})
        return answer.status_code

    assert ask_for_later() == 422
    one.configure({"agents": {"later": {"use": "function", "function": "agents_for_tests:echo"}}})
    one.process.send_signal(signal.SIGHUP)
    wait_until(lambda: ask_for_later() == 202)

    one.config_file.write_text("[server]\nprot = 1\n")
    one.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "did you mean server.port?" in one.log)
    assert ask_for_later() == 202


def test_a_reload_names_what_only_a_restart_can_change(daemon: Make) -> None:
    one = daemon()

    def told_by_a_reload(**tables: Any) -> list[Any]:
        one.configure(tables)
        lines = len(one.log_lines)
        one.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any(line["event"] == "reloaded" for line in one.log_lines[lines:]))
        return [(line["level"], line["keys"]) for line in one.log_lines[lines:] if line["event"] == "restart_needed"]

    changed = {"server": {"port": 9, "ping_seconds": 7.0}, "runs": {"threads": 3, "park_seconds": 1.0}}
    for _ in range(2):  # As long as it is so, not only once. The port is a flag's here, which still holds.
        assert told_by_a_reload(**changed) == [("warning", ["runs.threads", "server.ping_seconds"])]
    assert told_by_a_reload(limits={"queued_runs": 9}) == []


def test_migrate_makes_a_database_that_the_daemon_takes_and_can_be_run_again(daemon: Make) -> None:
    one = daemon(start=False)
    options = ("--config", str(one.config_file), "--state-dir", str(one.state_dir))
    for _ in range(2):
        done = latticed("migrate", *options, PYTHONPATH=one.environment["PYTHONPATH"])
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip()
    assert one.start().run("echo")["status"] == "ok"


@pytest.mark.parametrize("made_by", ["migrate", "serve"])
def test_the_database_is_its_owners_alone_wherever_it_lies(executed: Make, tmp_path: Path, made_by: str) -> None:
    elsewhere = tmp_path / "open_to_all"
    elsewhere.mkdir(mode=0o755)
    one = executed(start=False, bare=True, config={"store": {"url": f"sqlite+aiosqlite:///{elsewhere}/runs.db"}})
    if made_by == "migrate":
        options = ("--config", str(one.config_file), "--state-dir", str(one.state_dir))
        assert latticed("migrate", *options, PYTHONPATH=one.environment["PYTHONPATH"]).returncode == 0
    else:
        one.start()
    assert {stat.S_IMODE(path.stat().st_mode) for path in elsewhere.iterdir()} == {0o600}


def token(one: Daemon, *args: str) -> Any:
    options = ("--config", str(one.config_file), "--state-dir", str(one.state_dir), "--json", *args)
    done = latticed("token", "create", *options, PYTHONPATH=one.environment["PYTHONPATH"])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_token_is_made_while_the_daemon_runs_and_opens_what_it_should(live: Daemon) -> None:
    made = token(live, "--workspace", "default", "--role", "viewer", "--expires", "30d", "--name", "dashboard")
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert httpx2.get(f"{live.url}{live.path('runs')}", headers=headers).status_code == 200
    body = {"kind": "agent", "target": "echo", "goal": "g"}
    assert httpx2.post(f"{live.url}{live.path('runs')}", headers=headers, json=body).status_code == 403
    who = httpx2.get(f"{live.url}/v1/whoami", headers=headers).json()
    assert who["role"] == "viewer"
    assert made["token"] not in live.log


def test_where_no_database_is_no_token_is_made_nor_anything_else(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("typo", "empty"):
        done = latticed("token", "create", "--workspace", "*", "--role", "admin", "--state-dir", str(tmp_path / name))
        said = f"latticed: there is no database {tmp_path / name}/latticed.db; name the daemon's own state directory"
        assert (done.returncode, complaint(done).startswith(said), done.stdout) == (70, True, "")
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


@pytest.mark.parametrize("workspace", ["not-there", "a b", ""])
def test_there_is_no_token_of_a_workspace_that_is_not_there(live: Daemon, workspace: str) -> None:
    options = ("--config", str(live.config_file), "--state-dir", str(live.state_dir), "--workspace", workspace)
    done = latticed("token", "create", "--role", "viewer", *options, PYTHONPATH=live.environment["PYTHONPATH"])
    assert (done.returncode, complaint(done)) == (4, f"latticed: there is no workspace {workspace!r}")


def test_a_token_is_printed_alone_for_a_script_to_take(live: Daemon) -> None:
    options = ("--config", str(live.config_file), "--state-dir", str(live.state_dir))
    args = ("--workspace", "*", "--role", "operator", "--lane", "a", "--lane", "b")
    done = latticed("token", "create", *args, *options, PYTHONPATH=live.environment["PYTHONPATH"])
    headers = {"Authorization": f"Bearer {done.stdout.strip()}"}
    who = httpx2.get(f"{live.url}/v1/whoami", headers=headers).json()
    assert (who["role"], sorted(who["lanes"])) == ("operator", ["a", "b"])

"""latticectl as people type it, against a real daemon."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Daemon

PROGRAM = Path(sys.executable).with_name("latticectl")


class Shell:
    """Types latticectl's commands in an environment that leads to one daemon."""

    def __init__(self, one: Daemon) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LATTICED_")}
        self.environment = {**kept, "LATTICED_STATE_DIR": str(one.state_dir)}
        self.daemon = one

    def __call__(self, *words: str, code: int = 0) -> str:
        """Runs a command that must end with `code` → its stdout."""
        done = self.run(*words)
        assert done.returncode == code, done
        return done.stdout

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        command = [PROGRAM, *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self(*words, "--json", code=code))

    def start(self, *words: str) -> str:
        """Starts a run → its id."""
        return str(self.json("run", *words)["run"]["id"])

    def await_status(self, run_id: str, status: str) -> None:
        """Waits without a command: each is a process."""
        self.daemon.wait(run_id, status)


@pytest.fixture
def ctl(live: Daemon) -> Shell:
    return Shell(live)


def test_a_run_is_waited_for_and_its_output_printed(ctl: Shell) -> None:
    answer = ctl.json("run", "echo", "hi", "--input", "n=1", "--input", "word=two", "--wait")
    assert answer["run"]["status"] == "ok"
    assert answer["run"]["output"] == {"goal": "hi", "inputs": {"n": 1, "word": "two"}}
    first, *rest = ctl("run", "echo", "hi", "--wait").splitlines()
    assert first.startswith(answer["run"]["id"][:4])
    assert "  ok  (" in first
    assert json.loads("\n".join(rest)) == {"goal": "hi", "inputs": {}}


def test_a_run_that_fails_ends_latticectl_with_1(ctl: Shell) -> None:
    out = ctl("run", "failer", "the reason", "--wait", code=1)
    assert "  failed  (" in out
    assert "the reason" in out


def test_a_run_is_followed_to_its_end(ctl: Shell) -> None:
    out = ctl("run", "steps", "count", "--input", "n=2", "--follow")
    assert out.count("step.finished       work  (") == 2
    assert "run.finished        ok" in out
    events = [json.loads(line) for line in ctl("run", "steps", "count", "--follow", "--json").splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "run.finished"


def test_a_finished_run_can_be_looked_at_from_every_side(ctl: Shell) -> None:
    run_id = ctl.start("steps", "look at me", "--tag", "team=e2e", "--input", "n=3")
    ctl.await_status(run_id, "ok")
    assert [run["id"] for run in ctl.json("runs", "list", "--tag", "team=e2e", "--limit", "1")["items"]] == [run_id]
    assert "look at me" in ctl("runs", "list", "--status", "ok", "--target", "steps")
    shown = ctl("runs", "show", run_id)
    assert shown.startswith(f"{run_id}  ok  agent steps\n")
    assert "team=e2e" in shown
    assert len(ctl.json("runs", "steps", run_id)["items"]) == 3
    assert ctl("runs", "steps", run_id).count("  ok  ") == 3
    every = ctl.json("runs", "events", run_id)["items"]
    assert [event["seq"] for event in every] == list(range(1, len(every) + 1))
    assert ctl.json("runs", "events", run_id, "--after", "2", "--limit", "2")["items"] == every[2:4]
    assert len(ctl("runs", "events", run_id).splitlines()) == len(every)
    followed = ctl("runs", "events", run_id, "--follow", "--after", str(len(every) - 1), "--json")
    assert [json.loads(line) for line in followed.splitlines()] == every[-1:]
    assert ctl("runs", "why", run_id).startswith("ok: ")


def test_a_waiting_run_says_why_and_can_be_stopped(ctl: Shell) -> None:
    run_id = ctl.start("sleeper", "sleep", "--input", "seconds=600")
    ctl.await_status(run_id, "waiting")
    assert ctl("runs", "why", run_id).startswith("waiting: ")
    assert "waits for" in ctl("runs", "show", run_id)
    assert ctl("runs", "stop", run_id, "--reason", "enough slept") == f"{run_id} is cancelled\n"
    assert "enough slept" in ctl("runs", "show", run_id)
    assert ctl("runs", "stop", run_id) == f"{run_id} had already ended: cancelled\n"


def test_a_running_run_is_cancelled(ctl: Shell) -> None:
    run_id = ctl.start("awaiter", "for ever")
    ctl.await_status(run_id, "running")
    assert ctl("runs", "cancel", run_id).startswith(f"{run_id} is cancel")
    ctl.await_status(run_id, "cancelled")


def test_only_a_finished_run_is_repeated(ctl: Shell) -> None:
    run_id = ctl.start("once", "again")
    ctl.await_status(run_id, "ok")
    again = ctl.json("runs", "rerun", run_id)["run"]
    assert again["rerun_of"] == run_id
    ctl.await_status(again["id"], "ok")
    sleeping = ctl.start("sleeper", "sleep")
    assert ctl.run("runs", "rerun", sleeping).returncode == 5
    ctl("runs", "stop", sleeping)


def test_a_signal_reaches_its_run(ctl: Shell) -> None:
    run_id = ctl.start("signaller", "listen", "--input", "signal=go")
    ctl("runs", "signal", run_id, "go", "--data", '{"n": 1}')
    ctl.await_status(run_id, "ok")
    assert ctl.json("runs", "show", run_id)["output"] == [{"n": 1}]


def test_a_person_is_asked_and_answers_once(ctl: Shell) -> None:
    done = ctl.run("run", "asker", "may I?", "--wait")
    assert done.returncode == 75
    [run_id] = [word for word in done.stdout.split() if word.startswith("run_")]
    [asked] = [
        each for each in ctl.json("approvals", "list", "--status", "pending")["items"] if each["run_id"] == run_id
    ]
    assert f"approvals answer {asked['id']} approve" in done.stderr
    assert "may I?" in ctl("approvals", "list")
    answered = ctl("approvals", "answer", asked["id"], "approve", "--data", '{"yes": true}', "--comment", "fine")
    assert answered == f"{asked['id']} is approved; {run_id} goes on with that\n"
    ctl.await_status(run_id, "ok")
    assert ctl.json("runs", "show", run_id)["output"] == {"answer": {"yes": True}}
    assert ctl.run("approvals", "answer", asked["id"], "deny").returncode == 5


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["runs", "show", "run_unknown"], 4),
        (["runs", "show", "../../etc"], 4),
        (["runs", "stop", "run_unknown"], 4),
        (["run", "nobody", "hi"], 2),
        (["run", "echo", " "], 2),
        (["run", "echo", "hi", "--max-retries", "9"], 2),
        (["run", "echo", "hi", "--queue", "nowhere"], 2),
        (["runs", "list", "--cursor", "made-up"], 2),
        (["runs", "list", "--limit", "-1"], 2),
        (["whoami", "-t", "not-a-token"], 77),
        (["whoami", "-u", "http://127.0.0.1:9"], 75),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(ctl: Shell, words: list[str], code: int) -> None:
    done = ctl.run(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("latticectl: ")
    assert done.stderr.count("\n") == 1


def test_who_has_no_token_is_told_where_one_goes(ctl: Shell, tmp_path: Path) -> None:
    ctl.environment["LATTICED_STATE_DIR"] = str(tmp_path)
    done = ctl.run("whoami", "-u", ctl.daemon.url)
    said = f"no token found: there is none in {tmp_path}/admin.token. Give one with -t or LATTICED_TOKEN"
    assert (done.returncode, done.stdout, done.stderr) == (77, "", f"latticectl: {said}\n")


def test_files_that_are_no_text_are_no_address_and_no_token(ctl: Shell, tmp_path: Path) -> None:
    ctl.environment["LATTICED_STATE_DIR"] = str(tmp_path)
    for name, said in (
        ("address", "is not a daemon's address"),
        ("admin.token", "the token holds characters that no token has"),
    ):
        (tmp_path / "address").write_text(ctl.daemon.url)
        (tmp_path / name).write_bytes(b"\xff\xfe")
        done = ctl.run("whoami")
        assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (2, True, 1)


@pytest.mark.parametrize("words", [["whoami"], ["agents", "list", "--json"]])
def test_output_that_finds_no_room_is_one_line_too(ctl: Shell, words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [PROGRAM, *words]
        done = subprocess.run(command, env=ctl.environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (70, "latticectl: cannot write the output: no space left on device\n")


def test_tokens_and_workspaces_are_made_listed_and_ended(ctl: Shell) -> None:
    ctl("workspaces", "create", "lab")
    assert "lab" in ctl("workspaces", "list")
    assert "admin" in ctl("whoami")
    made = ctl.json("tokens", "create", "--role", "viewer", "--name", "reader", "--expires", "1h", "-w", "lab")
    as_viewer = ["-t", made["token"], "-w", "lab"]
    assert ctl("whoami", *as_viewer).startswith("reader: viewer of workspace lab\n")
    assert ctl.json("runs", "list", *as_viewer)["items"] == []
    assert ctl.run("run", "echo", "hi", *as_viewer).returncode == 77
    assert ctl.run("runs", "list", "-t", made["token"]).returncode == 77
    assert "reader" in ctl("tokens", "list", "-w", "lab")
    ctl("tokens", "revoke", made["id"], "-w", "lab")
    assert ctl.run("runs", "list", *as_viewer).returncode == 77


def test_a_workspace_is_shown_and_deleted(ctl: Shell) -> None:
    ctl("workspaces", "create", "shed")
    run_id = ctl.start("awaiter", "goal", "-w", "shed")
    shown = ctl.json("workspaces", "show", "shed")
    assert (shown["name"], shown["use"]["active_runs"], shown["limits"]["active_runs"]) == ("shed", 1, None)
    assert ctl.json("workspaces", "show", "-w", "shed")["name"] == "shed"
    assert "active runs  1" in ctl("workspaces", "show", "shed")
    refused = ctl.run("workspaces", "delete", "shed")
    assert (refused.returncode, "--force" in refused.stderr or "force=true" in refused.stderr) == (5, True)
    assert ctl.json("workspaces", "delete", "shed", "--force") == {"name": "shed", "deleted": True}
    assert "shed" not in ctl("workspaces", "list")
    ctl("runs", "show", run_id, "-w", "shed", code=4)
    ctl("workspaces", "delete", "shed", code=4)


def test_agents_and_queues_are_listed(ctl: Shell) -> None:
    assert "echo" in [agent["name"] for agent in ctl.json("agents", "list")["items"]]
    assert "echo" in ctl("agents", "list")
    assert "default" in [queue["name"] for queue in ctl.json("queues", "list")["items"]]
    assert "default" in ctl("queues", "list")


def test_ctrl_c_leaves_the_run_going_and_says_so(ctl: Shell) -> None:
    command = [PROGRAM, "run", "awaiter", "for ever", "--follow"]
    with subprocess.Popen(
        command, env=ctl.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        run_id = process.stdout.readline().split()[0]
        while "run.started" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said == f"latticectl: {run_id} goes on; stop it with: latticectl runs stop {run_id}\n"
    assert ctl.daemon.get(run_id)["status"] == "running"
    ctl("runs", "cancel", run_id)


def test_who_follows_goes_where_the_daemon_comes_back(daemon: Callable[..., Daemon]) -> None:
    one = daemon()
    ctl, run_id = Shell(one), one.post_run("signaller")["id"]
    command = [PROGRAM, "runs", "events", run_id, "--follow", "--json"]
    with subprocess.Popen(
        command, env=ctl.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        seen = [json.loads(process.stdout.readline())]
        before = one.url
        one.kill()
        with socket.socket() as nobody:  # holds the port, and answers nobody
            nobody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            nobody.bind(("127.0.0.1", int(before.rpartition(":")[2])))
            assert one.start().url != before
            one.client.post(one.path(f"runs/{run_id}/signals/go"))
            seen += [json.loads(line) for line in process.stdout]  # as communicate() knows nothing of what is buffered
            said = process.communicate(timeout=30)[1]
    assert [event["seq"] for event in seen] == list(range(1, len(seen) + 1))
    assert (process.returncode, seen[-1]["type"]) == (0, "run.finished")
    assert said.splitlines()[-1] == "latticectl: the daemon is there again"


def test_a_daemon_on_a_unix_socket_is_found_by_its_address_and_followed(daemon: Callable[..., Daemon]) -> None:
    one = daemon(start=False)
    path = one.home / "door"
    one.configure({"server": {"unix_socket": str(path)}})
    one.start()
    assert one.url == f"unix:{path}"
    ctl = Shell(one)
    assert ctl("whoami").startswith("admin: admin")
    events = [json.loads(line) for line in ctl("run", "steps", "count", "--follow", "--json").splitlines()]
    assert events[-1]["type"] == "run.finished"
    del ctl.environment["LATTICED_STATE_DIR"]
    for address in (f"unix:{path}", f"unix://{path}"):
        assert "echo" in ctl("agents", "list", "-u", address, "-t", one.token)
    refused = ctl.run("runs", "show", "run_unknown", "-u", f"unix:{path}", "-t", one.token)
    assert refused.returncode == 4
    one.kill()
    gone = ctl.run("whoami", "-u", f"unix:{path}", "-t", "any")
    assert gone.returncode == 75
    assert f"cannot reach unix:{path} (connection refused)" in gone.stderr
    assert ctl.run("whoami", "-u", "unix:", "-t", "any").returncode == 2

"""latticectl without a daemon: what it asks for, what it prints, and how it ends."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latticed.cli.ctl import call
from latticed.clock import from_text, to_text
from tests.scripted import END, Answer, Scripted, event, problem
from tests.wait import wait_until

NOW = from_text("2026-01-01T12:00:00.000000Z")


def at(seconds: float) -> str:
    return to_text(NOW + round(seconds * 1_000_000))


def run(status: str = "queued", **changes: Any) -> dict[str, Any]:
    return {
        "id": "run_1", "kind": "agent", "target": "echo", "name": "echo", "workspace": "default", "status": status,
        "goal": "say hi", "inputs": {}, "queue": "default", "priority": 0, "run_at": None, "deadline_seconds": None,
        "recoveries": 0, "attempt": 1, "parent_run_id": None, "rerun_of": None, "tags": {}, "created_by": "tok_1",
        "created_at": at(-120), "started_at": at(-60), "finished_at": None, "cancel": None, "pause": None,
        "abandoned": None, "output": None, "error": None, **changes,
    }  # fmt: skip


def accepted(status: str = "queued") -> Answer:
    return Answer(202, {"run": run(status), "accepted": True})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Scripted]:
    """A scripted daemon that the environment's state directory leads to."""
    for name in ("LATTICED_URL", "LATTICED_TOKEN", "LATTICED_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LATTICED_STATE_DIR", str(tmp_path))
    scripted = Scripted()
    (tmp_path / "address").write_text(scripted.url + "\n")
    (tmp_path / "admin.token").write_text("from-file\n")
    yield scripted
    scripted.close()


# Where the daemon is


def test_the_state_directory_says_where_the_daemon_is_and_who_asks(server: Scripted) -> None:
    server.answers.append(Answer(200, {"items": []}))
    assert call(["agents", "list"]) == 0
    assert server.asked[0].headers["authorization"] == "Bearer from-file"
    assert server.asked[0].path == "/v1/workspaces/default/agents?limit=500"


def test_the_environment_beats_the_state_directory_and_an_option_beats_both(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LATTICED_STATE_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("LATTICED_URL", server.url)
    monkeypatch.setenv("LATTICED_TOKEN", "from-env")
    monkeypatch.setenv("LATTICED_WORKSPACE", "env")
    server.answers.extend(Answer(200, {"items": []}) for _ in range(2))
    assert call(["agents", "list"]) == 0
    assert call(["agents", "list", "-t", "given", "-w", "mine"]) == 0
    assert [(a.headers["authorization"], a.path) for a in server.asked] == [
        ("Bearer from-env", "/v1/workspaces/env/agents?limit=500"),
        ("Bearer given", "/v1/workspaces/mine/agents?limit=500"),
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["--json", "-w", "mine", "runs", "list"],
        ["runs", "--json", "-w", "mine", "list"],
        ["runs", "list", "--json", "-w", "mine"],
        ["-w", "other", "runs", "list", "--workspace", "mine", "--json"],
    ],
)
def test_global_options_may_stand_anywhere(
    server: Scripted, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    server.answers.append(Answer(200, {"items": [], "next_cursor": None}))
    assert call(words) == 0
    assert server.asked[0].path == "/v1/workspaces/mine/runs"
    assert json.loads(capsys.readouterr().out) == {"items": [], "next_cursor": None}


def test_no_daemon_is_an_error_that_says_where_was_looked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LATTICED_URL", raising=False)
    monkeypatch.setenv("LATTICED_STATE_DIR", str(tmp_path))
    assert call(["runs", "list"]) == 75
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"latticectl: no daemon found: there is no address in {tmp_path}/address (no such file or directory). "
        "Start one with 'latticed serve', or say where it is with -u or LATTICED_URL\n"
    )


# Errors


@pytest.mark.parametrize(
    ("answer", "code", "line"),
    [
        (problem("not_found", 404, "there is no run 'run_9'"), 4, "there is no run 'run_9'"),
        (problem("conflict", 409, "it has ended"), 5, "it has ended"),
        (problem("forbidden", 403, "operators only"), 77, "operators only"),
        (problem("unauthenticated", 401, "a token is needed"), 77, "a token is needed"),
        (problem("unavailable", 503, "draining"), 75, "draining"),
        (problem("busy", 429, "too many.", headers={"retry-after": "3"}), 75, "too many; try again in 3 s"),
        (problem("too_large", 413, "too large"), 2, "too large"),
        (problem("internal", 500, "see the log"), 70, "see the log"),
        (
            problem("invalid", 422, "not valid.", errors=[{"loc": ["body", "goal"], "msg": "is blank"}]),
            2,
            "not valid: body.goal: is blank",
        ),
        (problem("invalid", 422, "goal: is blank", errors=[{"loc": ["goal"], "msg": "is blank"}]), 2, "goal: is blank"),
        (problem("invalid", 422, "two\nlines \x1b[2J"), 2, r"two\nlines \x1b[2J"),
    ],
)
def test_a_refusal_is_one_line_on_stderr_and_its_own_exit_code(
    server: Scripted, capsys: pytest.CaptureFixture[str], answer: Answer, code: int, line: str
) -> None:
    server.answers.append(answer)
    assert call(["runs", "show", "run_9"]) == code
    assert capsys.readouterr() == ("", f"latticectl: {line}\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["runs", "list", "--jsn"], "No such option: --jsn"),
        (["runs", "show"], "Missing argument 'ID'"),
        (["runs", "stop", "run_1", "--mode", "soft"], "Invalid value for '--mode': 'soft' is not one of 'graceful', "),
        (["tokens", "create"], "Missing option '--role'. Choose from: viewer, operator, admin; see "),
        (["runs", "list", "--status", "happy"], "'happy' is not one of"),
        (["run", "echo", "--input", "novalue"], "--input 'novalue' is not a pair"),
        (["run", "echo", "--inputs-json", "[1]"], "--inputs-json must be a JSON object"),
        (["run", "echo", "--deadline", "soon"], "--deadline 'soon' is not a duration"),
        (["run", "echo", "--run-at", "tomorrow"], "--run-at 'tomorrow' is not a time"),
        (["runs", "signal", "run_1", "go", "--data", "hello"], "--data is not JSON"),
        (["approvals", "answer", "ap_1", "perhaps"], "'perhaps' is not one of"),
    ],
)
def test_a_command_line_that_is_wrong_is_one_line_and_exit_code_2(
    server: Scripted, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert call(words) == 2
    out, err = capsys.readouterr()
    assert (out, server.asked) == ("", [])
    assert err.startswith("latticectl: ")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["runs"], ["approvals"]])
def test_a_group_alone_shows_its_help_as_a_usage_error(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert call(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: latticectl")


# Starting a run


def test_what_a_run_is_given_reaches_the_daemon(server: Scripted) -> None:
    server.answers.append(accepted())
    words = "run echo hi --input n=1 --input text=a=b --input list=[1,2] --queue slow --priority -5 --deadline 5m"
    more = ["--tag", "team=a", "--max-retries", "2", "--recovery", "requeue", "--idempotency-key", "k"]
    assert call([*words.split(), *more, "--inputs-json", '{"n": 0, "deep": {"x": null}}']) == 0
    assert server.asked[0].body == {
        "kind": "agent", "target": "echo", "goal": "hi", "queue": "slow", "priority": -5, "deadline_seconds": 300.0,
        "inputs": {"n": 1, "deep": {"x": None}, "text": "a=b", "list": [1, 2]},
        "tags": {"team": "a"}, "max_retries": 2, "recovery": "requeue",
    }  # fmt: skip
    assert server.asked[0].headers["idempotency-key"] == "k"


def test_the_roles_of_a_pipeline_and_a_simulation_can_be_asked_for(server: Scripted) -> None:
    server.answers.append(accepted())
    assert call(["run", "research", "hi", "--role", "planner", "--role", "executor", "--simulate"]) == 0
    assert server.asked[0].body == {
        "kind": "agent", "target": "research", "goal": "hi", "roles": ["planner", "executor"], "mode": "simulation",
    }  # fmt: skip


def test_what_a_run_has_used_is_shown(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    used = {"requests": 3, "input_tokens": 40, "output_tokens": 5, "cost_usd": 0.25}
    server.answers.append(Answer(200, run("running", usage=used, mode="simulation", current_role="executor")))
    assert call(["runs", "show", "run_1"]) == 0
    shown = capsys.readouterr().out
    assert "3 requests, 40 + 5 tokens, 0.2500 USD, simulated" in shown
    assert "executor" in shown


def test_a_started_run_is_named(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers.extend([accepted(), accepted()])
    assert call(["run", "echo", "hi"]) == 0
    assert capsys.readouterr() == ("run_1  queued\n", "")
    assert call(["run", "echo", "hi", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["id"] == "run_1"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("ok", 0),
        ("retried_ok", 0),
        ("partial", 0),
        ("failed", 1),
        ("rejected", 1),
        ("cancelled", 1),
        ("interrupted", 1),
    ],
)
@pytest.mark.parametrize("how", ["--wait", "--follow"])
def test_the_exit_code_says_how_the_run_ended(server: Scripted, how: str, status: str, code: int) -> None:
    server.answers.append(accepted())
    if how == "--follow":
        server.answers.append(Answer(chunks=[event(1), END]))
    server.answers.append(Answer(200, run(status)))
    assert call(["run", "echo", "hi", how]) == code


@pytest.mark.parametrize("words", [["--wait", "run", "hi"], ["run", "hi", "--wait"], ["run", "--wait", "30", "hi"]])
def test_wait_takes_seconds_or_nothing(server: Scripted, words: list[str]) -> None:
    server.answers.extend([accepted(), Answer(200, run("ok"))])
    assert call(["run", *words]) == 0
    assert server.asked[0].body["target"] == "run"
    assert server.asked[0].body["goal"] == "hi"


def test_waiting_prints_how_the_run_ended_and_its_output(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    done = run("ok", finished_at=at(-58.8), output={"words": 3})
    failed = run("failed", finished_at=at(-58.8), error={"code": "boom", "message": "it broke"})
    server.answers.extend([accepted(), Answer(200, done), accepted(), Answer(200, failed)])
    assert call(["run", "echo", "hi", "--wait"]) == 0
    assert capsys.readouterr().out == 'run_1  ok  (1.2 s)\n{\n  "words": 3\n}\n'
    assert call(["run", "echo", "hi", "--wait"]) == 1
    assert capsys.readouterr().out == "run_1  failed  (1.2 s)\nboom: it broke\n"


def test_a_wait_that_is_over_before_the_run_is_ends_75(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers.extend([accepted(), Answer(200, run("running")), Answer(200, run("running"))])
    assert call(["run", "echo", "hi", "--wait", "0"]) == 75
    assert "run_1 goes on; look at it with: latticectl runs show run_1" in capsys.readouterr().err


def test_a_wait_ends_where_a_person_is_asked_and_says_how_to_answer(
    server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = run("awaiting_approval", pause={"approval_ids": ["ap_1"]})
    server.answers.extend([accepted(), Answer(200, asked)])
    assert call(["-w", "mine", "run", "echo", "hi", "--wait"]) == 75
    assert "answer with: latticectl -w mine approvals answer ap_1 approve" in capsys.readouterr().err


def test_following_in_json_is_one_object_a_line(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers.extend([accepted(), Answer(chunks=[event(1), event(2), END]), Answer(200, run("ok"))])
    assert call(["run", "echo", "hi", "--follow", "--json"]) == 0
    assert [json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()] == [1, 2]


# Looking at runs


def test_filters_reach_the_daemon(server: Scripted) -> None:
    server.answers.append(Answer(200, {"items": [], "next_cursor": None}))
    words = "runs list --status ok --kind agent --target echo --tag a=b --tag c:d --limit 3 --cursor x"
    assert call(words.split()) == 0
    assert server.asked[0].path == (
        "/v1/workspaces/default/runs?kind=agent&status=ok&target=echo&tag=a%3Ab&tag=c%3Ad&limit=3&cursor=x"
    )


def test_an_empty_list_says_so(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers.append(Answer(200, {"items": [], "next_cursor": None}))
    assert call(["runs", "list"]) == 0
    assert capsys.readouterr().out == "no runs\n"


def test_all_events_come_as_one_json_document(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    items = [{"seq": n, "type": "log", "at": at(n), "data": {}} for n in (1, 2)]
    server.answers.append(Answer(200, {"items": items[:1], "next_cursor": "1"}))
    server.answers.append(Answer(200, {"items": items[1:], "next_cursor": None}))
    assert call(["runs", "events", "run_1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"items": items, "next_cursor": None}


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ({"stopped": True, "run_id": "run_1", "status": "cancelled"}, "run_1 is cancelled"),
        (
            {"stopped": True, "run_id": "run_1", "status": "cancelling"},
            "run_1 is cancelling; it ends when its work has wound down",
        ),
        ({"stopped": False, "run_id": "run_1", "status": "ok"}, "run_1 had already ended: ok"),
    ],
)
def test_a_stop_says_what_it_did(
    server: Scripted, capsys: pytest.CaptureFixture[str], answer: dict[str, Any], line: str
) -> None:
    server.answers.append(Answer(202, answer))
    assert call(["runs", "stop", "run_1", "--mode", "now", "--reason", "enough"]) == 0
    assert capsys.readouterr().out == line + "\n"
    assert server.asked[0].body == {"mode": "now", "reason": "enough"}


def test_a_new_token_is_alone_on_stdout(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    made = {"id": "tok_1", "token": "the-text", "role": "viewer", "workspace": "default"}
    server.answers.append(Answer(201, made))
    assert call(["tokens", "create", "--role", "viewer", "--expires", "30d", "--lane", "night"]) == 0
    out, err = capsys.readouterr()
    assert out == "the-text\n"
    assert "tok_1" in err
    assert server.asked[0].body == {"role": "viewer", "lanes": ["night"], "expires_seconds": 30 * 86400}


def test_json_stays_json_where_the_terminal_knows_only_ascii(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", errors="backslashreplace"))
    server.answers.append(Answer(200, run(goal="grüß 🌍")))
    assert call(["runs", "show", "run_1", "--json"]) == 0
    assert json.loads(written.getvalue())["goal"] == "grüß 🌍"


# The process


PROGRAM = [sys.executable, "-c", "from latticed.cli.ctl import main; main()"]


def test_the_help_of_run_shows_the_arguments_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["run", "--help"]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("run [OPTIONS] {AGENT} [GOAL]")


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from latticed.cli.ctl import call; code = call(['--help']); "
        "print(code, sorted({'httpx2', 'pydantic', 'rich', 'sqlalchemy', 'starlette', 'orjson'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_a_reader_that_goes_away_is_no_error(server: Scripted) -> None:
    items = [{"seq": n, "type": "log", "at": at(0), "data": {"message": "x" * 500}} for n in range(1, 501)]
    server.answers.append(Answer(200, {"items": items, "next_cursor": None}))
    with subprocess.Popen(
        [*PROGRAM, "runs", "events", "run_1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141


def test_ctrl_c_leaves_the_run_going_and_says_so(server: Scripted) -> None:
    hold = threading.Event()
    server.answers.extend([accepted(), Answer(200, run("running")), Answer(chunks=[event(1)], hold=hold)])
    with subprocess.Popen([*PROGRAM, "run", "echo", "hi", "--wait"], stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: len(server.asked) == 3, timeout=20)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        hold.set()
    assert process.returncode == 130
    assert said == "latticectl: run_1 goes on; stop it with: latticectl runs stop run_1\n"


def test_an_error_in_a_terminal_that_knows_only_ascii_is_still_said(tmp_path: Path) -> None:
    environment = {**os.environ, "LATTICED_STATE_DIR": str(tmp_path), "PYTHONIOENCODING": "ascii"}
    command = [*PROGRAM, "runs", "show", "grüß"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 75
    assert "Traceback" not in done.stderr

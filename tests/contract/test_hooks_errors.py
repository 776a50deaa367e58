"""Hooks that give no answer: they fail closed unless it is said otherwise, and disturb nobody."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import Daemon, wait_until
from tests.hooks_for_tests import command, configuration, python
from tests.timeline import lines, processes, well_ended

TIMEOUT = 0.3
WRITE_100_MB = "import sys\nfor _ in range(1600): sys.stdout.write('x' * 65536)"
LEAVE_SOMEBODY = """
setsid sh -c 'sleep 600' & sh -c 'trap "" TERM INT HUP; sleep 600' & echo $! ; exec sleep 600
"""
SHOW_ENVIRONMENT = 'env | cut -d= -f1 | sort | tr "\\n" " " >&2'

HOOKS: dict[str, dict[str, Any]] = {
    "crash": python("crash", "crash"),
    "crash_soon": python("crash_soon", "crash_soon"),
    "strange": python("strange", "strange"),
    "hang": python("hang", "hang", timeout_seconds=TIMEOUT),
    "deaf": python("deaf", "deaf", timeout_seconds=TIMEOUT),
    "hang_in_thread": python("hang_in_thread", "hang_in_thread", timeout_seconds=TIMEOUT),
    "missing": command("", "missing") | {"argv": ["/nowhere/at/all"]},
    "no_program": command("", "no_program") | {"argv": ["/etc/hostname"]},
    "no_folder": command("true", "no_folder", cwd="/nowhere"),
    "exits": command("echo out; echo err >&2; exit 3", "exits"),
    "dies": command("kill -9 $$", "dies"),
    "no_json": command("echo 'fine, go on'", "no_json"),
    "no_object": command("echo '[1]'", "no_object"),
    "sleeps": command(LEAVE_SOMEBODY, "sleeps", timeout_seconds=TIMEOUT),
    "chatty": command("", "chatty", timeout_seconds=30.0) | {"argv": [sys.executable, "-c", WRITE_100_MB]},
    "silent": command("true", "silent"),
    "leaves": command("sleep 600 >/dev/null 2>&1 & true", "leaves"),
    "blocks": command("""echo '{"block": "by a program"}'""", "blocks"),
    "reads": command("""sed 's/.*"goal":"\\([a-z]*\\)".*/{"tags": {"goal": "\\1"}}/'""", "reads"),
    "no_shell": command("", "no_shell") | {"argv": ["/bin/echo", "-n", '{"tags": {"said": "$HOME; `id` {goal}"}}']},
    "environment": command(SHOW_ENVIRONMENT, "environment", env=["PATH"]),
    "where": command('printf \'{"tags": {"cwd": "%s"}}\' "$PWD"', "where"),
}
HOOKS |= {
    f"{name}_let": {**HOOKS[name], "targets": [f"{name}_let"], "on_error": "ignore"}
    for name in ("crash", "hang", "missing", "no_json", "sleeps", "blocks")
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    made = Daemon(tmp_path_factory.mktemp("hooks"), config=configuration(HOOKS), env={"SOME_TOKEN": "x"})
    try:
        yield made.start()
    finally:
        made.close()


def asked(one: Daemon, run_id: str) -> dict[str, Any]:
    """The one execution of a hook that a run has."""
    [event] = one.events(run_id, "hook.finished")
    found: dict[str, Any] = event["data"]
    return found


@pytest.mark.parametrize(
    ("target", "goal", "status", "detail"),
    [
        ("crash", "x", "error", "RuntimeError: the hook is broken"),
        ("crash", "exit", "error", "SystemExit: 3"),
        ("crash_soon", "x", "error", "RuntimeError: the hook is broken"),
        ("crash_soon", "exit", "error", "SystemExit: 3"),
        ("crash_soon", "cancel", "error", "it cancelled itself"),
        ("strange", "text", "error", "its answer is str; it must be nothing, a block, or an object of changes"),
        ("strange", "true", "error", "its answer is bool"),
        ("strange", "bytes", "error", "its answer's inputs is not JSON"),
        ("strange", "nan", "error", "its answer's inputs is not JSON"),
        ("strange", "keys", "error", "its answer's inputs is not JSON"),
        ("strange", "deep", "error", "its answer's inputs has 2097"),
        ("hang", "x", "timeout", "no answer within 0.3 s"),
        ("deaf", "x", "timeout", "no answer within 0.3 s"),
        ("hang_in_thread", "x", "timeout", "no answer within 0.3 s"),
        ("missing", "x", "error", "/nowhere/at/all: no such program"),
        ("no_program", "x", "error", "/etc/hostname"),
        ("no_folder", "x", "error", "its cwd /nowhere is not a directory"),
        ("exits", "x", "error", "it exited with status 3"),
        ("dies", "x", "error", "it was ended by signal 9"),
        ("no_json", "x", "error", "its answer is not JSON"),
        ("no_object", "x", "error", "its answer is not a JSON object"),
        ("sleeps", "x", "timeout", "no answer within 0.3 s"),
        ("chatty", "x", "error", "its answer has 104857600 bytes"),
    ],
)
def test_without_an_answer_the_run_is_blocked(one: Daemon, target: str, goal: str, status: str, detail: str) -> None:
    run = one.run(target, goal)
    well_ended(one, run["id"], "rejected")
    said = asked(one, run["id"])
    assert (said["status"], said["detail"][: len(detail)]) == (status, detail)
    assert (run["error"]["code"], run["error"]["detail"]["hook"]) == ("blocked", target)
    assert run["error"]["message"] == f"{target}: {said['detail']}"
    assert len(said["output"]) <= 4000


@pytest.mark.parametrize("name", ["crash", "hang", "missing", "no_json", "sleeps"])
def test_where_errors_are_ignored_the_run_goes_on(one: Daemon, name: str) -> None:
    run = one.run(f"{name}_let", tags={"a": "b"})
    assert (run["status"], run["tags"]) == ("ok", {"a": "b"})
    assert asked(one, run["id"])["status"] in ("error", "timeout")
    [record] = [step for step in one.steps(run["id"]) if step["kind"] == "hook"]
    assert record["status"] == "failed"
    assert record["error"]["message"] == asked(one, run["id"])["detail"]


def test_a_block_is_no_error(one: Daemon) -> None:
    run = one.run("blocks_let")
    assert run["error"]["detail"] == {"hook": "blocks_let", "reason": "by a program"}
    assert asked(one, run["id"])["status"] == "blocked"


def test_a_program_is_told_on_its_stdin_and_answers_on_its_stdout(one: Daemon) -> None:
    assert one.run("reads", "something")["tags"] == {"goal": "something"}
    assert one.run("silent", inputs={"much": "x" * 900_000})["status"] == "ok"


def test_what_a_program_prints_is_kept_to_its_end(one: Daemon) -> None:
    assert asked(one, one.run("exits")["id"])["output"] == "out\nerr\n"
    assert asked(one, one.run("chatty")["id"])["output"] == "x" * 4000


def test_no_shell_reads_an_argument(one: Daemon) -> None:
    assert one.run("no_shell")["tags"] == {"said": "$HOME; `id` {goal}"}


def test_a_program_gets_little_of_the_daemons_environment(one: Daemon) -> None:
    names = set(asked(one, one.run("environment")["id"])["output"].split())
    ours = {f"LATTICED_{name}" for name in ("DELIVERY_ID", "HOOK", "POINT", "RUN_ID", "WORKSPACE")}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH"} | ours


def test_a_program_works_in_a_directory_of_its_own(one: Daemon) -> None:
    directory = Path(one.run("where")["tags"]["cwd"])
    assert directory == one.state_dir / "hooks" / "where"
    assert directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("target", ["sleeps", "leaves"])
def test_nothing_of_a_program_is_left(one: Daemon, target: str) -> None:
    run = one.run(target)
    wait_until(lambda: not processes(run["id"]), 5)


def test_what_hangs_holds_up_nobody_else(one: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    hanging = [one.post_run("hang_in_thread", inputs={"effects": str(effects)})["id"] for _ in range(8)]
    wait_until(lambda: len(lines(effects)) == len(hanging))
    began = time.monotonic()
    assert one.run("once")["status"] == "ok"
    assert one.run("crash_let")["status"] == "ok"
    assert time.monotonic() - began < 2
    assert {one.wait(run_id)["error"]["message"] for run_id in hanging} == {"hang_in_thread: no answer within 0.3 s"}


def test_an_async_hook_that_takes_too_long_is_cancelled(one: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    one.run("hang", inputs={"effects": str(effects)})
    assert lines(effects) == ["hangs", "left"]


def test_a_flood_of_output_takes_no_memory(one: Daemon) -> None:
    before = psutil.Process(one.process.pid).memory_info().rss
    for _ in range(2):
        one.run("chatty")
    assert psutil.Process(one.process.pid).memory_info().rss - before < 40e6

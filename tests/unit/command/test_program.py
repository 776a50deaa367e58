"""Commands: what a program gets, and how it ends."""

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from latticed.agents.command import CommandFailed
from latticed.errors import RunError
from tests.unit.command.rig import FakeContext, Run, config


async def test_goal_and_inputs_fill_whole_arguments_and_never_reach_a_shell(run: Run) -> None:
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"
    goal = "--x; $(rm -rf /) 'é' \U0001f600\n*"
    argv = (sys.executable, "-c", show, "{goal}", "{inputs.a-b}", "{inputs.n}", "{inputs.yes}", "{}", "{x}")
    said = await run(*argv, goal=goal, inputs={"a-b": "", "n": 1.5, "yes": True})
    assert json.loads(said) == [goal, "", "1.5", "true", "{}", "{x}"]


@pytest.mark.parametrize(
    ("goal", "inputs", "names"),
    [
        ("g", {}, "'x'"),
        ("g", {"x": [1]}, "inputs.x is a list"),
        ("g", {"x": {"y": 1}}, "inputs.x is an object"),
        ("g", {"x": None}, "inputs.x is null"),
        ("g", {"x": "a\0b"}, "inputs.x holds a NUL"),
        ("g\0", {"x": "a"}, "goal holds a NUL"),
        ("\ud800", {"x": "a"}, "goal holds half a surrogate"),
    ],
)
async def test_what_cannot_be_an_argument_is_refused_by_name(
    run: Run, goal: str, inputs: dict[str, Any], names: str
) -> None:
    with pytest.raises(RunError, match=names) as caught:
        await run("echo", "{goal}", "{inputs.x}", goal=goal, inputs=inputs)
    assert caught.value.code == "invalid"


async def test_the_environment_is_an_allow_list(run: Run, ctx: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATTICED_SECRET_KEY", "s3cret")
    monkeypatch.setenv("WANTED", "yes")
    monkeypatch.setenv("TZ", "UTC")
    ours = {
        "LATTICED_RUN_ID": ctx.run_id,
        "LATTICED_WORKSPACE": "default",
        "LATTICED_STEP_KEY": "key/command/1",
    }
    said = await run(config("/usr/bin/env", env=["WANTED", "NOT_SET"]))
    assert dict(line.split("=", 1) for line in said.splitlines()) == {"WANTED": "yes", **ours}
    default = dict(line.split("=", 1) for line in (await run("env")).splitlines())
    assert default.keys() - ours.keys() <= {"PATH", "HOME", "LANG", "LC_ALL", "TZ"}
    assert default["PATH"] == os.environ["PATH"]


async def test_it_works_in_a_directory_of_its_own_that_is_kept_if_something_is_in_it(
    run: Run, ctx: FakeContext, tmp_path: Path
) -> None:
    work = tmp_path / "work" / ctx.run_id
    assert await run("pwd") == str(work)
    assert not work.exists()
    await run("sh", "-c", "echo kept > file")
    assert (work / "file").read_text() == "kept\n"
    assert stat.S_IMODE(work.stat().st_mode) == 0o700
    assert await run("ls") == "file"
    assert await run(config("pwd", cwd=tmp_path)) == str(tmp_path)


async def test_signals_are_not_ignored_and_input_is_empty(run: Run) -> None:
    ignored = await run("sh", "-c", "cat; grep -E 'SigIgn|SigBlk' /proc/self/status")
    # The C library keeps signals 32 and 33 for itself: nobody can set them, and whoever started us may ignore them.
    theirs = 0b11 << 31
    assert [int(line.split()[1], 16) & ~theirs for line in ignored.splitlines()] == [0, 0]


async def test_another_exit_is_a_failure_with_the_code_and_the_end_of_stderr(run: Run) -> None:
    with pytest.raises(CommandFailed, match="sh exited with status 3: the reason") as caught:
        await run("sh", "-c", "seq 1 5000 >&2; echo the reason >&2; exit 3")
    assert caught.value.code == "exit_status"
    assert caught.value.detail["exit_code"] == 3
    assert caught.value.detail["signal"] is None
    tail = caught.value.detail["stderr"].splitlines()
    assert tail[-2:] == ["5000", "the reason"]
    assert 100 < len(tail) < 1000


async def test_a_signal_that_ended_it_is_named(run: Run) -> None:
    with pytest.raises(CommandFailed, match="was ended by SIGUSR1") as caught:
        await run("sh", "-c", "kill -USR1 $$")
    assert caught.value.detail == {"exit_code": None, "signal": "SIGUSR1", "stderr": ""}


async def test_a_program_that_is_not_there_is_told_from_one_that_says_127(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("not a script")
    script.chmod(0o755)
    (tmp_path / "text").write_text("")
    for argv0, code in {
        "/does/not/exist": "command_not_found",
        "not-on-the-path-either": "command_not_found",
        str(tmp_path / "text"): "command_not_executable",
        str(tmp_path): "command_not_executable",
        str(script): "command_not_executable",
    }.items():
        with pytest.raises(CommandFailed) as caught:
            await run(argv0)
        assert (argv0, caught.value.code) == (argv0, code)
        assert argv0 in caught.value.message
    with pytest.raises(CommandFailed) as caught:
        await run("sh", "-c", "exit 127")
    assert caught.value.code == "exit_status"


async def test_what_the_system_does_not_take_is_a_clear_error(run: Run, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="longer than the system takes") as caught:
        await run("echo", "{goal}", goal="x" * 900_000)
    assert caught.value.code == "invalid"
    with pytest.raises(CommandFailed, match="is not a directory") as caught:
        await run(config("pwd", cwd=tmp_path / "missing"))
    assert caught.value.code == "cwd_not_found"

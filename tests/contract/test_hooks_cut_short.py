"""What ends while a hook is being asked: the run, the daemon, the store; and hooks that change under way."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Daemon, wait_until
from tests.contract.test_store_away import locked
from tests.hooks_for_tests import command, configuration, python
from tests.timeline import lines, processes, well_ended

Make = Callable[..., Daemon]

TRAPPED = "trap '' TERM INT HUP; (sleep 600) & sleep 600"
HOOKS = {
    "hang": python("hang", "hang"),
    "hang_in_thread": python("hang_in_thread", "hang_in_thread"),
    "program": command(TRAPPED, "program"),
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    made = Daemon(tmp_path_factory.mktemp("hooks"), config=configuration(HOOKS, runs={"grace_seconds": 60.0}))
    try:
        yield made.start()
    finally:
        made.close()


def hanging(one: Daemon, target: str, effects: Path, **fields: Any) -> str:
    """A run whose hook has begun and does not end."""
    run_id: str = one.post_run(target, inputs={"effects": str(effects)}, **fields)["id"]
    wait_until(lambda: processes(run_id) if target == "program" else lines(effects), 10)
    return run_id


def skipped(one: Daemon, run_id: str) -> dict[str, Any]:
    """The execution that was cut short."""
    [event] = one.events(run_id, "hook.finished")
    assert event["data"]["status"] == "skipped"
    found: dict[str, Any] = event["data"]
    return found


@pytest.mark.parametrize("mode", ["graceful", "now", "kill"])
@pytest.mark.parametrize("target", list(HOOKS))
def test_a_cancel_takes_effect_at_once(one: Daemon, target: str, mode: str, tmp_path: Path) -> None:
    run_id = hanging(one, target, tmp_path / "effects")
    began = time.monotonic()
    one.stop_run(run_id, mode=mode)
    run = well_ended(one, run_id)
    assert time.monotonic() - began < 2
    assert (run["abandoned"], run["output"]) == (None, None)
    assert skipped(one, run_id)["detail"] == "cut short: its run is to end"
    assert "work" not in lines(tmp_path / "effects")
    wait_until(lambda: not processes(run_id), 5)


@pytest.mark.parametrize("target", list(HOOKS))
def test_a_deadline_takes_effect_at_once(one: Daemon, target: str, tmp_path: Path) -> None:
    run_id = hanging(one, target, tmp_path / "effects", deadline_seconds=0.5)
    run = well_ended(one, run_id, "failed")
    assert run["error"]["code"] == "deadline_exceeded"
    skipped(one, run_id)
    wait_until(lambda: not processes(run_id), 5)


def test_a_drain_gives_the_run_back_and_the_hook_is_asked_again(daemon: Make, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    one = daemon(config=configuration(HOOKS))
    runs = [hanging(one, target, tmp_path / f"effects_{target}") for target in HOOKS]
    careless = hanging(one, "hang", effects, recovery="interrupt")
    began = time.monotonic()
    assert one.stop() == 0
    assert time.monotonic() - began < 2
    assert not any(processes(run_id) for run_id in runs)
    one.configure(
        configuration(
            {"hang": python("note", "hang")}
            | {name: HOOKS[name] | {"enabled": False} for name in ("program", "hang_in_thread")}
        )
    )
    one.start()
    for run_id in runs:
        run = one.wait(run_id)
        assert (run["status"], run["recoveries"], run["epoch"]) == ("ok", 0, 2)
        assert one.events(run_id, "run.released")[0]["data"] == {"reason": "drain"}
        assert one.events(run_id, "hook.finished")[0]["data"]["detail"] == "cut short: its run is given back"
    assert one.get(careless)["status"] == "interrupted"
    assert lines(tmp_path / "effects_hang") == ["hangs", "left", "hang", "work"]


@pytest.mark.parametrize("recovery", ["resume", "requeue"])
def test_a_crash_between_hooks_repeats_none_that_has_answered(daemon: Make, tmp_path: Path, recovery: str) -> None:
    effects, survive = tmp_path / "effects", tmp_path / "survive"
    hooks = {
        "a": python("count", "judged", order=1),
        "b": python("note", "judged", order=2),
        "c": python("kill_the_daemon", "judged", order=3),
        "d": python("count", "judged", order=4),
    }
    one = daemon(config=configuration(hooks))
    inputs = {"effects": str(effects), "survive": str(survive)}
    run_id = one.post_run("judged", inputs=inputs, recovery=recovery)["id"]
    assert one.wait_exit() == -signal.SIGKILL
    survive.touch()
    one.start()
    run = one.wait(run_id)
    assert (run["status"], run["inputs"]["n"]) == ("ok", 2)
    assert run["tags"] == {"a": "saw 0", "d": "saw 1"}
    assert lines(effects) == ["a", "b", "c", "c", "d", "work"]
    assert [event["data"]["hook"] for event in one.events(run_id, "hook.finished")] == ["a", "b", "c", "d"]


def test_an_answer_waits_for_a_store_that_is_away(daemon: Make, tmp_path: Path) -> None:
    effects, script = tmp_path / "effects", 'echo asked >> "$1"; while [ ! -e "$2" ]; do sleep 0.02; done'
    go = tmp_path / "go"
    hook = command(script, "judged")
    hook["argv"] = [*hook["argv"], str(effects), str(go)]
    one = daemon(config=configuration({"slow": hook}))
    run_id = one.post_run("judged")["id"]
    wait_until(effects.exists)
    with locked(one):
        go.touch()
        wait_until(lambda: "store_away" in one.log, 20)
    run = one.wait(run_id)
    assert run["status"] == "ok"
    assert effects.read_text() == "asked\n"
    assert len(one.events(run_id, "hook.finished")) == 1


def test_a_reload_takes_new_hooks_over_and_refuses_bad_ones_without_harm(daemon: Make, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    one = daemon(config=configuration({"old": python("note", "judged")}))
    waiting = one.post_run("judged", inputs={"seconds": 0.5}, run_at=None)["id"]

    def reloaded(hooks: dict[str, Any], event: str) -> str:
        before = one.log.count(f'"event":"{event}"')
        one.configure(configuration(hooks))
        one.process.send_signal(signal.SIGHUP)
        wait_until(lambda: one.log.count(f'"event":"{event}"') > before)
        return one.log_lines[-1].get("reason", "")

    for bad, complaint in (
        ({"old": python("nothing_there", "judged")}, "hooks.old.function: tests.hooks_for_tests:nothing_there"),
        ({"old": python("note", "judged") | {"function": "no.such.module:x"}}, "cannot import no.such.module"),
        ({"old": python("note", "judged") | {"settings": {"a": 1}}}, "hooks.old.settings"),
        ({"old": python("note", "judged", point="pre_lunch")}, "hooks.old.point"),
        ({"old": python("note", "judged", surprise=1)}, "surprise"),
        (
            {"hook": {"use": "webhook", "point": "post_run", "url": "https://x.example", "secret": "secret:none"}},
            "'none'",
        ),
    ):
        assert complaint in reloaded(bad, "reload_refused")
        assert one.run("judged", inputs={"effects": str(effects)})["status"] == "ok"
    assert set(lines(effects)) == {"old", "work"}
    reloaded({"new": python("refuse", "judged")}, "reloaded")
    assert one.run("judged", "anything")["error"]["detail"]["hook"] == "new"
    assert one.wait(waiting)["status"] == "ok"  # it had begun: nobody is asked about it any more


@pytest.mark.parametrize(
    ("hooks", "complaint"),
    [
        ({"a": python("nothing_there", "x")}, "hooks.a.function: tests.hooks_for_tests:nothing_there"),
        ({"a": command("true", "x", cwd="here")}, "hooks.a.cwd: must be an absolute path"),
        ({"a": {"use": "post", "point": "pre_run"}}, "hooks.a: 'use' must be one of 'python', 'command', 'webhook'"),
        ({"a": {"use": "webhook", "point": "on_event", "url": "ftp://x"}}, "hooks.a.url"),
        ({"a": {"use": "webhook", "point": "post_run", "url": "https://x", "secret": "hunter2"}}, "hooks.a.secret"),
        (
            {"a": {"use": "webhook", "point": "post_run", "url": "https://x", "secret": "secret:gone"}},
            "LATTICED_SECRET_GONE",
        ),
        (
            {"a": {"use": "webhook", "point": "post_run", "url": "https://x", "secret": "secret:short"}},
            "hooks.a.secret: what follows whsec_",
        ),
        ({"a": {"use": "webhook", "point": "post_run", "url": "https://me:hunter2@x"}}, "hooks.a.url: a URL holds no"),
        ({"a": python("note", "x", point="on_event", events=["run.finish"])}, "hooks.a.events: 'run.finish' is no"),
        ({"a": python("note", "x", events=["run.finished"])}, "only a hook at the point on_event chooses events"),
        ({"a b": python("note", "x")}, "hooks.a b"),
    ],
)
def test_a_bad_hook_keeps_the_daemon_from_starting(daemon: Make, hooks: dict[str, Any], complaint: str) -> None:
    secret = {"LATTICED_SECRET_SHORT": "whsec_hunter2!"}
    one = daemon(config=configuration(hooks), start=False, env=secret).launch()
    assert one.wait_exit() == 78
    assert complaint in one.log
    assert "hunter2" not in one.log

"""Webhooks that are asked before a run: their answer's body is the hook's answer."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Daemon, wait_until
from tests.receiver import ALLOWED, Receiver, plain
from tests.timeline import well_ended


@pytest.fixture(scope="module")
def judge() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="module")
def one(judge: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    asked = {"use": "webhook", "point": "pre_run", "url": judge.url, "targets": ["echo"], "timeout_seconds": 0.5}
    config = {"hooks": {"judge": asked}, "webhooks": ALLOWED}
    made = Daemon(tmp_path_factory.mktemp("asked"), config=config)
    try:
        yield made.start()
    finally:
        made.close()


def says(judge: Receiver, answer: Any, status: int = 200) -> None:
    """The next answer."""
    judge.answers.append(plain(status, json.dumps(answer).encode() if answer is not None else b""))


def finished(one: Daemon, run_id: str) -> dict[str, Any]:
    """What the run's timeline says of its hook."""
    [event] = one.events(run_id, "hook.finished")
    data: dict[str, Any] = event["data"]
    return data


def test_it_can_change_what_the_run_gets(one: Daemon, judge: Receiver) -> None:
    says(judge, {"inputs": {"a": 2}, "tags": {"seen": "yes"}})
    run = one.run("echo", inputs={"a": 1})
    assert (run["output"]["inputs"], run["tags"]) == ({"a": 2}, {"seen": "yes"})
    [request] = judge.about(run["id"])
    assert request.event["type"] == "latticed.pre_run"
    assert request.event["data"]["run"]["inputs"] == {"a": 1}
    assert (finished(one, run["id"])["status"], finished(one, run["id"])["delivery_id"]) == ("ok", request.id)


def test_nothing_said_is_nothing_done(one: Daemon, judge: Receiver) -> None:
    says(judge, None, 204)
    assert one.run("echo", inputs={"a": 1})["output"]["inputs"] == {"a": 1}


def test_it_can_say_no(one: Daemon, judge: Receiver) -> None:
    says(judge, {"block": "not today"})
    run = well_ended(one, one.post_run("echo")["id"], "rejected")
    assert run["error"]["code"] == "blocked"
    assert run["error"]["detail"] == {"hook": "judge", "reason": "not today"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (plain(500, b'{"block": "x"}'), "it answered 500"),
        (plain(200, b"fine"), "not JSON"),
        (plain(200, b'{"goal": "another"}'), "goal"),
        (plain(302, b"", "Location: http://127.0.0.1:1/"), "no connection"),
        (plain(302, b"", "Location: http://[::1]/"), "private"),
        (b"\x00", "no HTTP"),
    ],
)
def test_what_is_no_answer_blocks(one: Daemon, judge: Receiver, answer: bytes, said: str) -> None:
    judge.answers.append(answer)
    run = well_ended(one, one.post_run("echo")["id"], "rejected")
    assert said in run["error"]["message"]
    assert finished(one, run["id"])["status"] == "error"
    assert len(judge.about(run["id"])) == 1, "a judge is asked once"


def test_one_that_hangs_blocks_when_its_time_is_over_and_holds_no_cancel_up(one: Daemon, judge: Receiver) -> None:
    judge.behaviour = lambda request, channel: judge.over.wait() and None
    run = well_ended(one, one.post_run("echo")["id"], "rejected")
    assert finished(one, run["id"])["status"] == "timeout"
    stopped = one.post_run("echo")["id"]
    wait_until(lambda: judge.about(stopped))
    one.stop_run(stopped)
    well_ended(one, stopped)
    assert finished(one, stopped)["status"] == "skipped"
    judge.behaviour = lambda request, channel: plain()


def test_one_that_was_registered_is_asked_too(one: Daemon) -> None:
    other = Receiver(lambda request, channel: plain(200, b'{"block": "so registered"}'))
    body = {"name": "strict", "point": "pre_run", "url": other.url, "targets": ["nothing"]}
    made = one.client.post(one.path("hooks"), json=body).json()
    assert made["on_error"] == "block"
    run = well_ended(one, one.post_run("nothing")["id"], "rejected")
    assert run["error"]["detail"]["hook"] == "strict"
    [kept] = one.client.get(one.path("hooks/deliveries"), params={"run": run["id"]}).json()["items"]
    assert (kept["status"], kept["hook_id"], kept["point"]) == ("blocked", made["id"], "pre_run")
    answer = one.client.post(one.path(f"hooks/deliveries/{kept['id']}/redeliver"))
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    other.close()

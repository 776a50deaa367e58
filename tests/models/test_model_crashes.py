"""A daemon that dies under a conversation: no reply is paid for twice, no tool that has answered is called again."""

import pytest

from tests.conftest import Daemon, wait_until
from tests.endpoint import Call, Endpoint, Gate, Refuse, Say
from tests.models.conftest import Ledger, approve, pending


def nine_calls(endpoint: Endpoint, name: str) -> str:
    """Ten requests to the model: nine that call a tool, and a last word."""
    return endpoint.script(name, *(Call("add", a=turn, b=0) for turn in range(9)), Say("ten"))


def test_a_kill_during_the_fifth_of_ten_requests_repeats_that_one_only(
    mortal: Daemon, endpoint: Endpoint, done: Ledger
) -> None:
    gate = Gate()
    goal = nine_calls(endpoint, "fifth")
    endpoint.before("fifth", 4, Say("half of a reply", pieces=5, gate=gate, held_at=2))
    run = mortal.post_run("helper", goal)
    assert gate.reached.wait(15)
    mortal.wait_event(run["id"], "text.delta")
    mortal.kill()
    gate.open()
    mortal.start()
    run = mortal.wait(run["id"])
    assert (run["status"], run["output"]) == ("ok", "ten")
    assert endpoint.asked("fifth") == [1, 1, 1, 1, 2, 1, 1, 1, 1, 1]
    assert done.lines("add") == [f"add {turn} 0" for turn in range(9)]
    assert run["usage"]["requests"] == 10


@pytest.mark.crash_long  # Each of these places is died at in tests/crash too, by all sorts of runs at once.
@pytest.mark.parametrize(
    ("place", "asked", "called"),
    [
        ("model.before_request:3", [1, 1, 1, 1], 3),
        ("model.after_reply:3", [1, 1, 2, 1], 3),
        ("tool.before_call:3", [1, 1, 1, 1], 3),
        ("tool.after_call:3", [1, 1, 1, 1], 4),
        ("step.after_record:5", [1, 1, 1, 1], 3),
    ],
)
def test_a_death_between_any_two_facts_repeats_at_most_what_was_not_recorded(
    mortal: Daemon, endpoint: Endpoint, done: Ledger, place: str, asked: list[int], called: int
) -> None:
    name = place.replace(".", "-").replace(":", "-").replace("_", "-")
    mortal.kill()
    mortal.env["LATTICED_FAILPOINTS"] = place
    mortal.start()
    run = mortal.post_run("helper", endpoint.script(name, *(Call("add", a=n, b=0) for n in range(3)), Say("end")))
    assert mortal.wait_exit(20) == -9
    del mortal.env["LATTICED_FAILPOINTS"]
    mortal.start()
    assert mortal.wait(run["id"])["output"] == "end"
    assert endpoint.asked(name) == asked
    assert len(done.lines("add")) == called


def test_of_calls_side_by_side_only_those_that_had_not_answered_are_made_again(
    mortal: Daemon, endpoint: Endpoint, done: Ledger
) -> None:
    three = Call.several(
        ("hold", {"name": "first"}), ("add", {"a": 1, "b": 2}), ("hold", {"name": "last"}), ("add", {"a": 3, "b": 4})
    )
    run = mortal.post_run("helper", endpoint.script("side", three, Call("add", a=5, b=6), Say("end")))
    ledger_steps = lambda: [s["branch"] for s in mortal.steps(run["id"]) if s["status"] == "ok"]
    wait_until(lambda: "0.3/" in ledger_steps() and "0.1/" in ledger_steps())
    done.touch("last")
    wait_until(lambda: "0.2/" in ledger_steps())
    mortal.kill()
    done.touch("first")
    mortal.start()
    assert mortal.wait(run["id"])["output"] == "end"
    assert endpoint.told("side") == ["held first", "3", "held last", "7", "11"]
    assert done.lines("hold first") == ["hold first"] * 2
    assert done.lines("hold last") == ["hold last"]
    assert done.lines("add") == ["add 1 2", "add 3 4", "add 5 6"]
    assert endpoint.asked("side") == [1, 1, 1]


def test_a_retry_after_survives_the_daemon(mortal: Daemon, endpoint: Endpoint, done: Ledger) -> None:
    goal = endpoint.script("waits", Say("thanks"))
    endpoint.before("waits", 0, Refuse(429, headers={"Retry-After": "6"}))
    run = mortal.post_run("helper", goal)
    waiting = mortal.wait(run["id"], "waiting")
    mortal.kill()
    mortal.start()
    again = mortal.get(run["id"])
    assert again["status"] != "waiting" or again["pause"]["wake_at"] == waiting["pause"]["wake_at"]
    assert mortal.wait(run["id"])["output"] == "thanks"
    assert endpoint.asked("waits") == [2]


def test_a_drain_lets_the_reply_under_way_come_to_its_end(mortal: Daemon, endpoint: Endpoint, done: Ledger) -> None:
    gate = Gate()
    goal = endpoint.script("drain", Call("add", a=1, b=2), Say("One two three", pieces=3, gate=gate, held_at=2))
    run = mortal.post_run("helper", goal)
    assert gate.reached.wait(15)
    mortal.process.terminate()
    wait_until(lambda: "draining" in mortal.log)
    gate.open()
    assert mortal.wait_exit(20) == 0
    mortal.start()
    assert mortal.wait(run["id"])["output"] == "One two three"
    assert endpoint.asked("drain") == [1, 1]
    assert done.lines("add") == ["add 1 2"]


def test_what_a_run_has_used_is_not_counted_twice(mortal: Daemon, endpoint: Endpoint, done: Ledger) -> None:
    both = (Call("hold", name="budget"), Call("add", a=1, b=1), Say("end"))
    run = mortal.post_run("three_requests", endpoint.script("counted", *both))
    wait_until(lambda: done.lines("hold"))
    mortal.kill()
    done.touch("budget")
    mortal.start()
    run = mortal.wait(run["id"])
    assert (run["status"], run["usage"]["requests"]) == ("ok", 3)


def test_a_question_survives_the_daemon(mortal: Daemon, endpoint: Endpoint, done: Ledger) -> None:
    run = mortal.post_run("wary", endpoint.script("survives", Call("add", a=7, b=1), Say("8")))
    mortal.wait(run["id"], "awaiting_approval")
    before = pending(mortal, run["id"])
    mortal.kill()
    mortal.start()
    assert pending(mortal, run["id"]) == before
    approve(mortal, run["id"])
    assert mortal.wait(run["id"])["output"] == "8"
    assert done.lines("add") == ["add 7 1"]
    assert endpoint.asked("survives") == [1, 1]

"""What models and their servers do wrong, and what becomes of the run."""

import time

import pytest

from tests.conftest import Daemon, wait_until
from tests.endpoint import Call, Cut, Endless, Endpoint, Gate, Hang, Leave, Nonsense, Refuse, Say
from tests.models.conftest import Ledger


@pytest.mark.parametrize(
    ("name", "refusal", "code"),
    [
        ("unknown-key", Refuse(401, "Incorrect API key provided: sk-very-secret"), "model_unauthorized"),
        ("forbidden", Refuse(403), "model_unauthorized"),
        ("no-model", Refuse(404, "model not found", code="model_not_found"), "model_not_found"),
        ("too-long", Refuse(400, "maximum context length", code="context_length_exceeded"), "context_too_long"),
        ("bad", Refuse(422, "what is that?"), "model_rejected"),
        ("no-money", Refuse(429, "no quota", code="insufficient_quota"), "model_quota_exceeded"),
    ],
)
def test_what_asking_again_would_not_mend_fails_at_once(
    modelled: Daemon, endpoint: Endpoint, name: str, refusal: Refuse, code: str
) -> None:
    run = modelled.run("keyed", endpoint.script(name, refusal), max_retries=2)
    assert (run["status"], run["error"]["code"]) == ("failed", code)
    assert endpoint.asked(name) == [1]
    assert run["attempt"] == 1
    assert "local" in run["error"]["message"] or "keyed" in run["error"]["message"]


def test_of_a_refusal_without_end_only_the_beginning_is_read(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.run("helper", endpoint.script("long-refusal", Refuse(400, "no, " * (8 << 20))))
    assert (run["status"], run["error"]["code"]) == ("failed", "model_rejected")
    assert "no, no, no" in run["error"]["message"]
    wait_until(lambda: endpoint.of("long-refusal")[0].end != "open")
    assert endpoint.of("long-refusal")[0].end == "left", "the rest was never read"
    assert modelled.run("helper", endpoint.script("short", Say("yes")))["status"] == "ok"


def test_a_key_is_sent_and_never_told(modelled: Daemon, endpoint: Endpoint) -> None:
    refusal = Refuse(401, "Incorrect API key provided: sk-very-secret")
    run = modelled.run("keyed", endpoint.script("leak", refusal))
    assert endpoint.of("leak")[0].headers["authorization"] == "Bearer sk-very-secret"
    told = str([run, modelled.events(run["id"]), modelled.steps(run["id"]), modelled.log])
    assert "very-secret" not in told


@pytest.mark.parametrize(
    ("name", "happening"),
    [
        ("broken", Refuse(500)),
        ("overloaded", Refuse(503)),
        ("cut", Cut()),
        ("cut-later", Cut(after=3)),
        ("left", Leave(after=3)),
        ("timed-out", Refuse(408)),
        ("nonsense", Nonsense()),
        ("half-json", Nonsense('{"choices": [')),
    ],
)
def test_what_may_be_better_later_is_asked_again(
    modelled: Daemon, endpoint: Endpoint, name: str, happening: object
) -> None:
    goal = endpoint.script(name, Say("at last"))
    endpoint.before(name, 0, happening)
    run = modelled.run("helper", goal)
    assert (run["status"], run["output"]) == ("ok", "at last")
    assert endpoint.asked(name) == [2]
    assert run["usage"]["requests"] == 1
    (warning,) = modelled.events(run["id"], "log")
    assert warning["data"]["level"] == "warning"


def test_a_reply_that_does_not_end_is_given_up_and_counted(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.run("helper", endpoint.script("endless", Endless()))
    assert (run["status"], run["error"]["code"]) == ("failed", "too_large")
    assert endpoint.asked("endless") == [1]
    told = sum(len(event["data"]["text"]) for event in modelled.events(run["id"], "text.delta"))
    assert told < 3 << 20
    (reply,) = [step for step in modelled.steps(run["id"]) if step["name"] == "model:helper"]
    assert reply["outcome"]["used"]["requests"] == run["usage"]["requests"] == 1


def test_a_server_that_is_never_better_fails_the_run(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.run("one_try", endpoint.script("hopeless", Refuse(500)))
    assert (run["status"], run["error"]["code"]) == ("failed", "model_unavailable")
    assert endpoint.asked("hopeless") == [1]


def test_a_model_that_is_not_there_fails_the_run(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.run("nowhere", "hello")
    assert (run["status"], run["error"]["code"]) == ("failed", "model_unreachable")


def test_a_model_that_cannot_be_asked_at_all_is_known_before_a_run_begins(modelled: Daemon) -> None:
    refused = modelled.client.post(modelled.path("runs"), json={"target": "keyless", "goal": "hello"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    assert "groq:llama" in refused.json()["detail"]
    shown = modelled.agents["keyless"]
    assert (shown["available"], shown["modes"]) == (False, ["simulation"])
    assert shown["missing"] in refused.json()["detail"]
    assert modelled.run("keyless", "hello", mode="simulation")["status"] == "ok"


def test_retry_after_is_waited_for(modelled: Daemon, endpoint: Endpoint) -> None:
    goal = endpoint.script("limited", Say("in the end"))
    endpoint.before("limited", 0, Refuse(429, headers={"Retry-After": "1"}))
    began = time.monotonic()
    run = modelled.run("helper", goal)
    assert (run["status"], run["output"]) == ("ok", "in the end")
    assert time.monotonic() - began >= 1.0
    assert endpoint.asked("limited") == [2]


def test_a_long_retry_after_gives_the_slot_back(modelled: Daemon, endpoint: Endpoint) -> None:
    goal = endpoint.script("much-limited", Say("in the end"))
    endpoint.before("much-limited", 0, Refuse(429, headers={"Retry-After": "600"}))
    run = modelled.post_run("helper", goal)
    run = modelled.wait(run["id"], "waiting")
    assert run["pause"]["kind"] == "timer"
    assert modelled.stop_run(run["id"])["cancellation"] == "immediate"


def test_a_retry_after_beyond_what_is_allowed_fails_the_run(modelled: Daemon, endpoint: Endpoint) -> None:
    goal = endpoint.script("never", Refuse(429, headers={"Retry-After": "86400"}))
    run = modelled.run("helper", goal)
    assert (run["status"], run["error"]["code"]) == ("failed", "model_rate_limited")
    assert endpoint.asked("never") == [1]


def test_a_model_that_does_not_answer_in_time_is_asked_again_then_given_up(
    modelled: Daemon, endpoint: Endpoint
) -> None:  # fmt: skip
    run = modelled.run("impatient", endpoint.script("silent", Hang()))
    assert (run["status"], run["error"]["code"]) == ("failed", "model_timeout")
    assert endpoint.asked("silent") == [2]
    wait_until(lambda: [asked.end for asked in endpoint.of("silent")] == ["left", "left"])


@pytest.mark.parametrize("mode", ["graceful", "now"])
def test_a_stop_cuts_the_reply_that_is_under_way(modelled: Daemon, endpoint: Endpoint, mode: str) -> None:
    gate = Gate()
    name = f"cut-{mode}"
    run = modelled.post_run("helper", endpoint.script(name, Say("One two three", pieces=3, gate=gate, held_at=2)))
    gate.reached.wait(10)
    modelled.wait_event(run["id"], "text.delta")
    began = time.monotonic()
    modelled.stop_run(run["id"], mode=mode)
    run = modelled.wait(run["id"], "cancelled")
    assert time.monotonic() - began < 0.9, "the grace of a second was not to be waited for"
    wait_until(lambda: endpoint.of(name)[0].end == "left")
    assert [event["data"]["text"] for event in modelled.events(run["id"], "text.delta")] == ["One two th"]
    gate.open()


def test_a_cancel_waits_for_a_plain_tool_until_it_is_given_up_as_a_thread(
    modelled: Daemon, endpoint: Endpoint, ledger: Ledger
) -> None:
    def stopped(name: str, mode: str) -> str:
        run: str = modelled.post_run("busy", endpoint.script(f"thread-{name}", Call("occupied", name=name)))["id"]
        wait_until(lambda: ledger.lines(f"occupied {name}"))
        modelled.stop_run(run, mode=mode)
        return run

    assert modelled.wait(stopped("stays", "kill"), "cancelled")["abandoned"] == "thread"
    ends = stopped("ends", "now")
    ledger.touch("ends")
    assert modelled.wait(ends, "cancelled")["abandoned"] is None
    assert ledger.lines("free ends"), "it was waited for"
    ledger.touch("stays")
    wait_until(lambda: ledger.lines("free stays"))


def test_a_tool_that_is_not_there_is_told_to_the_model(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.run("helper", endpoint.script("no-tool", Call("fly", to="Oslo"), Say("I cannot fly.")))
    assert run["output"] == "I cannot fly."
    assert "fly" in endpoint.told("no-tool")[0]


def test_arguments_that_do_not_fit_are_told_to_the_model(modelled: Daemon, endpoint: Endpoint) -> None:
    goal = endpoint.script("bad-args", Call("add", a="one", b=2), Call.several(("add", '{"a": 1,')), Say("sorry"))
    run = modelled.run("helper", goal)
    assert run["output"] == "sorry"
    assert "valid integer" in endpoint.told("bad-args")[0]


def test_a_model_that_never_learns_fails_the_run(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.run("helper", endpoint.script("stubborn", Call("fly", to="Oslo")))
    assert (run["status"], run["error"]["code"]) == ("failed", "output_invalid")


def test_what_a_tool_asks_the_model_to_do_again_is_told(modelled: Daemon, endpoint: Endpoint) -> None:
    modelled.run("helper", endpoint.script("picky", Call("picky", number=3), Call("picky", number=30), Say("ok")))
    told = endpoint.told("picky")
    assert "above ten" in told[0]
    assert told[1] == "took 30"


def test_a_tool_that_raises_is_told_to_the_model(modelled: Daemon, endpoint: Endpoint, ledger: Ledger) -> None:
    run = modelled.run("helper", endpoint.script("raises", Call("fails", what="bread"), Say("No bread.")))
    assert run["status"] == "ok"
    assert "RuntimeError: no bread today" in endpoint.told("raises")[0]
    assert ledger.lines("fails bread") == ["fails bread"]
    (returned,) = modelled.events(run["id"], "tool.returned")
    assert returned["data"]["ok"] is False
    assert "no bread today" in returned["data"]["error"]


def test_a_tool_that_wants_to_end_the_program_is_told_to_the_model(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.run("helper", endpoint.script("leaves", Call("leaves", code=3), Say("It left.")))
    assert (run["status"], run["output"]) == ("ok", "It left."), run["error"]
    assert "SystemExit: 3" in endpoint.told("leaves")[0]


def test_a_tool_that_hangs_is_given_up(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.run("hasty", endpoint.script("hangs", Call("hangs"), Say("Too slow.")))
    assert run["status"] == "ok"
    assert "took longer than 0.2 s" in endpoint.told("hangs")[0]


def test_a_result_that_is_too_large_is_told_to_the_model(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.run("helper", endpoint.script("huge", Call("huge", megabytes=50), Say("Too much.")))
    assert run["status"] == "ok"
    assert "52428800 bytes" in endpoint.told("huge")[0]


@pytest.mark.parametrize(
    ("agent", "asked"),
    [("no_requests", []), ("two_requests", [1, 1]), ("few_tokens", [1, 1]), ("cheap", [1, 1])],
)
def test_a_budget_that_is_exceeded_fails_the_run(
    modelled: Daemon, endpoint: Endpoint, agent: str, asked: list[int]
) -> None:
    goal = endpoint.script(f"budget-{agent}", Call("add", a=1, b=1), Call("add", a=2, b=2), Say("never said"))
    run = modelled.run(agent, goal)
    assert (run["status"], run["error"]["code"]) == ("failed", "budget_exceeded")
    assert "budget.max_" in run["error"]["message"]
    assert endpoint.asked(f"budget-{agent}") == asked
    assert run["usage"]["requests"] == len(asked)


def test_a_last_reply_beyond_the_budget_counts_too(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.run("few_tokens", endpoint.script("wordy", Say("done", tokens=(100, 100))))
    assert (run["status"], run["error"]["code"]) == ("failed", "budget_exceeded")
    assert run["usage"]["output_tokens"] == 100

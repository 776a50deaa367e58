"""A ready pydantic-ai agent as a run: what it asks, what its tools do, what is told of it."""

import pytest

from tests.conftest import Daemon
from tests.endpoint import Call, Endpoint, Gate, Say, Whole
from tests.models.conftest import Ledger


def test_the_answer_of_the_model_is_the_output_of_the_run(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.run("helper", endpoint.script("hello", Say("Hello, you.")))
    assert (run["status"], run["output"]) == ("ok", "Hello, you.")
    assert run["usage"] == {"requests": 1, "input_tokens": 10, "output_tokens": 5, "cost_usd": 0.0}
    asked = endpoint.of("hello")[0].body
    assert asked["model"] == "scripted"
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert {"role": "user", "content": "#hello please"} in asked["messages"]


def test_inputs_follow_the_goal(modelled: Daemon, endpoint: Endpoint) -> None:
    modelled.run("helper", endpoint.script("inputs", Say("ok")), inputs={"colour": "red"})
    assert '"colour": "red"' in endpoint.of("inputs")[0].body["messages"][-1]["content"]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_text_is_told_as_it_comes(modelled: Daemon, endpoint: Endpoint, newline: str) -> None:
    gate = Gate()
    say = Say("One two three four.", pieces=4, gate=gate, held_at=2, newline=newline)
    goal = endpoint.script("stream", say)
    run = modelled.post_run("helper", goal)
    first = modelled.wait_event(run["id"], "text.delta")
    assert first["data"] == {"text": "One two th", "agent": "helper", "request": 1, "attempt": 1}
    assert modelled.get(run["id"])["status"] == "running"
    gate.open()
    modelled.wait(run["id"], "ok")
    told = modelled.events(run["id"], "text.delta")
    assert "".join(event["data"]["text"] for event in told) == "One two three four."
    assert len(told) == 2


def test_a_tool_is_called_and_told(modelled: Daemon, endpoint: Endpoint, ledger: Ledger) -> None:
    goal = endpoint.script("sum", Call("add", a=19, b=23), Say("42"))
    run = modelled.run("helper", goal)
    assert run["output"] == "42"
    assert endpoint.told("sum") == ["42"]
    assert ledger.lines("add 19") == ["add 19 23"]
    called, returned = modelled.events(run["id"], "tool.called", "tool.returned")
    assert called["data"] == {"tool": "add", "call_id": "call_0", "agent": "helper", "args": {"a": 19, "b": 23}}
    assert returned["data"]["result"] == 42
    assert returned["data"]["ok"] is True
    assert [(step["name"], step["branch"]) for step in modelled.steps(run["id"])] == [
        ("model:helper", ""), ("tool:add", "0.0/"), ("model:helper", ""),
    ]  # fmt: skip


def test_usage_is_told_for_each_reply_and_added_up(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.run("cheap", endpoint.script("paid", Say("done")))
    (told,) = modelled.events(run["id"], "usage")
    assert told["data"]["cost_usd"] == 0.02
    assert told["data"]["total"] == run["usage"]
    assert run["usage"]["cost_usd"] == 0.02


def test_the_calls_of_one_reply_are_made_side_by_side(modelled: Daemon, endpoint: Endpoint) -> None:
    pair = Call.several(
        ("rendezvous", {"name": "ann", "with_": "bob"}), ("rendezvous", {"name": "bob", "with_": "ann"})
    )
    modelled.run("helper", endpoint.script("pair", pair, Say("both")))
    assert endpoint.told("pair") == ["ann met bob", "bob met ann"]


def test_calls_of_one_id_are_told_apart(modelled: Daemon, endpoint: Endpoint) -> None:
    twins = Call.several(("add", {"a": 1, "b": 1}), ("add", {"a": 2, "b": 2}), ids=["same", "same"])
    modelled.run("helper", endpoint.script("twins", twins, Say("ok")))
    assert endpoint.told("twins") == ["2", "4"]


def test_a_plain_tool_runs_in_a_thread(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.run("helper", endpoint.script("thread", Call("plain_add", a=1, b=2), Say("ok")))
    assert run["status"] == "ok"
    assert endpoint.told("thread") == ["3"]


def test_what_a_tool_gives_reaches_the_model_as_pydantic_ai_has_it(modelled: Daemon, endpoint: Endpoint) -> None:
    goal = endpoint.script("rich", Call("rich", what="return"), Call("rich", what="model"), Say("ok"))
    modelled.run("helper", goal)
    assert endpoint.told("rich") == ['{"day":"2026-01-02"}', '{"name":"Oslo","people":7}']
    assert any(
        m["role"] == "user" and "look at the day" in str(m["content"]) for m in endpoint.of("rich")[-1].body["messages"]
    )


def test_an_object_is_asked_for_and_validated(modelled: Daemon, endpoint: Endpoint) -> None:
    wrong = Call("final_result", name="Oslo", people="many")
    right = Call("final_result", name="Oslo", people=7)
    run = modelled.run("judge", endpoint.script("city", wrong, right))
    assert run["output"] == {"name": "Oslo", "people": 7}
    assert endpoint.asked("city") == [1, 1]


def test_a_server_that_does_not_stream_is_understood(modelled: Daemon, endpoint: Endpoint) -> None:
    calls = Whole(Call.several(("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4})))
    run = modelled.run("helper", endpoint.script("whole", calls, Whole(Say("three and seven", tokens=(20, 7)))))
    assert (run["status"], run["output"]) == ("ok", "three and seven"), run["error"]
    assert endpoint.asked("whole") == [1, 1]
    assert endpoint.told("whole") == ["3", "7"]
    assert all(asked.body["stream"] for asked in endpoint.of("whole"))
    assert {asked.headers["accept-encoding"] for asked in endpoint.of("whole")} == {"identity"}
    assert (run["usage"]["input_tokens"], run["usage"]["output_tokens"]) == (30, 12)
    assert "".join(event["data"]["text"] for event in modelled.events(run["id"], "text.delta")) == "three and seven"


def test_an_object_that_never_comes_is_a_failure(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.run("judge", endpoint.script("no-city", Call("final_result", name="Oslo", people="many")))
    assert (run["status"], run["error"]["code"]) == ("failed", "output_invalid")


def test_tools_of_the_configuration_are_beside_the_agents_own(modelled: Daemon, endpoint: Endpoint) -> None:
    goal = endpoint.script("armed", Call("weather", city="Oslo"), Say("rain"))
    modelled.run("armed", goal)
    tools = {tool["function"]["name"]: tool["function"] for tool in endpoint.of("armed")[0].body["tools"]}
    assert set(tools) == {"weather", "echo_run", "failing_run", "endless_run", "programs"}
    assert tools["weather"]["description"].startswith("The weather in a city,")
    assert endpoint.told("armed") == ["rain in Oslo"]

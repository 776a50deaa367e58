"""Tools of the configuration: functions, runs, programs."""

from tests.conftest import Daemon
from tests.endpoint import Call, Endpoint, Say
from tests.models.conftest import Ledger


def test_a_function(modelled: Daemon, endpoint: Endpoint, ledger: Ledger) -> None:
    modelled.run("armed", endpoint.script("function", Call("weather", city="Bergen"), Say("rain")))
    assert endpoint.told("function") == ["rain in Bergen"]
    assert ledger.lines("weather Bergen") == ["weather Bergen"]
    tools = {tool["function"]["name"]: tool["function"] for tool in endpoint.of("function")[0].body["tools"]}
    said = tools["weather"]["description"]
    assert "as it is now" in said
    assert "one city at a time" in said, "the model is told the whole docstring"


def test_an_agent_is_a_child_run(modelled: Daemon, endpoint: Endpoint) -> None:
    call = Call("echo_run", goal="say it", inputs={"a": 1})
    run = modelled.run("armed", endpoint.script("child", call, Say("said")))
    assert run["status"] == "ok"
    (child,) = modelled.client.get(modelled.path("runs"), params={"parent": run["id"]}).json()["items"]
    assert (child["target"], child["goal"], child["inputs"]) == ("echo", "say it", {"a": 1})
    types = [event["type"] for event in modelled.events(run["id"])]
    assert types.index("tool.called") < types.index("child.started") < types.index("tool.returned")
    assert [event["data"]["ok"] for event in modelled.events(run["id"], "tool.returned")] == [True]


def test_a_child_that_fails_is_told_to_the_model(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.run("armed", endpoint.script("bad-child", Call("failing_run", goal="x"), Say("it failed")))
    assert (run["status"], run["output"]) == ("ok", "it failed")
    assert "ended failed" in endpoint.told("bad-child")[0]


def test_a_child_has_as_long_as_its_tool(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.run("armed", endpoint.script("late-child", Call("endless_run", goal="x"), Say("too late")))
    assert (run["status"], run["output"]) == ("ok", "too late")
    assert "ended failed" in endpoint.told("late-child")[0]
    (child,) = modelled.client.get(modelled.path("runs"), params={"parent": run["id"]}).json()["items"]
    assert (child["status"], child["error"]["code"]) == ("failed", "deadline_exceeded")


def test_an_allowed_program(modelled: Daemon, endpoint: Endpoint) -> None:
    call = Call.several(
        ("programs", {"argv": ["echo", "a b", "$HOME"]}), ("programs", {"argv": ["sh", "-c", "exit 3"]})
    )
    modelled.run("armed", endpoint.script("programs", call, Say("ok")))
    echo, exited = endpoint.told("programs")
    assert echo == '{"exit_code":0,"stdout":"a b $HOME\\n","stderr":""}'
    assert '"exit_code":3' in exited


def test_no_other_program(modelled: Daemon, endpoint: Endpoint) -> None:
    calls = [["rm", "-rf", "/"], ["sh", "-c", "id"], ["/bin/echo", "a"], [], ["echo\0"]]
    told = []
    for number, argv in enumerate(calls):
        modelled.run("armed", endpoint.script(f"forbidden-{number}", Call("programs", argv=argv), Say("ok")))
        told += endpoint.told(f"forbidden-{number}")
    assert len(told) == len(calls)
    assert all("is not allowed" in each or "NUL" in each for each in told), told


def test_a_program_is_ended_with_its_run(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.post_run("armed", endpoint.script("endless", Call("programs", argv=["sleep", "61.5"]), Say("?")))
    modelled.wait_event(run["id"], "step.started")
    modelled.stop_run(run["id"], mode="now")
    assert modelled.wait(run["id"])["status"] == "cancelled"


def test_agents_say_what_they_can_do_and_what_they_lack(modelled: Daemon) -> None:
    agents = modelled.agents
    armed = agents["armed"]
    assert (armed["use"], armed["model"], armed["available"]) == ("pydantic-ai", "local", True)
    assert armed["modes"] == ["live", "simulation"]
    assert {"name": "weather", "use": "function", "description": "The weather in a city, as it is now."} in armed[
        "tools"
    ]
    own = {tool["name"]: tool for tool in agents["helper"]["tools"]}
    assert own["drop"] == {"name": "drop", "use": "function", "description": "Drops a table."}
    about = {tool["name"]: tool["description"] for tool in armed["tools"]}
    assert about["programs"] == "Runs programs: echo …; sleep …; sh -c exit 3 …"
    assert about["failing_run"].startswith("Runs the agent failer")
    bare = agents["bare"]
    assert (bare["available"], bare["modes"]) == (False, ["simulation"])
    assert "agents.bare.model" in bare["missing"]
    assert (agents["echo"]["modes"], agents["echo"]["tools"]) == (["live"], [])

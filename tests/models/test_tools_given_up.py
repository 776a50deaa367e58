"""Tools that cannot be stopped when their time is over: the run goes on without them, and so do all others."""

from collections.abc import Iterator

import pytest

from latticed.agents.places import MOST_LOST
from tests.conftest import Daemon, wait_until
from tests.endpoint import Call, Endpoint, Say
from tests.models.conftest import READY, Ledger, living

FIGURE = 'latticed_abandoned{what="tool"} '


@pytest.fixture(scope="module")
def narrow(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that has a thread for one plain tool."""
    bare = {**READY, "agent": "agents_on_models:bare"}
    agents = {
        "rushed": {**bare, "tools": ["occupied", "deaf"], "tool_seconds": 0.1},
        "patient": {**bare, "tools": ["occupied", "deaf"]},
        "timed": {**bare, "tools": ["timed"]},
    }
    tools = {
        "deaf": {"use": "function", "function": "agents_on_models:deaf"},
        "timed": {"use": "function", "function": "agents_on_models:occupied", "timeout_seconds": 0.1},
    }
    folder = tmp_path_factory.mktemp("narrow")
    with living(endpoint, folder, agents=agents, tools=tools, runs={"threads": 1}) as one:
        yield one


def lost(one: Daemon) -> float:
    """The calls of tools that were given up and have not come back."""
    [line] = [line for line in one.client.get("/metrics").text.splitlines() if line.startswith(FIGURE)]
    return float(line.removeprefix(FIGURE))


@pytest.mark.parametrize("agent", ["rushed", "timed"])
def test_a_plain_tool_that_outruns_its_time_gives_its_place_to_another(
    narrow: Daemon, endpoint: Endpoint, agent: str
) -> None:
    done, tool = Ledger(narrow.home), "timed" if agent == "timed" else "occupied"
    done.touch("quick")
    run = narrow.run(agent, endpoint.script(f"outruns-{agent}", Call(tool, name=f"late-{agent}"), Say("Too slow.")))
    assert (run["status"], run["output"]) == ("ok", "Too slow."), run["error"]
    assert lost(narrow) == 1
    assert narrow.run("patient", endpoint.script("after", Call("occupied", name="quick"), Say("ok")))["status"] == "ok"
    assert endpoint.told("after") == ["quick"]
    done.touch(f"late-{agent}")
    wait_until(lambda: lost(narrow) == 0)
    goal = endpoint.script("both", Call.several(*[("occupied", {"name": "quick"})] * 2), Say("ok"))
    assert narrow.run("patient", goal)["status"] == "ok"
    assert endpoint.told("both") == ["quick", "quick"]


def test_a_cancel_does_not_wait_for_a_thread_that_was_given_up(narrow: Daemon, endpoint: Endpoint) -> None:
    goal = endpoint.script("then", Call("occupied", name="then"), Call("deaf", name="then"))
    run = narrow.post_run("rushed", goal)
    wait_until(lambda: lost(narrow) == 2)
    narrow.stop_run(run["id"], mode="now")
    assert narrow.wait(run["id"], "cancelled")["abandoned"] is None
    Ledger(narrow.home).touch("then")
    wait_until(lambda: lost(narrow) == 0)


def test_an_async_tool_that_swallows_its_cancellation_is_left_behind(narrow: Daemon, endpoint: Endpoint) -> None:
    done = Ledger(narrow.home)
    run = narrow.run("rushed", endpoint.script("deaf", Call("deaf", name="silence"), Say("It hears nothing.")))
    assert (run["status"], run["output"]) == ("ok", "It hears nothing."), run["error"]
    assert "took longer than 0.1 s" in endpoint.told("deaf")[0]
    assert done.lines("cancelled silence") == ["cancelled silence"]
    assert lost(narrow) == 1
    done.touch("silence")
    wait_until(lambda: lost(narrow) == 0)


def test_a_tool_that_never_comes_back_is_not_called_without_end(narrow: Daemon, endpoint: Endpoint) -> None:
    done = Ledger(narrow.home)
    calls = Call.several(*[("deaf", {"name": "never"})] * MOST_LOST)
    run = narrow.run("rushed", endpoint.script("never", calls, Call("deaf", name="never"), Say("Enough.")))
    assert (run["status"], run["output"]) == ("ok", "Enough."), run["error"]
    assert "have not come back" in endpoint.told("never")[MOST_LOST]
    assert len(done.lines("deaf never")) == MOST_LOST == lost(narrow)
    done.touch("never")
    wait_until(lambda: lost(narrow) == 0)
    assert narrow.run("rushed", endpoint.script("again", Call("deaf", name="never"), Say("ok")))["status"] == "ok"
    assert endpoint.told("again") == ["never"]

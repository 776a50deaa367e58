"""A configuration that changes while a pipeline waits: what was decided stays, what is to come goes by the new."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Daemon, wait_until
from tests.contract.pipeline.conftest import Casting
from tests.contract.pipeline.roles import Call, configuration, playing
from tests.endpoint import Endpoint

SELLING = {"steps": [{"description": "sell it", "tool": "sell"}, "say so"]}


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory, endpoint: Endpoint) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("changing")
    with playing(home, endpoint, env={"SALES": str(home / "sales")}) as daemon:
        yield daemon.start()


@pytest.fixture
def one(changing: Daemon, endpoint: Endpoint) -> Daemon:
    """With the configuration that it began with, and nothing sold."""
    Path(changing.env["SALES"]).unlink(missing_ok=True)
    reload(changing, endpoint)
    return changing


def reload(one: Daemon, endpoint: Endpoint, **agent: Any) -> None:
    """Has this said of the agent from now on."""
    known = one.log.count('"reloaded"')
    whole = configuration(endpoint, one.home)
    whole["agents"]["handy"] |= agent
    one.configure(whole)
    one.process.send_signal(signal.SIGHUP)
    wait_until(lambda: one.log.count('"reloaded"') > known)


def waiting(one: Daemon, play: Any, **asked: Any) -> dict[str, Any]:
    """A run that waits for a person: may its executor sell?"""
    return one.wait(one.post_run("handy", play.goal, **asked)["id"], "awaiting_approval")


def approve(one: Daemon, run: dict[str, Any]) -> dict[str, Any]:
    said = one.client.post(one.path(f"approvals/{run['pause']['approval_ids'][0]}"), json={"decision": "approve"})
    assert said.status_code == 200, said.text
    return one.wait(run["id"])


def sold(one: Daemon) -> list[str]:
    sales = Path(one.env["SALES"])
    return sales.read_text(encoding="utf-8").split() if sales.exists() else []


@pytest.mark.parametrize("roles", [["executor"], ["researcher", "planner", "executor", "reviewer", "release"]])
def test_a_run_goes_on_with_the_roles_that_it_began_with(
    one: Daemon, endpoint: Endpoint, cast: Casting, roles: list[str]
) -> None:
    play = cast(planner={"steps": ["sell it"]}, executor=(Call("sell", item="boat"), "sold"))
    run = waiting(one, play)
    reload(one, endpoint, default_roles=roles, budget={"max_requests": 50})
    after = approve(one, run)
    assert after["status"] == "ok", after["error"]
    assert [handoff["target"] for handoff in after["handoffs"]] == ["executor", "reviewer"]
    assert after["handoffs"][0]["context_packet"] == run["handoffs"][0]["context_packet"]
    assert set(play.paid().values()) == {1}


@pytest.mark.parametrize(("policy", "sales"), [({}, ["boat"]), ({"sell": "deny"}, [])])
def test_a_question_stays_one_and_a_tool_that_is_forbidden_by_now_is_not_called(
    one: Daemon, endpoint: Endpoint, cast: Casting, policy: dict[str, str], sales: list[str]
) -> None:
    play = cast(planner={"steps": ["sell it"]}, executor=(Call("sell", item="boat"), "done"))
    run = waiting(one, play)
    reload(one, endpoint, policy=policy)
    after = approve(one, run)
    assert after["status"] == "ok", after["error"]
    assert sold(one) == sales


@pytest.mark.parametrize("policy", [{"*": "ask"}, {"*": "deny"}])
def test_a_call_that_was_made_stays_made(
    one: Daemon, endpoint: Endpoint, cast: Casting, policy: dict[str, str]
) -> None:
    calls = (Call("weather", city="Rome"), Call("ask_echo", goal="hi"), Call("sell", item="boat"), "done")
    play = cast(planner={"steps": ["sell it"]}, executor=calls)
    run = waiting(one, play)
    reload(one, endpoint, policy=policy)
    after = approve(one, run)
    assert after["status"] == "ok", after["error"]
    made = [event["data"]["tool"] for event in one.events(run["id"], "tool.called")]
    assert made == ["weather", "ask_echo", "sell"]


def test_a_plan_that_was_approved_stays_so_although_its_tool_is_gone(
    one: Daemon, endpoint: Endpoint, cast: Casting
) -> None:
    play = cast(planner=SELLING, executor=(Call("sell", item="boat"), "done"))
    run = waiting(one, play)
    reload(one, endpoint, tools=["weather"])
    after = approve(one, run)
    assert after["status"] == "ok", after["error"]
    assert after["plan_review"] == run["plan_review"]
    assert sold(one) == []


def test_a_role_that_is_gone_has_failed_and_what_it_did_stays_done(
    one: Daemon, endpoint: Endpoint, cast: Casting
) -> None:
    roles = {"critic": {"system_prompt": "You are the critic."}, "editor": {"system_prompt": "You are the editor."}}
    reload(one, endpoint, roles=roles)
    play = cast(executor=(Call("sell", item="boat"), "done"), critic="it is thin", editor="it is nice")
    run = waiting(one, play, roles=["critic", "executor", "editor"])
    reload(one, endpoint, roles={})
    after = approve(one, run)
    assert (after["status"], after["error"]["code"]) == ("failed", "role_failed")
    assert "'editor' is not in the configuration" in after["error"]["message"]
    assert after["output"]["roles"] == {"critic": "it is thin"}

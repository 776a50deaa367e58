"""Lesson 1: a first run.

An agent is a function of a context, a goal and inputs. What it returns is its run's output. You ask for a run over
HTTP; the answer, 202, means that the run is on disk. Everything that happens to it is an event in its timeline.
"""

from typing import Any

from latticed import Context
from tests.conftest import Daemon


async def greet(ctx: Context, goal: str, inputs: dict[str, Any]) -> str:
    await ctx.log("about to greet")
    return f"{inputs.get('greeting', 'hello')}, {goal}"


def test_a_run_is_accepted_executed_and_over(lessons: Daemon) -> None:
    answer = lessons.client.post(
        lessons.path("runs"), json={"target": "greet", "goal": "world", "inputs": {"greeting": "good morning"}}
    )
    assert answer.status_code == 202
    run = answer.json()["run"]
    assert run["status"] == "queued"

    run = lessons.wait(run["id"])
    assert run["status"] == "ok"
    assert run["output"] == "good morning, world"


def test_its_timeline_tells_the_whole_story(lessons: Daemon) -> None:
    run = lessons.run("greet", "world")
    events = lessons.events(run["id"])
    assert [event["type"] for event in events] == ["run.queued", "run.started", "log", "run.finished"]
    assert [event["seq"] for event in events] == [1, 2, 3, 4]
    assert events[2]["data"] == {"level": "info", "message": "about to greet"}
    assert events[3]["data"]["status"] == "ok"


def test_the_caller_may_wait_for_the_end(lessons: Daemon) -> None:
    run = lessons.post_run("greet", "you", wait=20)
    assert (run["status"], run["output"]) == ("ok", "hello, you")


def test_asking_twice_with_one_key_gives_one_run(lessons: Daemon) -> None:
    """A client that did not get its answer asks again. `Idempotency-Key` makes that harmless."""
    first = lessons.post_run("greet", "once", idempotency_key="lesson-1")
    again = lessons.post_run("greet", "once", idempotency_key="lesson-1")
    assert first["id"] == again["id"]


def test_an_agent_that_raises_has_failed(lessons: Daemon) -> None:
    run = lessons.run("stumble", "over a stone")
    assert run["status"] == "failed"
    assert run["error"]["message"] == "ValueError: over a stone"


async def stumble(ctx: Context, goal: str, inputs: dict[str, Any]) -> None:
    raise ValueError(goal)


def shout(ctx: Any, goal: str, inputs: dict[str, Any]) -> str:
    """A plain function is an agent too: it runs in a thread, and its context blocks where the other awaits."""
    ctx.log("shouting")
    return goal.upper()


def test_a_plain_function_is_an_agent_too(lessons: Daemon) -> None:
    assert lessons.run("shout", "hello")["output"] == "HELLO"

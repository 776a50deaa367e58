"""Lesson 3: what fails is tried again, if you say so.

A step has a policy: `retry={"attempts": 3, "backoff_seconds": 1.0}`. When its attempts are used up it raises
`StepFailed`, which the code may catch. A run has one too, `max_retries`: the whole code is entered again for another
attempt, in which steps that were ok return their record and steps that failed are run again.
"""

from typing import Any

from latticed import Context
from latticed.errors import StepFailed
from tests.conftest import Daemon


class Flaky:
    """Fails so many times and then does not."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def __call__(self) -> str:
        self.failures -= 1
        if self.failures >= 0:
            raise ConnectionError("nobody answers")
        return "an answer"


async def call(ctx: Context, goal: str, inputs: dict[str, Any]) -> Any:
    retry = {"attempts": 3, "backoff_seconds": 0.01}
    return await ctx.step("call", Flaky(inputs["failures"]), retry=retry)


def test_a_step_is_tried_again(lessons: Daemon) -> None:
    run = lessons.run("call", inputs={"failures": 2})
    assert run["output"] == "an answer"
    failed = lessons.events(run["id"], "step.failed")
    assert [event["data"]["attempt"] for event in failed] == [1, 2]
    assert failed[0]["data"]["error"]["message"] == "ConnectionError: nobody answers"


def test_a_step_whose_attempts_are_used_up_fails_its_run(lessons: Daemon) -> None:
    run = lessons.run("call", inputs={"failures": 3})
    assert run["status"] == "failed"
    assert run["error"]["message"] == "step 'call' failed: ConnectionError: nobody answers"


async def call_or_write(ctx: Context, goal: str, inputs: dict[str, Any]) -> Any:
    try:
        return await ctx.step("call", Flaky(1))
    except StepFailed as failed:
        return await ctx.step("write", str, f"a letter, since {failed.reason}")


def test_unless_the_code_knows_better(lessons: Daemon) -> None:
    run = lessons.run("call_or_write")
    assert run["output"] == "a letter, since ConnectionError: nobody answers"


async def third_time_lucky(ctx: Context, goal: str, inputs: dict[str, Any]) -> Any:
    prepared = await ctx.step("prepare", lambda: f"prepared in attempt {ctx.attempt}")
    done = await ctx.step("do", Flaky(1 if ctx.attempt < 2 else 0))
    return [prepared, done, f"ended in attempt {ctx.attempt}"]


def test_a_run_may_have_several_attempts(lessons: Daemon) -> None:
    run = lessons.run("third_time_lucky", max_retries=2)
    assert run["status"] == "retried_ok"
    assert run["output"] == ["prepared in attempt 1", "an answer", "ended in attempt 2"]
    [again] = lessons.events(run["id"], "run.retrying")
    assert again["data"]["error"]["code"] == "error"


async def slow(ctx: Context, goal: str, inputs: dict[str, Any]) -> Any:
    from tests.agents_for_tests import forever

    return await ctx.step("wait", forever, timeout_seconds=0.05)


def test_a_step_may_have_a_time_limit(lessons: Daemon) -> None:
    run = lessons.run("slow")
    assert (run["status"], run["error"]["code"]) == ("failed", "timeout")

"""A rerun from a step begins with what was recorded before it."""

from pathlib import Path
from typing import Any

from latticed.errors import StepFailed
from tests.conftest import Daemon
from tests.contract.test_steps import left, lines


async def lengthy(ctx: Any, goal: str, inputs: dict[str, Any]) -> Any:
    """Records of every kind before its last step."""
    found: list[Any] = [await ctx.step("first", lambda: left(ctx, inputs, "first"))]
    try:
        await ctx.step("fails", lambda: 1 / 0)
    except StepFailed:
        found.append("failed")
    await ctx.sleep(0.01)
    found.append(await ctx.wait_signal("go"))
    found.append(await ctx.run("agent", "echo", goal="child"))
    found.append(await ctx.ask("well?"))
    found.append(await ctx.step("last", lambda: left(ctx, inputs, "last")))
    return found


def test_a_rerun_from_a_step_keeps_what_was_before_it(quick: Daemon, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    run_id = quick.post_run("lengthy", inputs={"effects": str(effects)})["id"]
    quick.client.post(quick.path(f"runs/{run_id}/signals/go"), json={"data": 7})
    quick.wait(run_id, "awaiting_approval")
    [approval] = quick.get(run_id)["pause"]["approval_ids"]
    quick.client.post(quick.path(f"approvals/{approval}"), json={"decision": "approve", "data": {"a": 1}})
    first = quick.wait(run_id, "ok")
    last = next(step["id"] for step in quick.steps(run_id) if step["name"] == "last")
    answer = quick.client.post(quick.path(f"runs/{run_id}/rerun"), json={"from_step": last})
    again = quick.wait(answer.json()["run"]["id"])
    assert (again["status"], again["output"]) == ("ok", first["output"]), again["error"]
    assert lines(effects) == ["first", "last", "last"]

"""Why a run may end otherwise than well."""

from tests.crash.observed import Observed
from tests.crash.plans import operations, uses

MAX_RECOVERIES = 3
Ways = set[tuple[str, str | None]]


def ways_to_end(seen: Observed, run_id: str) -> Ways:
    """Each (status, error code) that what was done to the run allows."""
    run, plan = seen.runs[run_id], seen.plan(run_id)
    stops = [stop.stopped for stop in seen.ledger.stops if stop.run_id == run_id]
    if True in stops:
        return {("cancelled", None)}
    tries = 1 + max((operation[1] for operation in operations(plan) if operation[0] == "fail"), default=0)
    ways: Ways = set()
    if run["inputs"].get("verdict") == "block":
        ways.add(("rejected", "blocked"))
    elif tries <= run["max_retries"] + 1 and not uses(plan, "hang"):
        ways.add(("ok", None) if tries == 1 and run["target"] != "pipeline" else ("retried_ok", None))
    if tries > run["max_retries"] + 1:
        ways.add(("failed", "error"))
    if None in stops or _is_dragged_along(seen, run_id):
        ways.add(("cancelled", None))
    if run["deadline_seconds"] is not None:
        ways.add(("failed", "deadline_exceeded"))
    if uses(plan, "fragile") and run["epoch"] > 1:
        ways.add(("interrupted", "step_interrupted"))
    if run["recovery"] == "interrupt":
        ways.add(("interrupted", "interrupted"))
    if _crashes_in_a_row(seen, run_id) + 1 >= MAX_RECOVERIES:
        ways.add(("interrupted", "max_recoveries"))
    if any(approval["run_id"] == run_id and approval["status"] == "denied" for approval in seen.approvals.values()):
        ways.add(("rejected", "denied"))
    children = [child for child, (parent, detached) in seen.births.items() if parent == run_id and not detached]
    if any(seen.runs[child]["status"] not in ("ok", "retried_ok") for child in children):
        ways.add(("failed", "child_failed"))
    return ways


def _is_dragged_along(seen: Observed, run_id: str) -> bool:
    """Whether it is attached to a parent whose cancel, end or new beginning it did not outrun."""
    parent, detached = seen.births.get(run_id, (None, True))
    if parent is None or detached:
        return False
    return seen.cancels[parent] <= seen.cancels[run_id] or seen.begins_anew(parent)


def _crashes_in_a_row(seen: Observed, run_id: str) -> int:
    """The most recoveries in a row without a step recorded in between, up to the end; where each begins the run anew,
    no step is a new one."""
    anew = seen.runs[run_id]["recovery"] == "requeue"
    row = 0
    for event in seen.timelines[run_id]:
        if event["type"] == "run.recovered":
            row += 1
        elif not anew and (
            event["type"] == "step.finished" or (event["type"] == "step.failed" and event["data"]["final"])
        ):
            row = 0
    return row

"""What a run has left behind, as a test looks at it: its timeline, its children, its processes, its lines."""

from pathlib import Path
from typing import Any

import psutil

from tests.conftest import Daemon


def begun(one: Daemon, target: str, inputs: dict[str, Any] | None = None, **fields: Any) -> str:
    """A run whose code has been entered."""
    run_id: str = one.post_run(target, inputs=inputs or {}, **fields)["id"]
    one.wait_event(run_id, "run.started")
    return run_id


def well_ended(one: Daemon, run_id: str, status: str = "cancelled") -> dict[str, Any]:
    """The run once it is over; its timeline must be whole and end once."""
    run = one.wait(run_id, status)
    events = one.events(run_id)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events].count("run.finished") == 1
    assert events[-1]["type"] == "run.finished"
    assert events[-1]["data"]["status"] == status
    return run


def rungs(one: Daemon, run_id: str) -> list[int]:
    """The rungs of the cancel ladder that a run was taken down."""
    return [event["data"]["rung"] for event in one.events(run_id, "cancel.escalated")]


def children(one: Daemon, run_id: str) -> list[dict[str, Any]]:
    """The runs that a run has begun, at most 500."""
    answer = one.client.get(one.path("runs"), params={"parent": run_id, "limit": 500})
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def pending_question(one: Daemon, run_id: str) -> str:
    """The id of what a run asks people."""
    answer = one.client.get(one.path("approvals"), params={"status": "pending", "limit": 500})
    [question] = [item["id"] for item in answer.json()["items"] if item["run_id"] == run_id]
    return str(question)


def printed(one: Daemon, run_id: str) -> list[str]:
    """What a command has said, line by line."""
    return "\n".join(event["data"]["line"] for event in one.events(run_id, "output")).splitlines()


def processes(run_id: str) -> list[psutil.Process]:
    """Every process that belongs to a command's run, wherever it has put itself."""
    found = []
    for process in psutil.process_iter():
        try:
            if run_id in process.environ().values():
                found.append(process)
        except psutil.Error:
            continue
    return found


def lines(path: Path) -> list[str]:
    """What code left in its file of effects, without the run's id."""
    return [line.partition(" ")[2] for line in path.read_text().splitlines()] if path.exists() else []

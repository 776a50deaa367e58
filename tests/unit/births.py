"""Runs as they are given to a store."""

from typing import Any

from latticed.ids import RUN, new
from latticed.models.records import Birth


def birth(**fields: Any) -> Birth:
    """A run to be born, of which only `fields` matter."""
    given: dict[str, Any] = {
        "id": new(RUN), "workspace": "default", "kind": "agent", "target": "some", "name": "some", "mode": "live",
        "goal": "goal", "inputs": b"{}", "roles": [], "queue": "default", "priority": 0, "max_retries": 0,
        "recovery": "resume", "run_at": None, "deadline_seconds": None, "tags": {}, "created_by": "test",
        "created_at": 1_800_000_000_000_000,
    }  # fmt: skip
    return Birth(**given | fields)

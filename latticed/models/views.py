"""Rows → what the outside sees. Plain dicts in the shape of the pydantic models; a test compares the two."""

from collections.abc import Mapping
from typing import Any

import orjson

from latticed import ids
from latticed.clock import to_text
from latticed.models.pipeline import Story
from latticed.models.records import STOP_MODES, Birth, RunRow
from latticed.models.redaction import redact
from latticed.states import ACTIVE, TERMINAL, UNWOUND, Status, allowed_moves

# As Story().model_dump(), which would make a daemon without models build the models of a story.
NO_STORY = {name: field.get_default(call_default_factory=True) for name, field in Story.model_fields.items()}
NO_USAGE = {"input_tokens": 0, "output_tokens": 0, "requests": 0, "cost_usd": 0.0}


def _time(micros: int | None) -> str | None:
    return None if micros is None else to_text(micros)


def _json(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)


def _pause(row: Mapping[str, Any]) -> dict[str, Any] | None:
    if row["status"] not in UNWOUND:
        return None
    facts: list[str] = _json(row["awaits"]) or []
    kinds = {fact.partition(":")[0] for fact in facts} or {"timer"}
    return {
        "kind": kinds.pop() if len(kinds) == 1 else "several",
        "facts": facts,
        "wake_at": _time(min(filter(None, (row["due_at"], row["asked_until"])), default=None)),
        "approval_ids": [fact.removeprefix("approval:") for fact in facts if fact.startswith("approval:")],
    }


def _cancel(row: Mapping[str, Any]) -> dict[str, Any] | None:
    if row["cancel"] is None:
        return None
    asked = orjson.loads(row["cancel"])
    return {
        "requested_at": to_text(asked["requested_at"]),
        "requested_by": asked["requested_by"],
        "reason": asked["reason"],
        "mode": STOP_MODES[row["cancel_rank"]],
    }


def run_view(row: Mapping[str, Any]) -> dict[str, Any]:
    """As models.runs.RunSummary, from the columns of `runs`, of `run_bodies` and of `run_details`."""
    path = f"/v1/workspaces/{row['workspace']}/runs/{row['id']}"
    return {
        "id": row["id"],
        "kind": row["kind"],
        "target": row["target"],
        "version": row["version"],
        "name": row["name"],
        "workspace": row["workspace"],
        "status": row["status"],
        "mode": row["mode"],
        "execution_mode": "async",
        "goal": orjson.loads(row["goal"]),
        "inputs": orjson.loads(row["inputs"]),
        "requested_roles": orjson.loads(row["roles"]),
        "max_retries": row["max_retries"],
        "queue": row["queue"],
        "priority": row["priority"],
        "run_at": _time(row["run_at"]),
        "deadline_seconds": row["deadline_seconds"],
        "recovery": row["recovery"],
        "recoveries": row["recoveries"],
        "attempt": row["attempt"],
        "epoch": row["epoch"],
        "owner": row["owner"],
        "current_role": row["role"] if row["status"] in ACTIVE else None,
        "current_node": None,
        "parent_run_id": row["parent_run_id"],
        "rerun_of": row["rerun_of"],
        "tags": orjson.loads(row["tags"]),
        "created_by": row["created_by"],
        "created_at": to_text(row["created_at"]),
        "started_at": _time(row["started_at"]),
        "updated_at": to_text(row["updated_at"]),
        "finished_at": _time(row["finished_at"]),
        "cancel": _cancel(row),
        "pause": _pause(row),
        "abandoned": row["abandoned"],
        "output": _json(row["output"]),
        "error": _json(row["error"]),
        "usage": _json(row["usage"]) or NO_USAGE,
        "allowed_moves": allowed_moves(row["status"]),
        "events_url": path + "/events",
        "stop_url": path + "/stop",
    }


def whole_view(row: Mapping[str, Any]) -> dict[str, Any]:
    """As models.runs.Run, from a row with the whole of `run_details`."""
    view = run_view(row) | (_json(row["story"]) or NO_STORY)
    if row["status"] in TERMINAL and row["output"] is None:  # What there was of it when the run did not end well.
        view["output"] = _json(row["so_far"])
    return view


def born_view(birth: Birth) -> dict[str, Any]:
    """As models.runs.Run, of a run that was just put on disk, without reading it back."""
    created = to_text(birth.created_at)
    path = f"/v1/workspaces/{birth.workspace}/runs/{birth.id}"
    return {
        "id": birth.id,
        "kind": birth.kind,
        "target": birth.target,
        "version": birth.version,
        "name": birth.name,
        "workspace": birth.workspace,
        "status": "queued",
        "mode": birth.mode,
        "execution_mode": "async",
        "goal": birth.goal,
        "inputs": orjson.Fragment(birth.inputs),
        "requested_roles": birth.roles,
        "max_retries": birth.max_retries,
        "queue": birth.queue,
        "priority": birth.priority,
        "run_at": _time(birth.run_at),
        "deadline_seconds": birth.deadline_seconds,
        "recovery": birth.recovery,
        "recoveries": 0,
        "attempt": 1,
        "epoch": 0,
        "owner": None,
        "current_role": None,
        "current_node": None,
        "parent_run_id": birth.parent_run_id,
        "rerun_of": birth.rerun_of,
        "tags": birth.tags,
        "created_by": birth.created_by,
        "created_at": created,
        "started_at": None,
        "updated_at": created,
        "finished_at": None,
        "cancel": None,
        "pause": None,
        "abandoned": None,
        "output": None,
        "error": None,
        "usage": NO_USAGE,
        "allowed_moves": _QUEUED_MOVES,
        "events_url": path + "/events",
        "stop_url": path + "/stop",
        **NO_STORY,
    }


def seized_view(birth: Birth, row: RunRow, at: int) -> dict[str, Any]:
    """The same, claimed at `at`."""
    now = to_text(at)
    return born_view(birth) | {
        "inputs": orjson.loads(birth.inputs), "status": row.status, "epoch": row.epoch, "owner": row.owner,
        "started_at": now, "updated_at": now, "allowed_moves": allowed_moves(Status(row.status)),
    }  # fmt: skip


_QUEUED_MOVES = allowed_moves(Status.QUEUED)


_FROM_OUTSIDE = ("model:", "tool:")
"""How the names begin of steps whose outcome a model or a tool has made."""


def step_view(row: Any) -> dict[str, Any]:
    """As models.runs.Step, from a row of `steps`. What models and tools said is shown without secrets."""
    finished = row.finished_at
    outcome = orjson.loads(row.outcome)
    return {
        "id": f"{ids.STEP}{row.n}",
        "kind": row.kind,
        "name": row.name,
        "branch": row.branch,
        "occurrence": row.occurrence,
        "status": row.status,
        "attempt": row.attempt,
        "epoch": row.epoch,
        "started_at": to_text(row.started_at),
        "finished_at": _time(finished),
        "duration_ms": None if finished is None else (finished - row.started_at) / 1000,
        "outcome": redact(outcome) if row.name.startswith(_FROM_OUTSIDE) else outcome,
        "error": orjson.loads(row.error),
    }


def approval_view(row: Any) -> dict[str, Any]:
    """As models.people.Approval, from a row of `approvals`."""
    return {
        "id": row.id,
        "run_id": row.run_id,
        "node": row.node,
        "status": row.status,
        "prompt": orjson.loads(row.prompt),
        "schema": orjson.loads(row.schema),
        "lanes": orjson.loads(row.lanes),
        "created_at": to_text(row.created_at),
        "expires_at": _time(row.expires_at),
        "answered_at": _time(row.answered_at),
        "answered_by": row.answered_by,
        "answer": orjson.loads(row.answer),
        "comment": orjson.loads(row.comment),
        "subject": _json(row.subject),
    }


def token_view(row: Any) -> dict[str, Any]:
    """As models.people.Token, from a row of `tokens`."""
    return {
        "id": row.id,
        "name": row.name,
        "role": row.role,
        "workspace": row.workspace,
        "lanes": _json(row.lanes),
        "created_at": to_text(row.created_at),
        "expires_at": _time(row.expires_at),
        "revoked_at": _time(row.revoked_at),
        "used_at": _time(row.used_at),
    }

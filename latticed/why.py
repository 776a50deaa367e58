"""Why a run is not running: said for a person, with a code for programs."""

from typing import Any

from latticed.engine.dispatcher import SUSPECT_RECOVERIES, Dispatcher
from latticed.plugins import Registry
from latticed.ports import FacadeStore
from latticed.states import TERMINAL, UNWOUND, Status


async def explain(
    run: dict[str, Any], store: FacadeStore, dispatcher: Dispatcher, registry: Registry, draining: bool
) -> dict[str, Any]:
    """As models.runs.Why, from a run's view."""
    status, queue = run["status"], run["queue"]
    answer: dict[str, Any] = {
        "run_id": run["id"], "status": status, "queue": queue, "position": None, "until": None, "waits_for": [],
    }  # fmt: skip
    if status in TERMINAL:
        return answer | {"code": "finished", "reason": f"it is over: {status}"}
    if status == Status.RUNNING:
        return answer | {"code": "running", "reason": f"it is running (attempt {run['attempt']})"}
    if status == Status.CANCELLING:
        return answer | {"code": "winding_down", "reason": "a cancel is on record and its code is being wound down"}
    if status in UNWOUND:
        return answer | _waiting(run["pause"])
    due = await store.find_due(run["id"])
    if due is not None:
        code, word = ("backing_off", "backs off") if status == Status.RETRYING else ("delayed", "is delayed")
        return answer | {"code": code, "until": due, "reason": f"it {word} until {due}"}
    return answer | await _queued(run, store, dispatcher, registry, draining)


def _waiting(pause: dict[str, Any]) -> dict[str, Any]:
    until = pause["wake_at"]
    for_what = ", ".join(fact.replace(":", " ", 1) for fact in pause["facts"]) or "its timer"
    told = f" until {until}" if until else ""
    return {
        "code": pause["kind"], "reason": f"it waits for {for_what}{told}", "until": until, "waits_for": pause["facts"],
    }  # fmt: skip


async def _queued(
    run: dict[str, Any], store: FacadeStore, dispatcher: Dispatcher, registry: Registry, draining: bool
) -> dict[str, Any]:
    queue, target = run["queue"], run["target"]
    if registry.find(run["kind"], target) is None:
        reason = f"no agent {target!r} is configured; it stays queued until there is one"
        return {"code": "agent_missing", "reason": reason}
    if queue not in registry.queues():
        reason = f"no queue {queue!r} is configured; it stays queued until there is one"
        return {"code": "queue_missing", "reason": reason}
    if draining:
        return {"code": "draining", "reason": "the daemon is stopping; it is claimed after the next start"}
    place = await store.place_in_queue(run["workspace"], queue, run["priority"], run["id"])
    running, limit = dispatcher.load(queue)
    ahead = f"{place} of its workspace before it"
    if run["recoveries"] >= SUSPECT_RECOVERIES and dispatcher.suspect is not None:
        reason = f"the daemon died {run['recoveries']} times while it ran; such runs are executed one at a time"
        return {"code": "isolated", "reason": reason, "position": place}
    if running >= limit:
        reason = f"queue {queue!r} runs {running} of {limit}, with {ahead}"
        return {"code": "queue_full", "reason": reason, "position": place}
    if dispatcher.running >= dispatcher.concurrency:
        reason = f"the daemon runs {dispatcher.running} of {dispatcher.concurrency}, with {ahead}"
        return {"code": "daemon_full", "reason": reason, "position": place}
    if place:
        return {"code": "behind_others", "reason": f"queue {queue!r} has {ahead}", "position": place}
    return {"code": "about_to_start", "reason": "it is the next to be claimed", "position": 0}

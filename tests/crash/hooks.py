"""Hooks whose every execution can be counted from outside, as the steps of `agents.py` can."""

import gc
import os
import time
import uuid
from typing import Any

from latticed import Block

FUNCTIONS = {"first": "quick", "second": "judge"}
HOOKS: dict[str, Any] = {
    name: {
        "use": "python", "point": "pre_run", "function": f"tests.crash.hooks:{function}", "targets": ["judged"],
    }
    for name, function in FUNCTIONS.items()
}  # fmt: skip


def _leave(payload: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """A line in the file of effects; its nonce, and the run's tags with it under the hook's name."""
    run, nonce = payload["run"], uuid.uuid4().hex
    file = os.open(run["inputs"]["effects"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{time.time_ns()} {run['id']}/~pre_run:{payload['hook']}/0 {nonce}\n".encode())
    finally:
        os.close(file)
    return nonce, {**run["tags"], payload["hook"]: nonce}


async def quick(payload: dict[str, Any]) -> Any:
    """Adds a tag, in the event loop."""
    return {"tags": _leave(payload)[1]}


async def late(payload: dict[str, Any]) -> Any:
    """Says no while a cancel of its run is on its way to the disk, before the no can be."""
    from latticed.engine.execution import Execution
    from latticed.models.stopping import stop_change

    _leave(payload)
    run_id, now = payload["run"]["id"], time.time_ns() // 1000
    [x] = [each for each in gc.get_objects() if isinstance(each, Execution) and each.run_id == run_id]
    x.store.order(stop_change(run_id, by="test", reason=None, mode="graceful", children=True, now=now))
    return Block("too late")


def judge(payload: dict[str, Any]) -> Any:
    """Does what the input `verdict` says, in a thread."""
    nonce, tags = _leave(payload)
    verdict = payload["run"]["inputs"]["verdict"]
    if verdict == "block":
        return Block(nonce)
    return {"tags": tags} | ({"queue": "other"} if verdict == "move" else {})

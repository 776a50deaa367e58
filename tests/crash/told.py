"""A receiver of webhooks that now and then fails, and what must hold of all that came and of what is on record."""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from random import Random
from typing import Any

from latticed.hooks.network import UNSENT
from tests.crash.observed import Observed, list_all
from tests.receiver import ALLOWED, Receiver, Request, plain

TYPES = ["run.started", "child.finished"]
WEBHOOKS = {**ALLOWED, "retry_seconds": [0.05] * 40}
"""So often that nothing is given up: the receiver fails at random, and the daemon while it answers."""


class Audience(Receiver):
    """Answers, mostly."""

    def __init__(self, seed: str) -> None:
        self._random, self._lock = Random(seed), threading.Lock()
        super().__init__(self._behave)

    def _behave(self, request: Request, channel: Any) -> bytes | None:
        with self._lock:
            choice = self._random.random()
        if choice < 0.05:
            return plain(500, b"not now")
        return None if choice < 0.08 else plain()

    @property
    def hooks(self) -> dict[str, Any]:
        """Told of every end, and of some events."""
        told = {"use": "webhook", "url": self.url, "timeout_seconds": 5}
        return {"ended": {**told, "point": "post_run"}, "events": {**told, "point": "on_event", "events": TYPES}}


def wrongs(seen: Observed, audience: Audience) -> Iterator[str]:
    """Each end and each event has one delivery to each hook, under one id, which came at least once."""
    came: dict[str, list[Request]] = defaultdict(list)
    for request in list(audience.requests):
        came[request.id].append(request)
    deliveries = [each for each in list_all(seen.daemon, "hooks/deliveries") if each["sort"] == "webhook"]
    kept = {each["id"]: each for each in deliveries}
    if strangers := set(came) - set(kept):
        yield f"{strangers} came and are not on record"
    tries = Counter(
        event["data"]["delivery_id"] for event in seen.feed if event["type"] == "hook.finished" and event["seq"] is None
    )
    unsent = Counter(  # A machine that is busy may break a connection before anything goes over it.
        event["data"]["delivery_id"]
        for event in seen.feed
        if event["type"] == "hook.finished" and (event["data"]["detail"] or "").startswith(UNSENT)
    )
    for id, each in kept.items():
        requests = came[id]
        gone = each["hook_id"] is not None and each["status"] == "skipped"  # its hook made place for another
        if not gone and (each["status"] != "ok" or not requests):
            yield f"{each} came {len(requests)} times"
        if len({request.body for request in requests}) > 1 and each["point"] == "post_run":
            yield f"{id} came with {len({request.body for request in requests})} bodies"
        if tries[id] != each["attempts"] or len(requests) < each["attempts"] - unsent[id]:
            yield f"{id} has {each['attempts']} attempts, {tries[id]} events, and came {len(requests)} times"
    ends = Counter(each["run_id"] for each in deliveries if each["hook"] == "ended")
    all_runs = Counter(list(seen.runs))
    if ends != all_runs:
        yield f"deliveries of ends: {ends - all_runs} too many, {all_runs - ends} missing"
    told = Counter(each["event_position"] for each in deliveries if each["hook"] == "events")
    happened = Counter(event["position"] for event in seen.feed if event["type"] in TYPES)
    if told != happened:
        yield f"deliveries of events: {told - happened} too many, {happened - told} missing"
    registered = Counter((each["run_id"], each["hook_id"]) for each in deliveries if each["hook_id"])
    if twice := [pair for pair, number in registered.items() if number > 1]:
        yield f"{twice} have more than one delivery"

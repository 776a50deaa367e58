"""What can be seen of a daemon's store and of its runs' effects, from outside."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.conftest import Daemon
from tests.crash.ledger import Ledger

Json = dict[str, Any]


@dataclass(frozen=True)
class Effect:
    """One line of the file of effects."""

    at_ns: int
    key: str
    nonce: str


def list_all(daemon: Daemon, path: str, cursor: str = "cursor", **params: str) -> list[Json]:
    """A list of the default workspace's, all its pages."""
    items: list[Json] = []
    while True:
        answer = daemon.client.get(daemon.path(path), params={"limit": 500, **params})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        params[cursor] = page["next_cursor"]


class Observed:
    """Everything that a running daemon shows, read once all is over, beside the ledger and the effects."""

    def __init__(self, daemon: Daemon, ledger: Ledger, effects_file: Path) -> None:
        self.ledger = ledger
        self.daemon = daemon
        self.runs: dict[str, Json] = {run["id"]: run for run in list_all(daemon, "runs")}
        self.approvals: dict[str, Json] = {each["id"]: each for each in list_all(daemon, "approvals")}
        self.feed: list[Json] = list_all(daemon, "events", "after", after="0")
        self.steps: dict[str, list[Json]] = {run_id: daemon.steps(run_id) for run_id in self.runs}
        self.effects: dict[str, list[Effect]] = defaultdict(list)
        text = effects_file.read_text(encoding="ascii") if effects_file.exists() else ""
        for line in text.splitlines():
            at, key, nonce = line.split(" ")
            self.effects[key].append(Effect(int(at), key, nonce))

    @cached_property
    def timelines(self) -> dict[str, list[Json]]:
        """Each run's events, from its own timeline."""
        return {run_id: self.daemon.events(run_id) for run_id in self.runs}

    @cached_property
    def ends(self) -> dict[str, int]:
        """The position of each run's last event, which is its end."""
        return {event["run_id"]: event["position"] for event in self.feed if event["type"] == "run.finished"}

    @cached_property
    def cancels(self) -> dict[str, int]:
        """The position at which each run's cancel, or its end, was first on record."""
        found: dict[str, int] = {}
        for event in self.feed:
            if event["type"] in ("run.cancelling", "run.finished"):
                found.setdefault(event["run_id"], event["position"])
        return found

    @cached_property
    def births(self) -> dict[str, tuple[str, bool]]:
        """Each child that its parent's timeline tells of: (parent, detached)."""
        started = [event for event in self.feed if event["type"] == "child.started"]
        return {event["data"]["run_id"]: (event["run_id"], event["data"]["detached"]) for event in started}

    def count(self, run_id: str, *types: str) -> int:
        """How many events of these types a run has."""
        return sum(event["type"] in types for event in self.timelines[run_id])

    def plan(self, run_id: str) -> list[list[Any]]:
        """What a run was told to do; nothing for a command."""
        plan: list[list[Any]] = self.runs[run_id]["inputs"].get("plan", [])
        return plan

    def begins_anew(self, run_id: str) -> bool:
        """Whether the run's journal was emptied on the way, so that recorded steps ran again, as they were meant to."""
        return self.runs[run_id]["recovery"] == "requeue" and self.count(run_id, "run.recovered", "run.released") > 0

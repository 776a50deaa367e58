"""Pipelines against a scripted model: what each role answers, and how often each thing was asked for."""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import Daemon
from tests.endpoint import Asked, Call, Endpoint, Refuse, Say

APPROVE = {"outcome": "approve", "reason": "good", "confidence": 0.9, "notes": ""}
RETRY = {"outcome": "retry", "reason": "thin", "confidence": 0.3, "notes": "say more"}
REJECT = {"outcome": "reject", "reason": "wrong", "confidence": 1, "notes": ""}
PLAN = {"steps": [{"description": "look"}, {"description": "act"}]}


class Place(NamedTuple):
    """Which question of a pipeline it is. `turn`: how often the model has spoken in this conversation."""

    role: str
    step: int
    retry: int
    turn: int


def place(asked: Asked) -> Place:
    """Read off the messages, so that a question that is asked again has the same place."""
    messages = [(m["role"], m.get("content") or "") for m in asked.body["messages"]]
    told = next(text for role, text in messages if role in ("system", "developer"))
    prompt = next(text for role, text in messages if role == "user")
    role = re.search(r"You are the (\w+)", told)
    step, retry = re.search(r"Carry out step (\d+)", prompt), re.search(r'"number": (\d+)', prompt)
    name = "plan review" if "judge a plan" in told else role[1] if role else ""
    return Place(name, int(step[1]) if step else 0, int(retry[1]) if retry else 0, asked.turn)


class Cast:
    """What each role answers: a turn, JSON or a text; a list of these, by how often the work went back; or what a
    function makes of the place. Several turns of one conversation are a tuple."""

    def __init__(self, endpoint: Endpoint, name: str, **answers: Any) -> None:
        self.endpoint, self.name = endpoint, name
        self.goal = endpoint.script(name, self)
        self._answers: dict[str, Any] = {
            "planner": PLAN, "plan_review": {"outcome": "approve", "reason": "fine"},
            "executor": lambda at: f"result {at.step}.{at.retry}", "reviewer": APPROVE,
            "researcher": {"items": ["a finding"]}, "release": "the summary",
        } | answers  # fmt: skip

    def __call__(self, asked: Asked) -> Any:
        at = place(asked)
        answer = self._answers[at.role.replace(" ", "_")]
        if callable(answer):
            answer = answer(at)
        if isinstance(answer, list):
            answer = answer[min(at.retry, len(answer) - 1)]
        if isinstance(answer, tuple):
            answer = answer[min(at.turn, len(answer) - 1)]
        if isinstance(answer, dict):
            answer = json.dumps(answer)
        return Say(answer) if isinstance(answer, str) else answer

    def asked(self) -> list[Place]:
        """Every question, in order."""
        return [place(each) for each in self.endpoint.of(self.name)]

    def roles(self) -> list[str]:
        """The roles that were asked, one after the other."""
        return [at.role for at in self.asked()]

    def paid(self) -> Counter[Place]:
        """How often each question was answered whole."""
        return Counter(place(each) for each in self.endpoint.of(self.name) if each.end == "done")

    def prompts(self, role: str) -> list[str]:
        """What this role was asked first, in each of its conversations."""
        found = []
        for each in self.endpoint.of(self.name):
            if place(each).role == role and each.turn == 0:
                found.append("\n".join(str(m.get("content")) for m in each.body["messages"]))
        return found


def configuration(endpoint: Endpoint, home: Path) -> dict[str, Any]:
    """Pipelines of every sort on one scripted model. The server of `late` is a program that is not there yet."""
    model = {"base_url": endpoint.url, "model": "scripted", "attempts": 1}
    piped = {"use": "pipeline", "model": "scripted"}
    tool = {"use": "function", "function": "tests.contract.pipeline.tools:weather"}
    return {
        "runs": {"park_seconds": 0.1},
        "models": {"scripted": model},
        "tools": {
            "weather": tool,
            "sell": {"use": "function", "function": "tests.contract.pipeline.tools:sell"},
            "ask_echo": {"use": "agent", "target": "echo"},
            "late": {"use": "mcp", "argv": [sys.executable, str(home / "late.py")], "start_seconds": 6.0},
        },
        "agents": {
            "team": piped,
            "handy": piped | {"tools": ["weather", "ask_echo", "sell"], "policy": {"sell": "ask"}},
            "editors": piped | {
                "default_roles": ["executor", "editor", "reviewer"],
                "roles": {"editor": {"system_prompt": "You are the editor.", "temperature": 0.5, "max_tokens": 77}},
            },
            "poor": piped | {"budget": {"max_requests": 0}},
            "frugal": piped | {"budget": {"max_requests": 3}},
            "waiter": piped | {"tools": ["late"]},
            "dry": {"use": "pipeline"},
            "rehearsed": {"use": "pipeline", "roles": {
                "reviewer": {"simulation": [json.dumps(each) for each in (APPROVE, RETRY, APPROVE)]},
            }},
        },
    }  # fmt: skip


@contextmanager
def playing(home: Path, endpoint: Endpoint, **options: Any) -> Iterator[Daemon]:
    """A daemon with these pipelines."""
    one = Daemon(home, config=configuration(endpoint, home), **options)
    try:
        yield one
    finally:
        one.close()


__all__ = ["APPROVE", "PLAN", "REJECT", "RETRY", "Call", "Cast", "Place", "Refuse", "Say", "configuration", "place",
           "playing"]  # fmt: skip

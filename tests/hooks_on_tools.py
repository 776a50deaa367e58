"""Hooks around the tools of the agent `hooked`. Apart from the agents, so that they need no library of models."""

import os
from typing import Any

from latticed import Block


def note(line: str) -> None:
    """Writes a line down where the tools write theirs."""
    with open(os.environ["LEDGER"], "a") as ledger:
        ledger.write(line + "\n")


def guard(payload: dict[str, Any]) -> Any:
    """Is asked before each tool call."""
    args = payload["tool"]["args"]
    note(f"guard {payload['tool']['name']} {args.get('a', args.get('name'))}")
    if args.get("a") == 1300:
        return Block("1300 brings bad luck")
    return {"args": {**args, "a": 2200}} if args.get("a") == 2100 else None


def witness(payload: dict[str, Any]) -> None:
    """Is told of each tool call."""
    tool = payload["tool"]
    note(f"witness {tool['name']} {tool['args'].get('a', tool['args'].get('name'))} {sorted(tool['answer'])}")

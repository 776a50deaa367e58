"""Identifiers: UUIDv7 behind a readable prefix, so that ids sort by the time they were made."""

import re
from typing import Final

from uuid_utils import uuid7

RUN: Final = "run"
APPROVAL: Final = "apr"
SIGNAL: Final = "sig"
TOKEN: Final = "tok"
BOOT: Final = "boot"
PLAN: Final = "plan"
HANDOFF: Final = "hnd"
PACKET: Final = "pkt"
REVIEW: Final = "rev"
SNAPSHOT: Final = "mem"
HOOK: Final = "hook"
DELIVERY: Final = "dlv"

STEP: Final = "step_"
"""What the id of a step begins with; its number in the journal follows."""

_SHAPE = re.compile(r"[a-z]+_[0-9a-f]{32}")


def new(prefix: str) -> str:
    """A new id; later ones sort after earlier ones made by this process."""
    return f"{prefix}_{uuid7().hex}"


def earliest(prefix: str, micros: int) -> str:
    """What sorts before every id that is made at or after a time, in microseconds since the epoch."""
    return f"{prefix}_{max(micros, 0) // 1000:012x}"


def is_id(prefix: str, text: str) -> bool:
    """Whether `text` could have been made by `new(prefix)`."""
    return len(text) == len(prefix) + 33 and text.startswith(prefix) and _SHAPE.fullmatch(text) is not None

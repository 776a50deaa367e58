"""latticed: a durable run executor. What agents import is here; each name is loaded when it is first asked for."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latticed.engine.context import Context
    from latticed.engine.retrying import Retry
    from latticed.errors import (
        ApprovalExpired,
        Cancelled,
        ChildFailed,
        Denied,
        RunError,
        SignalTimeout,
        StepFailed,
        StepInterrupted,
        Suspended,
    )
    from latticed.models.hooks import Block

__version__ = "0.1.0"

__all__ = [
    "ApprovalExpired",
    "Block",
    "Cancelled",
    "ChildFailed",
    "Context",
    "Denied",
    "Retry",
    "RunError",
    "SignalTimeout",
    "StepFailed",
    "StepInterrupted",
    "Suspended",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'latticed' has no attribute {name!r}")
    homes = {
        "Block": "latticed.models.hooks",
        "Context": "latticed.engine.context",
        "Retry": "latticed.engine.retrying",
    }
    return getattr(importlib.import_module(homes.get(name, "latticed.errors")), name)

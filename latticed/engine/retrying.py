"""How often a step is tried, and how long it waits in between."""

import random
from dataclasses import dataclass
from typing import Any

from latticed.errors import JournalConflict, Misuse, NotJson, OutcomeTooLarge

NEVER_AGAIN = (JournalConflict, Misuse, NotJson, OutcomeTooLarge)
"""Errors that another attempt would only meet again."""


@dataclass(frozen=True, slots=True)
class Retry:
    """A step's retry policy: `attempts` in all, waits of `backoff_seconds` doubled each time, jittered, and bounded."""

    attempts: int = 1
    backoff_seconds: float = 1.0
    max_backoff_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.backoff_seconds < 0 or self.max_backoff_seconds < 0:
            raise Misuse("retry needs attempts >= 1 and backoffs >= 0")

    @classmethod
    def of(cls, given: "Retry | dict[str, Any] | None") -> "Retry":
        """A policy from one, from a dict of its fields, or from nothing."""
        if given is None:
            return _ONCE
        if isinstance(given, Retry):
            return given
        try:
            return cls(**given)
        except TypeError as error:
            raise Misuse(f"retry: {error}") from None

    def wait_seconds(self, failed: int) -> float:
        """How long to wait after `failed` attempts."""
        return backoff_seconds(failed, self.backoff_seconds, self.max_backoff_seconds)


_ONCE = Retry()


def backoff_seconds(failed: int, first: float = 1.0, most: float = 60.0) -> float:
    """`first` doubled after each failed attempt, at most `most`, spread over its upper half so that crowds part."""
    full = min(most, first * 2.0 ** min(failed - 1, 30))
    return full * random.uniform(0.5, 1.0)

"""A `pre_run` hook that puts a mask in the place of secrets among a run's inputs, before anything reads them.

[hooks.redaction]
use = "python"
point = "pre_run"
function = "latticed.hooks.redaction:Redaction"
settings.keys = ["password", "api_key"]
"""

from typing import Any

MASK = "[redacted]"


class Redaction:
    """Masks the value of each key that is exactly one of `keys`, in whatever case, at any depth: `token` is, and
    `max_tokens` is not."""

    def __init__(self, *, keys: list[str], mask: str = MASK) -> None:
        """Raises:
        ValueError: `keys` is no list of names.
        """
        if not isinstance(keys, list) or not keys or not all(isinstance(key, str) and key for key in keys):
            raise ValueError("keys must be a list of names")
        if not isinstance(mask, str):
            raise ValueError("mask must be a text")
        self._keys = frozenset(key.casefold() for key in keys)
        self._mask = mask

    def __call__(self, payload: dict[str, Any]) -> dict[str, Any] | None:
        """Masks the inputs; nothing if there is nothing to mask."""
        inputs = payload["run"]["inputs"]
        masked = self._masked(inputs)
        return None if masked == inputs else {"inputs": masked}

    def _masked(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: self._mask if key.casefold() in self._keys and inner is not None else self._masked(inner)
                for key, inner in value.items()
            }
        if isinstance(value, list):
            return [self._masked(inner) for inner in value]
        return value

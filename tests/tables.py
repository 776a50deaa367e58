"""Tables of a configuration: laid over one another, and as the TOML that a daemon reads."""

import json
from collections.abc import Mapping
from typing import Any


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables joined key by key; `above` wins, and a None there takes the key out."""
    result = dict(below)
    for key, value in above.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            result[key] = merged(result.get(key, {}), value)
        else:
            result[key] = value
    return result


def to_toml(tables: Mapping[str, Any], path: str = "") -> str:
    """Nested tables of JSON values as TOML."""
    plain = {key: value for key, value in tables.items() if not isinstance(value, Mapping)}
    lines = [f"[{path}]"] if path and plain else []
    lines += [f"{json.dumps(key)} = {inline(value)}" for key, value in plain.items()]
    for key, value in tables.items():
        if isinstance(value, Mapping):
            inner = f"{path}.{json.dumps(key)}" if path else json.dumps(key)
            lines.append(to_toml(value, inner) or f"[{inner}]")
    return "\n".join(lines)


def inline(value: Any) -> str:
    """A value as TOML, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {inline(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value, ensure_ascii=False)

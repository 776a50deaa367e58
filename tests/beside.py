"""Agents that stand in a test file, beside the tests of them: a daemon imports the file as anybody's module."""

import inspect
from importlib import import_module
from typing import Any


def agents_in(*modules: str) -> dict[str, dict[str, Any]]:
    """The table `agents` of a configuration: every function of these modules whose first parameter is `ctx`."""
    found: dict[str, dict[str, Any]] = {}
    for module in modules:
        for name, function in inspect.getmembers(import_module(module), inspect.isfunction):
            if function.__module__ == module and next(iter(inspect.signature(function).parameters), "") == "ctx":
                assert name not in found, f"two agents are named {name}"
                found[name] = {"use": "function", "function": f"{module}:{name}"}
    return found

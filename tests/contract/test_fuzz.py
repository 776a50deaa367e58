"""Every route, called in ways that nobody thought of, by schemathesis. `make fuzz` is the long form."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Daemon

NOT_CHECKED = "positive_data_acceptance"
"""What fits its schema may still be refused: an agent may be unknown, a run finished, a workspace taken."""


def aimed(document: dict[str, Any], known: dict[str, list[str]]) -> dict[str, Any]:
    """The document with what is there said beside what could be, so that not every call ends at a 404.

    What a parameter may be stays the same set. `wait` is left out: it would do just that.
    """
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["parameters"] = [item for item in operation["parameters"] if item["name"] != "wait"]
            for parameter in operation["parameters"]:
                if parameter["name"] in known:
                    parameter["schema"] = {"anyOf": [{"enum": known[parameter["name"]]}, parameter["schema"]]}
    target = document["components"]["schemas"]["Submission"]["properties"]
    target["target"] = {"anyOf": [{"enum": known["target"]}, target["target"]]}
    return document


def fuzz(one: Daemon, directory: Path, phases: str, seed: int, examples: int, seconds: int) -> None:
    """One run of schemathesis over all routes; its report is the failure's message."""
    finished = one.run("steps")["id"]
    asking = one.post_run("asker", "may I?", wait=20)["id"]
    approvals = one.client.get(one.path("approvals")).json()["items"]
    known = {
        "workspace": ["default"],
        "run_id": [finished, asking, one.post_run("signaller")["id"], one.post_run("sleeper")["id"]],
        "approval_id": [approval["id"] for approval in approvals],
        "target": ["echo", "steps", "asker", "signaller", "reporter", "failer"],
        "signal": ["go"],
    }
    document = directory / "openapi.json"
    document.write_text(json.dumps(aimed(one.client.get("/openapi.json").json(), known)), encoding="utf-8")
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", str(document), "--url", one.url,
        "--header", f"Authorization: Bearer {one.token}", "--seed", str(seed), "--max-examples", str(examples),
        "--checks", "all", "--exclude-checks", NOT_CHECKED, "--phases", phases,
        "--workers", "1", "--request-timeout", "20", "--suppress-health-check", "all", "--generation-database", "none",
        "--generation-with-security-parameters", "false",
        # Found by their list, the token that asks would be revoked, and the rest would be 401.
        "--exclude-operation-id", "revoke_wide_token",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=directory, check=False)
    errors = [line for line in one.log_lines if line.get("event") == "request_failed"]
    assert done.returncode == 0, f"FUZZ_SEED={seed}\n{done.stdout[-20_000:]}\n{done.stderr[-4000:]}\n{errors[-3:]}"
    assert errors == []
    assert one.client.get("/readyz").status_code == 200


def test_no_route_fails_in_a_way_that_is_not_described(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    fuzz(daemon(), tmp_path, "examples,coverage,fuzzing", seed=1, examples=6, seconds=150)


@pytest.mark.fuzz_long
def test_no_route_fails_in_thousands_of_calls(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    seed = int(os.environ.get("FUZZ_SEED") or secrets.randbelow(2**32))
    print("FUZZ_SEED", seed)
    fuzz(daemon(), tmp_path, "examples,coverage,fuzzing,stateful", seed=seed, examples=300, seconds=3600)

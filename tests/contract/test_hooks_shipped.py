"""Hooks that come with latticed, and programs after a run, on a daemon."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Daemon, wait_until
from tests.hooks_for_tests import configuration, python

Make = Callable[..., Daemon]

POLICY = {
    "use": "python",
    "point": "pre_run",
    "function": "latticed.hooks.policy:Policy",
    "targets": ["judged"],
    "settings": {
        "rules": [
            {"when": "has(run.tags.vip)", "allow": True},
            {"when": "run.inputs.amount > 1000.0", "block": "more than 1,000 needs a person"},
            {"when": "run.priority < 0", "queue": "night", "tags": {"moved": "yes"}},
        ]
    },
}
REDACTION = {
    "use": "python",
    "point": "pre_run",
    "function": "latticed.hooks.redaction:Redaction",
    "order": 0,
    "settings": {"keys": ["password", "token"]},
}


def test_rules_redaction_and_a_program_after_the_run(daemon: Make, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    heard.mkdir()
    script = f"cat > {heard}/$$ && mv {heard}/$$ {heard}/$LATTICED_RUN_ID; echo no JSON"
    tell = {"use": "command", "point": "post_run", "argv": ["/bin/sh", "-c", script]}
    hooks = {"policy": POLICY, "redaction": REDACTION, "tell": tell, "seen": python("note", "judged")}
    one = daemon(config=configuration(hooks, queues={"night": {"concurrency": 1}}))

    refused = one.run("judged", inputs={"amount": 1001})
    assert refused["error"]["message"] == "policy: more than 1,000 needs a person"
    unclear = one.run("judged", inputs={})
    assert unclear["error"]["message"] == "policy: ValueError: rule 2: there is no key 'amount'; ask has(…) first"
    vip = one.run("judged", inputs={"amount": 1001}, tags={"vip": "1"})
    assert vip["status"] == "ok"
    moved = one.run("judged", inputs={"amount": 1}, tags={"a": "b"}, priority=-1)
    assert (moved["status"], moved["queue"], moved["tags"]) == ("ok", "night", {"a": "b", "moved": "yes"})

    inputs = {"amount": 1, "password": "hunter2", "deep": [{"Token": "hunter2"}], "max_tokens": 5}
    masked = one.run("judged", inputs=inputs)
    assert masked["inputs"] == masked["output"] == {
        "amount": 1, "password": "[redacted]", "deep": [{"Token": "[redacted]"}], "max_tokens": 5,
    }  # fmt: skip
    told = json.dumps([one.events(masked["id"]), one.steps(masked["id"]), one.get(masked["id"], "replay")])
    assert "hunter2" not in told
    assert "hunter2" not in one.log

    runs = {run["id"]: run["status"] for run in (refused, unclear, vip, moved, masked)}
    wait_until(lambda: {path.name for path in heard.iterdir()} == set(runs), 15)
    payloads = [json.loads(path.read_text()) for path in heard.iterdir()]
    assert {payload["run"]["id"]: payload["run"]["status"] for payload in payloads} == runs
    assert {(payload["hook"], payload["point"], payload["workspace"]) for payload in payloads} == {
        ("tell", "post_run", "default")
    }

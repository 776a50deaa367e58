"""What is secret is nowhere but where it belongs: not on disk, not in the log, and in no answer."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Daemon, wait_until
from tests.people import Browser, bearer, made_token, signed_in, trail
from tests.receiver import ALLOWED, Receiver, plain

Make = Callable[..., Daemon]


@dataclass
class Planted:
    """A daemon to which everything secret has been told, by everything that it is told by."""

    one: Daemon
    secrets: dict[str, str] = field(default_factory=dict)
    """What it is → its text."""

    def seen_in(self, text: bytes) -> list[str]:
        return [name for name, secret in self.secrets.items() if secret.encode() in text]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    home = tmp_path_factory.mktemp("secrets")
    files, credentials = home / "secret-files", home / "credentials"
    for directory in (files, credentials):
        directory.mkdir()
    (files / "webhook").write_text("planted-in-a-secret-file\n")
    (credentials / "model").write_text("planted-in-a-credential\n")
    env = {"CREDENTIALS_DIRECTORY": str(credentials), "LATTICED_SECRET_OTHER": "planted-in-the-environment"}
    echo = Receiver(lambda request, channel: plain(500, repr(request.headers).encode() + request.body))
    hook = {"use": "webhook", "point": "post_run", "url": echo.url}
    hooks = {"file": hook | {"secret": "secret:webhook"}, "credential": hook | {"secret": "secret:model"}}
    tables = {"secrets": {"dir": str(files)}, "hooks": hooks, "webhooks": {**ALLOWED, "retry_seconds": [0.01]}}
    one = Daemon(home / "daemon", config=tables, env=env, executed=True)
    try:
        planted = plant(one.start())
        sign(planted, echo)
        yield planted
    finally:
        echo.close()
        one.close()


def sign(planted: Planted, echo: Receiver) -> None:
    """Has everything sign that can, for a receiver that gives back whatever it gets."""
    one, body = planted.one, {"point": "post_run", "url": echo.url}
    for name, more in (("environment", {"secret": "secret:other"}), ("own", {})):
        made = one.client.post(one.path("hooks"), json={"name": name, **body, **more}).json()
    planted.secrets["a key of the daemon's own"] = made["signing_secret"]
    one.client.patch(one.path("hooks/own"), json={"secret": made["signing_secret"]})
    one.client.post(one.path("hooks"), json={"name": "wrong", **body, "secret": made["signing_secret"]})
    run_id = one.run("echo")["id"]
    path, params = one.path("hooks/deliveries"), {"run": run_id, "status": "dead"}
    wait_until(lambda: len(one.client.get(path, params=params).json()["items"]) == 4)


def plant(one: Daemon) -> Planted:
    """Uses tokens and cookies in every way there is: rightly, wrongly, in the wrong place."""
    planted = Planted(one)
    keep = planted.secrets
    keep |= {"a file": "planted-in-a-secret-file", "a credential": "planted-in-a-credential"}
    keep |= {"the environment": "planted-in-the-environment"}
    admin, viewer = made_token(one, "default", "admin"), made_token(one, "default", "viewer")
    wide, gone = made_token(one, "*", "admin"), made_token(one, "default", "admin")
    keep |= {"a token": admin["token"], "a viewer's": viewer["token"], "one for all": wide["token"]}
    keep |= {"a revoked one": gone["token"], "the first": one.token, "a guess": "lat_guessed-by-somebody"}
    for name in ("admin", "viewer"):
        browser = signed_in(one, {"admin": admin, "viewer": viewer}[name]["token"])
        keep[f"{name}'s cookie"] = browser.cookie.partition("=")[2]
        browser("POST", one.path("runs"), json={"target": "echo", "goal": "x"})
        browser("POST", one.path("runs"), json={"target": "echo"}, headers={"Origin": "http://evil.example"})
    out = signed_in(one, gone["token"])
    keep["a cookie signed out"] = out.cookie.partition("=")[2]
    out("DELETE", "/v1/session")
    one.client.delete(one.path(f"tokens/{gone['id']}"))
    for secret in list(keep.values()):
        for path in ("/v1/whoami", one.path("tokens"), "/metrics", f"/{secret}", f"/v1/workspaces/{secret}/runs"):
            one.stranger.get(path, headers=bearer(secret))
            one.stranger.get(path, headers={"Cookie": f"latticed_session={secret}"})
        Browser(one, one.url)("POST", "/v1/session", json={"token": secret})
        Browser(one, "http://evil.example")("POST", "/v1/session", json={"token": secret})
        one.stranger.post("/v1/session", json={"token": secret, secret: secret})
        one.stranger.post("/v1/session", content=f'{{"token": "{secret}"'.encode())
        one.client.get(one.path("runs"), params={secret: secret, "limit": secret})
        one.client.get(one.path(f"runs/{secret}"), headers={"Last-Event-ID": secret})
    wait_until(lambda: trail(one, "*", action="refused"))
    return planted


def test_nothing_secret_is_on_disk_but_the_first_token_in_its_file(planted: Planted) -> None:
    planted.one.client.get("/readyz")
    files = [path for path in planted.one.state_dir.rglob("*") if path.is_file()]
    assert {"latticed.db", "latticed.db-wal", "admin.token"} <= {path.name for path in files}
    for path in files:
        allowed = ["the first"] if path.name == "admin.token" else []
        assert planted.seen_in(path.read_bytes()) == allowed, path.name


def test_nothing_secret_is_in_the_log(planted: Planted) -> None:
    assert planted.one.log_lines
    assert planted.seen_in(planted.one.log.encode()) == []


EVERYWHERE = ["/metrics", "/v1/audit", "/v1/audit?format=jsonl", "/v1/tokens", "/v1/whoami", "/v1/workspaces"]
HERE = ["runs", "events", "tokens", "audit", "approvals", "agents", "queues", "hooks", "hooks/deliveries"]
GETS = [*EVERYWHERE, "/docs", "/openapi.json", *(f"/v1/workspaces/default/{tail}" for tail in HERE)]


@pytest.mark.parametrize("path", GETS)
def test_nothing_secret_is_in_an_answer(planted: Planted, path: str) -> None:
    answer = planted.one.client.get(path)
    assert answer.status_code == 200
    assert planted.seen_in(answer.content) == []


def test_nothing_secret_is_in_an_error(planted: Planted) -> None:
    one = planted.one
    for name, secret in planted.secrets.items():
        others: dict[str, Any] = {
            "of a token": one.stranger.get("/metrics", headers=bearer(secret + "x")),
            "of a cookie": one.stranger.get("/v1/whoami", headers={"Cookie": f"latticed_session={secret}x"}),
            "of a sign-in": one.stranger.post("/v1/session", json={"token": secret + "x"}),
            "of a broken body": one.stranger.post("/v1/session", content=f'{{"token": "{secret}'.encode()),
            "of a wrong body": one.stranger.post("/v1/session", json={"token": [secret]}),
            "of another site": one.stranger.post(
                "/v1/session", json={"token": secret}, headers={"Origin": "http://evil.example"}
            ),
        }
        for where, answer in others.items():
            assert answer.status_code >= 400
            assert secret.encode() not in answer.content, (name, where)
            assert secret not in str(answer.headers)


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_nothing_secret_is_in_the_configuration_as_it_is_shown(planted: Planted, how: list[str]) -> None:
    one = planted.one
    command = [sys.executable, "-m", "latticed.cli.daemon", "config", "show", "--config", str(one.config_file), *how]
    shown = subprocess.run(command, env=one.environment, capture_output=True, cwd=ROOT, check=True)
    assert planted.seen_in(shown.stdout + shown.stderr) == []


def test_nothing_secret_is_in_what_others_see_of_the_process(planted: Planted) -> None:
    line = Path(f"/proc/{planted.one.process.pid}/cmdline").read_bytes()
    assert planted.seen_in(line) == []
    mode = (planted.one.state_dir / "admin.token").stat().st_mode
    assert (mode & 0o077, os.stat(planted.one.state_dir).st_mode & 0o077) == (0, 0)


def test_what_was_looked_for_could_have_been_found(planted: Planted) -> None:
    assert len(set(planted.secrets.values())) == len(planted.secrets) >= 12
    assert planted.seen_in(json.dumps(planted.secrets).encode()) == list(planted.secrets)

"""Hooks over HTTP and by latticectl: registered, changed, removed; those of the file are only shown."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from latticed.cli.ctl import call
from tests.conftest import Daemon, wait_until
from tests.receiver import ALLOWED, Receiver

Json = dict[str, Any]
NOTE, SIGNS = "tests.hooks_for_tests:note", "secret:notify"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="module")
def one(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    hooks = {
        "notify": {"use": "webhook", "point": "post_run", "url": receiver.url, "targets": ["nothing"]},
        "signed": {"use": "webhook", "point": "post_run", "url": receiver.url, "secret": SIGNS, "enabled": False},
        "others": {"use": "webhook", "point": "post_run", "url": receiver.url, "workspaces": ["other"]},
        "policy": {"use": "python", "point": "pre_run", "function": NOTE, "targets": ["nothing"]},
        "tidy": {"use": "command", "point": "post_run", "argv": ["/bin/true"], "targets": ["nothing"]},
    }  # fmt: skip
    made = Daemon(
        tmp_path_factory.mktemp("hooks"),
        config={"hooks": hooks, "webhooks": ALLOWED},
        env={"LATTICED_SECRET_NOTIFY": "of notify"},
    )
    try:
        made.start()
        made.client.post("/v1/workspaces", json={"name": "other"})
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def _tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test leaves no registered hook behind."""
    yield
    one: Daemon = request.getfixturevalue("one")
    for workspace in ("default", "other"):
        for hook in one.client.get(one.path("hooks", workspace), params={"limit": 500}).json()["items"]:
            if hook["id"]:
                assert one.client.delete(one.path(f"hooks/{hook['id']}", workspace)).status_code == 204


def register(one: Daemon, receiver: Receiver, status: int = 201, workspace: str | None = None, **fields: Any) -> Json:
    """Asks for a hook; the answer."""
    body = {"name": "mine", "point": "post_run", "url": receiver.url, "targets": ["echo"], **fields}
    given = {name: value for name, value in body.items() if value is not ...}
    answer = one.client.post(one.path("hooks", workspace), json=given)
    assert answer.status_code == status, answer.text
    found: Json = answer.json()
    return found


def patch(one: Daemon, hook: str, body: Json, status: int = 200) -> Json:
    answer = one.client.patch(one.path(f"hooks/{hook}"), json=body)
    assert answer.status_code == status, answer.text
    found: Json = answer.json()
    return found


def names(one: Daemon, workspace: str | None = None) -> list[str]:
    return [hook["name"] for hook in one.client.get(one.path("hooks", workspace)).json()["items"]]


# Registered


def test_a_registered_hook_is_in_force_at_once_and_shown(one: Daemon, receiver: Receiver) -> None:
    made = register(one, receiver)
    assert made["signing_secret"].startswith("whsec_")
    assert (made["source"], made["use"], made["enabled"], made["timeout_seconds"]) == (
        "registered",
        "webhook",
        True,
        10.0,
    )
    run_id = one.run("echo")["id"]
    wait_until(lambda: receiver.about(run_id))
    shown = one.client.get(one.path("hooks/mine")).json()
    assert shown == made | {"signing_secret": None}, "shown this once"
    assert one.client.get(one.path(f"hooks/{made['id']}")).json() == shown
    assert one.client.get(one.path("hooks/mine"), params={"signing_secret": "true"}).json() == shown
    [kept] = one.client.get(one.path("hooks/deliveries"), params={"run": run_id}).json()["items"]
    assert (kept["hook"], kept["hook_id"]) == ("mine", made["id"])


def test_it_outlives_the_daemon(one: Daemon, receiver: Receiver) -> None:
    made = register(one, receiver, events=..., order=5, timeout_seconds=3, on_error="ignore", kind="agent")
    before = one.client.get(one.path("hooks")).json()
    one.kill()
    one.start()
    assert one.client.get(one.path("hooks")).json() == before
    run_id = one.run("echo")["id"]
    wait_until(lambda: receiver.about(run_id))
    assert (made["order"], made["timeout_seconds"], made["kind"]) == (5, 3.0, "agent")


def test_it_is_of_one_workspace(one: Daemon, receiver: Receiver) -> None:
    theirs = register(one, receiver, workspace="other")
    register(one, receiver, workspace="other", name="second", workspaces=["other"])
    register(one, receiver, name="mine", workspaces=[])
    assert names(one, "other") == ["notify", "others", "policy", "signed", "tidy", "second", "mine"]
    assert names(one) == ["notify", "policy", "signed", "tidy", "mine"]
    for path in (f"hooks/{theirs['id']}", "hooks/second", "hooks/others"):
        assert one.client.get(one.path(path)).status_code == 404
        assert one.client.patch(one.path(path), json={"enabled": False}).status_code == 404
        assert one.client.delete(one.path(path)).status_code == 404
    run_id = one.post_run("echo", workspace="other")["id"]
    wait_until(lambda: len(receiver.about(run_id)) == 3)
    assert {request.event["data"]["hook"] for request in receiver.about(run_id)} == {"mine", "second", "others"}
    assert {request.event["data"]["workspace"] for request in receiver.about(run_id)} == {"other"}
    [first, *_] = one.client.get(one.path("hooks/deliveries", "other"), params={"run": run_id}).json()["items"]
    for method, tail in (("GET", ""), ("POST", "/redeliver")):
        assert one.client.request(method, one.path(f"hooks/deliveries/{first['id']}{tail}")).status_code == 404
    register(one, receiver, 422, name="wide", workspaces=["other"])


def test_pages_go_through_all(one: Daemon, receiver: Receiver) -> None:
    for number in range(5):
        register(one, receiver, name=f"n{number}")
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = one.client.get(one.path("hooks"), params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        found += [hook["name"] for hook in page["items"]]
        assert len(page["items"]) <= 2
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == names(one) == ["notify", "policy", "signed", "tidy", "n4", "n3", "n2", "n1", "n0"]
    assert one.client.get(one.path("hooks"), params={"cursor": "made-up"}).status_code == 422
    run_id = one.run("echo")["id"]
    path = one.path("hooks/deliveries")
    wait_until(lambda: len(one.client.get(path, params={"run": run_id}).json()["items"]) == 5)
    first = one.client.get(path, params={"run": run_id, "limit": 3}).json()
    rest = one.client.get(path, params={"run": run_id, "limit": 3, "cursor": first["next_cursor"]}).json()
    assert [len(first["items"]), len(rest["items"]), rest["next_cursor"]] == [3, 2, None]
    assert len({each["id"] for each in (*first["items"], *rest["items"])}) == 5
    [only] = one.client.get(path, params={"run": run_id, "hook": "n2"}).json()["items"]
    assert one.client.get(path, params={"run": run_id, "hook": only["hook_id"]}).json()["items"] == [only]
    assert one.client.get(path, params={"run": run_id, "point": "on_event"}).json()["items"] == []
    assert one.client.get(path, params={"run": run_id, "hook": "nobody"}).json()["items"] == []
    for params in ({"cursor": "made-up"}, {"status": "fine"}, {"point": "never"}, {"hooks": "n2"}):
        assert one.client.get(path, params=params).status_code == 422


# Refused


@pytest.mark.parametrize(
    ("fields", "where", "said"),
    [
        ({"use": "python", "function": "a:b", "url": ...}, "", "configuration file"),
        ({"use": "command", "argv": ["/bin/true"], "url": ...}, "", "configuration file"),
        ({"use": "other"}, "use", "webhook"),
        ({"secret": "my secret"}, "secret", "secret:NAME"),
        ({"secret": "secret:nobody"}, "secret", "LATTICED_SECRET_NOBODY"),
        ({"secret": "secret:../etc"}, "secret", "secret:NAME"),
        ({"url": "http://10.0.0.1/"}, "url", "private"),
        ({"url": "https://169.254.169.254/latest/"}, "url", "private"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url", "private"),
        ({"url": "https://2852039166/"}, "url", "private"),
        ({"url": "ftp://example.org/"}, "url", "pattern"),
        ({"url": "https://user:word@example.org/"}, "url", "password"),
        ({"url": ...}, "url", "required"),
        ({"name": "deliveries"}, "name", "taken"),
        ({"name": "not a name"}, "name", "pattern"),
        ({"name": ...}, "name", "required"),
        ({"point": "sometimes"}, "point", "pre_run"),
        ({"point": "on_event"}, "", "names the types"),
        ({"point": "on_event", "events": ["run.finishd"]}, "events", "run.finished"),
        ({"events": ["run.finished"]}, "events", "on_event"),
        ({"timeout_seconds": 0}, "timeout_seconds", "greater"),
        ({"order": 1.5}, "order", "integer"),
        ({"enabled": "yes"}, "enabled", "boolean"),
        ({"surprise": 1}, "surprise", "xtra"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_there(
    one: Daemon, receiver: Receiver, fields: Json, where: str, said: str
) -> None:
    problem = register(one, receiver, 422, **fields)
    assert problem["code"] == "invalid"
    complaints = [error for error in problem["errors"] if ".".join(error["loc"][1:]) == where]
    assert any(said in error["msg"] for error in complaints), problem
    assert "my secret" not in json.dumps(problem)
    assert "my secret" not in one.log
    assert names(one) == ["notify", "policy", "signed", "tidy"]


def test_names_are_unique_in_a_workspace_and_not_those_of_the_file(one: Daemon, receiver: Receiver) -> None:
    made = register(one, receiver)
    for name in ("mine", "notify", "policy"):
        assert register(one, receiver, 409, name=name)["code"] == "conflict"
    register(one, receiver, name="second")
    assert patch(one, "second", {"name": "mine"}, 409)["code"] == "conflict"
    assert patch(one, "second", {"name": "tidy"}, 409)["code"] == "conflict"
    assert patch(one, "mine", {"name": "mine"})["id"] == made["id"]


def test_event_types_of_users_own_can_be_told(one: Daemon, receiver: Receiver) -> None:
    assert register(one, receiver, point="on_event", events=["x.mine", "run.queued"])["events"] == [
        "x.mine",
        "run.queued",
    ]


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_only_admins_see_hooks(one: Daemon, receiver: Receiver, role: str) -> None:
    token = one.client.post(one.path("tokens"), json={"role": role}).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    for method, path in (
        ("GET", "hooks"), ("POST", "hooks"), ("GET", "hooks/notify"), ("PATCH", "hooks/notify"),
        ("DELETE", "hooks/notify"), ("GET", "hooks/deliveries"),
        ("POST", "hooks/deliveries/dlv_" + "0" * 32 + "/redeliver"),
    ):  # fmt: skip
        assert one.client.request(method, one.path(path), headers=headers).status_code == 403


def test_a_key_makes_one_hook(one: Daemon, receiver: Receiver) -> None:
    body = {"name": "mine", "point": "post_run", "url": receiver.url, "targets": ["echo"]}
    headers = {"Idempotency-Key": "once"}
    made = one.client.post(one.path("hooks"), json=body, headers=headers)
    again = one.client.post(one.path("hooks"), json=body, headers=headers)
    assert (made.status_code, again.status_code, again.headers["idempotency-replayed"]) == (201, 200, "true")
    assert again.json() == made.json() | {"signing_secret": None}
    assert names(one).count("mine") == 1
    assert one.client.post(one.path("hooks"), json=body | {"order": 1}, headers=headers).status_code == 409


# Changed and removed


def test_a_change_holds_from_the_next_run_on_and_leaves_the_rest(one: Daemon, receiver: Receiver) -> None:
    elsewhere = Receiver()
    made = register(one, receiver, order=7)
    changed = patch(one, "mine", {"url": elsewhere.url, "name": "renamed"})
    assert changed == made | {
        "url": elsewhere.url, "name": "renamed", "updated_at": changed["updated_at"], "signing_secret": None,
    }  # fmt: skip
    assert changed["updated_at"] > made["updated_at"]
    run_id = one.run("echo")["id"]
    wait_until(lambda: elsewhere.about(run_id))
    assert receiver.about(run_id) == []
    assert one.client.get(one.path("hooks/mine")).status_code == 404
    patch(one, "renamed", {"enabled": False})
    quiet = one.run("echo")["id"]
    assert one.client.get(one.path("hooks/deliveries"), params={"run": quiet}).json()["items"] == []
    assert patch(one, "renamed", {"secret": "secret:notify"})["secret"] == "secret:notify"
    assert patch(one, "renamed", {"secret": None})["secret"] is None
    assert patch(one, "renamed", {}) == one.client.get(one.path("hooks/renamed")).json()
    for body in (
        {"url": "http://10.0.0.1/"},
        {"secret": "text"},
        {"point": "on_event"},
        {"use": "python"},
        {"id": "x"},
    ):
        assert patch(one, "renamed", body, 422)["code"] == "invalid"
    assert one.client.get(one.path("hooks/renamed")).json()["url"] == elsewhere.url
    elsewhere.close()


def test_what_waits_for_a_disabled_hook_is_sent_once_it_is_enabled(one: Daemon) -> None:
    hanging = Receiver()
    hanging.behaviour = lambda request, channel: hanging.over.wait() and None
    register(one, hanging, timeout_seconds=0.2)
    run_id = one.run("echo")["id"]
    path = one.path("hooks/deliveries")
    wait_until(lambda: one.client.get(path, params={"run": run_id}).json()["items"][0]["attempts"] == 1)
    patch(one, "mine", {"enabled": False})
    hanging.behaviour = lambda request, channel: b"HTTP/1.1 204 X\r\n\r\n"
    assert one.client.get(path, params={"run": run_id}).json()["items"][0]["status"] == "pending"
    seen = len(hanging.requests)
    patch(one, "mine", {"enabled": True})
    wait_until(lambda: one.client.get(path, params={"run": run_id}).json()["items"][0]["status"] == "ok")
    assert len(hanging.requests) == seen + 1
    hanging.close()


def test_those_of_the_file_are_shown_and_not_changed(one: Daemon, receiver: Receiver) -> None:
    policy = one.client.get(one.path("hooks/policy")).json()
    assert (policy["id"], policy["source"], policy["use"], policy["function"]) == (
        None, "file", "python", "tests.hooks_for_tests:note",
    )  # fmt: skip
    assert one.client.get(one.path("hooks/tidy")).json()["argv"] == ["/bin/true"]
    for method, body in (("PATCH", {"enabled": False}), ("DELETE", None)):
        answer = one.client.request(method, one.path("hooks/notify"), json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert "configuration file" in answer.json()["detail"]


def test_the_key_of_a_hook_of_the_file_is_for_those_who_see_everything(one: Daemon) -> None:
    asked = {"signing_secret": "true"}
    assert one.client.get(one.path("hooks/notify"), params=asked).json()["signing_secret"].startswith("whsec_")
    assert one.client.get(one.path("hooks/notify")).json()["signing_secret"] is None
    assert one.client.get(one.path("hooks/signed"), params=asked).json()["signing_secret"] is None
    token = one.client.post(one.path("tokens"), json={"role": "admin"}).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert one.client.get(one.path("hooks/notify"), headers=headers).status_code == 200
    assert one.client.get(one.path("hooks/notify"), params=asked, headers=headers).status_code == 403
    assert one.client.get(one.path("hooks/notify"), params={"signing_secret": "1"}).status_code == 422


def test_acts_are_in_the_audit_trail(one: Daemon, receiver: Receiver) -> None:
    import sqlite3

    made = register(one, receiver)
    patch(one, "mine", {"order": 1})
    run_id = one.run("echo")["id"]
    path = one.path("hooks/deliveries")
    [kept] = wait_until(lambda: one.client.get(path, params={"run": run_id, "status": "ok"}).json()["items"])
    assert one.client.post(f"{path}/{kept['id']}/redeliver").status_code == 202
    assert one.client.delete(one.path("hooks/mine")).status_code == 204
    with sqlite3.connect(one.state_dir / "latticed.db") as database:
        rows = database.execute(
            "SELECT action, principal, workspace FROM audit WHERE subject IN (?, ?) ORDER BY id",
            (made["id"], kept["id"]),
        ).fetchall()
    database.close()
    actions = ["hook.create", "hook.update", "hook.redeliver", "hook.delete"]
    assert rows == [(action, "admin", "default") for action in actions]


# By latticectl


def ctl(one: Daemon, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    """A command line → what it says on stdout and on stderr."""
    assert call(["-u", one.url, "-t", one.token, *words]) == code
    return capsys.readouterr()


def test_latticectl_does_all_of_it(one: Daemon, receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str) -> Any:
        return json.loads(ctl(one, capsys, "--json", "hooks", *words)[0])

    made = told("create", "mine", "--point", "post_run", "--url", receiver.url, "--target", "echo", "--timeout", "3")
    assert (made["targets"], made["timeout_seconds"]) == (["echo"], 3.0)
    key, note = ctl(
        one, capsys, "hooks", "create", "two", "--point", "on_event", "--url", receiver.url, "--event", "x.y"
    )
    assert key.startswith("whsec_")
    assert "not shown again" in note
    listed = ctl(one, capsys, "hooks", "list")[0]
    assert [line.split()[0] for line in listed.splitlines()] == [
        "NAME",
        "notify",
        "policy",
        "signed",
        "tidy",
        "two",
        "mine",
    ]
    assert told("show", "mine")["id"] == made["id"]
    assert "signed with" in ctl(one, capsys, "hooks", "show", "notify", "--signing-secret")[0]
    assert told("update", "mine", "--order", "3", "--secret", "secret:notify")["order"] == 3
    assert told("update", "mine", "--no-secret")["secret"] is None
    assert told("disable", "mine")["enabled"] is False
    assert told("enable", made["id"])["enabled"] is True
    assert "nothing to change" in ctl(one, capsys, "hooks", "update", "mine", code=2)[1]
    run_id = one.run("echo")["id"]
    wait_until(lambda: told("deliveries", "--run", run_id, "--status", "ok")["items"])
    [kept] = told("deliveries", "--run", run_id, "--hook", "mine", "--point", "post_run")["items"]
    assert kept["id"] in ctl(one, capsys, "hooks", "deliveries", "--limit", "1")[0]
    assert told("delivery", kept["id"]) == kept
    assert "mine at post_run" in ctl(one, capsys, "hooks", "delivery", kept["id"])[0]
    assert told("redeliver", kept["id"])["id"] == kept["id"]
    wait_until(lambda: told("delivery", kept["id"])["attempts"] == 2)
    assert told("delete", "mine") == {"hook": "mine", "deleted": True}
    assert "is gone" in ctl(one, capsys, "hooks", "delete", "two")[0]
    assert "configuration file" in ctl(one, capsys, "hooks", "delete", "notify", code=5)[1]
    ctl(one, capsys, "hooks", "show", "mine", code=4)

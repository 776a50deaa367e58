"""Registered webhooks that become others: nothing is left as it was that was never said, and nothing is lost."""

from collections.abc import Iterator
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.conftest import Daemon, wait_until
from tests.receiver import ALLOWED, Receiver

Json = dict[str, Any]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    secret = {"LATTICED_SECRET_NOTIFY": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    made = Daemon(tmp_path_factory.mktemp("hooks"), config={"webhooks": ALLOWED}, env=secret)
    try:
        yield made.start()
    finally:
        made.close()


def register(one: Daemon, receiver: Receiver, name: str, **fields: Any) -> Json:
    body = {"name": name, "point": "post_run", "url": receiver.url, "targets": [name], **fields}
    answer = one.client.post(one.path("hooks"), json=body)
    assert answer.status_code == 201, answer.text
    found: Json = answer.json()
    return found


def patch(one: Daemon, name: str, **changes: Any) -> Json:
    answer = one.client.patch(one.path(f"hooks/{name}"), json=changes)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def test_one_that_is_to_judge_fails_closed_unless_it_is_said_otherwise(one: Daemon, receiver: Receiver) -> None:
    assert register(one, receiver, "judge")["on_error"] == "ignore"
    assert patch(one, "judge", point="pre_run")["on_error"] == "block"
    assert patch(one, "judge", on_error="ignore")["on_error"] == "ignore"
    assert patch(one, "judge", point="pre_tool")["on_error"] == "ignore", "that was said"
    assert patch(one, "judge", point="post_tool")["on_error"] == "ignore"
    assert patch(one, "judge", point="pre_run", on_error="ignore")["on_error"] == "ignore"


def test_one_that_is_told_of_events_no_more_chooses_none(one: Daemon, receiver: Receiver) -> None:
    register(one, receiver, "events", point="on_event", events=["run.started"])
    assert patch(one, "events", order=3)["events"] == ["run.started"]
    assert patch(one, "events", point="post_run")["events"] == []
    refused = one.client.patch(one.path("hooks/events"), json={"events": ["run.started"]})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")


def test_one_whose_secret_is_taken_away_shows_the_key_that_signs_now(one: Daemon, receiver: Receiver) -> None:
    assert register(one, receiver, "echo", secret="secret:notify")["signing_secret"] is None
    key = patch(one, "echo", secret=None)["signing_secret"]
    assert patch(one, "echo", order=3)["signing_secret"] is None, "once"
    run_id = one.run("echo")["id"]
    [request] = wait_until(lambda: receiver.about(run_id))
    assert Webhook(key).verify(request.body, request.headers)["subject"] == run_id


def test_a_secret_of_the_daemon_is_not_for_the_admin_of_one_workspace(one: Daemon, receiver: Receiver) -> None:
    register(one, receiver, "signed", secret="secret:notify")
    token = one.client.post(one.path("tokens"), json={"role": "admin"}).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    body = {"point": "post_run", "url": receiver.url}

    def answer(method: str, tail: str, **json: Any) -> int:
        return one.stranger.request(method, one.path(f"hooks{tail}"), json=json, headers=headers).status_code

    assert answer("POST", "", name="plain", **body) == 201
    for secret in ("secret:notify", "secret:nobody"):  # And whether it is there is not told.
        assert answer("POST", "", name="mine", secret=secret, **body) == 403
        assert answer("PATCH", "/plain", secret=secret) == 403
    assert answer("PATCH", "/signed", url=receiver.url + "/elsewhere") == 403
    assert answer("PATCH", "/signed", order=3, enabled=False) == 200
    assert answer("PATCH", "/signed", secret=None) == 200
    assert answer("PATCH", "/signed", secret="secret:notify") == 403
    assert answer("PATCH", "/signed", url=receiver.url + "/elsewhere") == 200

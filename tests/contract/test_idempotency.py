"""`Idempotency-Key` on everything that is made: one key makes one thing, and says so."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from latticed.api.routes import ROUTES
from tests.conftest import Daemon
from tests.people import bearer, made_workspace

NO_KEYS = {"stop_run", "cancel_run", "answer_approval", "sign_in", "redeliver"}
"""POSTs that make nothing which could be made twice."""


def test_every_post_that_makes_something_takes_a_key() -> None:
    posts = {route.name: route for route in ROUTES if route.method == "POST" and route.name not in NO_KEYS}
    assert [name for name, route in posts.items() if not (route.idempotent and 200 in route.answers)] == []


def waiting(one: Daemon) -> str:
    run_id: str = one.post_run("signaller", inputs={"n": 3})["id"]
    one.wait_event(run_id, "run.started")
    return run_id


Case = Callable[[Daemon], tuple[str, dict[str, Any], dict[str, Any], Callable[[dict[str, Any]], Any]]]


def a_signal(one: Daemon) -> Any:
    path = one.path(f"runs/{waiting(one)}/signals/go")
    return path, {"data": 1}, {"data": 2}, lambda made: made["signal_id"]


def a_token(one: Daemon) -> Any:
    return one.path("tokens"), {"role": "viewer"}, {"role": "admin"}, lambda made: made["id"]


def a_wide_token(one: Daemon) -> Any:
    return "/v1/tokens", {"role": "viewer"}, {"role": "admin"}, lambda made: made["id"]


def a_workspace(one: Daemon) -> Any:
    return "/v1/workspaces", {"name": "once-a"}, {"name": "once-b"}, lambda made: made["name"]


CASES = [a_signal, a_token, a_wide_token, a_workspace]


def send(one: Daemon, path: str, body: Any, key: str) -> httpx2.Response:
    return one.client.post(path, json=body, headers={"Idempotency-Key": key})


@pytest.mark.parametrize("case", CASES)
def test_the_same_request_again_is_the_first_answer_again(live: Daemon, case: Case) -> None:
    path, body, other, id_of = case(live)
    key = f"again-{case.__name__}"
    first, again = send(live, path, body, key), send(live, path, body, key)
    assert first.status_code in (201, 202), first.text
    assert "idempotency-replayed" not in first.headers
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    assert again.json() == {name: value for name, value in first.json().items() if name != "token"}
    changed = send(live, path, other, key)
    assert (changed.status_code, changed.json()["code"]) == (409, "conflict")
    assert key in changed.json()["detail"]
    assert id_of(again.json()) == id_of(first.json())


@pytest.mark.parametrize("case", CASES[1:3])
def test_of_many_at_once_one_makes_it(live: Daemon, case: Case) -> None:
    path, body, _, id_of = case(live)
    before = {each["id"] for each in live.client.get(path, params={"limit": 500}).json()["items"]}
    with ThreadPoolExecutor(16) as pool:
        key = f"race-{case.__name__}"
        answers = list(pool.map(lambda _: send(live, path, body, key), range(32)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 31}
    assert len({id_of(answer.json()) for answer in answers}) == 1
    after = {each["id"] for each in live.client.get(path, params={"limit": 500}).json()["items"]}
    assert len(after - before) == 1


def test_a_signal_that_is_sent_again_is_taken_once(live: Daemon) -> None:
    run_id = waiting(live)
    path = live.path(f"runs/{run_id}/signals/go")
    for number in range(3):
        for _ in range(2):
            assert send(live, path, {"data": number}, f"signal-{number}").status_code in (200, 202)
    assert live.wait(run_id)["output"] == [0, 1, 2]
    late = send(live, path, {"data": 0}, "signal-0")
    assert (late.status_code, late.json()["accepted"]) == (200, True), "though the run takes no more"
    assert send(live, path, {"data": 9}, "signal-9").status_code == 409


def test_a_tokens_text_is_in_the_first_answer_only_and_nowhere_kept(live: Daemon) -> None:
    first = send(live, live.path("tokens"), {"role": "viewer"}, "text").json()
    again = send(live, live.path("tokens"), {"role": "viewer"}, "text").json()
    assert "token" not in again
    text = first["token"].encode()
    assert httpx2.get(live.url + "/v1/whoami", headers=bearer(first["token"])).status_code == 200
    assert not [file.name for file in live.state_dir.glob("latticed.db*") if text in file.read_bytes()]
    live.client.delete(live.path(f"tokens/{first['id']}"))
    again = send(live, live.path("tokens"), {"role": "viewer"}, "text").json()
    assert again["revoked_at"] is not None, "it is shown as it is now"


def test_a_key_is_of_one_workspace_and_one_route(live: Daemon) -> None:
    made_workspace(live, "elsewhere")
    answers = [send(live, live.path("tokens", name), {"role": "viewer"}, "scope") for name in ("default", "elsewhere")]
    answers += [send(live, "/v1/tokens", {"role": "viewer"}, "scope")]
    answers += [send(live, live.path("runs"), {"kind": "agent", "target": "echo", "goal": "goal"}, "scope")]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 202]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "tab\there"])
def test_a_key_that_is_none_is_422_and_makes_nothing(live: Daemon, case: Case, key: str) -> None:
    path, body, _, _ = case(live)
    answer = send(live, path, body | ({"name": "never"} if case is a_workspace else {}), key)
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["header", "Idempotency-Key"])
    assert live.client.get("/v1/workspaces/never").status_code == 404


def test_what_was_removed_since_is_not_made_again(live: Daemon) -> None:
    assert send(live, "/v1/workspaces", {"name": "brief"}, "brief").status_code == 201
    token = send(live, live.path("tokens", "brief"), {"role": "viewer"}, "brief")
    assert token.status_code == 201
    assert live.client.delete("/v1/workspaces/brief").status_code == 204
    assert send(live, "/v1/workspaces", {"name": "brief"}, "brief").status_code in (404, 409)
    assert live.client.get("/v1/workspaces/brief").status_code == 404

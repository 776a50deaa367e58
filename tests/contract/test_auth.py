"""Who gets in, on the real daemon; the routes are those of the table, so none can be forgotten."""

import re
from dataclasses import dataclass

import httpx2
import pytest

from latticed import ids
from latticed.api.exchange import Route
from latticed.api.routes import ROUTES
from latticed.models.people import RANK
from tests.conftest import Daemon, wait_until

BODIES = {
    "submit_run": {"target": "echo", "goal": "x"},
    "answer_approval": {"decision": "approve"},
    "create_token": {"role": "viewer"},
    "create_wide_token": {"role": "viewer"},
    "create_workspace": {"name": "created-by-a-test"},
}
GUARDED = [route for route in ROUTES if route.role is not None]
SCOPED = [route for route in GUARDED if "{workspace}" in route.path]


@dataclass
class People:
    """Tokens of the workspace `mine` and one of `theirs`, with a run in `mine`."""

    run_id: str
    tokens: dict[str, str]


def token_of(live: Daemon, workspace: str, role: str, **fields: object) -> str:
    answer = live.client.post(live.path("tokens", workspace), json={"role": role, **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


@pytest.fixture(scope="module")
def people(live: Daemon) -> People:
    for name in ("mine", "theirs"):
        assert live.client.post("/v1/workspaces", json={"name": name}).status_code in (201, 409)
    tokens = {role: token_of(live, "mine", role) for role in RANK}
    tokens["stranger"] = token_of(live, "theirs", "admin")
    return People(live.post_run("echo", workspace="mine")["id"], tokens)


def ask(live: Daemon, people: People, route: Route, token: str | None, workspace: str = "mine") -> httpx2.Response:
    known = {
        "workspace": workspace, "run_id": people.run_id, "approval_id": ids.new(ids.APPROVAL),
        "token_id": ids.new(ids.TOKEN), "signal": "go", "hook": ids.new(ids.HOOK), "delivery_id": ids.new(ids.DELIVERY),
    }  # fmt: skip
    path = re.sub(r"{(\w+)}", lambda match: known[match[1]], route.path)
    headers = {"Authorization": f"Bearer {token}" if token else ""}
    return live.client.request(route.method, path, json=BODIES.get(route.name), headers=headers)


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: route.name)
def test_nobody_gets_nothing(live: Daemon, people: People, route: Route) -> None:
    for token in (None, "made-up", people.tokens["admin"][:-1], people.tokens["admin"] + "x"):
        answer = ask(live, people, route, token)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("route", SCOPED, ids=lambda route: route.name)
def test_a_token_of_another_workspace_is_403_there_or_not(live: Daemon, people: People, route: Route) -> None:
    for workspace in ("mine", "default", "not-there", "%2e%2e"):
        answer = ask(live, people, route, people.tokens["stranger"], workspace)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), workspace


@pytest.mark.parametrize("route", SCOPED, ids=lambda route: route.name)
def test_what_is_somebody_elses_is_404_in_the_right_workspace(live: Daemon, people: People, route: Route) -> None:
    if "{run_id}" in route.path:
        answer = ask(live, people, route, people.tokens["stranger"], "theirs")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: route.name)
def test_a_role_may_do_what_the_table_says_and_no_more(live: Daemon, people: People, route: Route) -> None:
    for role in RANK:
        if route.name == "cancel_run" or (route.name == "stop_run" and role == "admin"):
            continue
        status = ask(live, people, route, people.tokens[role]).status_code
        allowed = RANK[role] >= RANK[route.role or "viewer"] and not route.everywhere
        assert (status != 403) == allowed, (role, status)
        assert status != 401


def test_a_list_of_workspaces_shows_only_ones_own(live: Daemon, people: People) -> None:
    [route] = [route for route in ROUTES if route.name == "list_workspaces"]
    items = ask(live, people, route, people.tokens["viewer"]).json()["items"]
    assert [workspace["name"] for workspace in items] == ["mine"]


def test_an_expired_token_is_401(live: Daemon) -> None:
    token = token_of(live, "default", "viewer", expires_seconds=0.3)
    headers = {"Authorization": f"Bearer {token}"}
    assert live.client.get("/v1/whoami", headers=headers).status_code == 200
    wait_until(lambda: live.client.get("/v1/whoami", headers=headers).status_code == 401)


def test_a_revoked_token_is_401_at_once(live: Daemon) -> None:
    made = live.client.post(live.path("tokens"), json={"role": "viewer"}).json()
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert live.client.get("/v1/whoami", headers=headers).status_code == 200
    assert live.client.delete(live.path(f"tokens/{made['id']}")).status_code == 204
    assert live.client.get("/v1/whoami", headers=headers).status_code == 401


def test_the_tokens_text_is_nowhere_in_the_state_directory_but_in_its_file(live: Daemon) -> None:
    token = token_of(live, "default", "viewer").encode()
    for path in live.state_dir.rglob("*"):
        if path.is_file() and path.name != "admin.token":
            assert token not in path.read_bytes(), path.name
    assert token.decode() not in live.log


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  "])
def test_the_scheme_is_read_as_rfc_9110_says(live: Daemon, scheme: str) -> None:
    assert live.client.get("/v1/whoami", headers={"Authorization": f"{scheme} {live.token}"}).status_code == 200


def test_of_two_tokens_none_is_picked(live: Daemon) -> None:
    good = f"Bearer {live.token}".encode()
    for pair in ((good, b"Bearer lat_x"), (b"Bearer lat_x", good), (good, b""), (good, good)):
        headers = [(b"Authorization", value) for value in pair]
        assert live.stranger.get("/v1/whoami", headers=headers).status_code == 401


def test_of_two_keys_or_places_to_resume_at_none_is_picked(live: Daemon) -> None:
    keys = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
    answer = live.client.post(live.path("runs"), json={"target": "echo", "goal": "x"}, headers=keys)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    places = [("Last-Event-ID", "1"), ("Last-Event-ID", "0"), ("Accept", "text/event-stream")]
    assert live.client.get(live.path("events"), headers=places).status_code == 422


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer,", "Basic Og==", "Bearer " + "x" * 10_000, "Bearer \xff\xfe"])
def test_a_header_that_holds_no_token_is_401(live: Daemon, value: str) -> None:
    answer = live.client.get("/v1/whoami", headers=[(b"Authorization", value.encode("latin-1"))])
    assert answer.status_code == 401

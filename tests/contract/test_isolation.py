"""What one workspace cannot do to another: every route with every wrong way in and every id that is somebody else's.

Made from the table of routes. A path or query parameter, a body or a table that is not known here makes the suite fail
until it is told how to make one.
"""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from latticed import ids
from latticed.api.exchange import Route
from latticed.api.routes import ROUTES
from latticed.models.people import RANK
from tests.conftest import Daemon, wait_until
from tests.people import bearer, made_token, made_workspace, signed_in

MINE, THEIRS = "isolated-mine", "isolated-theirs"

# --- what has to be said of a new route ------------------------------------------------------------------------------

NO_ID = {"workspace", "signal"}
"""Path parameters that are not an id of something that belongs to a workspace."""

PREFIXES = {
    "run_id": ids.RUN, "approval_id": ids.APPROVAL, "token_id": ids.TOKEN, "hook": ids.HOOK,
    "delivery_id": ids.DELIVERY,
}  # fmt: skip
"""Path parameter → the prefix of its ids; `Place.things` has one that exists."""

BODIES: dict[str, Any] = {
    "submit_run": {"target": "echo", "goal": "x"},
    "stop_run": {"mode": "kill"},
    "cancel_run": {},
    "rerun": {},
    "send_signal": {"data": 1},
    "answer_approval": {"decision": "approve"},
    "create_token": {"role": "viewer"},
    "create_wide_token": {"role": "viewer"},
    "create_workspace": {"name": "isolated-made"},
    "sign_in": {"token": "lat_x"},
    "create_hook": {"name": "isolated", "point": "post_run", "url": "https://example.org/isolated"},
    "update_hook": {"order": 5},
}
"""Operation → a body that is right, so that nothing is refused for its body."""

QUERIES: dict[str, Callable[["Place"], list[str]]] = {
    "parent": lambda place: [place.things["run_id"], place.others[0]],
    "run": lambda place: [place.things["run_id"], *place.others[:2]],
    "hook": lambda place: [place.things["hook"]],
    "subject": lambda place: [*place.things.values(), *place.others],
    "principal": lambda place: [place.admin["id"], place.admin["name"]],
    "cursor": lambda place: [*place.things.values(), *place.others],
}
"""Query parameter of a workspace's routes → texts with which it asks for what is another's."""

NAMES_NOTHING = {
    "action", "after", "force", "format", "kind", "lane", "limit", "point", "signing_secret", "since", "status", "tag",
    "target", "types", "until", "wait",
}  # fmt: skip
"""Query parameters that name nothing of which only one workspace can have it."""

OF_NOBODY = {"alembic_version", "floors", "sqlite_sequence"}
"""Tables that hold nothing of any workspace."""


@dataclass
class Place:
    """A workspace and one thing of each sort in it."""

    name: str
    admin: dict[str, Any]
    things: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    """What else is there that a leak would show."""


def furnished(live: Daemon, name: str) -> Place:
    """One of everything, all of it at rest."""
    made_workspace(live, name)
    place = Place(name, made_token(live, name, "admin", name=f"admin of {name}"))
    run = live.post_run("asker", f"goal of {name}", workspace=name, wait=20)
    ended = live.post_run("steps", workspace=name, inputs={"of": name}, wait=20)
    waits = live.post_run("signaller", workspace=name)
    one = lambda tail: live.client.get(live.path(tail, name)).json()
    wait_until(lambda: one(f"runs/{waits['id']}")["status"] == "waiting")
    assert (run["status"], ended["status"]) == ("awaiting_approval", "ok")
    place.things = {
        "run_id": run["id"],
        "approval_id": run["pause"]["approval_ids"][0],
        "token_id": made_token(live, name, "operator", name=f"token of {name}")["id"],
        "delivery_id": _delivered(live, name),
        "hook": _registered(live, name, "asleep", enabled=False),
    }
    place.others = [ended["id"], waits["id"], place.admin["id"]]
    return place


def _registered(live: Daemon, workspace: str, name: str, **more: Any) -> str:
    body = {"name": name, "point": "post_run", "url": f"https://{workspace}.invalid/", **more}
    answer = live.client.post(live.path("hooks", workspace), json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _delivered(live: Daemon, workspace: str) -> str:
    """A delivery that is not going to change: its hook is gone."""
    hook = _registered(live, workspace, "gone")
    live.post_run("echo", workspace=workspace, wait=20)
    found = lambda: live.client.get(live.path("hooks/deliveries", workspace)).json()["items"]
    wait_until(found)
    assert live.client.delete(live.path(f"hooks/{hook}", workspace)).status_code == 204
    wait_until(lambda: found()[0]["status"] == "skipped")
    return str(found()[0]["id"])


# --- the suite -------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """Two workspaces, and ways in."""

    live: Daemon
    mine: Place
    theirs: Place
    roles: dict[str, str]
    nobody: dict[str, dict[str, str]]
    """Ways in that are none."""
    before: dict[str, list[Any]]
    """All that is theirs, as it was."""


def path_of(route: Route, workspace: str, things: dict[str, str]) -> str:
    known = {"workspace": workspace, "signal": "go", **things}
    return re.sub(r"{(\w+)}", lambda match: known[match[1]], route.path)


def made_up() -> dict[str, str]:
    """Ids that could be, and are not."""
    return {name: ids.new(prefix) for name, prefix in PREFIXES.items()}


def ask(world: World, route: Route, path: str, headers: dict[str, str], **more: str) -> httpx2.Response:
    body = BODIES[route.name] if route.body is not None else None
    return world.live.stranger.request(route.method, path, headers={**headers, **more}, json=body)


def told(answer: httpx2.Response) -> tuple[Any, ...]:
    """All of an answer but what is of the one request."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
    return answer.status_code, answer.content, headers


def all_of(live: Daemon, workspace: str) -> dict[str, list[Any]]:
    """Every row of every table that belongs to a workspace, as it lies on disk."""
    db = sqlite3.connect(f"file:{live.state_dir / 'latticed.db'}?mode=ro", uri=True)
    try:
        found: dict[str, list[Any]] = {}
        of_run = "run_id IN (SELECT id FROM runs WHERE workspace = :ws)"
        of_token = "token_id IN (SELECT id FROM tokens WHERE workspace = :ws)"
        conditions = {"workspace": "workspace = :ws", "run_id": of_run, "token_id": of_token}
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall():
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            where = next((conditions[name] for name in conditions if name in columns), None)
            if table == "workspaces":
                where = "name = :ws"
            elif where is None:
                assert table in OF_NOBODY, f"say how a row of {table} belongs to a workspace"
                continue
            found[table] = sorted(db.execute(f"SELECT * FROM {table} WHERE {where}", {"ws": workspace}), key=repr)
        return found
    finally:
        db.close()


@pytest.fixture(scope="module")
def world(live: Daemon) -> Iterator[World]:
    mine, theirs = furnished(live, MINE), furnished(live, THEIRS)
    roles = {role: made_token(live, MINE, role)["token"] for role in RANK}
    revoked = made_token(live, MINE, "admin")
    out = signed_in(live, revoked["token"])
    assert live.client.get("/v1/whoami", headers=bearer(revoked["token"])).status_code == 200
    assert live.client.delete(live.path(f"tokens/{revoked['id']}", MINE)).status_code == 204
    expired = made_token(live, MINE, "admin", expires_seconds=0.05)
    wait_until(lambda: live.client.get("/v1/whoami", headers=bearer(expired["token"])).status_code == 401)
    good = roles["admin"]
    nobody = {
        "nothing": {},
        "empty": {"Authorization": ""},
        "no token": {"Authorization": "Bearer"},
        "another scheme": {"Authorization": f"Basic {good}"},
        "no scheme": {"Authorization": good},
        "unknown": bearer("lat_" + "A" * 43),
        "all but the end": bearer(good[:-1]),
        "one more": bearer(good + "A"),
        "in capitals": bearer(good.upper()),
        "its id": bearer(theirs.admin["id"]),
        "expired": bearer(expired["token"]),
        "revoked": bearer(revoked["token"]),
        "a cookie that is none": {"Cookie": "latticed_session=ses_" + "A" * 43, "Origin": live.url},
        "a session whose token was revoked": {"Cookie": out.cookie, "Origin": live.url},
        "a token as a cookie": {"Cookie": f"latticed_session={good}", "Origin": live.url},
    }
    yield World(live, mine, theirs, roles, nobody, all_of(live, THEIRS))
    for place in (mine, theirs):
        for run_id in (place.things["run_id"], *place.others[:2]):
            live.client.post(live.path(f"runs/{run_id}/stop", place.name), json={"mode": "kill"})


GUARDED = [route for route in ROUTES if route.role is not None]
SCOPED = [route for route in GUARDED if "{workspace}" in route.path]
PARAMETERS = {name for route in ROUTES for name in re.findall(r"{(\w+)}", route.path)}
NAMING = [route for route in SCOPED if set(re.findall(r"{(\w+)}", route.path)) - NO_ID]
NAMED = [(route, name) for route in SCOPED for name in route.query.model_fields if name in QUERIES]
each_guarded = pytest.mark.parametrize("route", GUARDED, ids=lambda route: route.name)
each_scoped = pytest.mark.parametrize("route", SCOPED, ids=lambda route: route.name)
each_naming = pytest.mark.parametrize("route", NAMING, ids=lambda route: route.name)
each_changing = pytest.mark.parametrize(
    "route", [route for route in GUARDED if route.method != "GET"], ids=lambda route: route.name
)


def test_the_suite_knows_every_parameter_every_query_and_every_body() -> None:
    assert PREFIXES.keys() == PARAMETERS - NO_ID, "say in PREFIXES and furnished() how to make such an id"
    assert {route.name for route in ROUTES if route.body is not None} == BODIES.keys()
    assert {name for route in SCOPED for name in route.query.model_fields} == QUERIES.keys() | NAMES_NOTHING
    assert all(route.path.startswith("/v1/workspaces/{workspace}") for route in SCOPED)


def test_every_sort_of_thing_is_there(world: World) -> None:
    for place in (world.mine, world.theirs):
        assert place.things.keys() == PREFIXES.keys()
        for name, prefix in PREFIXES.items():
            assert ids.is_id(prefix, place.things[name])
    kept = all_of(world.live, THEIRS)
    assert all(kept[table] for table in ("runs", "run_bodies", "events", "steps", "approvals", "tokens", "audit"))


@each_guarded
def test_nobody_gets_anything(world: World, route: Route) -> None:
    for name, headers in world.nobody.items():
        answers = []
        for place, things in ((world.mine, world.mine.things), (world.theirs, made_up())):
            for accept in ("application/json", "text/event-stream"):
                answer = ask(world, route, path_of(route, place.name, things), headers, Accept=accept)
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), name
                assert answer.headers["www-authenticate"].startswith("Bearer")
                answers.append(told(answer))
        assert answers.count(answers[0]) == len(answers), f"{name}: what is there and what is not answer alike"


@each_scoped
def test_a_stranger_learns_nothing(world: World, route: Route) -> None:
    admin = bearer(world.mine.admin["token"])
    browser = signed_in(world.live, world.mine.admin["token"])
    cookie = {"Cookie": browser.cookie, "Origin": world.live.url}
    for headers in (admin, cookie):
        answers = []
        for workspace in (THEIRS, "default", "not-there", "%2e%2e", "a%20b"):
            for things in (world.theirs.things, world.mine.things, made_up()):
                for accept in ("application/json", "text/event-stream"):
                    answer = ask(world, route, path_of(route, workspace, things), headers, Accept=accept)
                    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), workspace
                    answers.append(told(answer))
        assert answers.count(answers[0]) == len(answers), "the same, be it there or not"


@each_guarded
def test_a_role_below_is_refused(world: World, route: Route) -> None:
    for role, token in world.roles.items():
        if RANK[role] >= RANK[route.role or "viewer"] and not route.everywhere:
            continue
        browser = signed_in(world.live, token)
        for headers in (bearer(token), {"Cookie": browser.cookie, "Origin": world.live.url}):
            answers = [
                ask(world, route, path_of(route, MINE, things), headers) for things in (world.mine.things, made_up())
            ]
            assert [(each.status_code, each.json()["code"]) for each in answers] == [(403, "forbidden")] * 2, role
            assert told(answers[0]) == told(answers[1])


@each_changing
def test_by_cookie_a_page_of_another_site_changes_nothing(world: World, route: Route) -> None:
    cookie = signed_in(world.live, world.live.token).cookie
    for origin in (None, "null", "http://evil.example"):
        headers = {"Cookie": cookie} if origin is None else {"Cookie": cookie, "Origin": origin}
        for place in (world.mine, world.theirs):
            answer = ask(world, route, path_of(route, place.name, place.things), headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), origin


@each_naming
def test_in_the_right_workspace_what_is_somebody_elses_is_not_there(world: World, route: Route) -> None:
    names = set(re.findall(r"{(\w+)}", route.path)) - NO_ID
    for headers in (bearer(world.mine.admin["token"]), bearer(world.live.token)):
        for name in names:  # One of theirs among mine, so that no other id of the path is to blame.
            answers = []
            for id in (world.theirs.things[name], made_up()[name]):
                for accept in ("application/json", "text/event-stream"):
                    path = path_of(route, MINE, world.mine.things | {name: id})
                    answer = ask(world, route, path, headers, Accept=accept)
                    assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), name
                    answers.append(told(answer))
            assert answers.count(answers[0]) == len(answers), "as if it had never been"


@pytest.mark.parametrize("route", [r for r in GUARDED if r.method == "GET" and not r.everywhere], ids=lambda r: r.name)
def test_what_is_mine_shows_nothing_of_theirs(world: World, route: Route) -> None:
    headers = bearer(world.mine.admin["token"])
    paged = {"limit": "500"} if "limit" in route.query.model_fields else {}
    answer = world.live.client.get(path_of(route, MINE, world.mine.things), params=paged, headers=headers)
    assert answer.status_code == 200
    shown = answer.text
    if route.name == "list_audit":  # A refusal tells the workspace that was named by whoever was refused.
        shown = json.dumps([row for row in answer.json()["items"] if row["action"] != "refused"])
    for secret in (THEIRS, *world.theirs.things.values(), *world.theirs.others):
        assert secret not in shown


@pytest.mark.parametrize(("route", "name"), NAMED, ids=lambda each: getattr(each, "name", each))
def test_asking_for_theirs_among_mine_finds_nothing(world: World, route: Route, name: str) -> None:
    headers = bearer(world.mine.admin["token"])
    for text in QUERIES[name](world.theirs):
        answer = world.live.client.get(path_of(route, MINE, world.mine.things), params={name: text}, headers=headers)
        if name != "cursor":
            assert (answer.status_code, answer.json()["items"]) == (200, []), text
        elif answer.status_code != 422:  # It may be one of mine as well, from which on mine are shown.
            assert not [id for id in (*world.theirs.things.values(), *world.theirs.others) if id in answer.text], text


def test_an_export_holds_nothing_of_theirs(world: World) -> None:
    headers = bearer(world.mine.admin["token"])
    text = world.live.client.get(world.live.path("audit", MINE), params={"format": "jsonl"}, headers=headers).text
    rows = [json.loads(line) for line in text.splitlines()]
    assert rows
    assert {row["workspace"] for row in rows} == {MINE}
    assert world.theirs.admin["id"] not in text


def test_a_key_of_theirs_is_none_of_mine(world: World) -> None:
    live, body = world.live, {"target": "echo", "goal": "x"}
    keyed = {"Idempotency-Key": "isolated"}
    ours = live.client.post(live.path("runs", "default"), json=body, headers=keyed).json()["run"]["id"]
    headers = bearer(world.mine.admin["token"]) | keyed
    answer = live.client.post(live.path("runs", MINE), json=body, headers=headers)
    assert (answer.status_code, answer.json()["run"]["id"] == ours) == (202, False)


def test_nothing_of_theirs_has_changed(world: World) -> None:
    """The last of the suite: all of the above was done to it."""
    after = all_of(world.live, THEIRS)
    assert after.keys() == world.before.keys()
    for table, rows in after.items():
        assert rows == world.before[table], table

"""Who gets in, and to what: every test here is made from the table of routes, so a new route is in it."""

import re

import pytest

from latticed import ids
from latticed.api.exchange import Route
from latticed.api.matcher import PARAMETERS, Matcher, MethodNotAllowed
from latticed.api.routes import ROUTES
from latticed.errors import NotFound
from latticed.models.people import RANK
from tests.unit.api_lattice import RUN_ID, Client

IN_PLACE = {
    "workspace": "default",
    "run_id": RUN_ID,
    "approval_id": ids.new(ids.APPROVAL),
    "token_id": ids.new(ids.TOKEN),
    "signal": "go",
    "hook": "notify",
    "delivery_id": ids.new(ids.DELIVERY),
}
BODIES = {
    "submit_run": {"target": "digest", "goal": "look"},
    "answer_approval": {"decision": "approve"},
    "create_token": {"role": "viewer"},
    "create_wide_token": {"role": "viewer"},
    "sign_in": {"token": "viewer"},
    "create_workspace": {"name": "another"},
    "create_hook": {"name": "notify", "point": "post_run", "url": "https://example.org/hook"},
    "update_hook": {"enabled": False},
}


def target(route: Route, **changes: str) -> str:
    return re.sub(r"{(\w+)}", lambda match: {**IN_PLACE, **changes}[match[1]], route.path)


def names(routes: list[Route]) -> list[str]:
    return [f"{route.method} {route.path}" for route in routes]


GUARDED = [route for route in ROUTES if route.role is not None]
SCOPED = [route for route in ROUTES if "{workspace}" in route.path]
RAISED = [route for route in GUARDED if RANK[route.role or "viewer"] > 0]
guarded = pytest.mark.parametrize("route", GUARDED, ids=names(GUARDED))
scoped = pytest.mark.parametrize("route", SCOPED, ids=names(SCOPED))
raised = pytest.mark.parametrize("route", RAISED, ids=names(RAISED))
every = pytest.mark.parametrize("route", ROUTES, ids=names(list(ROUTES)))


def test_only_health_and_the_door_are_open() -> None:
    assert {route.name for route in ROUTES if route.role is None} == {"healthz", "readyz", "sign_in"}


def test_operations_have_names_of_their_own() -> None:
    assert len({route.name for route in ROUTES}) == len(ROUTES)


def test_a_workspace_in_a_path_is_always_named_so() -> None:
    assert all(f"{route.path}/".startswith("/v1/workspaces/{workspace}/") for route in SCOPED)
    assert not [route.path for route in ROUTES if "workspaces/{" in route.path and route not in SCOPED]


@guarded
@pytest.mark.parametrize("authorization", [None, "Bearer made-up", "Bearer ", "Basic cm9vdA==", "root", "Bearer röot"])
async def test_without_a_good_token_nothing_is_looked_up(route: Route, authorization: str | None) -> None:
    client = Client()
    headers = {} if authorization is None else {"authorization": authorization}
    answer = await client(route.method, target(route), BODIES.get(route.name), token=None, **headers)
    assert answer.status == 401
    assert answer.json["code"] == "unauthenticated"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert client.lattice.calls == []


@scoped
@pytest.mark.parametrize("workspace", ["default", "nowhere", "..", "a b", "%00"])
async def test_another_workspaces_token_is_refused_whether_it_exists_or_not(route: Route, workspace: str) -> None:
    client = Client()
    path = target(route, workspace=workspace)
    answer = await client(route.method, path, BODIES.get(route.name), token="stranger", accept="text/event-stream")
    assert (answer.status, answer.json["code"]) == (403, "forbidden")
    assert client.lattice.calls == []


@raised
async def test_the_role_below_is_refused(route: Route) -> None:
    client = Client()
    below = "viewer" if route.role == "operator" else "operator"
    answer = await client(route.method, target(route), BODIES.get(route.name), token=below)
    assert (answer.status, answer.json["code"]) == (403, "forbidden")
    assert client.lattice.calls == []


@guarded
async def test_the_role_itself_is_enough(route: Route) -> None:
    client = Client()
    client.lattice.grow(final_status="ok")
    token = "root" if route.everywhere else str(route.role)
    answer = await client(route.method, target(route), BODIES.get(route.name), token=token)
    assert answer.status in route.answers, answer.body


@pytest.mark.parametrize("path", ["/metrics", "/v1/workspaces"])
async def test_what_is_everybodys_needs_a_token_for_all_workspaces(path: str) -> None:
    method, body = ("POST", {"name": "another"}) if path == "/v1/workspaces" else ("GET", None)
    assert (await Client()(method, path, body, token="admin")).status == 403
    assert (await Client()(method, path, body, token="root")).status in (200, 201)


@every
async def test_another_method_is_405_and_says_which_are_allowed(route: Route) -> None:
    answer = await Client()("PURGE", target(route))
    assert answer.status == 405
    assert route.method in answer.headers["allow"].split(", ")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("route", [r for r in ROUTES if r.method == "GET"], ids=lambda route: route.path)
async def test_head_is_get_without_the_body(route: Route) -> None:
    client = Client()
    client.lattice.grow(final_status="ok")
    whole, head = await client("GET", target(route)), await client("HEAD", target(route))
    assert head.body == b""
    for changing in ("x-request-id",):
        whole.headers.pop(changing), head.headers.pop(changing)
    assert (head.status, head.headers) == (whole.status, whole.headers)


ILL_FORMED = [
    "..", ".", "%2e%2e", "..%2f..%2fx", "run_../../etc", "%00", RUN_ID + "%00", RUN_ID.upper(), RUN_ID + "0",
    RUN_ID[:-1],
    "apr_" + RUN_ID[4:], "run_" + "g" * 32, "run_" + "٣" * 32, "%F0%9F%92%A9", "x" * 5000, "%", "%zz", "%ff%fe",
    "' OR 1=1",
]  # fmt: skip


@pytest.mark.parametrize("ill", ILL_FORMED)
@pytest.mark.parametrize("route", [r for r in ROUTES if "{run_id}" in r.path], ids=lambda route: route.name)
async def test_an_ill_formed_id_is_404_and_never_looked_up(route: Route, ill: str) -> None:
    client = Client()
    answer = await client(route.method, target(route, run_id=ill), BODIES.get(route.name))
    assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert client.lattice.calls == []


@pytest.mark.parametrize(
    "path",
    ["/", "", "/v1", "/v1/", "/v1/workspaces/", "/v1/workspaces/default/runs/",
     "/v1/workspaces//runs", f"/v1/workspaces/default/runs/{RUN_ID}%2Fstop", "/v1/workspaces/default%2Fruns",
     "/v1/workspaces/default/runs/../agents", "//v1/whoami", "/v1/whoami/", "/V1/whoami", "/metrics/..", "/docs/x",
     "/v1/workspaces/default/nothing"],
)  # fmt: skip
async def test_a_path_that_is_not_there_is_a_problem(path: str) -> None:
    client = Client()
    for method in ("GET", "POST"):
        answer = await client(method, path, {})
        if (method, path) in (("POST", "/v1/workspaces/default/runs/"), ("POST", "/v1/workspaces/")):
            continue  # The path of one with an empty name, which knows no POST.
        assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert client.lattice.calls == []


def test_a_word_is_tried_before_a_parameter_and_both_methods_are_found() -> None:
    def route(method: str, path: str) -> Route:
        return Route(method, path, "viewer", path, ROUTES[0].handler, {})

    matcher = Matcher([route("GET", "/a/{signal}"), route("POST", "/a/validate"), route("PUT", "/a/{signal}")])
    assert matcher.find("POST", "/a/validate", b"/a/validate")[0].path == "/a/validate"
    assert matcher.find("GET", "/a/validate", b"/a/validate")[1] == {"signal": "validate"}
    with pytest.raises(MethodNotAllowed, match="GET, HEAD, POST, PUT"):
        matcher.find("DELETE", "/a/validate", b"/a/validate")
    with pytest.raises(NotFound):
        matcher.find("GET", "/a/b/c", b"/a/b/c")


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_a_word_that_no_name_can_be_is_not_taken_for_one(method: str) -> None:
    client = Client()
    answer = await client(method, "/v1/workspaces/default/hooks/deliveries", {})
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert client.lattice.calls == []


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_what_a_path_parameter_takes_is_what_its_pattern_says(name: str) -> None:
    parameter = PARAMETERS[name]
    for text in (IN_PLACE[name], "", "a\n", IN_PLACE[name] + "\n", "-x", "a" * 64, "a" * 65, "a/b", "é"):
        assert parameter.fits(text) == bool(re.search(parameter.pattern.removesuffix("$") + r"\Z", text))

"""What the routes of runs ask of the facade, and how they tell its answer."""

from typing import Any

import pytest

from latticed.errors import Busy, Conflict, Unavailable
from latticed.models.records import Once
from latticed.models.runs import CancelRequest, RerunRequest, StopRequest, Submission
from latticed.states import Status
from tests.unit.api_lattice import RUN_ID, TOKENS, Client, run_view

RUNS = "/v1/workspaces/default/runs"
RUN = f"{RUNS}/{RUN_ID}"
WORK = {"target": "digest", "goal": "look"}


async def test_a_submission_is_202_in_the_shape_of_the_contract() -> None:
    client = Client()
    answer = await client("POST", RUNS, WORK)
    assert answer.status == 202
    assert answer.json == {
        "run": run_view(),
        "execution_mode": "async",
        "accepted": True,
        "events_url": f"{RUN}/events",
        "stop_url": f"{RUN}/stop",
    }
    [(verb, args, kwargs)] = client.lattice.calls
    assert verb == "submit"
    assert (args, kwargs) == (("default", Submission(**WORK), TOKENS["root"], None), {})


async def test_wait_holds_the_answer_and_shows_the_run_as_it_is_then() -> None:
    client = Client()
    client.lattice.answers["wait_for"] = run_view(status="ok")
    answer = await client("POST", RUNS + "?wait=2.5", WORK)
    assert (answer.status, answer.json["run"]["status"]) == (202, "ok")
    assert client.lattice.calls[1] == ("wait_for", ("default", RUN_ID, TOKENS["root"], 2.5), {})


async def test_an_accepted_run_is_accepted_even_if_waiting_for_it_fails() -> None:
    client = Client()
    client.lattice.answers["wait_for"] = Unavailable("the store is away")
    answer = await client("POST", RUNS + "?wait=1", WORK)
    assert (answer.status, answer.json["run"]["status"]) == (202, "queued")


@pytest.mark.parametrize("wait", ["-1", "61", "60.1", "x", "", "nan", "inf", "1e1", " 1", "1_0", "٣", "1&wait=1"])
async def test_a_wait_that_is_no_number_of_seconds_up_to_60_is_422(wait: str) -> None:
    client = Client()
    answer = await client("POST", f"{RUNS}?wait={wait}", WORK)
    assert (answer.status, answer.json["errors"][0]["loc"]) == (422, ["query", "wait"])
    assert client.lattice.calls == []


async def test_a_replay_is_200_and_says_so() -> None:
    client = Client()
    client.lattice.answers["submit"] = (run_view(status="ok"), True)
    answer = await client("POST", RUNS, WORK, idempotency_key="k")
    assert (answer.status, answer.headers["idempotency-replayed"]) == (200, "true")
    assert answer.json["accepted"] is True


async def test_the_fingerprint_is_of_what_was_asked_however_it_is_written() -> None:
    async def fingerprint(body: Any, target: str = RUNS) -> str:
        client = Client()
        await client("POST", target, body, idempotency_key="k")
        [(_, args, _)] = client.lattice.calls[:1]
        once: Once = args[-1]
        assert (once.workspace, once.route, once.key) == ("default", target.split("/", 4)[4].partition("?")[0], "k")
        return once.fingerprint

    same = await fingerprint(b'{"target":"digest","goal":"look"}')
    assert same == await fingerprint(b' { "goal" : "look", "target": "dig\\u0065st" } ')
    assert same == await fingerprint(WORK, RUNS + "?wait=0")
    assert same != await fingerprint({**WORK, "goal": "look again"})
    assert same != await fingerprint({**WORK, "priority": 0}), "a default that is said is another body"
    other = RUN[:-1] + ("0" if RUN[-1] != "0" else "1")
    assert await fingerprint({}, RUN + "/rerun") != await fingerprint({}, other + "/rerun")


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é", "tab\there"])
async def test_an_idempotency_key_is_1_to_255_visible_characters(key: str) -> None:
    client = Client()
    answer = await client("POST", RUNS, WORK, idempotency_key=key)
    assert (answer.status, answer.json["errors"][0]["loc"]) == (422, ["header", "Idempotency-Key"])
    assert client.lattice.calls == []
    assert (await client("POST", RUNS, WORK, idempotency_key="x" * 255)).status == 202


async def test_a_rerun_is_a_submission_of_its_own() -> None:
    client = Client()
    answer = await client("POST", RUN + "/rerun", None)
    assert (answer.status, answer.json["accepted"]) == (202, True)
    client.lattice.answers["rerun"] = Conflict("the run is not finished")
    assert (await client("POST", RUN + "/rerun", {"from_step": "s"})).status == 409
    assert [args[2] for _, args, _ in client.lattice.calls] == [RerunRequest(), RerunRequest(from_step="s")]


async def test_stop_takes_its_defaults_from_an_empty_body() -> None:
    client = Client()
    assert (await client("POST", RUN + "/stop")).status == 202
    assert (await client("POST", RUN + "/stop", {"mode": "kill", "reason": "r", "children": False})).status == 202
    assert (await client("POST", RUN + "/cancel", {"reason": "now"})).status == 202
    assert [args[2] for _, args, _ in client.lattice.calls] == [
        StopRequest(),
        StopRequest(mode="kill", reason="r", children=False),
        StopRequest(mode="now", reason="now"),
    ]


async def test_stopping_what_is_over_is_200() -> None:
    client = Client()
    over = {"stopped": False, "run_id": RUN_ID, "status": "ok", "reason": "run already finished"}
    client.lattice.answers["stop"] = over
    for verb in ("stop", "cancel"):
        answer = await client("POST", f"{RUN}/{verb}")
        assert (answer.status, answer.json) == (200, over)


def test_cancel_is_stop_with_the_mode_left_out() -> None:
    assert set(CancelRequest.model_fields) == set(StopRequest.model_fields) - {"mode"}


async def test_filters_reach_the_facade() -> None:
    client = Client()
    query = "?kind=agent&status=ok&target=digest&tag=team:a&tag=k:v:w&parent=p&limit=500&cursor=c"
    assert (await client("GET", RUNS + query)).status == 200
    [(verb, args, kwargs)] = client.lattice.calls
    assert (verb, args) == ("list_runs", ("default",))
    assert kwargs == {
        "kind": "agent", "status": Status.OK, "target": "digest", "tag": ["team:a", "k:v:w"], "parent": "p",
        "limit": 500, "cursor": "c",
    }  # fmt: skip


async def test_without_filters_there_are_the_documented_defaults() -> None:
    client = Client()
    await client("GET", RUNS)
    assert client.lattice.calls[0][2] == {
        "kind": None, "status": None, "target": None, "tag": [], "parent": None, "limit": 50, "cursor": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "where"),
    [("limit=0", "limit"), ("limit=-1", "limit"), ("limit=501", "limit"), ("limit=x", "limit"), ("limit=", "limit"),
     ("limit=5.0", "limit"), ("limit=1&limit=2", "limit"), ("limit=" + "9" * 41, "limit"), ("status=done", "status"),
     ("kind=job", "kind"), ("tag=nocolon", "tag"), ("cursor=", "cursor"), ("colour=red", "colour"),
     ("%00=1", "\0"), ("limit=%ff", "limit"), ("target=", "target")],
)  # fmt: skip
async def test_a_query_that_does_not_fit_is_422_and_says_where(query: str, where: str) -> None:
    client = Client()
    answer = await client("GET", f"{RUNS}?{query}")
    assert (answer.status, answer.json["code"]) == (422, "invalid")
    assert answer.json["errors"][0]["loc"][:2] == ["query", where]
    assert client.lattice.calls == []


async def test_an_unknown_parameter_is_told_the_known_ones() -> None:
    answer = await Client()("GET", RUN + "/steps?limitt=5")
    assert "cursor, limit" in answer.json["errors"][0]["msg"]


async def test_more_parameters_than_anyone_needs_are_refused() -> None:
    assert (await Client()("GET", RUNS + "?" + "&".join(["tag=a:b"] * 101))).status == 422


@pytest.mark.parametrize(
    ("error", "status", "header"),
    [(Busy("full", retry_after=7), 429, "7"), (Unavailable("draining"), 503, "1"), (Conflict("other body"), 409, None)],
)
async def test_errors_of_the_facade_are_told_as_problems(error: Exception, status: int, header: str | None) -> None:
    client = Client()
    client.lattice.answers["submit"] = error
    answer = await client("POST", RUNS, WORK)
    assert (answer.status, answer.json["status"], answer.headers.get("retry-after")) == (status, status, header)
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json) == {"type", "title", "status", "detail", "code"}


async def test_an_unexpected_error_tells_nothing_but_the_request_id() -> None:
    client = Client()
    client.lattice.answers["get_run"] = RuntimeError("the password is hunter2")
    answer = await client("GET", RUN, x_request_id="mine-1")
    assert (answer.status, answer.json["code"]) == (500, "internal")
    assert b"hunter2" not in answer.body
    assert b"RuntimeError" not in answer.body
    assert answer.headers["x-request-id"] == "mine-1"


async def test_a_request_has_an_id_of_its_own_unless_the_client_gave_a_decent_one() -> None:
    client = Client()
    given = [
        (await client("GET", RUN, x_request_id=text)).headers["x-request-id"] for text in ("ok.1", "a b", "x" * 65)
    ]
    assert given[0] == "ok.1"
    assert given[1] not in ("a b", given[2])


async def test_signals_and_answers_carry_their_data() -> None:
    client = Client()
    assert (await client("POST", RUN + "/signals/go.now", {"data": [1, None]})).status == 202
    assert (await client("POST", RUN + "/signals/go", None)).status == 202
    assert (await client("POST", RUN + "/signals/order%20%C3%A9:1", None)).status == 202
    for name in ("", "%00", "a%0Ab", "a%2Fb", "x" * 201):
        assert (await client("POST", f"{RUN}/signals/{name}", None)).status == 404
    approval = "apr_" + RUN_ID[4:]
    path = f"/v1/workspaces/default/approvals/{approval}"
    assert (await client("POST", path, {"decision": "deny", "data": {"a": 1}, "comment": "no"})).status == 200
    assert (await client("POST", path, {"decision": "maybe"})).status == 422
    assert (await client("POST", path, None)).status == 400
    [first, second, named, third] = client.lattice.calls
    assert named[1][2] == "order é:1"
    assert (first[1][2], first[1][3].data, second[1][3].data) == ("go.now", [1, None], None)
    assert (third[1][1], third[1][2].decision, third[1][2].data) == (approval, "deny", {"a": 1})


async def test_whoami_is_the_token_that_asks() -> None:
    answer = await Client()("GET", "/v1/whoami", token="operator")
    assert answer.json == {
        "token_id": "tok_operator", "name": "operator", "role": "operator", "workspace": "default",
        "lanes": ["night"], "expires_at": "2027-01-15T08:00:00.000001Z",
    }  # fmt: skip


async def test_readiness_gives_its_reason() -> None:
    client = Client()
    assert (await client("GET", "/readyz", token=None)).json == {"status": "ready"}
    client.lattice.answers["ready"] = Unavailable("the disk is full")
    answer = await client("GET", "/readyz", token=None)
    assert (answer.status, answer.json["detail"]) == (503, "the disk is full")
    assert (await client("GET", "/healthz", token=None)).json == {"status": "up"}

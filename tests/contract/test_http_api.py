"""The HTTP interface as outside programs rely on it, against the real daemon."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import jsonschema_rs
import pytest

from latticed.api import openapi
from tests.conftest import Daemon, wait_until

SCHEMAS = openapi.build("any")["components"]


def shaped(model: str, value: Any) -> Any:
    """`value`, which must be what the OpenAPI document says of `model`."""
    jsonschema_rs.validate({"$ref": f"#/components/schemas/{model}", "components": SCHEMAS}, value)
    return value


def post(live: Daemon, tail: str, body: Any = None, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return live.client.post(live.path(tail), json=body, headers=named)


def page(live: Daemon, tail: str, **params: Any) -> Any:
    answer = live.client.get(live.path(tail), params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def pages(live: Daemon, tail: str, **params: Any) -> list[Any]:
    """All items of a list, page by page."""
    found: list[Any] = []
    cursor: dict[str, Any] = {}
    while True:
        part = page(live, tail, **params, **cursor)
        found += part["items"]
        if part["next_cursor"] is None:
            return found
        cursor = {"cursor": part["next_cursor"]}


# --- submitting ------------------------------------------------------------------------------------------------------


def test_a_submission_is_202_and_the_run_is_there(live: Daemon) -> None:
    answer = post(
        live, "runs", {"target": "echo", "goal": "say it", "inputs": {"n": [1, None, "é"]}, "tags": {"t": "1"}}
    )
    assert answer.status_code == 202
    accepted = shaped("Accepted", answer.json())
    run = accepted["run"]
    assert (run["status"], run["target"], run["goal"], run["inputs"], run["tags"]) == (
        "queued", "echo", "say it", {"n": [1, None, "é"]}, {"t": "1"},
    )  # fmt: skip
    assert accepted["events_url"] == run["events_url"] == live.path(f"runs/{run['id']}/events")
    assert accepted["stop_url"] == run["stop_url"] == live.path(f"runs/{run['id']}/stop")
    done = shaped("Run", live.wait(run["id"]))
    assert (done["status"], done["output"]["goal"]) == ("ok", "say it")
    assert live.client.get(accepted["events_url"]).status_code == 200


def test_wait_answers_when_the_run_is_over(live: Daemon) -> None:
    answer = live.client.post(live.path("runs?wait=20"), json={"target": "echo", "goal": "x"})
    assert answer.status_code == 202
    assert shaped("Accepted", answer.json())["run"]["status"] == "ok"


def test_wait_answers_when_the_run_asks_a_person(live: Daemon) -> None:
    run = live.post_run("asker", "may I?", wait=20)
    assert run["status"] == "awaiting_approval"
    live.stop_run(run["id"])


def test_wait_answers_at_its_time_with_the_run_as_it_is(live: Daemon) -> None:
    began = time.monotonic()
    run = live.post_run("awaiter", wait=0.3)
    assert 0.3 <= time.monotonic() - began < 5
    assert run["status"] in ("queued", "running")
    live.stop_run(run["id"], mode="kill")


def test_a_key_used_again_gives_the_first_answer_again(live: Daemon) -> None:
    body = {"target": "echo", "goal": "once"}
    first = post(live, "runs", body, idempotency_key="http-1")
    live.wait(first.json()["run"]["id"])
    again = post(live, "runs", body, idempotency_key="http-1")
    assert (first.status_code, again.status_code) == (202, 200)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert shaped("Accepted", again.json())["run"]["id"] == first.json()["run"]["id"]
    assert again.json()["run"]["status"] == "ok", "the resource is shown as it is now"
    other = post(live, "runs", {**body, "goal": "twice"}, idempotency_key="http-1")
    assert (other.status_code, other.json()["code"]) == (409, "conflict")


def test_a_key_is_of_its_workspace_and_route(live: Daemon) -> None:
    live.client.post("/v1/workspaces", json={"name": "keys"})
    body = {"target": "echo", "goal": "once"}
    here = post(live, "runs", body, idempotency_key="http-2")
    there = live.client.post(live.path("runs", "keys"), json=body, headers={"Idempotency-Key": "http-2"})
    live.wait(here.json()["run"]["id"])
    rerun = post(live, f"runs/{here.json()['run']['id']}/rerun", None, idempotency_key="http-2")
    assert (here.status_code, there.status_code, rerun.status_code) == (202, 202, 202)
    assert len({answer.json()["run"]["id"] for answer in (here, there, rerun)}) == 3


def test_racing_posts_with_one_key_make_one_run(live: Daemon) -> None:
    body = {"target": "echo", "goal": "race", "tags": {"race": "one"}}
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: post(live, "runs", body, idempotency_key="http-race"), range(32)))
    assert sorted(answer.status_code for answer in answers) == [200] * 31 + [202]
    assert len({answer.json()["run"]["id"] for answer in answers}) == 1
    assert len(pages(live, "runs", tag="race:one")) == 1


def test_racing_posts_with_one_key_and_two_bodies_make_one_run(live: Daemon) -> None:
    def submit(index: int) -> Any:
        return post(live, "runs", {"target": "echo", "goal": f"race {index % 2}"}, idempotency_key="http-race-2")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(16)))
    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(202), statuses.count(200), statuses.count(409)) == (1, 7, 8)


def test_a_delayed_run_waits_for_its_time_and_says_so(live: Daemon) -> None:
    when = datetime.now(UTC) + timedelta(hours=1)
    run = live.post_run("echo", run_at=when.isoformat())
    why = shaped("Why", live.get(run["id"], "why"))
    assert (run["status"], why["code"]) == ("queued", "delayed")
    assert datetime.fromisoformat(run["run_at"]) == when
    assert datetime.fromisoformat(why["until"]) == when
    assert live.stop_run(run["id"])["cancellation"] == "immediate"


# --- listing ---------------------------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_page_by_page(live: Daemon) -> None:
    made = [live.post_run("echo", tags={"list": "1"})["id"] for _ in range(7)]
    listed = pages(live, "runs", tag="list:1", limit=3)
    assert [run["id"] for run in listed] == made[::-1]
    shaped("RunPage", page(live, "runs", limit=500))
    assert len(page(live, "runs", tag="list:1", limit=3)["items"]) == 3


def test_runs_are_found_by_what_they_are(live: Daemon) -> None:
    ok = live.run("echo", tags={"filter": "1", "team": "a"})["id"]
    failed = live.run("failer", tags={"filter": "1", "team": "b"})["id"]

    def ids(**params: Any) -> set[str]:
        return {run["id"] for run in pages(live, "runs", **params) if run["id"] in (ok, failed)}

    assert ids(tag="filter:1") == {ok, failed}
    assert ids(tag=["filter:1", "team:a"]) == {ok}
    assert ids(tag="filter:1", status="failed") == {failed}
    assert ids(tag="filter:1", target="echo") == {ok}
    assert ids(tag="filter:1", kind="agent") == {ok, failed}
    assert ids(tag="filter:1", kind="flow") == set()
    assert ids(tag="filter:2") == set()


def test_children_are_found_by_their_parent(live: Daemon) -> None:
    run = live.run("parent", inputs={"n": 2})
    children = pages(live, "runs", parent=run["id"])
    assert [child["parent_run_id"] for child in children] == [run["id"]] * 2


# --- stopping --------------------------------------------------------------------------------------------------------


def test_stop_is_202_while_it_runs_and_200_once_it_is_over(live: Daemon) -> None:
    run = live.post_run("awaiter")
    live.wait(run["id"], "running")
    answer = post(live, f"runs/{run['id']}/stop", {"reason": "enough"})
    stopped = shaped("StopAnswer", answer.json())
    assert answer.status_code == 202
    assert (stopped["stopped"], stopped["run_id"], stopped["status"], stopped["cancellation"], stopped["reason"]) == (
        True, run["id"], "cancelling", "cooperative", "enough",
    )  # fmt: skip
    again = post(live, f"runs/{run['id']}/stop", {"reason": "another reason"})
    assert (again.status_code, again.json()["reason"]) == (202, "enough"), "the first reason is kept"
    done = live.wait(run["id"], "cancelled")
    assert done["cancel"]["reason"] == "enough"
    late = post(live, f"runs/{run['id']}/stop")
    assert late.status_code == 200
    assert shaped("StopAnswer", late.json())["stopped"] is False
    assert (late.json()["reason"], late.json()["status"]) == ("run already finished", "cancelled")


def test_cancel_does_not_wait_for_the_step(live: Daemon) -> None:
    run = live.post_run("stepper_long")
    live.wait_event(run["id"], "step.finished")
    answer = post(live, f"runs/{run['id']}/cancel")
    assert answer.status_code == 202
    assert live.wait(run["id"], "cancelled")["cancel"]["mode"] == "now"


def test_what_nobody_runs_is_cancelled_in_the_same_answer(live: Daemon) -> None:
    run = live.post_run("asker", wait=20)
    answer = post(live, f"runs/{run['id']}/stop", {"mode": "now"})
    assert (answer.status_code, answer.json()["cancellation"], answer.json()["status"]) == (
        202,
        "immediate",
        "cancelled",
    )


# --- looking closer --------------------------------------------------------------------------------------------------


def test_steps_and_frames_are_told_oldest_first(live: Daemon) -> None:
    run = live.run("steps", inputs={"n": 5})["id"]
    steps = pages(live, f"runs/{run}/steps", limit=2)
    assert [(step["name"], step["status"], step["outcome"]) for step in steps] == [("work", "ok", n) for n in range(5)]
    first = steps[0]["occurrence"]
    assert [step["occurrence"] for step in steps] == list(range(first, first + 5))
    frames = pages(live, f"runs/{run}/replay", limit=3)
    events = live.events(run)
    assert [frame["event"] for frame in frames] == [event["type"] for event in events]
    assert [frame["at"] for frame in frames] == [event["at"] for event in events]
    shaped("StepPage", page(live, f"runs/{run}/steps"))
    shaped("FramePage", page(live, f"runs/{run}/replay"))


def test_events_are_paged_by_their_numbers(live: Daemon) -> None:
    run = live.run("steps")["id"]
    whole = shaped("EventPage", page(live, f"runs/{run}/events", limit=500))["items"]
    assert [event["seq"] for event in whole] == list(range(1, len(whole) + 1))
    assert page(live, f"runs/{run}/events", after=2, limit=2)["items"] == whole[2:4]
    assert page(live, f"runs/{run}/events", after=len(whole))["items"] == []
    assert page(live, f"runs/{run}/events", after=10**18)["items"] == []
    assert page(live, f"runs/{run}/events", after=10**30)["items"] == []


def test_the_feed_is_paged_by_position_and_filtered(live: Daemon) -> None:
    run = live.run("reporter")["id"]

    def feed(**params: Any) -> list[Any]:
        found, after = [], 0
        while items := shaped("FeedPage", page(live, "events", after=after, limit=500, **params))["items"]:
            found += items
            after = items[-1]["position"]
        return found

    events = feed()
    positions = [event["position"] for event in events]
    assert positions == sorted(set(positions))
    assert [event["seq"] for event in events if event["run_id"] == run] == [event["seq"] for event in live.events(run)]
    chosen = feed(types="progress,x.own")
    assert {event["type"] for event in chosen} == {"progress", "x.own"}
    assert [event["type"] for event in chosen if event["run_id"] == run] == ["progress", "x.own"]
    assert feed(kind="flow") == []


def test_a_rerun_is_a_new_run_that_points_at_the_old_one(live: Daemon) -> None:
    old = live.run("steps", inputs={"n": 3}, tags={"a": "b"})
    answer = post(live, f"runs/{old['id']}/rerun")
    assert answer.status_code == 202
    new = shaped("Accepted", answer.json())["run"]
    assert (new["rerun_of"], new["inputs"], new["goal"]) == (old["id"], old["inputs"], old["goal"])
    assert live.wait(new["id"])["status"] == "ok"
    step = live.steps(old["id"])[2]["id"]
    waited = live.client.post(live.path(f"runs/{old['id']}/rerun?wait=20"), json={"from_step": step})
    assert waited.json()["run"]["status"] == "ok"
    assert len(live.steps(waited.json()["run"]["id"])) == 3
    for other in ("nonsense", "step_0", "step_99", "step_²"):
        refused = post(live, f"runs/{old['id']}/rerun", {"from_step": other})
        assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", "from_step"])


def test_only_a_finished_run_can_be_run_again(live: Daemon) -> None:
    run = live.post_run("awaiter")["id"]
    assert post(live, f"runs/{run}/rerun").status_code == 409
    live.stop_run(run, mode="kill")


def test_a_signal_reaches_a_run_that_waits_and_one_that_will(live: Daemon) -> None:
    run = live.post_run("signaller", inputs={"n": 2})["id"]
    for data in ({"first": 1}, None):
        answer = post(live, f"runs/{run}/signals/go", {"data": data})
        assert answer.status_code == 202
        assert shaped("SignalAccepted", answer.json())["name"] == "go"
    assert live.wait(run)["output"] == [{"first": 1}, None]


def test_a_question_is_listed_and_answered_once(live: Daemon) -> None:
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    run = live.post_run("asker", "how much?", inputs={"schema": schema}, wait=20)
    [question] = [item for item in pages(live, "approvals", status="pending") if item["run_id"] == run["id"]]
    shaped("Approval", question)
    assert (question["prompt"], question["schema"], question["status"]) == ("how much?", schema, "pending")
    path = f"approvals/{question['id']}"
    assert post(live, path, {"decision": "approve", "data": {"sum": "much"}}).status_code == 422
    answer = post(live, path, {"decision": "approve", "data": {"sum": 5}, "comment": "fine"})
    assert answer.status_code == 200
    answered = shaped("Approval", answer.json())
    assert (answered["status"], answered["comment"]) == ("approved", "fine")
    assert live.wait(run["id"])["output"] == {"answer": {"sum": 5}}
    assert post(live, path, {"decision": "deny"}).status_code == 409


def test_a_question_of_a_stopped_run_is_closed(live: Daemon) -> None:
    run = live.post_run("asker", wait=20)
    [question] = [item for item in pages(live, "approvals") if item["run_id"] == run["id"]]
    live.stop_run(run["id"])
    answer = post(live, f"approvals/{question['id']}", {"decision": "approve"})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    [closed] = [item for item in pages(live, "approvals", status="closed") if item["run_id"] == run["id"]]
    assert closed["id"] == question["id"]


# --- the catalogue ---------------------------------------------------------------------------------------------------


def test_agents_and_queues_are_listed(live: Daemon) -> None:
    agents = shaped("AgentPage", page(live, "agents"))["items"]
    assert "echo" in [agent["name"] for agent in agents]
    queues = shaped("QueuePage", page(live, "queues"))["items"]
    [default] = [queue for queue in queues if queue["name"] == "default"]
    assert default["concurrency"] == 100


def test_a_workspace_is_made_once_and_holds_its_own(live: Daemon) -> None:
    answer = live.client.post("/v1/workspaces", json={"name": "separate"})
    assert answer.status_code == 201
    assert shaped("Workspace", answer.json())["name"] == "separate"
    assert live.client.post("/v1/workspaces", json={"name": "separate"}).status_code == 409
    listed = shaped("WorkspacePage", live.client.get("/v1/workspaces", params={"limit": 500}).json())["items"]
    assert {"default", "separate"} <= {workspace["name"] for workspace in listed}
    run = live.post_run("echo", workspace="separate")["id"]
    assert live.client.get(live.path(f"runs/{run}", "separate")).status_code == 200
    assert live.client.get(live.path(f"runs/{run}")).status_code == 404
    assert live.client.get(live.path("runs", "not-there")).status_code == 404


def test_tokens_are_made_listed_and_revoked(live: Daemon) -> None:
    answer = post(live, "tokens", {"name": "robot", "role": "operator", "lanes": ["night"], "expires_seconds": 3600})
    assert answer.status_code == 201
    made = shaped("NewToken", answer.json())
    signed = {"Authorization": f"Bearer {made['token']}"}
    who = shaped("Whoami", live.client.get("/v1/whoami", headers=signed).json())
    assert who == {
        "token_id": made["id"], "name": "robot", "role": "operator", "workspace": "default", "lanes": ["night"],
        "expires_at": made["expires_at"],
    }  # fmt: skip
    shaped("TokenPage", page(live, "tokens"))
    [listed] = [token for token in pages(live, "tokens") if token["id"] == made["id"]]
    assert made["token"] not in str(listed)
    assert live.client.delete(live.path(f"tokens/{made['id']}")).status_code == 204
    assert live.client.get("/v1/whoami", headers=signed).status_code == 401
    assert live.client.delete(live.path("tokens/tok_" + "0" * 32)).status_code == 404


def test_health_is_open_and_figures_are_not(live: Daemon) -> None:
    nobody = {"Authorization": ""}
    assert live.client.get("/healthz", headers=nobody).json() == {"status": "up"}
    assert live.client.get("/readyz", headers=nobody).json() == {"status": "ready"}
    assert live.client.get("/metrics", headers=nobody).status_code == 401
    live.run("echo")
    metrics = live.client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "# TYPE latticed_" in metrics.text


def test_every_answer_carries_a_request_id_that_the_client_may_choose(live: Daemon) -> None:
    assert live.client.get("/healthz").headers["x-request-id"]
    assert live.client.get("/nowhere", headers={"x-request-id": "mine.1"}).headers["x-request-id"] == "mine.1"


def test_head_is_answered_without_a_body(live: Daemon) -> None:
    answer = live.client.head(live.path("runs"))
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_method_that_a_path_does_not_take_is_405(live: Daemon, method: str) -> None:
    answer = live.client.request(method, live.path("runs"))
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    shaped("Problem", answer.json())


def test_the_callers_going_away_does_not_matter_to_the_run(live: Daemon) -> None:
    url = urlsplit(live.url)
    body = b'{"target":"echo","goal":"left alone","tags":{"left":"alone"}}'
    head = (
        f"POST {live.path('runs?wait=30')} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {live.token}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((url.hostname, url.port)) as connection:
        connection.sendall(head.encode() + body)
        wait_until(lambda: pages(live, "runs", tag="left:alone"))
    [run] = pages(live, "runs", tag="left:alone")
    assert live.wait(run["id"])["status"] == "ok"

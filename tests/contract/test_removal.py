"""The removal of a workspace: at once for everybody, little by little on disk, and the name is free in the end."""

import re
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from latticed import ids
from latticed.api.routes import ROUTES
from tests.conftest import Daemon, wait_until
from tests.crash.test_removal import is_free, remove, rows_of
from tests.people import bearer, made_token, made_workspace, signed_in, streaming, trail

SCOPED = [route for route in ROUTES if "{workspace}" in route.path]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Slow to lose its patience, so that what does not stop holds a removal for as long as a test looks at it."""
    config = {"runs": {"grace_seconds": 1.5, "kill_seconds": 0.1}, "queues": {"one": {"concurrency": 1}}}
    daemon = Daemon(tmp_path_factory.mktemp("removal"), config=config)
    try:
        yield daemon.start()
    finally:
        daemon.close()


def path_of(route: Any, workspace: str, run_id: str) -> str:
    values = {"workspace": workspace, "run_id": run_id, "signal": "go"}
    return re.sub(
        r"{(\w+)}", lambda m: values.get(m[1]) or ids.new({"approval_id": "apr"}.get(m[1], "tok")), route.path
    )


BODIES = {
    "submit_run": {"target": "echo", "goal": "goal"},
    "answer_approval": {"decision": "approve"},
    "create_token": {"role": "viewer"},
    "create_hook": {"name": "late", "point": "post_run", "url": "https://example.org/late"},
    "update_hook": {"order": 5},
}


def test_it_is_gone_at_once_for_every_door_and_for_good(one: Daemon) -> None:
    name = made_workspace(one, "doors")
    own, wide = made_token(one, name, "admin")["token"], made_token(one, "*", "admin")["token"]
    browser = signed_in(one, own)
    holds = one.post_run("stepper_slow", workspace=name, inputs={"seconds": 600})["id"]
    wait_until(lambda: "step.started" in one.client.get(one.path(f"runs/{holds}/events", name)).text)
    done = one.post_run("echo", workspace=name, wait=5)["id"]
    answers: list[httpx2.Response] = []
    query = {"wait": 60}
    body = {"kind": "agent", "target": "echo", "goal": "goal", "run_at": "2999-01-01T00:00:00Z"}
    waiter = threading.Thread(
        target=lambda: answers.append(one.client.post(one.path("runs", name), json=body, params=query))
    )
    with (
        streaming(one, one.path("events", name), bearer(own)) as mine,
        streaming(one, one.path(f"runs/{holds}/events", name), bearer(wide)) as theirs,
    ):
        theirs.until("run.started")
        waiter.start()
        wait_until(lambda: len(one.client.get(one.path("runs", name)).json()["items"]) == 3)
        assert remove(one, name) == 204
        told = one.client.post("/v1/workspaces", json={"name": name})
        assert (told.status_code, "being removed" in told.json()["detail"]) == (409, True), "its run has not ended yet"
        assert "end" not in "".join(mine.rest() + theirs.rest())
    waiter.join(5)
    assert (answers[0].status_code, answers[0].json()["accepted"]) == (202, True), "who waits is answered"
    with httpx2.Client(base_url=one.url) as client:
        for route in SCOPED:
            path, sent = path_of(route, name, done), BODIES.get(route.name)
            for headers, status in ((bearer(wide), 404), (bearer(own), 401)):
                for accept in ("application/json", "text/event-stream"):
                    told = client.request(route.method, path, json=sent, headers={**headers, "Accept": accept})
                    assert told.status_code == status, f"{route.method} {path}: {told.text}"
    assert browser("GET", one.path("runs", name)).status_code == 401
    assert httpx2.get(one.url + "/v1/whoami", headers=bearer(own)).status_code == 401
    assert name not in one.client.get("/v1/workspaces").text
    wait_until(lambda: is_free(one, name))
    assert rows_of(one, name, [holds, done]) == {"workspaces": 1}
    for headers in (bearer(own), {"Cookie": browser.cookie}):
        assert httpx2.get(one.url + one.path("runs", name), headers=headers).status_code == 401, "nobody is back"
    assert one.client.get(one.path(f"runs/{done}", name)).status_code == 404
    assert one.client.get(one.path("events", name), params={"after": 0}).json()["items"] == []
    assert trail(one, name) == []
    assert [row["detail"]["force"] for row in trail(one, "*", action="workspace.delete", subject=name)] == [True]


def test_a_workspace_with_active_runs_stays_unless_that_is_meant(one: Daemon, tmp_path: Path) -> None:
    name, effects = made_workspace(one, "active"), tmp_path / "effects"
    neighbour = one.post_run("awaiter")["id"]
    running = one.post_run("awaiter", workspace=name, inputs={"effects": str(effects)})["id"]
    one.post_run("asker", workspace=name)
    wait_until(lambda: one.client.get(one.path(f"runs/{running}", name)).json()["status"] == "running")
    for query in ({}, {"force": "false"}):
        told = one.client.delete(f"/v1/workspaces/{name}", params=query)
        assert (told.status_code, told.json()["code"]) == (409, "conflict")
        assert "(2)" in told.json()["detail"]
    assert one.client.delete(f"/v1/workspaces/{name}", params={"force": "yes"}).status_code == 422
    assert one.client.get(one.path(f"runs/{running}", name)).json()["status"] == "running", "nothing was done"
    assert remove(one, name) == 204
    assert remove(one, name) == 404
    wait_until(lambda: is_free(one, name))
    assert f"{running} ended" in effects.read_text(), "what ran was told, and ended"
    assert one.get(neighbour)["status"] == "running"
    one.stop_run(neighbour, mode="now")


def test_one_in_which_all_is_over_needs_no_force(one: Daemon) -> None:
    name = made_workspace(one, "over")
    one.post_run("echo", workspace=name, wait=5)
    assert one.client.delete(f"/v1/workspaces/{name}").status_code == 204
    wait_until(lambda: is_free(one, name))
    assert one.client.delete("/v1/workspaces/nowhere").status_code == 404


def test_nothing_that_waits_is_started_any_more(one: Daemon, tmp_path: Path) -> None:
    name, effects = made_workspace(one, "queued"), tmp_path / "effects"
    blocks = one.post_run("stepper_slow", queue="one", inputs={"seconds": 600})["id"]
    one.wait_event(blocks, "step.started")
    for _ in range(20):
        one.post_run("awaiter", workspace=name, queue="one", inputs={"effects": str(effects)})
    assert remove(one, name) == 204
    one.stop_run(blocks, mode="kill")
    assert one.run("echo", queue="one")["status"] == "ok", "the queue goes on"
    wait_until(lambda: is_free(one, name))
    assert not effects.exists()


def test_what_was_accepted_is_never_lost_to_a_removal_that_was_not_forced(one: Daemon) -> None:
    body = {"kind": "agent", "target": "signaller", "goal": "goal"}

    def submit(name: str) -> int:
        answer = httpx2.post(one.url + one.path("runs", name), json=body, headers=bearer(one.token), timeout=20)
        return answer.status_code

    outcomes = set()
    with ThreadPoolExecutor(8) as pool:
        for number in range(12):
            name = made_workspace(one, f"race-{number}")
            before = [pool.submit(submit, name) for _ in range(number % 4)]
            removed = pool.submit(lambda name=name: one.client.delete(f"/v1/workspaces/{name}").status_code)
            after = [pool.submit(submit, name) for _ in range(4)]
            accepted = Counter(each.result() for each in before + after)
            outcomes.add(removed.result())
            assert set(accepted) <= {202, 404}
            assert (accepted[202] == 0) == (removed.result() == 204)
            if removed.result() == 409:
                runs = one.client.get(one.path("runs", name)).json()["items"]
                assert len(runs) == accepted[202]
                assert remove(one, name) == 204
    assert outcomes <= {204, 409}


def test_they_are_listed_newest_first_a_page_at_a_time(one: Daemon) -> None:
    made = [made_workspace(one, f"listed-{name}") for name in "bacd"]
    found: list[str] = []
    page: dict[str, Any] = {"next_cursor": None}
    while page["next_cursor"] or not found:
        query = {"limit": 2} | ({"cursor": page["next_cursor"]} if found else {})
        page = one.client.get("/v1/workspaces", params=query).json()
        found += [each["name"] for each in page["items"]]
        if len(found) == 2:  # A page goes on from where the last one was, also if that is gone.
            assert remove(one, found[-1]) == 204
            wait_until(lambda name=found[-1]: is_free(one, name))
    assert found[:4] == made[::-1]
    assert found[-1] == "default"
    for cursor in ("listed-a", "x-default", "-", "1700000000000000", "9" * 30 + "-a"):
        answer = one.client.get("/v1/workspaces", params={"cursor": cursor})
        assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", "cursor"]), cursor


def test_only_who_is_for_all_workspaces_removes_one(one: Daemon) -> None:
    name = made_workspace(one, "roles")
    for of, role in ((name, "admin"), (name, "operator"), ("*", "operator"), ("default", "admin")):
        token = made_token(one, of, role)["token"]
        answer = httpx2.delete(f"{one.url}/v1/workspaces/{name}", headers=bearer(token))
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    viewer = made_token(one, name, "viewer")["token"]
    assert httpx2.get(f"{one.url}/v1/workspaces/{name}", headers=bearer(viewer)).json()["name"] == name
    assert httpx2.get(f"{one.url}/v1/workspaces/default", headers=bearer(viewer)).status_code == 403


def test_a_key_whose_workspace_is_gone_is_not_found_as_the_document_says(one: Daemon) -> None:
    key = {"Idempotency-Key": "gone"}
    assert one.client.post("/v1/workspaces", json={"name": "short"}, headers=key).status_code == 201
    assert one.client.delete("/v1/workspaces/short").status_code == 204
    wait_until(lambda: one.client.post("/v1/workspaces", json={"name": "short"}, headers=key).status_code == 404)
    document = one.client.get("/openapi.json").json()
    assert "404" in document["paths"]["/v1/workspaces"]["post"]["responses"]

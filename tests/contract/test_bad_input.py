"""What a client may get wrong, each kind against the real daemon: a clear refusal and never a 500."""

import json
import select
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import pytest

from latticed import ids
from tests.conftest import Daemon

MIB = 1024 * 1024
GOOD = {"target": "echo", "goal": "x"}
UNKNOWN_RUN = "run_01a1fe7f8a0f720a9386d0c880cc01f6"


def submit(live: Daemon, raw: bytes, **params: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    return live.client.post(live.path("runs"), content=raw, headers=headers, params=params)


def problem(answer: Any, status: int, code: str) -> Any:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert (told["status"], told["code"]) == (status, code)
    assert {"type", "title", "detail"} <= set(told)
    return told


def exchange(live: Daemon, raw: bytes, *, until_close: bool = False) -> bytes:
    """Bytes to the daemon as they are; what it answers."""
    url = urlsplit(live.url)
    with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
        connection.sendall(raw)
        answer = b""
        while part := connection.recv(65536):
            answer += part
            if not until_close and b"\r\n\r\n" in answer:
                return answer
        return answer


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"nonsense", b'{"goal": NaN}', b'{"inputs": {"n": Infinity}}',
     b'{"goal": "\xff"}', b'{"goal": "\\ud800"}',
     b"[" * 100_000, b'{"inputs":' * 5000, b'{"inputs": {"n": 1e999}}', b'{"inputs": {"n": ' + b"9" * 5000 + b"}}"],
    ids=range(11),
)  # fmt: skip
def test_unreadable_json_is_400(live: Daemon, raw: bytes) -> None:
    problem(submit(live, raw), 400, "invalid")


@pytest.mark.parametrize(
    ("change", "where"),
    [({"goal": ""}, "goal"), ({"goal": " \t\n"}, "goal"), ({"goal": 5}, "goal"), ({"goal": None}, "goal"),
     ({"target": ""}, "target"), ({"target": ["echo"]}, "target"), ({"colour": "red"}, "colour"),
     ({"max_retries": 6}, "max_retries"), ({"max_retries": "1"}, "max_retries"), ({"priority": 101}, "priority"),
     ({"priority": 10**30}, None), ({"roles": ["king"]}, "roles"), ({"run_at": "soon"}, "run_at"),
     ({"run_at": "2026-01-01T00:00:00"}, "run_at"), ({"deadline_seconds": -1}, "deadline_seconds"),
     ({"inputs": [1]}, "inputs"), ({"inputs": {"n": 2**64}}, "inputs"), ({"tags": {"a": 1}}, "tags"),
     ({"kind": "job"}, "kind"), ({"recovery": "pray"}, "recovery"), ({"queue": "../q"}, "queue")],
)  # fmt: skip
def test_wrong_types_and_unknown_fields_are_422_and_say_where(live: Daemon, change: Any, where: str | None) -> None:
    told = problem(submit(live, json.dumps({**GOOD, **change}).encode()), 422, "invalid")
    assert told["errors"][0]["loc"][0] == "body"
    assert where is None or told["errors"][0]["loc"][1] == where


@pytest.mark.parametrize("change", [{"goal": None}, {"target": None}])
def test_what_is_needed_is_needed(live: Daemon, change: dict[str, None]) -> None:
    body = {key: value for key, value in GOOD.items() if key not in change}
    problem(live.client.post(live.path("runs"), json=body), 422, "invalid")


@pytest.mark.parametrize(
    "change",
    [{"target": "nobody"}, {"target": "../echo"}, {"target": "e\0"}, {"queue": "nowhere"}, {"roles": ["cook"]}],
)
def test_an_unknown_agent_queue_or_role_is_422(live: Daemon, change: dict[str, Any]) -> None:
    problem(live.client.post(live.path("runs"), json={**GOOD, **change}), 422, "invalid")


@pytest.mark.parametrize(
    "stamp", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-12:00", "1969-12-31T23:59:59Z"]
)
def test_a_time_at_the_edge_of_time_is_no_internal_error(live: Daemon, stamp: str) -> None:
    answer = live.client.post(live.path("runs"), json={**GOOD, "run_at": stamp})
    assert answer.status_code in (202, 422), answer.text
    if answer.status_code == 202:
        live.stop_run(answer.json()["run"]["id"])


@pytest.mark.parametrize(
    "goal", ["🦊" * 1000, "a\u0000b", "\u0000\u0000 🦊", "\u202e\u2028\u2029", "'; DROP TABLE runs; --"]
)
def test_a_goal_of_any_text_comes_back_as_it_was_or_is_refused(live: Daemon, goal: str) -> None:
    answer = live.client.post(live.path("runs"), params={"wait": 20}, json={**GOOD, "goal": goal})
    if "\0" in goal and answer.status_code == 422:
        return
    assert answer.status_code == 202, answer.text
    run = answer.json()["run"]
    assert (run["goal"], run["output"]["goal"]) == (goal, goal)
    assert live.get(run["id"])["goal"] == goal


def test_a_body_of_2_mib_is_413_and_the_client_sees_it(live: Daemon) -> None:
    raw = b'{"target":"echo","goal":"' + b"x" * (2 * MIB) + b'"}'
    problem(submit(live, raw), 413, "too_large")
    assert live.client.get("/healthz").status_code == 200


def test_a_body_of_2_mib_in_chunks_is_413_too(live: Daemon) -> None:
    parts = (b"x" * 65536 for _ in range(32))
    problem(live.client.post(live.path("runs"), content=parts), 413, "too_large")


def test_a_body_of_a_mebibyte_is_taken(live: Daemon) -> None:
    frame = b'{"target":"nothing","goal":""}'
    raw = frame[:-2] + b"x" * (MIB - len(frame)) + frame[-2:]
    answer = submit(live, raw, wait=20)
    assert (answer.status_code, answer.json()["run"]["status"]) == (202, "ok")
    problem(submit(live, raw + b" "), 413, "too_large")


def test_a_body_that_says_it_is_endless_is_answered_at_once(live: Daemon) -> None:
    lines = [f"POST {live.path('runs')} HTTP/1.1", "host: x", f"authorization: Bearer {live.token}"]
    began = time.monotonic()
    answer = exchange(live, "\r\n".join([*lines, f"content-length: {10**12}", "", ""]).encode(), until_close=True)
    assert answer.startswith(b"HTTP/1.1 413")
    assert time.monotonic() - began < 5


ILL_IDS = [
    "..",
    "../..",
    "..%2f..",
    "run_../../etc/passwd",
    "%00",
    UNKNOWN_RUN + "%00",
    UNKNOWN_RUN.upper(),
    "run_",
    "x" * 3000,
]


@pytest.mark.parametrize("ill", ILL_IDS)
@pytest.mark.parametrize(("method", "tail"), [("GET", ""), ("GET", "/events"), ("GET", "/steps"), ("POST", "/stop")])
def test_an_ill_formed_id_is_404(live: Daemon, method: str, tail: str, ill: str) -> None:
    line = f"{method} {live.path('runs')}/{ill}{tail} HTTP/1.1"
    raw = f"{line}\r\nhost: x\r\nauthorization: Bearer {live.token}\r\ncontent-length: 0\r\n\r\n"
    assert exchange(live, raw.encode()).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    ("method", "tail"),
    [("GET", ""), ("GET", "/events"), ("GET", "/steps"), ("GET", "/replay"), ("GET", "/why"), ("POST", "/stop"),
     ("POST", "/cancel"), ("POST", "/rerun"), ("POST", "/signals/go")],
)  # fmt: skip
def test_an_unknown_run_is_404(live: Daemon, method: str, tail: str) -> None:
    problem(live.client.request(method, live.path(f"runs/{UNKNOWN_RUN}{tail}")), 404, "not_found")


def test_an_unknown_runs_stream_is_404(live: Daemon) -> None:
    answer = live.client.get(live.path(f"runs/{UNKNOWN_RUN}/events"), headers={"Accept": "text/event-stream"})
    problem(answer, 404, "not_found")


def test_an_unknown_approval_is_404(live: Daemon) -> None:
    path = live.path(f"approvals/{ids.new(ids.APPROVAL)}")
    problem(live.client.post(path, json={"decision": "approve"}), 404, "not_found")


def test_stopping_a_finished_run_is_200_and_changes_nothing(live: Daemon) -> None:
    run = live.run("echo")
    answer = live.client.post(live.path(f"runs/{run['id']}/stop"), json={"mode": "kill"})
    assert (answer.status_code, answer.json()["stopped"]) == (200, False)
    assert live.get(run["id"]) == run


@pytest.mark.parametrize(
    "query", ["limit=-1", "limit=0", "limit=501", "limit=x", "limit=1e3", "limit=1&limit=2", "nope=1"]
)
@pytest.mark.parametrize("tail", ["runs", "approvals", "events", "tokens"])
def test_a_limit_that_is_none_is_422(live: Daemon, tail: str, query: str) -> None:
    problem(live.client.get(live.path(f"{tail}?{query}")), 422, "invalid")


@pytest.mark.parametrize("cursor", ["made-up", "AAAA", "\0", "🦊", "eyJhIjoxfQ==", "-1", "run_" + "0" * 32, "1" * 500])
@pytest.mark.parametrize("tail", ["runs", "approvals", "tokens"])
def test_a_cursor_made_up_is_422_or_a_page_and_never_500(live: Daemon, tail: str, cursor: str) -> None:
    answer = live.client.get(live.path(tail), params={"cursor": cursor})
    if answer.status_code != 200:
        problem(answer, 422, "invalid")


def test_a_cursor_of_words_is_422_and_the_cursors_fault(live: Daemon) -> None:
    run = f"runs/{live.run('echo')['id']}"
    for tail in ("runs", "approvals", "tokens", "audit", "events", f"{run}/steps", f"{run}/replay", f"{run}/events"):
        told = problem(live.client.get(live.path(tail), params={"cursor": "made up!"}), 422, "invalid")
        assert told["errors"][0]["loc"] == ["query", "cursor"]


@pytest.mark.parametrize("seen", ["abc", "-1", str(10**18), str(10**30), "1.5", "0x1"])
@pytest.mark.parametrize("feed", [False, True])
def test_a_last_event_id_that_nobody_gave_is_422(live: Daemon, seen: str, feed: bool) -> None:
    where = "events" if feed else f"runs/{live.run('echo')['id']}/events"
    headers = {"Accept": "text/event-stream", "Last-Event-ID": seen}
    problem(live.client.get(live.path(where), headers=headers), 422, "invalid")


@pytest.mark.parametrize("after", ["abc", "-1", "", "1.5"])
@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_an_after_that_is_no_number_is_422(live: Daemon, after: str, accept: str) -> None:
    where = live.path(f"runs/{live.run('echo')['id']}/events?after={after}")
    problem(live.client.get(where, headers={"Accept": accept}), 422, "invalid")


def test_a_stream_after_the_end_is_422(live: Daemon) -> None:
    where = live.path(f"runs/{live.run('echo')['id']}/events?after={10**18}")
    problem(live.client.get(where, headers={"Accept": "text/event-stream"}), 422, "invalid")


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
def test_an_idempotency_key_that_is_none_is_422(live: Daemon, key: str) -> None:
    problem(live.client.post(live.path("runs"), json=GOOD, headers={"Idempotency-Key": key}), 422, "invalid")


def test_a_stop_in_a_mode_that_is_none_is_422(live: Daemon) -> None:
    run = live.run("echo")["id"]
    problem(live.client.post(live.path(f"runs/{run}/stop"), json={"mode": "softly"}), 422, "invalid")
    problem(live.client.post(live.path(f"runs/{run}/stop"), content=b"softly"), 400, "invalid")


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "x" * 65, "é", 5, None])
def test_a_workspace_needs_a_decent_name(live: Daemon, name: Any) -> None:
    problem(live.client.post("/v1/workspaces", json={"name": name}), 422, "invalid")


NOT_HTTP = {
    "nonsense": b"\x00\x01\x02 nonsense\r\n\r\n",
    "a method of nobody": b"BREW /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the path": b"GET /health z HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path that is not ASCII": b"GET /healthz\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "two lengths": b"POST /v1/session HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a chunk without a size": b"POST /v1/session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
}


def raw_problem(answer: bytes, status: int, code: str) -> Any:
    """What a refusal says that came over a bare connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    told = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/problem+json" in head
    assert (told["status"], told["code"]) == (status, code)
    return told


@pytest.mark.parametrize("raw", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_not_http_is_refused_as_all_else_and_the_daemon_goes_on(live: Daemon, raw: bytes) -> None:
    raw_problem(exchange(live, raw, until_close=True), 400, "invalid")
    assert live.client.get("/healthz").status_code == 200


def test_a_head_that_never_ends_is_refused_before_it_does(live: Daemon) -> None:
    url = urlsplit(live.url)
    with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX-Long: ")
        for _ in range(100):
            if select.select([connection], [], [], 0.05)[0]:
                break
            connection.sendall(b"x" * 16_384)
        told = raw_problem(connection.recv(65536), 431, "too_large")
    assert "65536" in told["detail"]


def test_a_head_may_be_as_long_as_said(live: Daemon) -> None:
    answer = live.client.get("/healthz", headers={"X-Long": "x" * 60_000})
    assert answer.status_code == 200

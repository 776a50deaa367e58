"""The audit trail: who did what, and who was refused; over HTTP, in the same transaction as what it tells of."""

import json
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from latticed.notes import MOST_ROWS, ROW_SECONDS
from tests.conftest import Daemon, wait_until
from tests.contract.test_store_away import locked
from tests.people import bearer, made_token, made_workspace, signed_in, trail, wait_trail

Make = Callable[..., Daemon]
ME = "audited"


@pytest.fixture(scope="module")
def me(live: Daemon) -> dict[str, Any]:
    """An admin of a workspace of its own."""
    made_workspace(live, ME)
    return made_token(live, ME, "admin", name="Ada")


def did(live: Daemon, me: dict[str, Any], method: str, tail: str, body: Any = None, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()} | bearer(me["token"])
    answer = live.client.request(method, live.path(tail, ME), json=body, headers=named)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


def last(live: Daemon, action: str, **params: Any) -> dict[str, Any]:
    return trail(live, ME, action=action, **params)[0]


# --- what is told ----------------------------------------------------------------------------------------------------


def test_everything_that_a_principal_does_is_told(live: Daemon, me: dict[str, Any]) -> None:
    began = datetime.now(UTC)
    run = did(live, me, "POST", "runs", {"target": "awaiter", "goal": "secret goal", "inputs": {"key": "s3cret"}})
    run_id = run["run"]["id"]
    did(live, me, "POST", f"runs/{run_id}/stop", {"mode": "now", "reason": "no more"})
    live.client.get(live.path(f"runs/{run_id}", ME))
    wait_until(lambda: live.client.get(live.path(f"runs/{run_id}", ME)).json()["status"] == "cancelled")
    again = did(live, me, "POST", f"runs/{run_id}/rerun")["run"]["id"]
    did(live, me, "POST", f"runs/{again}/signals/go", {"data": {"key": "s3cret"}})
    did(live, me, "POST", f"runs/{again}/cancel")
    token = did(live, me, "POST", "tokens", {"role": "viewer", "name": "Bob"})
    did(live, me, "DELETE", f"tokens/{token['id']}")
    rows = [row for row in trail(live, ME, principal=me["id"]) if row["action"] != "refused"][::-1]
    told = [(row["action"], row["subject"], row["detail"]) for row in rows]
    signal_id = rows[3]["detail"]["signal_id"]
    assert told == [
        ("run.submit", run_id, {"kind": "agent", "target": "awaiter"}),
        ("run.stop", run_id, {"mode": "now", "children": True}),
        ("run.rerun", again, {"kind": "agent", "target": "awaiter", "of": run_id}),
        ("run.signal", again, {"name": "go", "signal_id": signal_id}),
        ("run.stop", again, {"mode": "now", "children": True}),
        ("token.create", token["id"], {"name": "Bob", "role": "viewer"}),
        ("token.revoke", token["id"], {}),
    ]
    assert all((row["principal"], row["token_id"], row["workspace"]) == ("Ada", me["id"], ME) for row in rows)
    assert all(began <= datetime.fromisoformat(row["at"]) <= datetime.now(UTC) for row in rows)
    assert "s3cret" not in json.dumps(trail(live, "*"))
    assert token["token"] not in json.dumps(trail(live, "*"))


def test_an_answer_is_told(live: Daemon, me: dict[str, Any]) -> None:
    run = did(live, me, "POST", "runs?wait=20", {"target": "asker", "goal": "may I?"})["run"]
    [approval] = run["pause"]["approval_ids"]
    did(live, me, "POST", f"approvals/{approval}", {"decision": "approve"})
    row = last(live, "approval.answer")
    assert (row["subject"], row["detail"]) == (approval, {"run_id": run["id"], "decision": "approve"})


def test_what_changed_nothing_is_not_told(live: Daemon, me: dict[str, Any]) -> None:
    body = {"target": "echo", "goal": "once"}
    run_id = did(live, me, "POST", "runs?wait=20", body, Idempotency_Key="audit-1")["run"]["id"]
    before = len(trail(live, ME))
    did(live, me, "POST", "runs", body, Idempotency_Key="audit-1")
    did(live, me, "POST", f"runs/{run_id}/stop")
    did(live, me, "GET", f"runs/{run_id}/events")
    token = made_token(live, ME, "viewer")
    for _ in range(2):
        did(live, me, "DELETE", f"tokens/{token['id']}")
    answer = live.client.post(
        live.path("runs", ME), json={"target": "nobody", "goal": "x"}, headers=bearer(me["token"])
    )
    assert answer.status_code == 422
    assert [row["action"] for row in trail(live, ME)[: len(trail(live, ME)) - before]] == [
        "token.revoke",
        "token.create",
    ]


def test_children_are_the_runs_own_doing(live: Daemon, me: dict[str, Any]) -> None:
    run = did(live, me, "POST", "runs?wait=20", {"target": "parent", "goal": "x"})["run"]
    children = live.client.get(live.path("runs", ME), params={"parent": run["id"]}).json()["items"]
    assert children
    assert not [row for child in children for row in trail(live, ME, subject=child["id"])]


def test_the_first_start_and_the_command_line_are_told(live: Daemon) -> None:
    [made] = trail(live, "*", action="token.create", principal="latticed", workspace="*")
    assert (made["token_id"], made["detail"]) == (None, {"name": "admin", "role": "admin"})
    [row] = trail(live, "*", action="workspace.create", subject="default")
    assert (row["workspace"], row["principal"]) == ("*", "latticed")


def test_signing_in_and_out_is_told(live: Daemon, me: dict[str, Any]) -> None:
    browser = signed_in(live, me["token"])
    assert (last(live, "session.create")["subject"], last(live, "session.create")["principal"]) == (me["id"], "Ada")
    browser("DELETE", "/v1/session")
    assert last(live, "session.delete")["subject"] == me["id"]
    signed_in(live, live.token)
    row = trail(live, "*", workspace="*", action="session.create")[0]
    assert row["principal"] == "admin"


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_refusal_is_told_with_who_and_where(live: Daemon, me: dict[str, Any]) -> None:
    viewer = made_token(live, ME, "viewer", name="Vic")
    for workspace in (ME, "default", "not-there", "%2e%2e"):
        assert live.client.post(live.path("runs", workspace), headers=bearer(viewer["token"])).status_code == 403
    rows = wait_until(lambda: len(found := trail(live, ME, principal=viewer["id"])) == 4 and found)
    assert {(row["action"], row["subject"], row["principal"]) for row in rows} == {
        ("refused", "POST /v1/workspaces/{workspace}/runs", "Vic")
    }
    assert [row["detail"].get("workspace") for row in rows[::-1]] == [ME, "default", None, None]
    assert {row["detail"]["code"] for row in rows} == {"forbidden"}
    assert {row["detail"]["address"] for row in rows} == {"127.0.0.1"}
    assert not trail(live, "default", principal=viewer["id"]), "one workspace does not see another's people"


def test_nobody_known_is_told_under_the_star(live: Daemon) -> None:
    assert live.client.post("/v1/session", json={"token": "lat_guessed"}).status_code == 401
    assert live.client.get(live.path("agents"), headers=bearer("lat_guessed")).status_code == 401
    for subject in ("POST /v1/session", "GET /v1/workspaces/{workspace}/agents"):
        row = wait_trail(live, "*", workspace="*", subject=subject)[0]
        assert (row["action"], row["principal"], row["token_id"]) == ("refused", None, None)
        assert row["detail"]["code"] == "unauthenticated"
    assert "lat_guessed" not in json.dumps(trail(live, "*"))


def knock(one: Daemon, times: int) -> None:
    """So many are refused, some of them at once."""
    client = one.client

    def try_one(i: int) -> int:
        return client.get("/v1/whoami", headers=bearer(f"lat_{i}")).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(try_one, range(times))) == {401}


def test_every_refusal_is_there_as_soon_as_it_is_told(daemon: Make) -> None:
    one = daemon()
    viewer = made_token(one, "default", "viewer")
    for i in range(1, 6):
        assert one.client.get(one.path("audit"), headers=bearer(viewer["token"])).status_code == 403
        assert len(trail(one, action="refused", principal=viewer["id"])) == i
        assert len(trail(one, "*", action="refused", principal=viewer["id"])) == i
    knock(one, 200)
    rows = one.client.get("/v1/audit", params={"format": "jsonl", "action": "refused", "workspace": "*"}).text
    assert [json.loads(row)["detail"].get("left_out") for row in rows.splitlines()] == [None] * 200


def test_a_flood_is_bounded_and_says_how_many_were_left_out(daemon: Make) -> None:
    one = daemon()
    began = time.monotonic()
    knock(one, flood := MOST_ROWS + 500)
    text = one.client.get("/v1/audit", params={"format": "jsonl", "action": "refused"}).text
    rows = [json.loads(line)["detail"] for line in text.splitlines()]
    assert sum(row.get("left_out", 1) for row in rows) == flood
    whole = [row for row in rows if "left_out" not in row]
    assert MOST_ROWS <= len(whole) <= MOST_ROWS + (time.monotonic() - began) / ROW_SECONDS


def test_a_refusal_does_not_wait_for_a_store_that_is_away(daemon: Make) -> None:
    one = daemon()
    viewer = made_token(one, "default", "viewer")
    assert one.client.get("/v1/whoami", headers=bearer(viewer["token"])).status_code == 200
    with locked(one):
        for _ in range(30):
            answer = one.client.post(one.path("runs"), headers=bearer(viewer["token"]), timeout=2)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
            assert one.client.get("/v1/whoami", headers=bearer("lat_x"), timeout=2).status_code == 401
    told = lambda: sum(row["detail"].get("left_out", 1) for row in trail(one, "*", action="refused"))
    wait_until(lambda: told() == 60)
    assert one.stop() == 0


def test_what_was_refused_just_before_the_end_is_kept(daemon: Make) -> None:
    one = daemon()
    for _ in range(5):
        one.client.get("/v1/whoami", headers=bearer("lat_x"))
    assert one.stop() == 0
    one.start()
    assert sum(row["detail"].get("left_out", 1) for row in trail(one, "*", action="refused")) == 5


# --- reading it ------------------------------------------------------------------------------------------------------


def test_a_page_is_narrowed_by_what_is_given(live: Daemon, me: dict[str, Any]) -> None:
    rows = trail(live, ME)
    assert [row["id"] for row in rows] == sorted((row["id"] for row in rows), reverse=True)
    assert {row["workspace"] for row in rows} == {ME}
    runs = trail(live, ME, action="run.")
    assert {row["action"] for row in runs} == {"run.submit", "run.stop", "run.rerun", "run.signal"}
    assert trail(live, ME, action="run.stop") == [row for row in rows if row["action"] == "run.stop"]
    assert trail(live, ME, action="run") == []
    assert trail(live, ME, principal="Ada") == [row for row in rows if row["principal"] == "Ada"]
    assert trail(live, ME, principal="Ada") == trail(live, ME, principal=me["id"])
    middle = rows[len(rows) // 2]
    assert trail(live, ME, since=middle["at"]) == [row for row in rows if row["at"] >= middle["at"]]
    assert trail(live, ME, until=middle["at"]) == [row for row in rows if row["at"] < middle["at"]]
    assert trail(live, "*", workspace=ME, subject=middle["subject"]) == trail(live, ME, subject=middle["subject"])
    paged: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        part = live.client.get(live.path("audit", ME), params={"limit": 3, **cursor}).json()
        paged += part["items"]
        if part["next_cursor"] is None:
            break
        cursor = {"cursor": part["next_cursor"]}
    assert paged[-len(rows) :] == rows


@pytest.mark.parametrize(
    "query",
    ["action=*", "action=Run", "since=yesterday", "since=0.5", "since=0001-01-01T00:00:00%2B14:00",
     "until=9999-12-31T23:59:59-14:00",
     "until=2026-01-01T00:00:00", "until=2026-01-01", "cursor=x", "cursor=-1", "format=csv",
     "format=jsonl&limit=5", "format=jsonl&cursor=5", "workspace=default", "principal="],
)  # fmt: skip
def test_what_makes_no_sense_is_422(live: Daemon, query: str) -> None:
    answer = live.client.get(live.path("audit") + "?" + query)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert answer.json()["errors"][0]["loc"][0] == "query"


def test_only_admins_read_it_and_only_their_own(live: Daemon, me: dict[str, Any]) -> None:
    operator = bearer(made_token(live, ME, "operator")["token"])
    admin = bearer(me["token"])
    assert live.client.get(live.path("audit", ME), headers=operator).status_code == 403
    assert live.client.get(live.path("audit", ME), headers=admin).status_code == 200
    assert live.client.get(live.path("audit", "default"), headers=admin).status_code == 403
    assert live.client.get("/v1/audit", headers=admin).status_code == 403
    assert live.client.get(live.path("audit", "not-there")).status_code == 404


@pytest.mark.parametrize("how", [{"params": {"format": "jsonl"}}, {"headers": {"Accept": "application/x-ndjson"}}])
def test_an_export_is_all_of_it_oldest_first_a_line_each(live: Daemon, me: dict[str, Any], how: Any) -> None:
    answer = live.client.get(live.path("audit", ME), **how)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert "content-length" not in answer.headers, "it is not held in memory"
    rows = [json.loads(line) for line in answer.text.split("\n") if line]
    assert answer.text.endswith("\n")
    assert rows == trail(live, ME)[::-1]
    assert live.client.get(live.path("audit", ME), params={"format": "jsonl", "action": "no.such"}).text == ""
    assert live.client.head(live.path("audit", ME), **how).content == b""


def test_an_export_of_many_rows_is_whole(daemon: Make) -> None:
    one = daemon()
    one.stop()
    with sqlite3.connect(one.state_dir / "latticed.db") as db:
        db.executemany(
            "INSERT INTO audit (at, workspace, principal, action, subject, detail) VALUES (?, ?, 'x', 'x.y', ?, '{}')",
            [(i, ("default", "other")[i % 2], str(i)) for i in range(5000)],
        )
    db.close()
    one.start()
    text = one.client.get(one.path("audit"), params={"format": "jsonl", "action": "x."}).text
    assert [json.loads(line)["subject"] for line in text.splitlines()] == [str(i) for i in range(0, 5000, 2)]
    whole = one.client.get("/v1/audit", params={"format": "jsonl"}).text.splitlines()
    assert len(whole) == 5000 + len(trail(one, "*", until="2030-01-01T00:00:00Z", since="2000-01-01T00:00:00Z"))


@pytest.mark.parametrize("how", ["revoked", "removed"])
def test_an_export_is_cut_when_its_reader_may_not_read_on(daemon: Make, how: str) -> None:
    one = daemon()
    made_workspace(one, "long")
    made = made_token(one, "long" if how == "revoked" else "*", "admin")
    one.stop()
    with sqlite3.connect(one.state_dir / "latticed.db") as db:  # More than what may lie in buffers on the way.
        db.executemany(
            "INSERT INTO audit (at, workspace, principal, action, subject, detail) VALUES (0, 'long', 'x', 'x', ?, ?)",
            [("last" if i == 5999 else "", json.dumps({"text": "x" * 4000})) for i in range(6000)],
        )
    db.close()
    one.start()
    ways = {"params": {"format": "jsonl"}, "headers": bearer(made["token"])}
    with httpx2.Client(base_url=one.url) as client, client.stream("GET", one.path("audit", "long"), **ways) as answer:
        lines = answer.iter_lines()
        next(lines)
        gone = one.path(f"tokens/{made['id']}", "long") if how == "revoked" else "/v1/workspaces/long"
        assert one.client.delete(gone).status_code == 204
        with pytest.raises(httpx2.RemoteProtocolError):
            assert all('"subject":"last"' not in line for line in lines)


# --- in the same transaction -----------------------------------------------------------------------------------------


def test_a_change_and_its_row_are_there_both_or_neither(daemon: Make) -> None:
    one = daemon()
    one.stop()
    for failpoint in ("commit.before", "commit.after"):
        one.env["LATTICED_FAILPOINTS"] = f"{failpoint}:9"
        one.start()
        with pytest.raises(httpx2.TransportError):
            while True:
                one.client.post(one.path("runs"), json={"target": "echo", "goal": "x"})
                one.client.post(one.path("tokens"), json={"role": "viewer", "name": "Zoe"})
        assert one.wait_exit() == -9
    one.env["LATTICED_FAILPOINTS"] = ""
    one.start()
    for tail, action in (("runs", "run.submit"), ("tokens", "token.create")):
        there = [item["id"] for item in one.client.get(one.path(tail), params={"limit": 500}).json()["items"]]
        assert there == [row["subject"] for row in trail(one, action=action)]
        assert there

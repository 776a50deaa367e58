"""Tokens: what one may give, when it was last used, and that its end is at once."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from tests.conftest import Daemon, wait_until
from tests.people import bearer, made_token, made_workspace, signed_in, trail

Make = Callable[..., Daemon]


def shown(one: Daemon, token: dict[str, Any]) -> dict[str, Any]:
    path = "/v1/tokens" if token["workspace"] == "*" else one.path("tokens", token["workspace"])
    answer = one.client.get(f"{path}/{token['id']}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    listed = one.client.get(path, params={"limit": 500}).json()["items"]
    assert found in listed
    return found


def use(one: Daemon, token: dict[str, Any], path: str = "/v1/whoami") -> int:
    return httpx2.get(one.url + path, headers=bearer(token["token"])).status_code


def test_a_token_is_shown_without_its_text(live: Daemon) -> None:
    made = made_token(live, "default", "operator", name="Ann", lanes=["night"], expires_seconds=3600)
    text = made.pop("token")
    found = shown(live, made)
    assert found == made
    assert text not in str(found)
    assert live.client.get(live.path(f"tokens/{made['id']}x")).status_code == 404


def test_its_last_use_is_told_at_once_and_kept(daemon: Make) -> None:
    one = daemon()
    made = made_token(one, "default", "viewer")
    assert shown(one, made)["used_at"] is None
    began = datetime.now(UTC)
    assert use(one, made) == 200
    first = shown(one, made)["used_at"]
    assert began <= datetime.fromisoformat(first) <= datetime.now(UTC)
    assert [use(one, made) for _ in range(5)] == [200] * 5
    assert shown(one, made)["used_at"] == first, "to the minute"
    browser_token = made_token(one, "default", "viewer")
    signed_in(one, browser_token["token"])
    assert shown(one, browser_token)["used_at"] is not None
    one.stop()
    one.start()
    assert shown(one, made)["used_at"] == first
    assert shown(one, browser_token)["used_at"] is not None


def test_a_use_that_was_refused_is_one_too(live: Daemon) -> None:
    made = made_token(live, "default", "viewer")
    assert use(live, made, live.path("tokens")) == 403
    assert shown(live, made)["used_at"] is not None


# --- what one may give -----------------------------------------------------------------------------------------------


def give(one: Daemon, giver: dict[str, Any], path: str, **body: Any) -> httpx2.Response:
    return httpx2.post(one.url + path, headers=bearer(giver["token"]), json={"role": "viewer", **body})


def test_nobody_gives_more_than_they_have(live: Daemon) -> None:
    made_workspace(live, "giving")
    mine, all_mine = live.path("tokens", "giving"), "/v1/tokens"
    admin = made_token(live, "giving", "admin")
    operator, viewer = made_token(live, "giving", "operator"), made_token(live, "giving", "viewer")
    wide_operator = made_token(live, "*", "operator")
    assert give(live, admin, mine, role="admin").json()["workspace"] == "giving"
    assert give(live, admin, all_mine).status_code == 403
    assert give(live, admin, live.path("tokens")).status_code == 403
    for giver in (operator, viewer, wide_operator):
        assert {give(live, giver, path).status_code for path in (mine, all_mine)} == {403}
    wide = give(live, made_token(live, "*", "admin"), all_mine, role="admin")
    assert (wide.status_code, wide.json()["workspace"]) == (201, "*")
    assert use(live, wide.json(), live.path("runs", "giving")) == 200
    assert httpx2.post(
        live.url + live.path("tokens", "*"), headers=bearer(live.token), json={"role": "viewer"}
    ).status_code == 404  # fmt: skip


def test_lanes_are_given_by_who_has_them(live: Daemon) -> None:
    path = live.path("tokens")
    admin = made_token(live, "default", "admin", lanes=["night", "day"])
    assert give(live, admin, path, lanes=["night"]).json()["lanes"] == ["night"]
    assert give(live, admin, path, lanes=[]).json()["lanes"] == []
    for lanes in (None, ["night", "noon"], ["noon"]):
        answer = give(live, admin, path, lanes=lanes)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert "night, day" in answer.json()["detail"]


def test_lanes_say_what_a_token_answers_and_not_what_it_reads(live: Daemon) -> None:
    run = live.post_run("asker", "may I?", inputs={"lanes": ["night"]}, wait=20)
    [approval] = run["pause"]["approval_ids"]
    other = bearer(made_token(live, "default", "operator", lanes=["noon"])["token"])
    listed = live.client.get(live.path("approvals"), headers=other, params={"status": "pending"}).json()["items"]
    assert approval in [each["id"] for each in listed]
    assert [each["lanes"] for each in listed if each["id"] == approval] == [["night"]]
    answer = live.client.post(live.path(f"approvals/{approval}"), headers=other, json={"decision": "approve"})
    assert answer.status_code == 403
    mine = bearer(made_token(live, "default", "operator", lanes=["night"])["token"])
    answer = live.client.post(live.path(f"approvals/{approval}"), headers=mine, json={"decision": "approve"})
    assert answer.status_code == 200


# --- its end ---------------------------------------------------------------------------------------------------------


def test_tokens_for_all_workspaces_are_listed_and_revoked_apart(live: Daemon) -> None:
    wide = made_token(live, "*", "viewer", name="wide")
    assert shown(live, wide)["workspace"] == "*"
    assert wide["id"] not in [each["id"] for each in live.client.get(live.path("tokens")).json()["items"]]
    assert live.client.delete(live.path(f"tokens/{wide['id']}")).status_code == 404
    assert use(live, wide) == 200
    assert live.client.delete(f"/v1/tokens/{wide['id']}").status_code == 204
    assert use(live, wide) == 401
    assert shown(live, wide)["revoked_at"] is not None
    narrow = made_token(live, "default", "viewer")
    assert live.client.delete(f"/v1/tokens/{narrow['id']}").status_code == 404
    assert use(live, narrow) == 200


def test_a_token_may_revoke_itself(live: Daemon) -> None:
    admin = made_token(live, "default", "admin")
    path = live.url + live.path(f"tokens/{admin['id']}")
    assert httpx2.delete(path, headers=bearer(admin["token"])).status_code == 204
    assert httpx2.delete(path, headers=bearer(admin["token"])).status_code == 401
    assert live.client.delete(path).status_code == 204, "again is no error"
    assert len(trail(live, action="token.revoke", subject=admin["id"])) == 1


@pytest.mark.parametrize("round_", range(3))
def test_revoked_while_it_is_used_it_is_worth_nothing_after(live: Daemon, round_: int) -> None:
    made = made_token(live, "default", "viewer")
    with ThreadPoolExecutor(6) as pool:
        uses = [pool.submit(use, live, made) for _ in range(30)]
        assert live.client.delete(live.path(f"tokens/{made['id']}")).status_code == 204
        after = use(live, made)
    assert after == 401
    assert {each.result() for each in uses} <= {200, 401}
    assert use(live, made) == 401


def test_what_is_said_slowly_is_not_done_for_a_token_that_was_revoked_meanwhile(live: Daemon) -> None:
    made = made_token(live, "default", "operator")
    begun = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b'{"target": "echo", '
        begun.set()
        wait_until(lambda: use(live, made) == 401)
        yield b'"goal": "said by a revoked token"}'

    def say() -> httpx2.Response:
        return httpx2.post(live.url + live.path("runs"), headers=bearer(made["token"]), content=slowly())

    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(say)
        assert begun.wait(10)
        path = live.path(f"tokens/{made['id']}")
        wait_until(lambda: live.client.get(path).json()["used_at"] is not None)  # Its head was let in.
        assert live.client.delete(path).status_code == 204
        answer = said.result()
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert "said by a revoked token" not in live.client.get(live.path("runs")).text
    assert trail(live, action="run.submit", principal=made["id"]) == []


def test_a_token_of_no_workspace_that_is_there_is_worth_nothing(daemon: Make) -> None:
    one = daemon()
    made_workspace(one, "going")
    made = made_token(one, "going", "admin")
    assert use(one, made) == 200
    one.stop()
    db = sqlite3.connect(one.state_dir / "latticed.db")
    db.execute("UPDATE workspaces SET removed_at = 1 WHERE name = 'going'")
    db.commit()
    db.close()
    one.start()
    assert use(one, made) == 401
    wait_until(lambda: trail(one, "*", action="refused", workspace="*"))

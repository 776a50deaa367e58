"""Browsers: signing in, the cookie, pages of other sites, signing out, and streams that end with the session."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from latticed.api.attempts import BURST
from tests.conftest import Daemon, wait_until
from tests.people import (
    COOKIES,
    Browser,
    Stream,
    bearer,
    made_token,
    made_workspace,
    signed_in,
    streaming,
    trail,
    wait_trail,
)

Make = Callable[..., Daemon]


def host(one: Daemon) -> str:
    return one.url.removeprefix("http://")


def test_signing_in_gives_a_cookie_that_no_script_and_no_other_site_gets(live: Daemon) -> None:
    made = made_token(live, "default", "operator", name="Ann", lanes=["night"])
    answer = Browser(live, live.url)("POST", "/v1/session", json={"token": made["token"]})
    assert answer.status_code == 200
    who = answer.json()
    assert (who["token_id"], who["name"], who["role"], who["lanes"]) == (made["id"], "Ann", "operator", ["night"])
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(r"latticed_session=ses_[\w-]{43}; Max-Age=43200; Path=/; HttpOnly; SameSite=Strict", cookie)
    assert made["token"] not in cookie + answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_by_cookie_a_browser_reads_writes_and_follows(live: Daemon) -> None:
    made = made_token(live, "default", "operator")
    browser = signed_in(live, made["token"])
    who = browser("GET", "/v1/whoami").json()
    assert (who["token_id"], who["role"]) == (made["id"], "operator")
    assert who["expires_at"] is not None, "the session's"
    run = browser("POST", live.path("runs"), params={"wait": 20}, json={"target": "echo", "goal": "x"}).json()["run"]
    assert (run["status"], run["created_by"]) == ("ok", "token")
    with streaming(live, run["events_url"], {"Cookie": browser.cookie}) as stream:
        assert stream.until("end") == {"status": "ok"}
    assert browser("GET", live.path("tokens")).status_code == 403, "it is worth what its token is"
    assert browser("GET", live.path("runs", "elsewhere")).status_code == 403


# --- pages of other sites --------------------------------------------------------------------------------------------

OTHERS = [
    None, "null", "", "http://evil.example", "https://evil.example", "http://127.0.0.1", "http://127.0.0.1:1",
    "http://{host}.evil.example", "http://evil.example/{host}", "ftp://{host}", "//{host}", "{host}", "http://{host}/",
    "http://user@{host}", "http://{host}, http://{host}", "https://{host}",
]  # fmt: skip


@pytest.mark.parametrize("origin", OTHERS)
def test_by_cookie_nothing_is_changed_for_a_page_of_another_site(live: Daemon, origin: str | None) -> None:
    browser = signed_in(live, live.token)
    browser.origin = None
    headers = {} if origin is None else {"Origin": origin.format(host=host(live))}
    before = len(live.client.get(live.path("runs"), params={"limit": 500}).json()["items"])
    for method, path in (("POST", live.path("runs")), ("POST", "/v1/workspaces"), ("DELETE", "/v1/session")):
        answer = browser(method, path, json={"target": "echo", "goal": "x"}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
    assert browser("GET", "/v1/whoami").status_code == 200
    assert len(live.client.get(live.path("runs"), params={"limit": 500}).json()["items"]) == before


def test_of_two_origins_none_is_picked_and_cookies_may_come_in_several_lines(live: Daemon) -> None:
    browser = signed_in(live, live.token)
    mine, cookies = ("Origin", live.url), [("Cookie", browser.cookie), ("Cookie", "other=1")]
    for others, status in (([], 202), ([("Origin", "http://evil.example")], 403)):
        for headers in ([*cookies, *others, mine], [mine, *others, *cookies[::-1]]):
            answer = live.stranger.post(live.path("runs"), json={"target": "echo", "goal": "x"}, headers=headers)
            assert answer.status_code == status


def test_what_a_browser_says_of_the_page_is_heard(live: Daemon) -> None:
    browser = signed_in(live, live.token)
    body = {"target": "echo", "goal": "x"}
    for said, status in (("same-origin", 202), ("none", 202), ("cross-site", 403), ("same-site", 403)):
        answer = browser("POST", live.path("runs"), json=body, headers={"Sec-Fetch-Site": said})
        assert answer.status_code == status, said


@pytest.mark.parametrize("origin", [each for each in OTHERS if each not in (None, "https://{host}")])
def test_no_page_of_another_site_signs_a_browser_in(live: Daemon, origin: str) -> None:
    browser = Browser(live, origin.format(host=host(live)))
    answer = browser("POST", "/v1/session", json={"token": live.token})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert not browser.cookie


def test_a_program_needs_no_origin(live: Daemon) -> None:
    headers = {**bearer(live.token), "Origin": "http://evil.example"}
    answer = live.client.post(live.path("runs"), json={"target": "echo", "goal": "x"}, headers=headers)
    assert answer.status_code == 202
    browser = Browser(live, None)
    assert browser("POST", "/v1/session", json={"token": live.token}).status_code == 200
    assert browser("GET", "/v1/whoami").status_code == 200


def test_a_token_beats_a_cookie(live: Daemon) -> None:
    browser = signed_in(live, live.token)
    viewer = made_token(live, "default", "viewer")
    assert browser("GET", "/v1/whoami", headers=bearer(viewer["token"])).json()["token_id"] == viewer["id"]
    assert browser("GET", "/v1/whoami", headers=bearer("lat_x")).status_code == 401, "and a bad one too"


def test_behind_a_proxy_that_speaks_https_the_cookie_is_kept_from_http(live: Daemon) -> None:
    """The browser's own `Origin` says that it speaks HTTPS; no header that anybody could add is asked."""
    public = {"Host": "runs.example", "X-Forwarded-Proto": "http"}
    browser = Browser(live, "https://runs.example")
    answer = browser("POST", "/v1/session", json={"token": live.token}, headers=public)
    assert answer.headers["set-cookie"].startswith("__Host-latticed_session=ses_")
    assert answer.headers["set-cookie"].endswith("; Path=/; HttpOnly; SameSite=Strict; Secure")
    body = {"target": "echo", "goal": "x"}
    assert browser("POST", live.path("runs"), json=body, headers=public).status_code == 202
    assert browser("POST", live.path("runs"), json=body, headers={"Host": "runs.example:443"}).status_code == 202
    browser.origin = "http://runs.example"
    answer = browser("POST", live.path("runs"), json=body, headers=public)
    assert answer.status_code == 403, "a page that somebody on the wire has put there"
    plain = signed_in(live, live.token)
    assert plain("POST", live.path("runs"), json=body, headers={"X-Forwarded-Proto": "https"}).status_code == 202
    assert not plain.cookie.startswith("__Host-")


# --- the end of a session --------------------------------------------------------------------------------------------


def endless(live: Daemon) -> str:
    return str(live.post_run("awaiter")["id"])


def left(stream: Stream) -> None:
    """The stream has been ended cleanly: it says goodbye and the answer is whole."""
    rest = stream.rest()
    assert "event: bye" in rest, rest


def test_signing_out_ends_the_session_and_its_streams(live: Daemon) -> None:
    browser, other = signed_in(live, live.token), signed_in(live, live.token)
    run_id, cookie = endless(live), browser.cookie
    path = live.path(f"runs/{run_id}/events")
    with (
        streaming(live, path, {"Cookie": cookie}) as mine,
        streaming(live, live.path("events"), {"Cookie": cookie}) as feed,
        streaming(live, path, {"Cookie": other.cookie}) as others,
    ):
        mine.until("run.started")
        others.until("run.started")
        answer = browser("DELETE", "/v1/session")
        assert answer.status_code == 204
        assert answer.headers["set-cookie"].startswith("latticed_session=; Max-Age=0; Path=/;")
        left(mine)
        left(feed)
        live.stop_run(run_id, mode="now")
        assert others.until("end") == {"status": "cancelled"}, "who else is signed in reads on"
    again = live.stranger.get(path, headers={"Cookie": cookie, "Accept": "text/event-stream"})
    assert (again.status_code, again.json()["code"]) == (401, "unauthenticated")
    assert live.stranger.get("/v1/whoami", headers={"Cookie": other.cookie}).status_code == 200


def test_signing_out_without_a_session(live: Daemon) -> None:
    assert live.client.delete("/v1/session").status_code == 204
    assert live.stranger.delete("/v1/session").status_code == 401
    browser = signed_in(live, live.token)
    assert live.client.delete("/v1/session", headers={"Cookie": browser.cookie}).status_code == 204
    assert browser("GET", "/v1/whoami").status_code == 401


def test_a_session_ends_with_its_token(live: Daemon) -> None:
    made = made_token(live, "default", "viewer")
    browser = signed_in(live, made["token"])
    run_id = endless(live)
    path = live.path(f"runs/{run_id}/events")
    with (
        streaming(live, path, {"Cookie": browser.cookie}) as by_cookie,
        streaming(live, path, bearer(made["token"])) as by_token,
        streaming(live, path, bearer(live.token)) as other,
    ):
        for stream in (by_cookie, by_token, other):
            stream.until("run.started")
        assert live.client.delete(live.path(f"tokens/{made['id']}")).status_code == 204
        left(by_cookie)
        left(by_token)
        live.stop_run(run_id, mode="now")
        assert other.until("end") == {"status": "cancelled"}
    assert browser("GET", "/v1/whoami").status_code == 401
    for headers in ({"Cookie": browser.cookie}, bearer(made["token"])):
        answer = live.stranger.get(path, headers={"Accept": "text/event-stream", **headers})
        assert answer.status_code == 401


def test_a_session_lasts_no_longer_than_its_token(live: Daemon) -> None:
    made = made_token(live, "default", "viewer", expires_seconds=1.2)
    browser = signed_in(live, made["token"])
    assert browser("GET", "/v1/whoami").json()["expires_at"] == made["expires_at"]
    run_id = endless(live)
    path = live.path(f"runs/{run_id}/events")
    with (
        streaming(live, path, {"Cookie": browser.cookie}) as by_cookie,
        streaming(live, path, bearer(made["token"])) as by_token,
    ):
        left(by_cookie)
        left(by_token)
    assert browser("GET", "/v1/whoami").status_code == 401
    live.stop_run(run_id, mode="now")


def test_a_session_is_there_after_a_restart_and_only_its_digest_is_kept(daemon: Make) -> None:
    one = daemon()
    browser = signed_in(one, one.token)
    kept = b"".join(path.read_bytes() for path in one.state_dir.glob("latticed.db*"))
    assert browser.cookie.partition("=")[2].encode() not in kept
    one.stop()
    one.start()
    assert browser("GET", "/v1/whoami").status_code == 200
    one.client.delete(f"/v1/tokens/{browser('GET', '/v1/whoami').json()['token_id']}")
    one.kill()
    one.start()
    assert browser("GET", "/v1/whoami").status_code == 401


@pytest.mark.parametrize("name", COOKIES)
@pytest.mark.parametrize("text", ["", "x", "ses_" + "A" * 43, "x" * 5000, "\xff", "a=b", '"ses_x"', "ses_x, ses_y"])
def test_a_cookie_that_is_none_is_401(live: Daemon, name: str, text: str) -> None:
    for value in (f"{name}={text}", f"other=1; {name}={text};", f";;{name}={text}"):
        answer = live.stranger.get("/v1/whoami", headers=[(b"Cookie", value.encode("latin-1"))])
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


def test_a_token_is_no_cookie_and_a_cookie_no_token(live: Daemon) -> None:
    browser = signed_in(live, live.token)
    assert browser("GET", "/v1/whoami").status_code == 200
    text = browser.cookie.partition("=")[2]
    assert live.stranger.get("/v1/whoami", headers=bearer(text)).status_code == 401
    assert live.stranger.get("/v1/whoami", headers={"Cookie": f"latticed_session={live.token}"}).status_code == 401
    assert Browser(live, live.url)("POST", "/v1/session", json={"token": text}).status_code == 401


@pytest.mark.parametrize("how", ["revoked", "expired", "signed out", "removed"])
def test_who_waits_for_a_run_is_answered_at_the_end_of_what_they_came_in_by(live: Daemon, how: str) -> None:
    name = made_workspace(live, f"waits-{how.replace(' ', '-')}")
    made = made_token(live, name, "operator", expires_seconds=1.5 if how == "expired" else None)
    browser = signed_in(live, made["token"])
    runs = lambda: live.client.get(live.path("runs", name)).json()["items"]

    def wait() -> httpx2.Response:
        body = {"target": "signaller", "goal": "x"}
        return browser("POST", live.path("runs", name), params={"wait": 50}, json=body, timeout=20)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        run = wait_until(lambda: [run for run in runs() if run["status"] == "waiting"])[0]
        if how == "revoked":
            live.client.delete(live.path(f"tokens/{made['id']}", name))
        elif how == "signed out":
            Browser(live, live.url, browser.cookie)("DELETE", "/v1/session")
        elif how == "removed":
            live.client.delete(f"/v1/workspaces/{name}", params={"force": "true"})
        answer = waiting.result()
    assert (answer.status_code, answer.json()["accepted"], answer.json()["run"]["id"]) == (202, True, run["id"])
    assert answer.json()["run"]["status"] == "queued", "nothing is shown that came after"
    if how != "removed":
        live.client.post(live.path(f"runs/{run['id']}/cancel", name))


# --- guessing --------------------------------------------------------------------------------------------------------


def test_guessing_is_slowed_down_and_told(daemon: Make) -> None:
    one = daemon()
    with httpx2.Client(base_url=one.url) as client:
        codes: list[Any] = []
        for i in range(BURST + 5):
            answer = client.post("/v1/session", json={"token": f"lat_{i}"})
            codes.append(answer.status_code)
        assert codes[:BURST] == [401] * BURST
        assert set(codes[BURST:]) <= {401, 429}
        answer = wait_until(lambda: (a := client.post("/v1/session", json={"token": "lat_x"})).status_code == 429 and a)
        assert answer.json()["code"] == "busy"
        assert int(answer.headers["retry-after"]) >= 1
        refused = client.post("/v1/session", json={"token": one.token})
        assert refused.status_code == 429, "else the answer would tell a right guess from a wrong one"
        assert client.get("/v1/whoami", headers=bearer(one.token)).status_code == 200
        wait_until(lambda: client.post("/v1/session", json={"token": one.token}).status_code == 200)
    wait_trail(one, "*", action="refused", subject="POST /v1/session")
    assert trail(one, "*", action="session.create")


def test_signing_in_rightly_is_not_slowed_down(live: Daemon) -> None:
    browser = Browser(live, live.url)
    assert {browser("POST", "/v1/session", json={"token": live.token}).status_code for _ in range(BURST + 5)} == {200}


@pytest.mark.parametrize("body", [{}, {"token": ""}, {"token": 5}, {"token": "x" * 257}, {"token": "x", "more": 1}, []])
def test_a_body_that_holds_no_token_is_422(live: Daemon, body: Any) -> None:
    assert Browser(live, live.url)("POST", "/v1/session", json=body).status_code == 422

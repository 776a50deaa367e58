"""Tokens, browsers and streams, for tests of who may do what."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.conftest import Daemon
from tests.wait import wait_until

COOKIES = ("latticed_session", "__Host-latticed_session")


def made_workspace(one: Daemon, name: str) -> str:
    answer = one.client.post("/v1/workspaces", json={"name": name})
    assert answer.status_code in (201, 409), answer.text
    return name


def made_token(one: Daemon, workspace: str, role: str, **fields: Any) -> dict[str, Any]:
    """A token with its text, as models.people.NewToken; the workspace `*` is all of them."""
    path = "/v1/tokens" if workspace == "*" else one.path("tokens", workspace)
    answer = one.client.post(path, json={"role": role, **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def trail(one: Daemon, of: str = "default", **params: Any) -> list[dict[str, Any]]:
    """The newest rows of the audit trail, at most 500; of `*` it is that of everything."""
    path = "/v1/audit" if of == "*" else one.path("audit", of)
    answer = one.client.get(path, params={"limit": 500, **params})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


@dataclass
class Browser:
    """What a browser does with cookies and `Origin`, for a page that came from `origin`."""

    one: Daemon
    origin: str | None
    cookie: str = ""

    def __call__(self, method: str, path: str, **how: Any) -> httpx2.Response:
        headers = {"Cookie": self.cookie} if self.cookie else {}
        if self.origin is not None and method not in ("GET", "HEAD"):
            headers["Origin"] = self.origin
        headers |= how.pop("headers", {})
        answer = self.one.stranger.request(method, path, headers=headers, **how)
        if said := answer.headers.get("set-cookie"):
            self.cookie = said.partition(";")[0]
        return answer


def signed_in(one: Daemon, token: str, origin: str | None = None) -> Browser:
    """A browser with a session; its pages come from the daemon itself unless `origin` says otherwise."""
    browser = Browser(one, origin or one.url)
    answer = browser("POST", "/v1/session", json={"token": token})
    assert answer.status_code == 200, answer.text
    return browser


class Stream:
    """A stream of events that is being read."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def until(self, event: str) -> dict[str, Any]:
        """The data of the next event of that name."""
        found = False
        for line in self._lines:
            if found and line.startswith("data:"):
                data: dict[str, Any] = json.loads(line.removeprefix("data:"))
                return data
            found = found or line == f"event: {event}"
        raise AssertionError(f"the stream ended before {event}")

    def rest(self) -> list[str]:
        """What comes until the server closes it."""
        return list(self._lines)


@contextmanager
def streaming(one: Daemon, path: str, headers: dict[str, str]) -> Iterator[Stream]:
    """An open stream, read from its beginning."""
    with (
        httpx2.Client(base_url=one.url, timeout=20) as client,
        client.stream("GET", path, headers={"Accept": "text/event-stream", **headers}) as response,
    ):
        assert response.status_code == 200, response.read()
        yield Stream(response)


def wait_trail(one: Daemon, of: str = "default", **params: Any) -> list[dict[str, Any]]:
    """The rows that fit, once there is one."""
    return wait_until(lambda: trail(one, of, **params))

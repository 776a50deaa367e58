"""The daemon dies before and after each write about who may come in: what was answered holds, and what was not was done
wholly or not at all, with its row in the audit trail."""

from collections.abc import Callable

import httpx2

from latticed.failpoints import FAILPOINTS
from tests.conftest import Daemon, wait_until
from tests.crash.lives import Lives
from tests.crash.test_failpoints import PEOPLE

IN_TURN = (
    "token.before", "token.kept", "revoke.before", "revoke.after", "sign_in.before", "sign_in.after",
    "sign_out.before", "sign_out.after", "notes.before", "notes.after",
)  # fmt: skip
Headers = dict[str, str]


class Visits(Lives):
    """Who comes in, and by what."""

    def create(self) -> httpx2.Response:
        body, key = {"name": "wanted", "role": "viewer"}, {"Idempotency-Key": "once"}
        return self.one.client.post(self.one.path("tokens"), json=body, headers=key)

    def revoke(self, token_id: str) -> httpx2.Response:
        return self.one.client.delete(self.one.path(f"tokens/{token_id}"))

    def sign_in(self, token: str) -> Headers:
        answer = self.one.stranger.post("/v1/session", json={"token": token})
        assert answer.status_code == 200, answer.text
        return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}

    def sign_out(self, browser: Headers) -> httpx2.Response:
        return self.one.stranger.delete("/v1/session", headers=browser | {"Origin": self.one.url})

    def enters(self, headers: Headers) -> bool:
        """Whether somebody comes in by this."""
        status = self.one.stranger.get("/v1/whoami", headers=headers).status_code
        assert status in (200, 401)
        return status == 200


def test_who_may_come_in_is_on_disk_wherever_the_daemon_dies(daemon: Callable[..., Daemon]) -> None:
    assert set(IN_TURN) == {name for name in FAILPOINTS if name.startswith(PEOPLE)}
    lives = Visits(daemon(start=False), IN_TURN)
    admin = lives.one.token
    made_by_itself = lives.audited("token.create")

    lives.end(lives.create)  # at token.before
    assert lives.rows("SELECT id FROM tokens WHERE name = 'wanted'") == []
    lives.end(lives.create)  # at token.kept
    again = lives.create()
    assert (again.status_code, "token" in again.json()) == (200, False), "nobody has its text any more"
    assert lives.rows("SELECT id FROM tokens WHERE name = 'wanted'") == [(again.json()["id"],)]
    assert lives.audited("token.create") == [*made_by_itself, again.json()["id"]]

    token = lives.one.client.post(lives.one.path("tokens"), json={"role": "operator"}).json()
    holder, browser = {"Authorization": f"Bearer {token['token']}"}, lives.sign_in(token["token"])
    lives.end(lambda: lives.revoke(token["id"]))  # at revoke.before
    assert lives.enters(holder)
    assert lives.enters(browser)
    assert lives.audited("token.revoke") == []
    lives.end(lambda: lives.revoke(token["id"]))  # at revoke.after
    assert not lives.enters(holder)
    assert not lives.enters(browser)
    assert lives.revoke(token["id"]).status_code == 204
    assert lives.audited("token.revoke") == [token["id"]], "it ends once"

    lives.end(lambda: lives.sign_in(admin))  # at sign_in.before
    assert (lives.rows("SELECT * FROM sessions"), len(lives.audited("session.create"))) == ([], 1)
    lives.end(lambda: lives.sign_in(admin))  # at sign_in.after
    assert (len(lives.rows("SELECT * FROM sessions")), len(lives.audited("session.create"))) == (1, 2)

    browser = lives.sign_in(admin)
    lives.end(lambda: lives.sign_out(browser))  # at sign_out.before
    assert lives.enters(browser)
    assert lives.audited("session.delete") == []
    lives.end(lambda: lives.sign_out(browser))  # at sign_out.after
    assert len(lives.audited("session.delete")) == 1

    before = lives.rows("SELECT max(used_at) FROM tokens")
    lives.end(lambda: lives.one.stranger.get(lives.one.path("queues")))  # at notes.before
    lives.end(lambda: lives.one.stranger.get(lives.one.path("agents")))  # at notes.after
    assert not lives.enters(browser)
    assert lives.enters({"Authorization": f"Bearer {admin}"})
    wait_until(lambda: lives.rows("SELECT max(used_at) FROM tokens") > before)
    assert lives.one.stop() == 0
    told = [subject.rpartition("/")[2] for subject in lives.audited("refused")]
    assert (told.count("queues"), told.count("agents")) == (0, 1), "what was written is not written again"

"""The daemon dies before and after each write about hooks, workspaces, approvals and overtaken vetoes: each was done
wholly or not at all, with its row in the audit trail, and what was to follow from it follows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from latticed.failpoints import FAILPOINTS
from tests.conftest import Daemon, wait_until
from tests.crash.lives import Lives
from tests.crash.test_failpoints import CHANGES
from tests.receiver import ALLOWED

IN_TURN = (
    "changed.before", "changed.after", "dropped.before", "dropped.after", "workspace.before", "workspace.after",
    "overtaken.before", "overtaken.after", "lapse.after", "lapse.before",
)  # fmt: skip
"""An approval that is to expire does so at the next start, at which nothing more may be armed."""
LATE = {"use": "python", "point": "pre_run", "function": "tests.crash.hooks:late", "targets": ["echo"]}
HOOK = {"name": "kept", "point": "post_run", "url": "http://127.0.0.1:9/", "targets": ["nobody"]}


class Changes(Lives):
    """What is changed, and what is there of that."""

    def change(self, **body: Any) -> httpx2.Response:
        return self.one.client.patch(self.one.path("hooks/kept"), json=body)

    def drop(self) -> httpx2.Response:
        return self.one.client.delete(self.one.path("hooks/kept"))

    def hook(self) -> dict[str, Any] | None:
        """The registered hook; None if there is none."""
        answer = self.one.client.get(self.one.path("hooks/kept"))
        return answer.json() if answer.status_code == 200 else None

    def make(self, **headers: str) -> httpx2.Response:
        return self.one.client.post("/v1/workspaces", json={"name": "wanted"}, headers=headers)

    def made(self) -> bool:
        return self.one.client.get("/v1/workspaces/wanted").status_code == 200

    def newest(self, target: str) -> str:
        """The latest run of an agent."""
        found = self.one.client.get(self.one.path("runs"), params={"target": target, "limit": 1}).json()["items"]
        return str(found[0]["id"])


def test_what_is_changed_is_changed_wholly_wherever_the_daemon_dies(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    assert set(IN_TURN) == {name for name in FAILPOINTS if name.startswith(CHANGES)}
    one = daemon(config={"hooks": {"late": LATE}, "webhooks": ALLOWED}, start=False)
    lives = Changes(one, IN_TURN)

    assert one.client.post(one.path("hooks"), json=HOOK).status_code == 201
    old = lives.hook()
    lives.end(lambda: lives.change(targets=["other"]))  # at changed.before
    assert (lives.hook(), lives.audited("hook.update")) == (old, [])
    lives.end(lambda: lives.change(targets=["other"]))  # at changed.after
    new = lives.hook()
    assert old is not None
    assert new is not None
    assert new == old | {"targets": ["other"], "updated_at": new["updated_at"]}
    assert lives.audited("hook.update") == [new["id"]]

    lives.end(lives.drop)  # at dropped.before
    assert (lives.hook(), lives.audited("hook.delete")) == (new, [])
    lives.end(lives.drop)  # at dropped.after
    assert (lives.hook(), lives.audited("hook.delete")) == (None, [new["id"]])
    assert lives.drop().status_code == 404

    key = {"Idempotency-Key": "once"}
    lives.end(lambda: lives.make(**key))  # at workspace.before
    assert not lives.made()
    lives.end(lambda: lives.make(**key))  # at workspace.after
    assert lives.made()
    again = lives.make(**key)
    assert (again.status_code, again.headers.get("idempotency-replayed")) == (200, "true")
    assert lives.audited("workspace.create").count("wanted") == 1

    for recorded in ([], ["late"]):  # at overtaken.before and overtaken.after
        effects = tmp_path / f"effects{len(recorded)}"
        lives.end(lambda effects=effects: one.post_run("echo", inputs={"effects": str(effects)}))
        run_id = lives.newest("echo")
        assert one.wait(run_id)["status"] == "cancelled"
        assert [step["name"] for step in one.steps(run_id)] == recorded
        told = [event["data"]["status"] for event in one.events(run_id, "hook.finished")]
        assert told == ["blocked"] * len(recorded), "what is told is what is recorded"
        assert len(effects.read_text().splitlines()) == 1, "it is asked once"

    lives.end(lambda: one.post_run("asker", inputs={"expires_seconds": 0.2}))  # at lapse.after
    first = lives.newest("asker")
    lives.end(lambda: one.post_run("asker", inputs={"expires_seconds": 0.2}))  # at lapse.before
    for run_id in (first, lives.newest("asker")):
        wait_until(lambda run_id=run_id: one.get(run_id)["status"] == "failed")
        assert one.get(run_id)["error"]["code"] == "approval_expired"
        assert len(one.events(run_id, "approval.expired")) == 1
    assert one.stop() == 0

"""What was registered in a workspace goes with it."""

from collections.abc import Callable

from tests.conftest import Daemon, wait_until

Make = Callable[..., Daemon]
NOBODY = {"name": "nobody", "point": "pre_run", "url": "http://127.0.0.1:9/nobody-listens", "timeout_seconds": 1}


def test_a_workspace_of_the_same_name_begins_without_the_hooks_of_the_first(daemon: Make) -> None:
    one = daemon(config={"webhooks": {"allow_private": ["127.0.0.0/8"]}})
    for again in (False, True):
        created = wait_until(
            lambda: (answer := one.client.post("/v1/workspaces", json={"name": "w"})).status_code == 201 and answer
        )
        assert created.json()["name"] == "w"
        assert one.client.get(one.path("hooks", "w")).json()["items"] == []
        run = one.post_run("once", workspace="w", wait=10)
        assert run["status"] == "ok"
        if again:
            return
        assert one.client.post(one.path("hooks", "w"), json=NOBODY).status_code == 201
        assert one.post_run("once", workspace="w", wait=10)["status"] == "rejected"
        assert one.client.delete("/v1/workspaces/w").status_code == 204

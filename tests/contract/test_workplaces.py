"""What a command leaves in the directory that was made for it goes with its run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import Daemon, wait_until

Make = Callable[..., Daemon]
AGENTS: dict[str, Any] = {
    "leaver": {"use": "command", "argv": ["/bin/sh", "-c", "mkdir -p deep/er; echo secret > deep/er/file"]}
}


def directory(one: Daemon, run: dict[str, Any]) -> Path:
    return one.state_dir / "work" / str(run["id"])


def test_it_goes_with_a_run_whose_time_is_over(daemon: Make) -> None:
    one = daemon(config={"agents": AGENTS})
    old = one.run("leaver")
    assert (directory(one, old) / "deep/er/file").read_text() == "secret\n"
    foreign = one.state_dir / "work" / "run_that_is_none"
    foreign.mkdir()
    one.restart()
    assert directory(one, old).exists()
    one.stop()
    one.configure({"agents": AGENTS, "retention": {"ok_days": 1e-7}})
    one.start()
    wait_until(lambda: not directory(one, old).exists())
    assert one.client.get(one.path(f"runs/{old['id']}")).status_code == 404
    assert foreign.exists(), "what is not ours is left alone"


def test_it_is_gone_once_the_name_of_its_workspace_is_free_again(daemon: Make) -> None:
    one = daemon(config={"agents": AGENTS})
    kept = one.run("leaver")
    assert one.client.post("/v1/workspaces", json={"name": "other"}).status_code == 201
    gone = one.post_run("leaver", workspace="other", wait=20)
    assert directory(one, gone).exists()
    assert one.client.delete("/v1/workspaces/other").status_code == 204
    wait_until(lambda: one.client.post("/v1/workspaces", json={"name": "other"}).status_code == 201)
    assert not directory(one, gone).exists()
    assert directory(one, kept).exists()

"""The daemon dies at every failpoint of a removal; what was removed is never back, and in the end it is wholly gone."""

import json
import signal
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx2

from latticed.failpoints import FAILPOINTS
from latticed.store.tables import metadata
from tests.conftest import Daemon, wait_until
from tests.crash.test_failpoints import REMOVALS


def rows_of(one: Daemon, workspace: str, run_ids: list[str]) -> dict[str, int]:
    """Rows on disk of a workspace, of its runs and of runs out of reach, by table."""
    found = {}
    with sqlite3.connect(one.state_dir / "latticed.db") as db:
        for table in metadata.tables.values():
            sql = f"SELECT count(*) FROM {table.name} WHERE "
            if table.name == "workspaces":
                found[table.name] = db.execute(sql + "name = ?", (workspace,)).fetchone()[0]
            elif "workspace" in table.c:
                found[table.name] = db.execute(sql + "workspace IN (?, '')", (workspace,)).fetchone()[0]
            elif "run_id" in table.c:
                sql += "run_id IN (SELECT value FROM json_each(?))"
                found[table.name] = db.execute(sql, (json.dumps(run_ids),)).fetchone()[0]
    return {table: number for table, number in found.items() if number}


def fill(one: Daemon, name: str) -> list[str]:
    """Makes a workspace with a bit of everything in it; its runs."""
    assert one.client.post("/v1/workspaces", json={"name": name}).status_code == 201
    runs = [one.post_run("awaiter", workspace=name), one.post_run("asker", workspace=name)]
    runs += [one.post_run("echo", workspace=name, idempotency_key=f"key-{n}", wait=5) for n in range(3)]
    assert one.client.post(one.path("tokens", name), json={"role": "viewer"}).status_code == 201
    assert one.client.post(one.path(f"runs/{runs[0]['id']}/signals/go", name), json={"data": 1}).status_code == 202
    return [run["id"] for run in runs]


def remove(one: Daemon, name: str) -> int:
    return one.client.delete(f"/v1/workspaces/{name}", params={"force": True}).status_code


def is_free(one: Daemon, name: str) -> bool:
    return one.client.post("/v1/workspaces", json={"name": name}).status_code == 201


def test_a_removal_is_finished_wherever_the_daemon_dies(daemon: Callable[..., Daemon]) -> None:
    one = daemon(start=False)
    kept = []
    for failpoint in sorted({name for name in FAILPOINTS if name.startswith(REMOVALS)} - {"prune.retired"}):
        # The first slice of a life is the one that looks for what an earlier life left.
        one.env = {"LATTICED_FAILPOINTS": f"{failpoint}:{1 + (failpoint == 'prune.slice')}"}
        one.start()
        kept.append(one.run("echo")["id"])
        runs = fill(one, failpoint)
        with suppress(httpx2.TransportError):
            assert remove(one, failpoint) == 204
        assert one.wait_exit() == -signal.SIGKILL
        one.env = {}
        one.start()
        shown = one.client.get(one.path("runs", failpoint)).status_code
        assert shown == (200 if failpoint == "remove.before" else 404), "what is marked is gone for good"
        if failpoint == "remove.before":
            assert remove(one, failpoint) == 204, "there nothing was written"
        wait_until(lambda name=failpoint: is_free(one, name))
        assert rows_of(one, failpoint, runs) == {"workspaces": 1}
        one.kill()
    one.start()
    assert {one.get(run_id)["status"] for run_id in kept} == {"ok"}


def test_a_run_whose_time_is_over_is_gone_wherever_the_daemon_dies(daemon: Callable[..., Daemon]) -> None:
    soon: dict[str, Any] = {"retention": {"ok_days": 1e-7}}
    one = daemon(config=soon, env={"LATTICED_FAILPOINTS": "prune.retired"})
    kept = one.run("failer")["id"]
    gone = one.post_run("echo")["id"]
    assert one.wait_exit() == -signal.SIGKILL
    one.env = {}
    one.start()
    assert one.client.get(one.path(f"runs/{gone}")).status_code == 404, "it is out of reach from the first moment"
    wait_until(lambda: not rows_of(one, "nobody", [gone]))
    assert one.get(kept)["status"] == "failed"

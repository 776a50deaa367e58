"""What a workspace may take: exact under concurrency and over restarts, and nothing half-done when it is refused."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.conftest import Daemon, wait_until
from tests.people import made_workspace

LIMITS: dict[str, dict[str, Any]] = {
    "ten": {"active_runs": 10},
    "three": {"active_runs": 3},
    "queue": {"queued_runs": 3},
    "rate": {"submissions_per_minute": 5},
    "family": {"active_runs": 1},
    "small": {"storage_bytes": 20_000},
    "quiet": {"event_bytes": 2_000},
    "shut": {"active_runs": 0},
    "lifted": {"queued_runs": "none"},
    "unused": {"submissions_per_minute": 5, "event_bytes": 1000, "storage_bytes": 1000},
}
CONFIG: dict[str, Any] = {
    "limits": {"queued_runs": 1000},
    "workspaces": LIMITS,
    "queues": {"one": {"concurrency": 1}},
}


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    one = Daemon(tmp_path_factory.mktemp("limited"), config=CONFIG)
    try:
        one.start()
        for name in LIMITS:
            made_workspace(one, name)
        yield one
    finally:
        one.close()


def submit(one: Daemon, workspace: str, target: str = "echo", key: str | None = None, **fields: Any) -> httpx2.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"kind": "agent", "target": target, "goal": "goal", **fields}
    return one.client.post(one.path("runs", workspace), json=body, headers=headers)


def at_once(one: Daemon, workspace: str, bodies: list[tuple[dict[str, Any], str | None]]) -> list[httpx2.Response]:
    """All submitted at the same time, by fifty clients."""
    headers = {"Authorization": f"Bearer {one.token}"}

    def send(clients: httpx2.Client, body: dict[str, Any], key: str | None) -> httpx2.Response:
        named = {} if key is None else {"Idempotency-Key": key}
        return clients.post(one.path("runs", workspace), json=body, headers=named)

    limits = httpx2.Limits(max_connections=50)
    with (
        httpx2.Client(base_url=one.url, headers=headers, timeout=60, limits=limits) as client,
        ThreadPoolExecutor(50) as pool,
    ):
        return list(pool.map(lambda each: send(client, *each), bodies))


def use(one: Daemon, workspace: str) -> dict[str, Any]:
    found: dict[str, Any] = one.client.get(f"/v1/workspaces/{workspace}").json()["use"]
    return found


def refused(answer: httpx2.Response, limit: str, value: int) -> int:
    """Checks a refusal; after how many seconds to come again."""
    assert answer.status_code == 429, answer.text
    said = answer.json()
    assert (said["code"], said["limit"]) == ("busy", limit)
    for part in (limit, str(value), "configuration"):
        assert part in said["detail"]
    return int(answer.headers["retry-after"])


BODY = {"kind": "agent", "target": "awaiter", "goal": "goal"}


def test_of_two_hundred_at_once_exactly_ten_are_accepted_also_after_a_kill(limited: Daemon) -> None:
    answers = at_once(limited, "ten", [(BODY, None)] * 200)
    assert Counter(answer.status_code for answer in answers) == {202: 10, 429: 190}
    for answer in answers:
        assert answer.status_code == 202 or refused(answer, "active_runs", 10) >= 1
    items = limited.client.get(limited.path("runs", "ten"), params={"limit": 500}).json()["items"]
    assert {run["id"] for run in items} == {each.json()["run"]["id"] for each in answers if each.status_code == 202}
    limited.kill()
    limited.start()
    assert Counter(answer.status_code for answer in at_once(limited, "ten", [(BODY, None)] * 50)) == {429: 50}
    assert use(limited, "ten")["active_runs"] == 10
    limited.client.post(limited.path(f"runs/{items[0]['id']}/stop", "ten"), json={"mode": "now"})
    wait_until(lambda: use(limited, "ten")["active_runs"] == 9)
    answers = at_once(limited, "ten", [(BODY, None)] * 20)
    assert Counter(answer.status_code for answer in answers) == {202: 1, 429: 19}


def test_a_replay_is_never_refused_and_takes_no_place(limited: Daemon) -> None:
    bodies = [({**BODY, "goal": f"goal {key}"}, f"key-{key}") for key in range(8) for _ in range(10)]
    answers = at_once(limited, "three", bodies)
    made: dict[str, set[str]] = {}
    for (_, key), answer in zip(bodies, answers, strict=True):
        assert key is not None
        if answer.status_code != 429:
            made.setdefault(key, set()).add(answer.json()["run"]["id"])
    assert len(made) == 3, "three keys found room, whichever"
    assert all(len(runs) == 1 for runs in made.values())
    assert use(limited, "three")["active_runs"] == 3
    for body, key in bodies:
        again = submit(limited, "three", key=key, **body)
        if key in made:
            assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
        else:
            refused(again, "active_runs", 3)
    key = next(iter(made))
    assert submit(limited, "three", key=key, goal="another").status_code == 409
    run_id = made[key].pop()
    rerun = limited.client.post(limited.path(f"runs/{run_id}/stop", "three"), json={"mode": "now"})
    assert rerun.status_code == 202, "a full workspace can be stopped"
    wait_until(lambda: use(limited, "three")["active_runs"] == 2)
    assert submit(limited, "three", "awaiter").status_code == 202
    refused(limited.client.post(limited.path(f"runs/{run_id}/rerun", "three")), "active_runs", 3)


def test_runs_that_wait_in_a_queue_are_limited_and_those_that_run_are_not(limited: Daemon) -> None:
    blocks = submit(limited, "queue", "awaiter", queue="one").json()["run"]["id"]
    wait_until(lambda: use(limited, "queue")["queued_runs"] == 0)
    later = submit(limited, "queue", run_at="2999-01-01T00:00:00Z").json()["run"]["id"]
    waiting = [submit(limited, "queue", queue="one") for _ in range(4)]
    assert [answer.status_code for answer in waiting] == [202, 202, 429, 429]
    refused(waiting[-1], "queued_runs", 3)
    assert use(limited, "queue") == {
        "active_runs": 4, "queued_runs": 3, "submissions_per_minute": None, "event_bytes": None, "storage_bytes": None,
    }  # fmt: skip
    limited.kill()
    limited.start()
    refused(submit(limited, "queue"), "queued_runs", 3)
    for run_id in (blocks, later):
        limited.client.post(limited.path(f"runs/{run_id}/stop", "queue"), json={"mode": "now"})
    wait_until(lambda: use(limited, "queue")["active_runs"] == 0)
    assert submit(limited, "queue").status_code == 202


def test_submissions_in_a_minute_are_limited_and_the_refusal_says_until_when(limited: Daemon) -> None:
    answers = at_once(limited, "rate", [({**BODY, "target": "echo"}, None)] * 20)
    assert Counter(answer.status_code for answer in answers) == {202: 5, 429: 15}
    assert all(1 <= refused(each, "submissions_per_minute", 5) <= 60 for each in answers if each.status_code == 429)
    limited.kill()
    limited.start()
    assert 1 <= refused(submit(limited, "rate"), "submissions_per_minute", 5) <= 60
    assert use(limited, "rate")["submissions_per_minute"] == 5


def test_children_take_part_in_what_is_used_and_are_not_refused(limited: Daemon) -> None:
    inputs = {"child": "sleeper", "child_inputs": {"seconds": 60}}
    parent = submit(limited, "family", "parent", inputs=inputs).json()["run"]["id"]
    wait_until(lambda: use(limited, "family")["active_runs"] == 2)
    refused(submit(limited, "family"), "active_runs", 1)
    limited.client.post(limited.path(f"runs/{parent}/stop", "family"), json={"mode": "now"})
    wait_until(lambda: use(limited, "family")["active_runs"] == 0)
    assert submit(limited, "family").status_code == 202


def test_a_full_workspace_keeps_no_more_from_outside_but_lets_its_runs_end(limited: Daemon) -> None:
    asker = submit(limited, "small", "asker").json()["run"]["id"]
    waiter = submit(limited, "small", "signaller").json()["run"]["id"]
    approval = wait_until(lambda: limited.client.get(limited.path("approvals", "small")).json()["items"])[0]

    def send(data: str, key: str) -> httpx2.Response:
        path = limited.path(f"runs/{waiter}/signals/other", "small")
        return limited.client.post(path, json={"data": data}, headers={"Idempotency-Key": key})

    first = send("x" * 15_000, "first")
    assert first.status_code == 202
    assert use(limited, "small")["storage_bytes"] > 15_000
    assert send("y" * 5_000, "second").status_code == 202
    assert refused(send("z", "third"), "storage_bytes", 20_000) >= 1
    again = send("x" * 15_000, "first")
    assert (again.status_code, again.json()) == (200, first.json()), "a replay keeps nothing new"
    refused(submit(limited, "small"), "storage_bytes", 20_000)
    answer = limited.client.post(limited.path(f"approvals/{approval['id']}", "small"), json={"decision": "approve"})
    assert answer.status_code == 200
    stop = limited.client.post(limited.path(f"runs/{waiter}/stop", "small"), json={})
    assert stop.status_code == 202
    wait_until(lambda: use(limited, "small")["active_runs"] == 0)
    assert limited.client.get(limited.path(f"runs/{asker}", "small")).json()["status"] == "ok"


def test_bytes_are_the_same_counted_as_they_come_and_counted_anew(limited: Daemon) -> None:
    while submit(limited, "quiet", inputs={"text": "é" * 100}).status_code == 202:
        wait_until(lambda: use(limited, "quiet")["active_runs"] == 0)
    limited.client.post(limited.path("runs", "small"), json=BODY)
    before = {name: use(limited, name) for name in ("quiet", "small")}
    assert before["quiet"]["event_bytes"] >= 2_000
    assert before["quiet"]["storage_bytes"] is None
    limited.kill()
    limited.start()
    for name, known in before.items():
        wait_until(lambda name=name, known=known: use(limited, name) == known)
    refused(submit(limited, "quiet"), "event_bytes", 2_000)


def test_what_hooks_leave_and_what_a_pipeline_shows_is_counted_as_it_comes(daemon: Callable[..., Daemon]) -> None:
    hooks = {
        "asked": {"use": "python", "point": "pre_run", "function": "tests.hooks_for_tests:note"},
        "told": {"use": "command", "point": "post_run", "argv": ["/bin/echo", "é" * 50]},
    }
    agents = {"team": {"use": "pipeline"}, "steps": {"use": "function", "function": "agents_for_tests:steps"}}
    one = daemon(config={"limits": {"storage_bytes": 10_000_000}, "hooks": hooks, "agents": agents})
    sent = lambda: one.client.get(one.path("hooks/deliveries"), params={"point": "post_run"}).json()["items"]
    known = 0
    for target, mode in (("team", "simulation"), ("steps", "live"), ("team", "simulation")):
        assert submit(one, "default", target, mode=mode).status_code == 202
        wait_until(lambda: use(one, "default")["active_runs"] == 0)
        wait_until(lambda: {each["status"] for each in sent()} == {"ok"})
        assert use(one, "default")["storage_bytes"] > known
        known = use(one, "default")["storage_bytes"]
    one.kill()
    one.start()
    wait_until(lambda: use(one, "default")["storage_bytes"] == known)


def test_limits_of_a_workspace_come_before_those_for_all_and_are_shown(limited: Daemon) -> None:
    none = dict.fromkeys(("active_runs", "queued_runs", "submissions_per_minute", "event_bytes", "storage_bytes"))
    for name, limits in (
        ("default", {"queued_runs": 1000}),
        ("rate", {"queued_runs": 1000, **LIMITS["rate"]}),
        ("lifted", {}),
    ):
        shown = limited.client.get(f"/v1/workspaces/{name}").json()
        queues = limited.client.get(limited.path("queues", name)).json()
        assert shown["limits"] == queues["limits"] == none | limits
        assert shown["use"] == queues["use"]
        assert set(queues["items"][0]) == {"name", "concurrency", "running", "queued"}
    refused(submit(limited, "shut"), "active_runs", 0)
    figures = limited.client.get("/metrics").text
    assert 'latticed_refusals_total{limit="active_runs",workspace="shut"} 1.0' in figures


def test_of_what_is_limited_the_use_is_known_from_the_beginning(limited: Daemon) -> None:
    none = {"active_runs": 0, "queued_runs": 0}
    for _ in range(2):
        assert use(limited, "unused") == none | dict.fromkeys(LIMITS["unused"], 0)
        limited.restart()


def test_a_reload_changes_limits(limited: Daemon) -> None:
    reloads = limited.log.count('"reloaded"')
    limited.configure(
        CONFIG | {"workspaces": LIMITS | {"shut": {"active_runs": 2}, "lifted": {"submissions_per_minute": 1}}}
    )
    assert submit(limited, "lifted").status_code == 202
    limited.process.send_signal(signal.SIGHUP)
    wait_until(lambda: limited.log.count('"reloaded"') > reloads)
    answers = at_once(limited, "shut", [(BODY, None)] * 10)
    assert Counter(answer.status_code for answer in answers) == {202: 2, 429: 8}
    assert submit(limited, "lifted").status_code == 429, "what came before the limit counts"

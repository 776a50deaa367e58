"""Lists, page by page."""

from typing import Any

from tests.conftest import Daemon


def test_the_last_page_of_every_list_has_no_cursor(live: Daemon) -> None:
    live.client.post("/v1/workspaces", json={"name": "pages"})
    runs = [live.post_run("steps", workspace="pages", inputs={"n": 3}, wait=10)["id"] for _ in range(4)]
    lists = ["runs", "events", "tokens", "audit", *(f"runs/{runs[0]}/{tail}" for tail in ("steps", "events", "replay"))]
    for _ in range(2):
        live.client.post(live.path("tokens", "pages"), json={"role": "viewer"})
    for tail in [*lists, "agents", "queues"]:
        whole = live.client.get(live.path(tail, "pages"), params={"limit": 500}).json()
        assert whole["next_cursor"] is None, tail
        count = len(whole["items"])
        for limit in {1, count // 2, count - 1, count} - {0}:
            found, cursors = [], [None]
            while len(cursors) == 1 or cursors[-1] is not None:
                at = {} if cursors[-1] is None else {"cursor": cursors[-1]}
                part = live.client.get(live.path(tail, "pages"), params={"limit": limit, **at}).json()
                found += part["items"]
                cursors.append(part["next_cursor"])
            assert (found, len(cursors) - 1) == (whole["items"], -(-count // limit)), (tail, limit)


def test_a_page_of_events_goes_on_at_its_cursor_whatever_after_said(live: Daemon) -> None:
    tail = f"runs/{live.run('steps', inputs={'n': 3})['id']}/events"
    first = live.client.get(live.path(tail), params={"after": 1, "limit": 2}).json()
    params = {"after": 1, "limit": 2, "cursor": first["next_cursor"]}
    second = live.client.get(live.path(tail), params=params).json()
    assert [event["seq"] for event in first["items"] + second["items"]] == [2, 3, 4, 5]


async def large(ctx: Any, goal: str, inputs: dict[str, Any]) -> None:
    """24 events of 250 KiB and 8 steps of 1000 KiB."""
    for _ in range(24):
        await ctx.emit("x.large", text="e" * 250 * 1024)
    for _ in range(8):
        await ctx.step("large", lambda: "s" * 1000 * 1024)


def test_a_page_ends_early_by_its_bytes_and_the_next_goes_on(quick: Daemon) -> None:
    quick.client.post("/v1/workspaces", json={"name": "large"})
    run_id = quick.post_run("large", workspace="large", wait=30)["id"]
    counts = {"events": 24, f"runs/{run_id}/events": 24, f"runs/{run_id}/replay": 24, f"runs/{run_id}/steps": 8}
    for tail, many in counts.items():
        found, cursors = [], [None]
        while len(cursors) == 1 or cursors[-1] is not None:
            at = {} if cursors[-1] is None else {"cursor": cursors[-1]}
            answer = quick.client.get(quick.path(tail, "large"), params={"limit": 500, **at})
            assert len(answer.content) < 6_000_000, tail
            found += answer.json()["items"]
            cursors.append(answer.json()["next_cursor"])
        assert len(cursors) - 1 == 2, tail
        names = [item.get("type") or item.get("event") or item["name"] for item in found]
        assert (names.count("x.large") or names.count("large")) == many, tail

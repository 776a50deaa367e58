"""Lesson 8: signals.

A signal is data that somebody sends to a run by name. `ctx.wait_signal(name)` takes the next one. It does not matter
which comes first, the signal or the waiting: signals are kept, in order, until they are asked for.
"""

from typing import Any

from latticed import Context
from latticed.errors import SignalTimeout
from tests.conftest import Daemon


def send(one: Daemon, run_id: str, name: str, data: Any) -> int:
    answer = one.client.post(one.path(f"runs/{run_id}/signals/{name}"), json={"data": data})
    return int(answer.status_code)


async def collect(ctx: Context, goal: str, inputs: dict[str, Any]) -> list[Any]:
    parcels = []
    while (parcel := await ctx.wait_signal("parcel")) != "last":
        parcels.append(parcel)
        await ctx.progress(len(parcels))
    return parcels


def test_a_run_takes_signals_in_the_order_in_which_they_were_sent(lessons: Daemon) -> None:
    run_id = lessons.post_run("collect")["id"]
    for parcel in ("a book", {"kind": "shoes", "size": 42}):
        assert send(lessons, run_id, "parcel", parcel) == 202
    lessons.wait(run_id, "waiting")  # It has taken both by now, or will: nothing is lost.
    send(lessons, run_id, "letter", "is none of its business")
    send(lessons, run_id, "parcel", "last")
    assert lessons.wait(run_id)["output"] == ["a book", {"kind": "shoes", "size": 42}]


async def wait_a_moment(ctx: Context, goal: str, inputs: dict[str, Any]) -> Any:
    try:
        return await ctx.wait_signal("never", timeout_seconds=0.3)
    except SignalTimeout:
        return "nobody came"


def test_waiting_may_have_an_end(lessons: Daemon) -> None:
    assert lessons.run("wait_a_moment")["output"] == "nobody came"

"""What was to be sent and was not for days: it waits for the daemon, and is given up only if nobody can send it."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.conftest import Daemon, wait_until
from tests.contract.test_deliveries import CRASH, deliveries, delivery, webhook
from tests.receiver import ALLOWED, Receiver, plain

Make = Callable[..., Daemon]

DAYS = 2 * 86_400 * 1_000_000


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver(behaviour=lambda request, channel: plain(503))
    try:
        yield made
    finally:
        made.close()


def sleep_for_days(one: Daemon) -> None:
    """The daemon is not there for two days: as if its clock, and that of all others, had gone on."""
    one.kill()
    with closing(sqlite3.connect(one.state_dir / "latticed.db")) as database, database:
        database.execute(
            "UPDATE hook_deliveries SET due_at = due_at - :days, created_at = created_at - :days", {"days": DAYS}
        )


def test_what_fell_due_while_the_daemon_was_down_is_sent(daemon: Make, receiver: Receiver) -> None:
    one = daemon(config={"hooks": {"every": webhook(receiver)}, "webhooks": ALLOWED})
    runs = [one.run("echo")["id"] for _ in range(40)]  # more than one look brings
    wait_until(lambda: len(receiver.requests) >= 40)
    sleep_for_days(one)
    receiver.behaviour = lambda request, channel: plain()
    one.start()
    assert {delivery(one, run_id, "every", "ok", "dead")["status"] for run_id in runs} == {"ok"}


def test_what_nobody_can_send_is_given_up_after_a_day(daemon: Make, receiver: Receiver) -> None:
    hooks = {"there": webhook(receiver), "off": webhook(receiver), "gone": webhook(receiver)}
    one = daemon(config={"hooks": hooks, "webhooks": ALLOWED})
    run_id = one.run("echo")["id"]
    wait_until(lambda: len(receiver.requests) >= 3)
    sleep_for_days(one)
    receiver.behaviour = lambda request, channel: plain()
    one.configure({"hooks": {"there": hooks["there"], "off": hooks["off"] | {"enabled": False}}, "webhooks": ALLOWED})
    one.start()
    wait_until(lambda: {each["status"] for each in deliveries(one, run_id)} == {"ok", "dead"})
    told = {each["hook"]: (each["status"], each["detail"]) for each in deliveries(one, run_id)}
    reason = "for a day its hook was disabled, or not there"
    assert told == {"there": ("ok", None), "off": ("dead", reason), "gone": ("dead", reason)}


def test_what_waits_is_sent_as_what_it_was_and_where_its_hook_leads_now(daemon: Make, receiver: Receiver) -> None:
    receiver.behaviour = lambda request, channel: plain(503, b"", "Retry-After: 3600")
    other = Receiver()
    one = daemon(config={"webhooks": ALLOWED})
    one.client.post(one.path("hooks"), json={"name": "mine", "point": "post_run", "url": receiver.url})
    run_id = one.run("echo")["id"]
    kept = wait_until(lambda: [each for each in deliveries(one, run_id) if each["attempts"]])[0]
    change = {"point": "pre_tool", "url": other.url}
    assert one.client.patch(one.path("hooks/mine"), json=change).status_code == 200
    assert one.client.post(one.path(f"hooks/deliveries/{kept['id']}/redeliver")).status_code == 202
    [request] = wait_until(lambda: other.about(run_id))
    assert (request.event["type"], request.event["data"]["point"]) == ("latticed.run.finished", "post_run")
    assert delivery(one, run_id, "mine", "ok")["id"] == request.id
    other.close()


def test_what_is_sent_and_what_is_not_can_be_counted(daemon: Make, receiver: Receiver) -> None:
    pauses = [0.02, 0.02]
    hooks = {"every": webhook(receiver), "raises": {"use": "python", "point": "post_run", "function": CRASH}}
    one = daemon(config={"hooks": hooks, "webhooks": {**ALLOWED, "retry_seconds": pauses}})

    def figures(*names: str) -> list[float]:
        lines = dict(line.rsplit(" ", 1) for line in one.client.get("/metrics").text.splitlines())
        return [float(lines.get(f"latticed_{name}", 0)) for name in names]

    asked = 'hooks_asked_total{point="post_run",sort="%s",status="%s"}'
    names = (asked % ("webhook", "ok"), asked % ("webhook", "error"), asked % ("python", "error"))
    assert figures(*names, "deliveries_pending", "deliveries_dead_total") == [0, 0, 0, 0, 0]
    dead = one.run("echo")["id"]
    delivery(one, dead, "every", "dead")
    wait_until(lambda: figures(*names, "deliveries_pending", "deliveries_dead_total") == [0, 3, 1, 0, 1])
    receiver.behaviour = lambda request, channel: plain(503, b"", "Retry-After: 3600")
    one.run("echo")
    wait_until(lambda: figures(*names, "deliveries_pending", "deliveries_dead_total") == [0, 4, 2, 1, 1])

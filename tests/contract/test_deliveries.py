"""What hooks are told after the fact: of each end of a run, and of events; once at least, under one id."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.conftest import Daemon, wait_until
from tests.receiver import ALLOWED, Receiver, plain
from tests.timeline import begun, children, pending_question, well_ended

Make = Callable[..., Daemon]
Json = dict[str, Any]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVENTS = ["run.started", "step.finished", "hook.finished"]
CRASH = "tests.hooks_for_tests:crash"
PAUSES = [0.05, 0.05, 0.05]


def webhook(receiver: Receiver, point: str = "post_run", **more: Any) -> Json:
    return {"use": "webhook", "point": point, "url": receiver.url, **more}


def agents(*names: str) -> Json:
    """Agents of these names, which only echo."""
    return {name: {"use": "function", "function": "agents_for_tests:echo"} for name in names}


class Place:
    """A daemon and those it tells."""

    def __init__(self, home: Path) -> None:
        self.every, self.failing, self.hanging, self.slow, self.signed, self.events = (Receiver() for _ in range(6))
        hooks = {
            "every": webhook(self.every),
            "failing": webhook(self.failing, targets=["failing"]),
            "hanging": webhook(self.hanging, targets=["hanging"], timeout_seconds=0.3),
            "slow": webhook(self.slow, targets=["hanging"], timeout_seconds=60),
            "signed": webhook(self.signed, targets=["signed"], secret="secret:notify"),
            "events": webhook(self.events, "on_event", targets=["steps"], events=EVENTS),
            "raises": {"use": "python", "point": "post_run", "function": CRASH, "targets": ["raises"]},
            "off": webhook(self.every, enabled=False),
            "elsewhere": webhook(self.every, workspaces=["other"]),
            "flows": webhook(self.every, kind="flow"),
        }  # fmt: skip
        config = {
            "hooks": hooks,
            "webhooks": {**ALLOWED, "retry_seconds": PAUSES},
            "agents": agents("failing", "hanging", "signed", "raises"),
            "runs": {"park_seconds": 0.05},
        }
        self.daemon = Daemon(home, config=config, env={"LATTICED_SECRET_NOTIFY": SECRET})
        self.daemon.start()

    def close(self) -> None:
        for each in (self.every, self.failing, self.hanging, self.slow, self.signed, self.events):
            each.close()
        self.daemon.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("deliveries"))
    try:
        yield made
    finally:
        made.close()


def deliveries(one: Daemon, run_id: str, **filters: Any) -> list[Json]:
    """The executions of hooks about a run, newest first."""
    answer = one.client.get(one.path("hooks/deliveries"), params={"run": run_id, **filters})
    assert answer.status_code == 200, answer.text
    items: list[Json] = answer.json()["items"]
    return items


def delivery(one: Daemon, run_id: str, hook: str, *statuses: str) -> Json:
    """The one delivery of a hook about a run, once it has one of these statuses."""

    def settled() -> Json | None:
        found = deliveries(one, run_id, hook=hook)
        assert len(found) <= 1, found
        return found[0] if found and found[0]["status"] in statuses else None

    found = wait_until(settled)
    assert found is not None
    return found


def feed(one: Daemon, run_id: str) -> list[Json]:
    """What the workspace's feed says of deliveries about a run."""
    found: list[Json] = []
    after = "0"
    while True:
        page = one.client.get(
            one.path("events"), params={"after": after, "limit": 500, "types": "hook.finished"}
        ).json()
        found += [event for event in page["items"] if event["run_id"] == run_id and event["seq"] is None]
        if page["next_cursor"] is None:
            return found
        after = page["next_cursor"]


def told_once(place: Place, run_id: str, status: str) -> None:
    """The receiver of every end got this one, under the id that is on record."""
    place.daemon.wait(run_id, status)
    kept = delivery(place.daemon, run_id, "every", "ok")
    [request] = place.every.about(run_id)
    assert request.id == kept["id"]
    assert request.event["data"]["run"]["status"] == status
    assert request.event["data"]["run"] == place.daemon.get(run_id)


# Every end


def test_a_run_that_ends_well_is_told(place: Place) -> None:
    one = place.daemon
    run = one.run("echo", "hello", inputs={"a": 1})
    told_once(place, run["id"], "ok")
    [request] = place.every.about(run["id"])
    data = request.event["data"]
    assert (data["hook"], data["point"], data["workspace"]) == ("every", "post_run", "default")
    assert set(data) == {"hook", "point", "workspace", "run"}
    assert request.event["type"] == "latticed.run.finished"
    assert request.event["subject"] == run["id"]
    assert request.event["time"] == run["finished_at"]


def test_it_is_on_record_and_in_the_feed_and_not_in_the_run(place: Place) -> None:
    one = place.daemon
    run_id = one.run("echo")["id"]
    kept = delivery(one, run_id, "every", "ok")
    [told] = wait_until(lambda: feed(one, run_id))
    assert told["data"] == {
        "hook": "every", "point": "post_run", "sort": "webhook", "delivery_id": kept["id"], "status": "ok",
        "attempt": 1, "duration_ms": kept["duration_ms"], "detail": None, "output": "", "next_at": None,
    }  # fmt: skip
    assert (told["type"], told["kind"]) == ("hook.finished", "agent")
    events = one.events(run_id)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "run.finished"
    assert one.events(run_id, "hook.finished") == []
    assert (kept["attempts"], kept["sort"], kept["hook_id"], kept["due_at"]) == (1, "webhook", None, None)
    assert one.client.get(one.path(f"hooks/deliveries/{kept['id']}")).json() == kept


def test_every_other_end_is_told_too(place: Place) -> None:
    one = place.daemon
    running = begun(one, "awaiter")
    waiting, approval = begun(one, "long_wait", {"what": "sleep"}), begun(one, "asker")
    queued = one.post_run("echo", run_at="2999-01-01T00:00:00Z")["id"]
    one.wait(waiting, "waiting")
    one.wait(approval, "awaiting_approval")
    for run_id in (running, waiting, queued):
        one.stop_run(run_id, mode="now")
        told_once(place, run_id, "cancelled")
    question = pending_question(one, approval)
    assert one.client.post(one.path(f"approvals/{question}"), json={"decision": "deny"}).status_code == 200
    told_once(place, approval, "rejected")
    for target, fields in (("failer", {"inputs": {"failures": 9}}), ("awaiter", {"deadline_seconds": 0.2})):
        told_once(place, one.post_run(target, **fields)["id"], "failed")
    late = one.post_run("long_wait", inputs={"what": "sleep"}, deadline_seconds=0.3)["id"]
    told_once(place, late, "failed")
    retried = one.post_run("failer", inputs={"failures": 1}, max_retries=1)["id"]
    told_once(place, retried, "retried_ok")


def test_children_are_told_of_like_their_parents(place: Place) -> None:
    one = place.daemon
    parent = one.run("parent")["id"]
    born = children(one, parent)
    assert born
    for each in (one.get(parent), *born):
        told_once(place, each["id"], one.get(each["id"])["status"])


# Trouble


def test_a_receiver_that_fails_is_tried_again_with_the_same_id(place: Place) -> None:
    one = place.daemon
    place.failing.answers += [plain(500, b"not now"), plain(503, b"", "Retry-After: 0")]
    run_id = one.run("failing")["id"]
    kept = delivery(one, run_id, "failing", "ok")
    requests = place.failing.about(run_id)
    assert [request.id for request in requests] == [kept["id"]] * 3
    assert len({request.body for request in requests}) == 1
    assert (kept["attempts"], kept["detail"]) == (3, None)
    events = [event["data"] for event in wait_until(lambda: len(feed(one, run_id)) == 4 and feed(one, run_id))]
    tries = [event for event in events if event["hook"] == "failing"]
    assert [(event["attempt"], event["status"], event["detail"]) for event in tries] == [
        (1, "error", "it answered 500"), (2, "error", "it answered 503"), (3, "ok", None),
    ]  # fmt: skip
    assert [bool(event["next_at"]) for event in tries] == [True, True, False]
    assert tries[0]["output"] == "not now"
    assert one.get(run_id)["status"] == "ok"


def test_after_the_last_try_it_is_dead_until_it_is_sent_again(place: Place) -> None:
    one = place.daemon
    place.failing.answers += [plain(500)] * (len(PAUSES) + 1)
    run_id = one.run("failing")["id"]
    dead = delivery(one, run_id, "failing", "dead")
    place.failing.answers += [plain(500)]
    assert (dead["attempts"], dead["due_at"], dead["detail"]) == (len(PAUSES) + 1, None, "it answered 500")
    path = one.path(f"hooks/deliveries/{dead['id']}/redeliver")
    again = one.client.post(path)
    assert (again.status_code, again.json()["id"]) == (202, dead["id"])
    assert delivery(one, run_id, "failing", "ok")["attempts"] == len(PAUSES) + 3, "with all its tries anew"
    assert one.client.post(path).status_code == 202, "what was delivered can be sent again, too"
    wait_until(lambda: len(place.failing.about(run_id)) == len(PAUSES) + 4)
    assert {request.id for request in place.failing.about(run_id)} == {dead["id"]}
    wait_until(lambda: deliveries(one, run_id, hook="failing")[0]["attempts"] == len(PAUSES) + 4)


def test_a_receiver_that_hangs_holds_up_nobody(place: Place) -> None:
    one = place.daemon
    place.hanging.behaviour = lambda request, channel: place.hanging.over.wait() and None
    let_go = threading.Event()
    place.slow.behaviour = lambda request, channel: plain() if let_go.wait() else None
    runs = [one.post_run("hanging")["id"] for _ in range(20)]
    for run_id in runs:
        told_once(place, run_id, "ok")
    waits = [deliveries(one, run_id, hook="slow")[0]["status"] for run_id in runs]
    assert set(waits) == {"pending"}, "all others are told meanwhile"
    let_go.set()
    assert delivery(one, runs[-1], "slow", "ok")["attempts"] == 1
    held = delivery(one, runs[0], "hanging", "dead")
    assert held["detail"] == "no answer within 0.3 s"
    assert {event["data"]["status"] for event in feed(one, runs[0]) if event["data"]["hook"] == "hanging"} == {
        "timeout"
    }


def test_a_hook_of_this_machine_that_fails_has_answered(place: Place) -> None:
    one = place.daemon
    run_id = one.run("raises")["id"]
    kept = delivery(one, run_id, "raises", "error")
    assert kept["attempts"] == 1
    assert "RuntimeError" in kept["detail"]
    assert well_ended(one, run_id, "ok")["error"] is None


def test_a_registered_hook_whose_receiver_is_gone_is_disabled(place: Place) -> None:
    one = place.daemon
    receiver = Receiver(answers=[plain(410)])
    made = one.client.post(one.path("hooks"), json={"name": "leaving", "point": "post_run", "url": receiver.url}).json()
    run_id = one.run("echo")["id"]
    dead = delivery(one, run_id, "leaving", "dead")
    assert (dead["attempts"], dead["detail"], dead["hook_id"]) == (1, "it answered 410", made["id"])
    wait_until(lambda: not one.client.get(one.path("hooks/leaving")).json()["enabled"])
    told_once(place, one.run("echo")["id"], "ok")
    assert len(receiver.requests) == 1
    assert one.client.post(one.path(f"hooks/deliveries/{dead['id']}/redeliver")).status_code == 409
    assert one.client.patch(one.path("hooks/leaving"), json={"enabled": True}).json()["enabled"]
    assert one.client.post(one.path(f"hooks/deliveries/{dead['id']}/redeliver")).status_code == 202
    delivery(one, run_id, "leaving", "ok")
    assert one.client.delete(one.path("hooks/leaving")).status_code == 204
    receiver.close()


def test_what_waits_for_a_hook_that_is_deleted_is_skipped(place: Place) -> None:
    one = place.daemon
    receiver = Receiver(lambda request, channel: plain(503, b"", "Retry-After: 3600"))
    one.client.post(one.path("hooks"), json={"name": "doomed", "point": "post_run", "url": receiver.url})
    run_id = one.run("echo")["id"]
    wait_until(lambda: deliveries(one, run_id, hook="doomed")[0]["attempts"] == 1)
    kept = deliveries(one, run_id, hook="doomed")[0]
    assert (kept["status"], kept["detail"]) == ("pending", "it answered 503")
    assert kept["due_at"] > kept["finished_at"]
    held = one.run("echo")["id"]
    assert deliveries(one, held, hook="doomed")[0]["attempts"] == 0, "it wants to be left alone"
    assert one.client.delete(one.path("hooks/doomed")).status_code == 204
    for each in (run_id, held):
        [skipped] = [item for item in deliveries(one, each) if item["id"] and item["hook"] != "every"]
        assert (skipped["status"], skipped["detail"], skipped["due_at"]) == ("skipped", "its hook was deleted", None)
    assert len(receiver.requests) == 1
    receiver.close()


# Events


def test_events_are_told_by_their_type(place: Place) -> None:
    one = place.daemon
    run_id = one.run("steps")["id"]
    expected = one.events(run_id, "run.started", "step.finished")
    assert len(expected) > 2
    wait_until(lambda: len(place.events.about(run_id)) >= len(expected))
    told = sorted((request.event["data"]["event"] for request in place.events.about(run_id)), key=lambda e: e["seq"])
    assert told == expected
    for request in place.events.about(run_id):
        assert request.event["type"] == "latticed.on_event"
        assert request.event["time"] >= request.event["data"]["event"]["at"]
    wait_until(lambda: {each["status"] for each in deliveries(one, run_id, point="on_event")} == {"ok"})
    kept = deliveries(one, run_id, point="on_event")
    assert len(kept) == len({each["id"] for each in kept}) == len(expected), "nobody is told of what was told"
    positions = {
        event["position"] for event in one.client.get(one.path("events"), params={"limit": 500}).json()["items"]
    }
    assert all(each["event_position"] is not None for each in kept)
    assert positions


# Secrets


def test_the_secret_signs_and_is_nowhere(place: Place) -> None:
    one = place.daemon
    run_id = one.run("signed")["id"]
    delivery(one, run_id, "signed", "ok")
    [request] = place.signed.about(run_id)
    assert Webhook(SECRET).verify(request.body, request.headers)["id"] == request.id
    with closing(sqlite3.connect(one.state_dir / "latticed.db")) as database:
        dump = "\n".join(database.iterdump())
    for text in (SECRET, SECRET.removeprefix("whsec_")):
        assert text not in dump
        assert text not in one.log
        assert text not in one.client.get(one.path("hooks")).text
        assert text.encode() not in request.body
        assert not any(text in value for value in request.headers.values())


# Crashes and ends


def test_what_a_crash_cuts_short_is_sent_again_with_the_same_id(daemon: Make) -> None:
    receiver = Receiver()
    receiver.behaviour = lambda request, channel: receiver.over.wait() and None
    one = daemon(config={"hooks": {"every": webhook(receiver, timeout_seconds=60)}, "webhooks": ALLOWED})
    runs = [one.run("echo")["id"] for _ in range(3)]
    interrupted = begun(one, "awaiter", recovery="interrupt")
    wait_until(lambda: len(receiver.requests) == 3)
    before = {request.run_id: request.id for request in receiver.requests}
    one.kill()
    receiver.behaviour = lambda request, channel: plain()
    one.start()
    for run_id in (*runs, interrupted):
        kept = delivery(one, run_id, "every", "ok")
        ids = {request.id for request in receiver.about(run_id)}
        assert ids == {kept["id"]}
        assert before.get(run_id, kept["id"]) == kept["id"]
        assert kept["attempts"] == 1
    assert receiver.about(interrupted)[0].event["data"]["run"]["status"] == "interrupted"
    receiver.close()


def test_a_drain_waits_for_no_receiver_and_loses_nothing(daemon: Make) -> None:
    receiver = Receiver()
    receiver.behaviour = lambda request, channel: receiver.over.wait() and None
    one = daemon(config={"hooks": {"every": webhook(receiver, timeout_seconds=60)}, "webhooks": ALLOWED})
    run_id = one.run("echo")["id"]
    given_back = begun(one, "awaiter", recovery="interrupt")
    wait_until(lambda: receiver.requests)
    assert one.stop(timeout=2 + 1 + 5) == 0
    receiver.behaviour = lambda request, channel: plain()
    one.start()
    for each in (run_id, given_back):
        kept = delivery(one, each, "every", "ok")
        assert {request.id for request in receiver.about(each)} == {kept["id"]}
    receiver.close()


def test_a_reload_changes_who_is_told(daemon: Make) -> None:
    old, new = Receiver(), Receiver()
    config: Json = {"hooks": {"every": webhook(old)}, "webhooks": ALLOWED}
    one = daemon(config=config)
    delivery(one, one.run("echo")["id"], "every", "ok")
    one.configure({"hooks": {"another": webhook(new)}, "webhooks": {"allow_private": []}})
    one.process.send_signal(1)
    wait_until(lambda: '"reloaded"' in one.log)
    run_id = one.run("echo")["id"]
    assert delivery(one, run_id, "another", "dead")["detail"].count("private")
    one.configure({"hooks": {"another": webhook(new)}, "webhooks": ALLOWED})
    one.process.send_signal(1)
    wait_until(lambda: one.log.count('"reloaded"') == 2)
    dead = deliveries(one, run_id)[0]
    assert one.client.post(one.path(f"hooks/deliveries/{dead['id']}/redeliver")).status_code == 202
    delivery(one, run_id, "another", "ok")
    assert (len(old.requests), len(new.requests)) == (1, 1)
    for each in (old, new):
        each.close()

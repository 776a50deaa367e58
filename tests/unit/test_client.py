"""What the client sends, and what it makes of each answer."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from latticed import errors
from latticed.client import Client
from latticed.client.timeline import MAX_RETRY_SECONDS, RETRY_SECONDS, Follower, frames
from latticed.client.transport import Transport, path
from tests.scripted import END, Answer, Scripted, event, problem


@pytest.fixture
def server() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.close()


@pytest.fixture
def client(server: Scripted) -> Iterator[Client]:
    with Client(server.url, "secret", "team a") as made:
        yield made


@pytest.fixture
def nowhere() -> str:
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


class SteppingClock:
    """A clock that a pause moves on."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.pauses: list[float] = []

    def now(self) -> int:
        return int(self.seconds * 1_000_000)

    def monotonic(self) -> float:
        return self.seconds

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.seconds += seconds


# What is sent


def test_a_submission_says_only_what_was_given(server: Scripted, client: Client) -> None:
    server.answers.append(Answer(202, {"run": {"id": "run_1"}}))
    answer = client.submit("echo", "hi", {"n": 1}, priority=0, tags={"team": "a"}, idempotency_key="k1")
    assert answer == {"run": {"id": "run_1"}}
    asked = server.asked[0]
    assert (asked.method, asked.path) == ("POST", "/v1/workspaces/team%20a/runs")
    assert asked.body == {
        "kind": "agent", "target": "echo", "goal": "hi", "inputs": {"n": 1}, "priority": 0, "tags": {"team": "a"},
    }  # fmt: skip
    assert asked.headers["authorization"] == "Bearer secret"
    assert asked.headers["idempotency-key"] == "k1"


def test_a_held_answer_is_asked_for_in_the_query(server: Scripted, client: Client) -> None:
    server.answers.append(Answer(202, {"run": {}}))
    client.submit("echo", wait_seconds=90)
    assert server.asked[0].path.endswith("/runs?wait=60")


@pytest.mark.parametrize(
    ("call", "method", "where", "body"),
    [
        (lambda c: c.get_run("run_1"), "GET", "/runs/run_1", None),
        (lambda c: c.list_runs(status="ok", limit=2), "GET", "/runs?status=ok&limit=2", None),
        (lambda c: c.list_runs(tag=["a:b", "c:d"], kind="agent"), "GET", "/runs?kind=agent&tag=a%3Ab&tag=c%3Ad", None),
        (lambda c: c.stop("run_1", mode="now", reason="r"), "POST", "/runs/run_1/stop", {"mode": "now", "reason": "r"}),
        (lambda c: c.cancel("run_1"), "POST", "/runs/run_1/cancel", {}),
        (lambda c: c.rerun("run_1", from_step="st_1"), "POST", "/runs/run_1/rerun", {"from_step": "st_1"}),
        (lambda c: c.why("run_1"), "GET", "/runs/run_1/why", None),
        (lambda c: c.list_steps("run_1", limit=1), "GET", "/runs/run_1/steps?limit=1", None),
        (lambda c: c.replay("run_1"), "GET", "/runs/run_1/replay", None),
        (lambda c: c.signal("run_1", "a/b", [1]), "POST", "/runs/run_1/signals/a%2Fb", {"data": [1]}),
        (lambda c: c.list_events("run_1", after=3), "GET", "/runs/run_1/events?after=3", None),
        (lambda c: c.list_feed(types=["log", "progress"]), "GET", "/events?types=log%2Cprogress", None),
        (lambda c: c.list_approvals(status="pending"), "GET", "/approvals?status=pending", None),
        (lambda c: c.answer("ap_1", "deny", data={}), "POST", "/approvals/ap_1", {"decision": "deny", "data": {}}),
        (lambda c: c.list_agents(), "GET", "/agents", None),
        (lambda c: c.list_queues(), "GET", "/queues", None),
        (lambda c: c.list_tokens(), "GET", "/tokens", None),
        (lambda c: c.create_token("viewer", lanes=["x"]), "POST", "/tokens", {"role": "viewer", "lanes": ["x"]}),
        (lambda c: c.revoke_token("tok_1"), "DELETE", "/tokens/tok_1", None),
    ],
)  # fmt: skip
def test_each_verb_is_one_request(
    server: Scripted, client: Client, call: Callable[[Client], Any], method: str, where: str, body: Any
) -> None:
    server.answers.append(Answer(200, {"items": []}))
    call(client)
    [asked] = server.asked
    assert (asked.method, asked.path, asked.body) == (method, f"/v1/workspaces/team%20a{where}", body)


def test_what_belongs_to_no_workspace_is_asked_for_outside_of_any(server: Scripted, client: Client) -> None:
    server.answers.extend([Answer(200, {}), Answer(200, {"items": []}), Answer(201, {"name": "b"})])
    client.whoami()
    client.list_workspaces()
    client.create_workspace("b")
    assert [(asked.method, asked.path) for asked in server.asked] == [
        ("GET", "/v1/whoami"), ("GET", "/v1/workspaces"), ("POST", "/v1/workspaces"),
    ]  # fmt: skip


@pytest.mark.parametrize("segment", ["..", ".", "", "\udcff"])
def test_an_id_that_means_another_path_is_not_found(server: Scripted, client: Client, segment: str) -> None:
    with pytest.raises(errors.NotFound):
        client.get_run(segment)
    assert server.asked == []


def test_an_id_with_slashes_stays_one_segment() -> None:
    assert path("v1", "../../x?y#z") == "/v1/..%2F..%2Fx%3Fy%23z"


@pytest.mark.parametrize(
    "what", [{"inputs": {"v": "\ud800"}}, {"inputs": {"v": float("nan")}}, {"idempotency_key": "ключ"}]
)
def test_what_cannot_be_sent_is_invalid(server: Scripted, client: Client, what: dict[str, Any]) -> None:
    with pytest.raises(errors.Invalid, match="cannot be sent"):
        client.submit("echo", **what)
    assert server.asked == []


# What is refused


@pytest.mark.parametrize("cls", errors.ERRORS.values())
def test_a_problem_is_raised_as_the_class_of_its_code(
    server: Scripted, client: Client, cls: type[errors.LatticedError]
) -> None:
    server.answers.append(problem(cls.code, cls.status, "said so"))
    with pytest.raises(cls, match="said so") as caught:
        client.whoami()
    assert type(caught.value) is cls


def test_a_problem_keeps_its_errors_and_its_retry_after(server: Scripted, client: Client) -> None:
    wrong = [{"loc": ["goal"], "msg": "is blank"}]
    server.answers.append(problem("invalid", 422, "no", errors=wrong))
    with pytest.raises(errors.Invalid) as invalid:
        client.submit("echo", " ")
    assert invalid.value.extra["errors"] == wrong
    server.answers.append(problem("busy", 429, "full", headers={"retry-after": "7"}))
    with pytest.raises(errors.Busy) as busy:
        client.submit("echo", "x")
    assert busy.value.retry_after == 7


def test_an_unreadable_request_is_told_from_an_invalid_one(server: Scripted, client: Client) -> None:
    server.answers.append(problem("invalid", 400, "not JSON"))
    with pytest.raises(errors.Unreadable):
        client.whoami()


@pytest.mark.parametrize(
    ("answer", "cls"),
    [
        (Answer(502, b"<html>bad gateway</html>"), errors.Unavailable),
        (Answer(404, b"nothing here"), errors.NotFound),
        (Answer(418, {"code": "teapot"}), errors.Internal),
        (Answer(500, [1, 2]), errors.Internal),
        (Answer(302, None, {"location": "/login"}), errors.Internal),
        (Answer(200, b"<html>hello</html>"), errors.Internal),
    ],
)
def test_a_server_that_is_no_daemon_is_named_as_such(
    server: Scripted, client: Client, answer: Answer, cls: type[errors.LatticedError]
) -> None:
    server.answers.append(answer)
    with pytest.raises(cls, match="is that a latticed daemon") as caught:
        client.whoami()
    assert server.url in caught.value.detail


def test_a_daemon_that_is_not_there_is_unavailable_and_the_error_says_what_to_look_at(nowhere: str) -> None:
    with Client(nowhere) as client, pytest.raises(errors.Unavailable) as caught:
        client.whoami()
    assert caught.value.detail == (
        f"cannot reach {nowhere} (connection refused). Is the daemon running (latticed serve), and is this its address?"
    )


def test_a_silent_daemon_is_unavailable_and_a_post_may_have_taken_effect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Client(url, answer_seconds=0.05) as client:
            with pytest.raises(errors.Unavailable, match="silent for too long; look whether it took effect"):
                client.submit("echo")
            with pytest.raises(errors.Unavailable, match="silent for too long; try again"):
                client.whoami()


@pytest.mark.parametrize("url", ["", "localhost:8700", "ftp://x", "http://", "http://[::1", "not an address"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(errors.Invalid, match="one looks like"):
        Client(url)


def test_a_token_copied_with_its_newline_is_refused_at_once() -> None:
    with pytest.raises(errors.Invalid, match="copied whole"):
        Client("http://127.0.0.1:1", "abc\n")


# Timelines


def test_frames_are_found_wherever_the_chunks_are_cut() -> None:
    text = (
        ": ping\r\n\r\nid: 7\r\nevent: a\r\ndata: one\r\ndata: two\u2028three\r\n\r\n"
        "retry: 250\n\ndata:x\r\rdata: cut off\n"
    )
    for size in range(1, len(text) + 1):
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        found = [frame for frame in frames(chunks) if frame is not None]
        assert [(f.event, f.data, f.id, f.retry_seconds) for f in found] == [
            ("a", "one\ntwo\u2028three", "7", None), ("message", "", None, 0.25), ("message", "x", None, None),
        ]  # fmt: skip


def test_a_ping_is_noticed_without_being_a_frame() -> None:
    assert list(frames([": ping\n\n"])) == [None]


def test_following_ends_at_end(server: Scripted, client: Client) -> None:
    server.answers.append(Answer(chunks=[event(1), ": ping\n\n", event(2) + END, event(3)]))
    assert [each["seq"] for each in client.follow("run_1")] == [1, 2]
    assert server.asked[0].headers["accept"] == "text/event-stream"
    assert "last-event-id" not in server.asked[0].headers


def test_following_a_finished_run_from_its_end_is_over_at_once(server: Scripted, client: Client) -> None:
    server.answers.append(Answer(204))
    assert list(client.follow("run_1", after=9)) == []
    assert server.asked[0].path.endswith("/events?after=9")


@pytest.mark.parametrize("cut", [True, False])
def test_a_broken_stream_goes_on_after_the_last_event(server: Scripted, client: Client, cut: bool) -> None:
    server.answers.extend(
        [
            Answer(chunks=["retry: 0\n\n", event(1), event(2)[:-1]], cut=cut),
            Answer(chunks=[event(2), event(3)], cut=cut),
            Answer(204),
        ]
    )
    assert [each["seq"] for each in client.follow("run_1")] == [1, 2, 3]
    assert [asked.headers.get("last-event-id") for asked in server.asked] == [None, "1", "3"]


def test_after_bye_the_stream_is_opened_again_when_the_daemon_said(server: Scripted) -> None:
    clock = SteppingClock()
    transport = Transport(server.url, None)
    server.answers.extend(
        [
            Answer(chunks=[event(1), "event: bye\nretry: 3000\ndata: {}\n\n", event(9)]),
            problem("unavailable", 503, "draining"),
            Answer(chunks=[event(2), END]),
        ]
    )
    notices: list[str] = []
    follower = Follower(transport, "/events", clock=clock, pause=clock.pause, notice=notices.append)
    assert [each["seq"] for each in follower.events()] == [1, 2]
    assert clock.pauses == [3.0, 3.0]
    assert notices == ["lost the daemon (draining) and trying again for 60 s", "the daemon is there again"]
    transport.close()


def test_a_daemon_that_stays_away_is_given_up_after_a_while(server: Scripted) -> None:
    clock = SteppingClock()
    transport = Transport(server.url, None)
    server.answers.append(Answer(chunks=[event(1)]))
    server.answers.extend(problem("unavailable", 503, "draining") for _ in range(50))
    follower = Follower(transport, "/events", clock=clock, pause=clock.pause, patience_seconds=20)
    seen = []
    with pytest.raises(errors.Unavailable, match="draining"):
        seen.extend(each["seq"] for each in follower.events())
    assert 20 < clock.seconds < 20 + 2 * MAX_RETRY_SECONDS
    assert clock.pauses[:4] == [RETRY_SECONDS, RETRY_SECONDS, 2 * RETRY_SECONDS, 4 * RETRY_SECONDS]
    transport.close()


def test_a_refusal_is_not_tried_again(server: Scripted, client: Client) -> None:
    server.answers.extend([Answer(chunks=["retry: 0\n\n", event(1)]), problem("forbidden", 403, "revoked")])
    timeline = client.follow("run_1")
    assert next(timeline)["seq"] == 1
    with pytest.raises(errors.Forbidden, match="revoked"):
        next(timeline)


def test_a_daemon_that_was_never_there_is_not_waited_for(nowhere: str) -> None:
    with Client(nowhere) as client, pytest.raises(errors.Unavailable):
        next(client.follow("run_1"))


def test_a_page_where_a_stream_should_be_is_an_error(server: Scripted, client: Client) -> None:
    server.answers.append(Answer(200, {"items": []}, {"content-type": "application/json"}))
    with pytest.raises(errors.Internal, match="event stream"):
        next(client.follow("run_1"))


def test_all_events_are_read_page_by_page(server: Scripted, client: Client) -> None:
    server.answers.extend(
        [
            Answer(200, {"items": [{"seq": 1}, {"seq": 2}], "next_cursor": "2"}),
            Answer(200, {"items": [{"seq": 3}], "next_cursor": None}),
        ]
    )
    assert [each["seq"] for each in client.every_event("run_1")] == [1, 2, 3]
    assert server.asked[1].path.endswith("/events?after=2&limit=500")


# Waiting


def run(status: str) -> dict[str, Any]:
    return {"id": "run_1", "status": status}


def test_waiting_ends_with_the_run(server: Scripted, client: Client) -> None:
    server.answers.extend([Answer(200, run("running")), Answer(chunks=[event(1), END]), Answer(200, run("ok"))])
    assert client.wait("run_1")["status"] == "ok"


def test_waiting_for_a_run_that_has_ended_asks_once(server: Scripted, client: Client) -> None:
    server.answers.append(Answer(200, run("failed")))
    assert client.wait("run_1")["status"] == "failed"
    assert len(server.asked) == 1


def test_waiting_ends_at_an_open_question_and_not_at_one_that_was_answered(server: Scripted, client: Client) -> None:
    server.answers.extend(
        [
            Answer(200, run("running")),
            Answer(chunks=[event(1, "run.awaiting_approval"), event(2), event(3, "run.awaiting_approval"), event(4)]),
            Answer(200, run("running")),
            Answer(200, run("awaiting_approval")),
        ]
    )
    assert client.wait("run_1")["status"] == "awaiting_approval"


def test_waiting_no_longer_than_asked_for_gives_the_run_as_it_is(server: Scripted) -> None:
    clock = SteppingClock()
    transport = Transport(server.url, None)
    server.answers.extend(Answer(chunks=[": ping\n\n"]) for _ in range(50))
    follower = Follower(transport, "/events", until=3.5, clock=clock, pause=clock.pause)
    assert list(follower.events()) == []
    assert clock.seconds == pytest.approx(3.5, abs=0.1)
    transport.close()


def test_pings_do_not_lengthen_a_wait(server: Scripted) -> None:
    clock = SteppingClock()
    transport = Transport(server.url, None)
    server.answers.extend(Answer(chunks=[": ping\n\n"]) for _ in range(50))
    silences: list[float] = []
    opened = transport.stream

    def late(where: str, *, silence_seconds: float, **how: Any) -> Any:
        silences.append(silence_seconds)
        clock.seconds += 15  # as long as a daemon keeps still before it pings
        return opened(where, silence_seconds=silence_seconds, **how)

    transport.stream = late  # type: ignore[method-assign]  # time passes while the stream is open
    list(Follower(transport, "/events", until=40.0, clock=clock, pause=clock.pause).events())
    assert silences[:2] == [40.0, 24.0]
    assert clock.pauses[:1] == [1.0]
    assert clock.seconds < 60
    transport.close()

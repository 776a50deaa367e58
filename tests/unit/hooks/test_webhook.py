"""One delivery to every sort of receiver."""

import asyncio
import errno
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from latticed.hooks.network import ANSWER_BYTES, UNSENT, Unreached, Wire
from latticed.hooks.signing import Keys
from latticed.hooks.webhook import Webhooks
from latticed.models.hooks import Answer, HookFailed
from latticed.secrets import Secrets
from tests.receiver import Behaviour, plain
from tests.unit.hooks.sending import CHUNKED, OCCASION, Make, hook, refused, send

# What is sent


async def test_a_delivery_is_a_signed_cloud_event(receiver: Make, webhooks: Webhooks, tmp_path: Path) -> None:
    one = receiver()
    assert await send(webhooks, one.url + "?a=b") == Answer(output="")
    [request] = one.requests
    key = Keys(tmp_path / "key", Secrets(None, {})).text(hook(one.url))
    assert key is not None
    checked = Webhook(key).verify(request.body, request.headers)
    assert checked == {
        "specversion": "1.0", "id": OCCASION.delivery_id, "source": "/v1/workspaces/default",
        "type": "latticed.run.finished", "subject": OCCASION.run_id, "time": "2026-01-01T00:00:00.000000Z",
        "datacontenttype": "application/json", "data": {"hook": "notify", "run": {"id": "run_2"}},
    }  # fmt: skip
    assert request.path == "/hook?a=b"
    assert request.headers["content-type"] == "application/cloudevents+json"
    assert request.headers["webhook-id"] == OCCASION.delivery_id
    assert request.headers["host"] == f"127.0.0.1:{one.port}"
    assert request.headers["user-agent"].startswith("latticed/")


async def test_the_type_names_the_point(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver()
    for point in ("on_event", "pre_run"):
        await send(webhooks, one.url, point)
    assert [request.event["type"] for request in one.requests] == ["latticed.on_event", "latticed.pre_run"]


async def test_a_connection_is_kept_for_the_next_delivery(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver()
    for _ in range(5):
        await send(webhooks, one.url)
    assert (len(one.requests), one.connections) == (5, 1)


async def test_one_that_was_closed_meanwhile_is_opened_again(receiver: Make, webhooks: Webhooks) -> None:
    def once(request: Any, channel: socket.socket) -> None:
        channel.sendall(plain())

    one = receiver(once)
    for _ in range(3):
        await send(webhooks, one.url)
    assert len(one.requests) == 3


async def test_many_at_once_share_what_connections_there_are(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver()
    for _ in range(3):
        await asyncio.gather(*(send(webhooks, one.url) for _ in range(20)))
    assert len(one.requests) == 60
    assert one.connections <= 20


# What is answered


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_delivered_and_its_beginning_kept(receiver: Make, webhooks: Webhooks, status: int) -> None:
    one = receiver(None, plain(status, b"" if status == 204 else b"thank you \xff\x00"))
    assert (await send(webhooks, one.url)).output == ("" if status == 204 else "thank you \ufffd\ufffd")


@pytest.mark.parametrize("status", [300, 303, 304, 400, 401, 404, 418, 500, 503, 599])
async def test_anything_else_is_not(receiver: Make, webhooks: Webhooks, status: int) -> None:
    one = receiver(None, plain(status, b"" if status == 304 else b"no"))
    failure = await refused(webhooks, one.url)
    assert str(failure) == f"it answered {status}"
    assert (failure.again, failure.gone, failure.retry_seconds) == (True, False, None)


@pytest.mark.parametrize("status", [429, 502, 504])
async def test_a_receiver_that_has_too_much_is_left_alone_for_a_moment(
    receiver: Make, webhooks: Webhooks, status: int
) -> None:
    for answer, seconds in ((plain(status), 1.0), (plain(status, b"", "Retry-After: 30"), 30.0)):
        assert (await refused(webhooks, receiver(None, answer).url)).retry_seconds == seconds


async def test_gone_is_gone(receiver: Make, webhooks: Webhooks) -> None:
    failure = await refused(webhooks, receiver(None, plain(410)).url)
    assert (failure.gone, failure.again) == (True, False)


async def test_when_to_come_again_is_said_in_seconds_or_as_a_date(receiver: Make, webhooks: Webhooks) -> None:
    said = [
        ("120", 120.0, 120.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 1e9, 1e10),
        ("Sat, 01 Jan 2000 00:00:00 GMT", 0, 0),
    ]
    for text, least, most in said:
        failure = await refused(webhooks, receiver(None, plain(503, b"", f"Retry-After: {text}")).url)
        assert failure.retry_seconds is not None
        assert least <= failure.retry_seconds <= most
    for text in ("soon", "-5", "1e9", "٣"):
        answer = f"HTTP/1.1 503 X\r\ncontent-length: 0\r\nretry-after: {text}\r\n\r\n".encode()
        failure = await refused(webhooks, receiver(None, answer).url)
        assert failure.retry_seconds is None


async def test_before_a_run_the_body_is_the_hooks_answer(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver(None, plain(200, b'{"block": "no"}'), plain(204), plain(200, b'{"tags": {"a": "b"}}'))
    answers = [await send(webhooks, one.url, "pre_run") for _ in range(3)]
    assert [answer.block for answer in answers] == ["no", None, None]
    assert answers[2].changes == {"tags": {"a": "b"}}


@pytest.mark.parametrize(
    "body", [b"ok", b"[]", b'{"block": 1}', b'{"block": "x", "tags": {}}', b" " * ANSWER_BYTES + b"{}"]
)
async def test_before_a_run_what_is_no_answer_is_an_error(receiver: Make, webhooks: Webhooks, body: bytes) -> None:
    with pytest.raises(HookFailed) as failure:
        await send(webhooks, receiver(None, plain(200, body)).url, "pre_run")
    assert "answer" in str(failure.value)


# Receivers that mean no good


def bombs() -> dict[str, Behaviour]:
    """Each floods, or hangs, or breaks off."""

    def flood(head: bytes, part: bytes) -> Behaviour:
        def behave(request: Any, channel: socket.socket) -> None:
            channel.sendall(head)
            while True:
                channel.sendall(part)

        return behave

    return {
        "a body of gigabytes": flood(b"HTTP/1.1 200 X\r\ncontent-length: 9999999999\r\n\r\n", b"x" * 65536),
        "chunks without an end": flood(
            b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n", b"5\r\nxxxxx\r\n" * 999
        ),
        "a body until the end": flood(b"HTTP/1.1 200 X\r\n\r\n", b"x" * 65536),
        "a header without an end": flood(b"HTTP/1.1 200 X\r\nx: ", b"x" * 65536),
        "headers without an end": flood(b"HTTP/1.1 200 X\r\n", b"a: b\r\n" * 999),
        "a name without an end": flood(b"HTTP/1.1 200 X\r\n", b"x" * 65536),
        "a status without an end": flood(b"HTTP/1.1 200 ", b"x" * 65536),
        "continue, continue": flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 99),
        "no HTTP": flood(b"", b"\x00\xff" * 999),
        "a chunk's extension": flood(CHUNKED + b"5;x=", b"y" * 65536),
        "trailers": flood(CHUNKED + b"0\r\n", b"a: b\r\n" * 999),
    }


@pytest.mark.parametrize("name", sorted(bombs()))
async def test_a_flood_ends_at_once(receiver: Make, webhooks: Webhooks, name: str) -> None:
    one = receiver(bombs()[name])
    if "body" in name or "chunks" in name:
        assert len((await send(webhooks, one.url)).output) == 4000
        return
    failure = await refused(webhooks, one.url)
    assert re.match("the head of|it answered with what is no HTTP|its answer is longer|it answers 1xx", str(failure))


@pytest.mark.parametrize(
    "part",
    [b"", b"HTTP/1.1 200 X\r\n", b"HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\nab",
     b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", b"HTTP/1.1 100 Continue\r\n\r\n"],
)  # fmt: skip
async def test_whoever_breaks_off_has_not_answered(receiver: Make, webhooks: Webhooks, part: bytes) -> None:
    def behave(request: Any, channel: socket.socket) -> None:
        channel.sendall(part)

    failure = await refused(webhooks, receiver(behave).url)
    assert str(failure) == "it closed the connection before it had answered"
    assert failure.again


async def test_a_body_without_a_length_ends_with_its_connection(receiver: Make, webhooks: Webhooks) -> None:
    def behave(request: Any, channel: socket.socket) -> None:
        channel.sendall(b"HTTP/1.1 200 X\r\n\r\nall of it")

    assert (await send(webhooks, receiver(behave).url)).output == "all of it"


async def test_whoever_hangs_or_trickles_is_left_when_the_time_is_over(receiver: Make, webhooks: Webhooks) -> None:
    closed = threading.Event()

    def hang(request: Any, channel: socket.socket) -> None:
        if not channel.recv(1):
            closed.set()

    def trickle(request: Any, channel: socket.socket) -> None:
        channel.sendall(b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n")
        while not one.over.wait(0.01):
            channel.sendall(b"x")

    for behaviour in (hang, trickle):
        one = receiver(behaviour)
        with pytest.raises(TimeoutError):
            await send(webhooks, one.url, seconds=0.2)
    assert await asyncio.to_thread(closed.wait, 5), "its connection is closed, too"


async def test_an_upgrade_is_no_answer(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver(None, b"HTTP/1.1 101 X\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n")
    assert "another protocol" in str(await refused(webhooks, one.url))


async def test_what_comes_unasked_ends_the_connection(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver(None, plain() + plain(200, b"smuggled"), plain(200, b"asked"))
    await send(webhooks, one.url)
    assert (await send(webhooks, one.url)).output == "asked"
    assert one.connections == 2


async def test_nobody_there_is_no_connection(webhooks: Webhooks) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/"
    failure = await refused(webhooks, url)
    assert "refused" in str(failure)
    assert failure.again


async def test_a_connection_that_breaks_before_it_is_used_says_so_and_why() -> None:
    for error, why in ((None, ""), (ConnectionResetError(errno.ECONNRESET, "x"), ": connection reset by peer")):
        wire = Wire()
        wire.connection_lost(error)
        with pytest.raises(Unreached, match=f"^{UNSENT}{why}$"):
            await wire.exchange(b"GET / HTTP/1.1\r\n\r\n")

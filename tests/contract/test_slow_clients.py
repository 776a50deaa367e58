"""Clients that take for ever to say what they want: they are told so, and let go."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from tests.conftest import Daemon

SECONDS = 0.4


@pytest.fixture(scope="module")
def brisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that waits for nobody for long."""
    one = Daemon(tmp_path_factory.mktemp("brisk"), config={"server": {"request_seconds": SECONDS}})
    try:
        yield one.start()
    finally:
        one.close()


def connected(one: Daemon) -> socket.socket:
    url = urlsplit(one.url)
    return socket.create_connection((str(url.hostname), int(url.port or 0)), timeout=10)


@pytest.fixture
def wire(brisk: Daemon) -> Iterator[socket.socket]:
    with connected(brisk) as connection:
        yield connection


def everything(wire: socket.socket) -> bytes:
    """What comes until the other side closes."""
    heard = b""
    while more := wire.recv(65536):
        heard += more
    return heard


def head(one: Daemon, length: int) -> bytes:
    lines = [f"POST {one.path('runs')} HTTP/1.1", "Host: x", f"Authorization: Bearer {one.token}"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


@pytest.mark.parametrize("begins", [b"", b'{"kind": "agent", "target": "echo", '])
def test_a_body_that_does_not_come_in_time_is_invalid(brisk: Daemon, wire: socket.socket, begins: bytes) -> None:
    wire.sendall(head(brisk, 1000) + begins)
    status, _, rest = everything(wire).partition(b"\r\n")
    headers, _, body = rest.partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert status == b"HTTP/1.1 400 Bad Request"
    assert b"connection: close" in headers.lower()
    assert (problem["code"], problem["status"]) == ("invalid", 400)
    assert "within 0.4 s" in problem["detail"]


def test_a_body_that_trickles_has_no_more_time_than_another(brisk: Daemon, wire: socket.socket) -> None:
    wire.sendall(head(brisk, 1000))
    wire.settimeout(SECONDS / 10)
    trickled = 0
    while True:
        try:
            answer = wire.recv(65536)
            break
        except TimeoutError:
            wire.sendall(b" ")
            trickled += 1
            assert trickled < 100
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert trickled > 1


def test_a_head_that_does_not_come_in_time_is_answered_and_silence_is_not(brisk: Daemon, wire: socket.socket) -> None:
    assert everything(wire) == b""
    with connected(brisk) as other:
        other.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert other.recv(65536).startswith(b"HTTP/1.1 200 ")
        other.sendall(b"GET /healthz HTTP/1.1\r\nHo")
        assert everything(other).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(("path", "status"), [("GET /healthz", b"200"), ("POST /v1/workspaces", b"401")])
def test_a_body_that_nobody_reads_does_not_hold_the_connection(
    brisk: Daemon, wire: socket.socket, path: str, status: bytes
) -> None:
    wire.sendall(f"{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode())
    assert wire.recv(65536).startswith(b"HTTP/1.1 " + status)
    wire.settimeout(SECONDS / 10)
    trickled = 0
    with suppress(ConnectionError):
        while True:
            try:
                assert wire.recv(65536) == b""
                break
            except TimeoutError:
                wire.sendall(b" ")
                trickled += 1
                assert trickled < 100
    assert trickled > 1


def test_a_body_that_nobody_reads_and_that_comes_in_time_does_no_harm(brisk: Daemon, wire: socket.socket) -> None:
    for _ in range(2):
        wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
        assert wire.recv(65536).startswith(b"HTTP/1.1 200 ")
        wire.sendall(b"abc")
    assert brisk.client.get("/healthz").status_code == 200


def test_who_has_asked_may_wait_for_longer_than_that(brisk: Daemon) -> None:
    run = brisk.post_run("stepper_slow", inputs={"n": 1, "seconds": 3 * SECONDS}, wait=4 * SECONDS)
    assert run["id"]
    assert brisk.client.get("/healthz").status_code == 200

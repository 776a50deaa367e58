"""Addresses that must not be called, however they are come by; redirects; who answers behind TLS."""

import asyncio
import socket
import ssl
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from latticed.errors import Invalid
from latticed.hooks import network, webhook
from latticed.hooks.network import SocketAddress
from latticed.hooks.webhook import Webhooks
from tests.receiver import Receiver, plain
from tests.unit.hooks.sending import LOOPBACK, Make, Sender, refused, send

# Addresses


async def test_what_is_private_is_not_called_however_it_is_written(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver(host="0.0.0.0")
    hosts = ["127.0.0.2", "2130706434", "0x7f.0.0.2", "0177.0.0.2", "127.2", "[::ffff:127.0.0.2]", "0.0.0.0", "0",
             "[::1]", "[::]", "10.0.0.1", "169.254.169.254", "[fd00:ec2::254]", "[fe80::1]"]  # fmt: skip
    for host in hosts:
        for scheme in ("http", "https"):
            url = f"{scheme}://{host}:{one.port}/"
            failure = await refused(webhooks, url)
            assert "private" in str(failure), url
            assert not failure.again
            with pytest.raises(Invalid, match="private"):
                await webhooks.judge(url)
    assert one.connections == 0


async def test_the_address_of_a_name_is_never_told(sender: Sender) -> None:
    async def resolve(host: str, port: int) -> list[SocketAddress]:
        return [(socket.AF_INET, ("10.11.12.13", port))]

    inside = sender(resolve, ())
    failure = await refused(inside, "https://wiki.internal/")
    assert "wiki.internal" in str(failure)
    assert "10.11" not in str(failure)


async def test_http_goes_to_allowed_networks_only(sender: Sender) -> None:
    async def resolve(host: str, port: int) -> list[SocketAddress]:
        return [(socket.AF_INET, ("93.184.216.34", port))]

    outside = sender(resolve)
    failure = await refused(outside, "http://example.org/")
    assert "https only" in str(failure)
    with pytest.raises(Invalid, match="https only"):
        await outside.judge("http://example.org/")


async def test_a_name_is_resolved_once_and_what_was_judged_is_called(receiver: Make, sender: Sender) -> None:
    trap, one = receiver(host="127.0.0.2"), receiver()
    asked: list[str] = []
    lies = ["127.0.0.1", "127.0.0.2", "127.0.0.2"]

    async def resolve(host: str, port: int) -> list[SocketAddress]:
        asked.append(host)
        return [(socket.AF_INET, (lies[len(asked) - 1], one.port if len(asked) == 1 else trap.port))]

    webhooks = sender(resolve)
    await send(webhooks, f"http://rebinding.example:{one.port}/")
    assert (len(one.requests), asked) == (1, ["rebinding.example"])
    assert one.requests[0].headers["host"] == f"rebinding.example:{one.port}"
    await webhooks.close()
    webhooks.allow(LOOPBACK)
    failure = await refused(webhooks, f"http://rebinding.example:{one.port}/")
    assert "private" in str(failure)
    assert trap.connections == 0


async def test_of_several_addresses_those_that_may_be_called_are(receiver: Make, sender: Sender) -> None:
    one = receiver()

    async def resolve(host: str, port: int) -> list[SocketAddress]:
        return [
            (socket.AF_INET6, ("::1", port, 0, 0)),
            (socket.AF_INET, ("10.0.0.1", port)),
            (socket.AF_INET, ("127.0.0.1", port)),
        ]

    webhooks = sender(resolve)
    await send(webhooks, f"http://several.example:{one.port}/")
    assert len(one.requests) == 1


async def test_an_address_that_swallows_everything_does_not_keep_from_the_next(
    receiver: Make, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "CONNECT_SECONDS", 0.1)
    one = receiver()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as waiting:
        for _ in range(4):  # Nobody accepts them, and who comes after them is not answered.
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())

        async def resolve(host: str, port: int) -> list[SocketAddress]:
            return [(socket.AF_INET, full.getsockname()), (socket.AF_INET, ("127.0.0.1", port))]

        await send(sender(resolve), f"http://several.example:{one.port}/")
    assert len(one.requests) == 1


async def test_a_name_that_nobody_knows_may_be_registered_and_is_tried_again(webhooks: Webhooks) -> None:
    await webhooks.judge("https://nobody.invalid/")
    failure = await refused(webhooks, "https://nobody.invalid/", seconds=30)
    assert "cannot be resolved" in str(failure)
    assert failure.again


async def test_a_name_server_that_hangs_holds_up_no_other_name(receiver: Make, sender: Sender) -> None:
    one = receiver()
    forever = asyncio.Event()

    async def resolve(host: str, port: int) -> list[SocketAddress]:
        if host == "slow.example":
            await forever.wait()
        return [(socket.AF_INET, ("127.0.0.1", port))]

    webhooks = sender(resolve)
    slow = asyncio.create_task(refused(webhooks, "http://slow.example/", 0.3))
    await send(webhooks, f"http://quick.example:{one.port}/")
    with pytest.raises(TimeoutError):
        await slow


async def test_name_servers_that_hang_hold_up_no_registration_and_no_address(
    receiver: Make, webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, look_up = threading.Event(), socket.getaddrinfo

    def hang(host: str, *args: Any, **more: Any) -> Any:
        if host.endswith(".example") and not more.get("flags"):
            release.wait(20)
        return look_up(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(webhook, "JUDGE_SECONDS", 0.1)
    one = receiver()
    try:
        async with asyncio.timeout(5):
            await asyncio.gather(*(webhooks.judge(f"https://n{n}.example/") for n in range(network.RESOLVERS + 1)))
            await webhooks.judge(one.url)
            await send(webhooks, one.url)
    finally:
        release.set()
    assert len(one.requests) == 1


async def test_a_registration_does_not_call_anybody(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver()
    await webhooks.judge(one.url)
    assert one.connections == 0


# Redirects


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_gets_the_same_delivery(receiver: Make, webhooks: Webhooks, status: int) -> None:
    end = receiver()
    begin = receiver(None, plain(status, b"", f"Location: {end.url}"))
    await send(webhooks, begin.url)
    [first], [last] = begin.requests, end.requests
    assert (first.body, first.id) == (last.body, last.id)


async def test_three_are_followed_and_no_more(receiver: Make, webhooks: Webhooks) -> None:
    one = receiver(lambda request, channel: plain(307, b"", "Location: /round"))
    failure = await refused(webhooks, one.url)
    assert "more than 3 times" in str(failure)
    assert len(one.requests) == 4


async def test_a_redirect_is_judged_like_the_first_address(receiver: Make, webhooks: Webhooks) -> None:
    trap = receiver(host="127.0.0.2")
    for location in (
        trap.url,
        f"https://127.0.0.2:{trap.port}/",
        f"//127.0.0.2:{trap.port}/",
        "http://169.254.169.254/",
    ):
        one = receiver(None, plain(302, b"", f"Location: {location}"))
        failure = await refused(webhooks, one.url)
        assert "private" in str(failure)
        assert not failure.again
    assert trap.connections == 0
    one = receiver(None, plain(307, b"", "Location: file:///etc/passwd"))
    assert "no URL" in str(await refused(webhooks, one.url))


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For `localhost`, signed by itself: key and certificate in one file."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    (folder / "both.pem").write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return folder


class SecureReceiver(Receiver):
    """Speaks TLS."""

    context: ssl.SSLContext

    def _serve(self, channel: socket.socket) -> None:
        try:
            with self.context.wrap_socket(channel, server_side=True) as secured:
                super()._serve(secured)
        except OSError:
            return


async def test_https_checks_who_answers(certificate: Path, sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    SecureReceiver.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    SecureReceiver.context.load_cert_chain(certificate / "both.pem")
    one = SecureReceiver()

    async def resolve(host: str, port: int) -> list[SocketAddress]:
        return [(socket.AF_INET, ("127.0.0.1", port))]

    try:
        url = f"https://localhost:{one.port}/"
        failure = await refused(sender(resolve), url)
        assert "TLS failed" in str(failure)
        assert failure.again
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
        trusting = sender(resolve)
        await send(trusting, url)
        await send(trusting, url)
        assert (len(one.requests), one.connections) == (2, 2)
        failure = await refused(trusting, f"https://another.example:{one.port}/")
        assert "TLS failed" in str(failure)
    finally:
        one.close()

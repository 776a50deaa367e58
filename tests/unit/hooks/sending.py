"""Senders and receivers for the tests of webhooks, and one delivery from one to the other."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from latticed.clock import SystemClock
from latticed.hooks.network import Resolver
from latticed.hooks.signing import Keys
from latticed.hooks.webhook import Webhooks
from latticed.models.deliveries import Undelivered
from latticed.models.hooks import Answer, HookSpec, Occasion, WebhookHook
from latticed.secrets import Secrets
from tests.receiver import Behaviour, Receiver, plain

OCCASION = Occasion("dlv_" + "1" * 32, "default", "run_" + "2" * 32, 1_767_225_600_000_000)
PAYLOAD = b'{"hook":"notify","run":{"id":"run_2"}}'
CHUNKED = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n"
LOOPBACK = (ipaddress.ip_network("127.0.0.1/32"),)

Make = Callable[..., Receiver]
Sender = Callable[..., Webhooks]


@pytest.fixture
def receiver() -> Iterator[Make]:
    """Makes receivers."""
    made: list[Receiver] = []

    def make(behaviour: Behaviour | None = None, *answers: bytes, **where: Any) -> Receiver:
        made.append(Receiver(behaviour or (lambda request, channel: plain()), answers=list(answers), **where))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
async def sender(tmp_path: Path) -> AsyncIterator[Sender]:
    """Makes senders that may call 127.0.0.1 alone; given a resolver, that says where names are."""
    made: list[Webhooks] = []

    def make(resolve: Resolver | None = None, private: tuple[Any, ...] = LOOPBACK) -> Webhooks:
        made.append(Webhooks(Keys(tmp_path / "key", Secrets(None, {})), SystemClock(), private, resolve))
        return made[-1]

    yield make
    for each in made:
        await each.close_idle()
        await each.close()
    await asyncio.sleep(0)  # noqa: TID251  # what was aborted is closed in the loop's next turn


@pytest.fixture
async def webhooks(sender: Sender) -> Webhooks:
    """One that asks the system where names are."""
    return sender()


def hook(url: str, point: Any = "post_run", **more: Any) -> HookSpec:
    return HookSpec("notify", WebhookHook(use="webhook", point=point, url=url, **more))


async def send(webhooks: Webhooks, url: str, point: str = "post_run", seconds: float = 5) -> Answer:
    """One delivery, within the time that the caller keeps."""
    async with asyncio.timeout(seconds):
        return await webhooks.run(hook(url, point), PAYLOAD, OCCASION, lambda: None)


async def refused(webhooks: Webhooks, url: str, seconds: float = 5) -> Undelivered:
    with pytest.raises(Undelivered) as failure:
        await send(webhooks, url, seconds=seconds)
    return failure.value

"""What systemd hears of a daemon: fed while the loop turns and the writer answers, be it with an error; else not."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest

from latticed.errors import Internal, Unavailable
from latticed.heartbeat import Heartbeat
from latticed.systemd import Notifier
from tests.conftest import Daemon, wait_until
from tests.contract.test_store_away import locked
from tests.wait import eventually

WATCHDOG_SECONDS = 0.6


class Systemd:
    """The other end of NOTIFY_SOCKET: what came, and when."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[tuple[float, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while data := self._socket.recv(4096):
            self.heard.append((time.monotonic(), data.decode()))

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self.path))
        self._thread.join()
        self._socket.close()

    def fed_since(self, moment: float) -> list[float]:
        return [at for at, said in list(self.heard) if said == "WATCHDOG=1" and at > moment]

    def said(self) -> list[str]:
        return [said.splitlines()[0] for _, said in list(self.heard) if said != "WATCHDOG=1"]


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    listener = Systemd(tmp_path / "notify")
    yield listener
    listener.close()


def test_a_daemon_is_fed_while_it_answers_and_starves_while_it_hangs(
    daemon: Callable[..., Daemon], systemd: Systemd
) -> None:
    usec = str(int(WATCHDOG_SECONDS * 1_000_000))
    one = daemon(
        config={"store": {"busy_seconds": 0.3}}, env={"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": usec}
    )
    wait_until(lambda: systemd.said() == ["READY=1"])
    began = time.monotonic()
    wait_until(lambda: len(systemd.fed_since(began)) >= 4)
    fed = systemd.fed_since(began)
    gaps = [after - before for before, after in zip(fed, fed[1:], strict=False)]
    assert median(gaps) < WATCHDOG_SECONDS  # One gap may hold a slow fsync of a busy disk.

    with locked(one):  # The writer's answer is an error, once it has waited for the lock.
        wait_until(lambda: one.client.get("/readyz").status_code == 503)
        began = time.monotonic()
        wait_until(lambda: systemd.fed_since(began))

    wait_until(lambda: one.client.get("/readyz").status_code == 200)
    run = one.post_run("blocker", inputs={"seconds": 3 * WATCHDOG_SECONDS})
    one.wait(run["id"])
    ended = time.monotonic()
    wait_until(lambda: systemd.fed_since(ended))
    fed = systemd.fed_since(began)
    assert max(after - before for before, after in zip(fed, fed[1:], strict=False)) > 2 * WATCHDOG_SECONDS

    assert one.stop() == 0
    wait_until(lambda: systemd.said() == ["READY=1", "STOPPING=1"])


class Writer:
    """Stands for the store's writer: it answers when it is let, with what it is given."""

    def __init__(self, answer: Exception | None = None) -> None:
        self.answer, self.open = answer, asyncio.Event()

    async def ping(self) -> None:
        await self.open.wait()
        if self.answer is not None:
            raise self.answer


@pytest.mark.parametrize("answer", [None, Unavailable("the disk is full"), Internal()])
async def test_a_writer_that_hangs_starves_the_watchdog_until_it_answers(
    systemd: Systemd, answer: Exception | None
) -> None:
    writer = Writer(answer)
    notifier = Notifier({"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "20000"})
    heartbeat = Heartbeat(notifier, writer)
    heartbeat.start()
    hung = asyncio.get_running_loop().time()
    await eventually(lambda: asyncio.get_running_loop().time() > hung + 0.1)
    assert systemd.heard == []
    writer.open.set()
    await eventually(lambda: len(systemd.fed_since(0)) >= 3)
    writer.open.clear()
    await heartbeat.stop()


async def test_nobody_is_fed_who_does_not_ask() -> None:
    assert await Heartbeat(Notifier({}), Writer()).tick() > 60

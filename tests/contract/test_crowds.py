"""More connections than there can be: the last are told so, and the daemon keeps what it needs for its work."""

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from latticed.descriptors import MOST
from tests.conftest import Daemon, wait_until

FILES = 256
CONNECTIONS = FILES * 3 // 4


class Narrow(Daemon):
    """A daemon that begins with few files and may have a few more."""

    @property
    def command(self) -> list[str]:
        return ["bash", "-c", f'ulimit -Sn 64; ulimit -Hn {FILES}; exec "$@"', "bash", *super().command]


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Daemon]:
    config = {"agents": {"true": {"use": "command", "argv": ["/bin/true"]}}}
    one = Narrow(tmp_path, config=config, executed=True)
    try:
        yield one.start()
    finally:
        one.close()


def connect(one: Daemon) -> socket.socket:
    url = urlsplit(one.url)
    return socket.create_connection((str(url.hostname), int(url.port or 0)), timeout=10)


def test_one_connection_too_many_is_told_so_and_work_goes_on(narrow: Daemon) -> None:
    assert narrow.client.get("/healthz").status_code == 200
    with ExitStack() as crowd:
        for _ in range(CONNECTIONS - 1):
            crowd.enter_context(connect(narrow))
        with httpx2.Client(base_url=narrow.url) as late:
            answer = late.get("/healthz")
        assert (answer.status_code, answer.json()["code"]) == (429, "busy")
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) >= 1
        with connect(narrow) as silent:
            assert silent.recv(1) == b"", "who is one too many and says nothing is let go soon"
        assert narrow.run("true")["status"] == "ok"
    wait_until(lambda: httpx2.get(f"{narrow.url}/healthz").status_code == 200)


def test_the_daemon_takes_as_many_files_as_it_may_have(narrow: Daemon) -> None:
    assert resource.prlimit(narrow.process.pid, resource.RLIMIT_NOFILE) == (FILES, FILES)
    assert MOST >= FILES

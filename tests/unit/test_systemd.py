"""What is said to systemd, and what is taken from it."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from latticed.config import RunsConfig
from latticed.systemd import Notifier, listen_sockets


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """The end of the line at which systemd listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "notify"))
        line.settimeout(5)
        yield line


def heard(line: socket.socket) -> list[str]:
    return line.recv(4096).decode().splitlines()


def test_each_word_reaches_systemd(systemd: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname()})
    assert notifier.ready("serves http://127.0.0.1:1")
    assert heard(systemd) == ["READY=1", "STATUS=serves http://127.0.0.1:1"]
    assert notifier.watchdog()
    assert heard(systemd) == ["WATCHDOG=1"]
    assert notifier.stopping()
    assert heard(systemd) == ["STOPPING=1"]


def test_a_status_is_one_line_whatever_it_tells_of(systemd: socket.socket) -> None:
    assert Notifier({"NOTIFY_SOCKET": systemd.getsockname()}).ready("refused:\nMAINPID=1")
    assert heard(systemd) == ["READY=1", "STATUS=refused: MAINPID=1"]


def test_a_reload_says_when_it_began_on_the_monotonic_clock(systemd: socket.socket) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert Notifier({"NOTIFY_SOCKET": systemd.getsockname()}).reloading()
    word, moment = heard(systemd)
    assert word == "RELOADING=1"
    assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_an_abstract_address_is_understood() -> None:
    name = f"latticed-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(f"\0{name}")
        line.settimeout(5)
        assert Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert heard(line) == ["READY=1"]


def test_without_systemd_nothing_is_said_and_nothing_breaks(tmp_path: Path) -> None:
    assert not Notifier({}).ready()
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).watchdog()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_of_what_systemd_waits(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier(environ).watchdog_seconds == seconds


TAKE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from latticed.systemd import listen_sockets
os.environ["LISTEN_PID"] = str(os.getpid())
for taken in listen_sockets():
    print(taken.fileno(), taken.getsockname()[1], os.get_inheritable(taken.fileno()))
    taken.close()
print(sorted(name for name in os.environ if name.startswith("LISTEN")), listen_sockets())
"""


def test_the_sockets_of_systemd_are_taken_once_and_not_inherited() -> None:
    root = Path(__file__).resolve().parents[2]
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = one.getsockname()[1], two.getsockname()[1]
        give = f'exec "$0" -c "$1" "$2" 3<&{one.fileno()} 4<&{two.fileno()}'
        said = subprocess.run(
            ["bash", "-c", give, sys.executable, TAKE, str(root)],
            env={"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "PATH": os.environ["PATH"]},
            pass_fds=(one.fileno(), two.fileno()),
            check=True,
            capture_output=True,
            text=True,
        ).stdout.splitlines()
    assert said == [f"3 {ports[0]} False", f"4 {ports[1]} False", "[] []"]


def test_sockets_meant_for_another_process_are_not_taken() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    assert listen_sockets(environ) == []
    assert environ == {}
    assert listen_sockets({"LISTEN_FDS": "1"}) == []


# --- the unit's own arithmetic ---------------------------------------------------------------------------------------


def number(key: str) -> int:
    unit = (Path(__file__).resolve().parents[2] / "systemd" / "latticed.service").read_text()
    found = re.search(rf"^{key}=(\d+)$", unit, re.MULTILINE)
    assert found
    return int(found[1])


def test_the_unit_waits_longer_than_a_drain_takes() -> None:
    runs = RunsConfig()
    assert number("TimeoutStopSec") > runs.drain_seconds + runs.kill_seconds + 5


def test_systemd_starts_it_again_for_longer_than_it_takes_to_give_up_what_kills_it() -> None:
    """One run after the other that takes the daemon with it, and a start by hand before them."""
    assert number("StartLimitBurst") > 2 * RunsConfig().max_recoveries + 1

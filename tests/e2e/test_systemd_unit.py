"""The unit as systemd reads it, and the daemon as a service of it."""

import configparser
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import httpx2
import pytest

from tests.conftest import ROOT, Daemon

UNITS = ROOT / "systemd"
INSTALLED = "/opt/latticed/bin/latticed"

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here; Debian's package is systemd"
)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The service, with a program that exists on this machine in the place of the installed one."""
    text = (UNITS / "latticed.service").read_text()
    assert text.count(f"ExecStart={INSTALLED} serve") == 1
    path = tmp_path / "latticed.service"
    path.write_text(text.replace(INSTALLED, f"{sys.executable} -m latticed.cli.daemon"))
    shutil.copy(UNITS / "latticed.socket", tmp_path)
    return path


def analyze(*args: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("systemd-analyze")
    assert tool
    return subprocess.run(
        [tool, *args], env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=60, check=False
    )


@needs_systemd_analyze
def test_systemd_finds_nothing_wrong_with_the_units(unit: Path) -> None:
    done = analyze("verify", "--recursive-errors=yes", str(unit), str(unit.with_suffix(".socket")))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd_analyze
def test_nor_where_no_manual_is_installed(unit: Path, tmp_path: Path) -> None:
    done = analyze("verify", "--recursive-errors=yes", str(unit), path=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd_analyze
def test_systemd_would_find_a_key_that_it_does_not_know(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("ProtectSystem=", "ProtectSystems="))
    assert analyze("verify", "--recursive-errors=yes", str(unit)).returncode != 0


@needs_systemd_analyze
def test_the_service_is_hardened(unit: Path) -> None:
    done = analyze("security", "--offline=yes", "--threshold=20", "--no-pager", str(unit))
    assert done.returncode == 0, done.stdout


def test_the_unit_says_what_the_daemon_relies_on() -> None:
    parser = configparser.RawConfigParser(strict=False, allow_no_value=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    parser.read(UNITS / "latticed.service")
    service = dict(parser["Service"])
    wanted = {
        "Type": "notify",
        "NotifyAccess": "main",
        "WatchdogSec": "30",
        "KillMode": "mixed",
        "Restart": "on-failure",
        "RestartPreventExitStatus": "78",
        "StateDirectory": "latticed",
        "StateDirectoryMode": "0700",
        "User": "latticed",
    }
    assert {key: service[key] for key in wanted} == wanted


def test_every_line_that_hardens_is_explained() -> None:
    lines = (UNITS / "latticed.service").read_text().split("# --- what it, and every command")[1].splitlines()[1:]
    lines = lines[: lines.index("[Install]")]
    bare = [line for before, line in pairwise(lines) if re.match(r"\w+=", line) and not before.startswith("#")]
    assert bare == []
    assert sum(bool(re.match(r"\w+=", line)) for line in lines) > 20


# --- the daemon, with us as systemd ----------------------------------------------------------------------------------

Make = Callable[..., Daemon]


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """The end of the line at which systemd listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "notify"))
        line.settimeout(20)
        yield line


def hear(line: socket.socket, word: str) -> list[str]:
    """Listens until that word comes; all that came until then."""
    heard: list[str] = []
    while word not in heard:
        heard += line.recv(4096).decode().splitlines()
    return heard


def status(line: socket.socket) -> str:
    """What stands in `systemctl status` once the reload that is under way has ended."""
    hear(line, "RELOADING=1")
    (said,) = (word for word in hear(line, "READY=1") if word.startswith("STATUS="))
    return said.removeprefix("STATUS=")


def falls_silent(line: socket.socket, seconds: float) -> bool:
    """Whether, after a few words that were on their way, nothing is heard for so long."""
    before = line.gettimeout()
    line.settimeout(seconds)
    try:
        for _ in range(30):
            line.recv(4096)
    except TimeoutError:
        return True
    finally:
        line.settimeout(before)
    return False


def test_systemd_hears_that_it_is_ready_alive_reloading_and_stopping(executed: Make, systemd: socket.socket) -> None:
    one = executed(start=False, env={"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "1000000"}).launch()
    before = hear(systemd, "READY=1")
    assert "WATCHDOG=1" not in before
    assert httpx2.get(f"{one.url}/readyz").status_code == 200
    hear(systemd, "WATCHDOG=1")
    one.process.send_signal(signal.SIGHUP)
    hear(systemd, "RELOADING=1")
    hear(systemd, "READY=1")
    one.process.send_signal(signal.SIGTERM)
    hear(systemd, "STOPPING=1")
    assert one.wait_exit() == 0


def test_a_reload_that_is_refused_is_told_by_the_status_until_one_is_not(
    executed: Make, systemd: socket.socket
) -> None:
    one = executed(start=False, env={"NOTIFY_SOCKET": systemd.getsockname()}).launch()
    said = hear(systemd, "READY=1")
    assert f"STATUS={one.url}" in said
    good = one.config_file.read_text()
    one.config_file.write_text("[server]\nprot = 1\n")
    one.process.send_signal(signal.SIGHUP)
    assert status(systemd) == (
        f"{one.url}; reload refused: {one.config_file}: server.prot: unknown key; did you mean server.port?"
    )
    one.config_file.write_text(good)
    one.process.send_signal(signal.SIGHUP)
    assert status(systemd) == one.url


def test_nobody_is_told_ready_by_a_daemon_that_cannot_start(executed: Make, systemd: socket.socket) -> None:
    one = executed(start=False, env={"NOTIFY_SOCKET": systemd.getsockname()})
    one.config_file.write_text("[server]\nprot = 1\n")
    assert one.launch().wait_exit() == 78
    systemd.setblocking(False)
    with pytest.raises(BlockingIOError):
        systemd.recv(4096)


def test_a_daemon_whose_loop_does_not_turn_feeds_no_watchdog(executed: Make, systemd: socket.socket) -> None:
    one = executed(env={"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "200000"})
    hear(systemd, "WATCHDOG=1")
    run = one.post_run("blocker", inputs={"seconds": 1.5})
    assert falls_silent(systemd, 0.6)
    hear(systemd, "WATCHDOG=1")
    assert one.wait(run["id"])["status"] == "ok"


def test_it_serves_on_the_socket_that_systemd_holds_also_for_those_who_came_early(executed: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as early:
        early.settimeout(20)
        early.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        one = executed(sockets=(door,))
        assert one.url == f"http://127.0.0.1:{door.getsockname()[1]}"
        assert early.recv(100).startswith(b"HTTP/1.1 200 ")
        assert one.run("echo")["status"] == "ok"
        assert one.stop() == 0
        assert one.start().get(one.run("echo")["id"])["status"] == "ok"

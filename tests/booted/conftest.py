"""A Debian of its own that systemd boots, in which latticed is installed as README says, to the letter."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT, wait_until

NEEDED = ("debootstrap", "systemd-nspawn", "nsenter", "unshare")
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,ca-certificates,curl,procps"
CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/latticed/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "LATTICED_STATE_DIR": "/var/lib/latticed",
}


def run(*command: str | Path, **more: Any) -> str:
    """What it prints; that it fails fails the test, with all that it said."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **more)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout


def readme(place: int) -> str:
    """A block of commands below the heading Install, counted from 0."""
    section = (ROOT / "README.md").read_text().split("\n## Install\n")[1].split("\n## ")[0]
    return re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[place]


class Machine:
    """What systemd runs in a folder, with a root's shell in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        lonely = [] if Path("/run/systemd/system").exists() else ["--keep-unit"]
        named = ["--machine", f"latticed-{os.getpid()}", "--directory", root]
        command = ["systemd-nspawn", "--quiet", "--register=no", *lonely, "--private-network", "--console=pipe"]
        self._nspawn = subprocess.Popen([*command, *named, "--boot"], stdin=subprocess.DEVNULL)
        try:
            wait_until(self._has_booted, timeout=120)
        except BaseException:
            self.stop()
            raise

    def _has_booted(self) -> bool:
        """There is a systemd, which is not yet so while nspawn prepares its namespaces, and it is done."""
        children = psutil.Process(self._nspawn.pid).children()
        if [child.name() for child in children] != ["systemd"]:
            return False
        self._init = children[0].pid
        return self.sh("systemctl is-system-running 2>&1 || true") in ("running", "degraded")

    def sh(self, line: str) -> str:
        """What the line prints, its stderr too, without the last line feed; it must end with 0."""
        enter = ["nsenter", "--target", str(self._init), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        return run(*enter, "bash", "-c", line, env=ENVIRONMENT).rstrip("\n")

    def show(self, *names: str, unit: str = "latticed") -> list[str]:
        """Properties of a unit."""
        said = dict(line.split("=", 1) for line in self.sh(f"systemctl show {unit}").splitlines() if "=" in line)
        return [said[name] for name in names]

    def pid(self) -> int:
        return int(self.show("MainPID")[0])

    def wait_for_another(self, pid: int) -> None:
        """Until the service is active again under another process."""
        wait_until(lambda: self.show("ActiveState") == ["active"] and self.pid() not in (0, pid), timeout=120)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def ctl(self, line: str) -> Any:
        return json.loads(self.sh(f"latticectl --json {line}"))

    def stop(self) -> None:
        """As a machine is switched off: every service is stopped in order."""
        self._nspawn.send_signal(signal.SIGTERM)
        try:
            self._nspawn.wait(120)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(self._nspawn.pid).children():
                child.kill()  # The machine, which would outlive nspawn; nspawn ends with it.
            self._nspawn.wait(30)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder: the first block of README is done, and what the second needs lies in /root."""
    if os.geteuid() != 0 or not all(map(shutil.which, NEEDED)):
        pytest.fail(f"needs root, and {', '.join(NEEDED)}: Debian's debootstrap, systemd-container and util-linux")
    folder = tmp_path_factory.mktemp("machine")
    root = folder / "root"
    suite = os.environ.get("SUITE") or "bookworm"
    try:
        # It mounts /proc in there: nobody else sees that, and all it started ends with it, however it ends.
        alone = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
        run(*alone, "debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, root)
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", root / "root", cwd=ROOT)
        for name in ("systemd", "config"):
            shutil.copytree(ROOT / name, root / "root" / name)
        for shared in (Path("etc/resolv.conf"), CERTIFICATES):  # pip goes out as this machine does.
            shutil.copy(Path("/") / shared, root / shared)
        certificates = {"PIP_CERT": f"/{CERTIFICATES}"}
        run("chroot", root, "bash", "-ec", f"cd /root\n{readme(0)}", env=ENVIRONMENT | certificates)
        yield root
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def booted(installed: Path) -> Iterator[Machine]:
    """The machine, running, with the second block of README done."""
    machine = Machine(installed)
    try:
        machine.sh(f"set -e; cd /root\n{readme(1)}")
        yield machine
    finally:
        machine.stop()


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    """The same, with the service as README leaves it and two agents more. A test that fails leaves its log behind."""
    agents = {"nap": '["/bin/sleep", "{goal}"]', "sh": '["/bin/sh", "-c", "{goal}"]'}
    tables = "".join(f'[agents.{name}]\nuse = "command"\nargv = {argv}\n' for name, argv in agents.items())
    runs = "drain_seconds = 1.0\nkill_seconds = 1.0\n"
    given = (ROOT / "config" / "latticed.toml").read_text()
    given = re.sub(r"^(drain|kill)_seconds = .*\n", "", given, flags=re.MULTILINE).replace(
        "[runs]\n", f"[runs]\n{runs}"
    )
    booted.sh("systemctl stop latticed.socket 2>&1 || true; rm -rf /etc/systemd/system/latticed.service.d")
    booted.sh("systemctl stop latticed; pkill -KILL -u latticed; systemctl daemon-reload; systemctl reset-failed")
    booted.sh("rm -rf /var/lib/latticed")
    booted.write("/etc/latticed/latticed.toml", f"{given}\n{tables}", 0o640)
    booted.sh("chgrp latticed /etc/latticed/latticed.toml; systemctl start latticed")
    yield booted
    print(booted.sh("systemctl status --no-pager latticed || true; journalctl --no-pager -u latticed -n 30"))

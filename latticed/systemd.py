"""What systemd and the daemon say to each other: readiness, the watchdog, and sockets it holds for us.

The protocols of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3). Started by anything else, the environment
says so and every call here does nothing.
"""

import os
import socket
import time
from collections.abc import MutableMapping

LISTEN_FDS_START = 3


class Notifier:
    """The line to systemd that `NOTIFY_SOCKET` names; without one it says nothing."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        self.watchdog_seconds = _watchdog_seconds(environ)
        """How often `watchdog` is to be called: half of what systemd waits. None: nobody waits for it."""

    def ready(self, status: str = "") -> bool:
        """It serves; also said when a reload is done. `status` is what `systemctl status` shows."""
        return self._send("READY=1", *_status(status))

    def reloading(self) -> bool:
        """It reads its configuration again; `ready` ends that."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str = "") -> bool:
        """It drains and will exit."""
        return self._send("STOPPING=1", *_status(status))

    def watchdog(self) -> bool:
        """It is alive, and what it needs answers."""
        return self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> bool:
        """True if systemd has it. It never raises: a daemon that cannot report still works."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.settimeout(1)
                line.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True


def _status(text: str) -> list[str]:
    """One line, whatever it tells of: the next one would be another word to systemd."""
    return [f"STATUS={' '.join(text.split())}"] if text else []


def _watchdog_seconds(environ: MutableMapping[str, str]) -> float | None:
    pid = environ.get("WATCHDOG_PID", "")
    micros = environ.get("WATCHDOG_USEC", "")
    if not micros.isdecimal() or int(micros) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(micros) / 2_000_000


def listen_sockets(environ: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The listening sockets that systemd opened for this process, in the order of its unit; mostly none.

    Taken once: the variables are removed, so that no child believes the sockets to be its own.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    sockets = []
    for number in range(LISTEN_FDS_START, LISTEN_FDS_START + int(count)):
        os.set_inheritable(number, False)
        sockets.append(socket.socket(fileno=number))
    return sockets

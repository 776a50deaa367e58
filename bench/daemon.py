"""The daemon under measurement: a real subprocess with a state directory on disk, started, killed and started again."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from bench import evidence
from bench.profiling import Profile, Sampling
from bench.venvs import CHECKOUT

_READY_SECONDS = 30
_STOP_SECONDS = 60
_LOOK_SECONDS = 0.001

_AGENTS = ("one", "ten", "awaiting", "ticking", "sleeping")

CONFIG = "\n".join(
    [
        "[queues.default]",
        "concurrency = 100",
        "[queues.wide]",
        "concurrency = 1000",
        *(f'[agents.{name}]\nuse = "function"\nfunction = "bench.agents:{name}"' for name in _AGENTS),
        '[agents.crossing]\nuse = "function"\nfunction = "bench.agents:crossing"\nqueue = "wide"',
        "",
    ]
)
"""Everything is at its default (the default queue's 100 too), but for a queue that lets 1,000 runs be in flight."""

HOOKS = """
[hooks.look]
use = "python"
point = "pre_run"
function = "bench.agents:look"
[hooks.tell]
use = "webhook"
point = "post_run"
url = "{url}"
[webhooks]
allow_private = ["127.0.0.0/8"]
"""
"""One hook that is asked before each run, and one that is told after it, at `url`."""


class DaemonError(Exception):
    """The daemon did not start, or not end, as it should."""


class Daemon:
    """One state directory and the process that serves it."""

    def __init__(self, directory: Path, *, profile: Profile | None = None, config: str = CONFIG) -> None:
        self.directory = directory
        self.state_dir = directory / "state"
        self.log = directory / "daemon.log"
        self.evidence = directory / "evidence.log"
        self.gate = directory / "gate"
        self._config = directory / "bench.toml"
        self._profile = profile
        self._sampling: Sampling | None = None
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._config.write_text(config)

    def launch(self) -> float:
        """Starts the process and gives the time it was started at, in Unix seconds; it is not ready yet."""
        self._address.unlink(missing_ok=True)
        wrapper = self._profile.wrapper() if self._profile else ()
        command = [*(wrapper or (sys.executable, "-m")), "latticed.cli.daemon", "serve", "--port", "0"]
        command += ["--state-dir", str(self.state_dir), "--config", str(self._config)]
        with self.log.open("ab") as log:
            begun = time.time()
            self._process = subprocess.Popen(command, cwd=CHECKOUT, env=self._environment(), stdout=log, stderr=log)
        return begun

    def await_ready(self) -> None:
        """Returns when the daemon has written its address.

        Raises:
            DaemonError: it ended, or is not ready within 30 s; with the end of its log.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while not (self._address.exists() and self._address.read_text().endswith("\n")):
            if self.process.poll() is not None:
                raise DaemonError(f"the daemon ended with {self.process.returncode}: {self._end_of_log()}")
            if time.monotonic() > deadline:
                raise DaemonError(f"the daemon is not ready after {_READY_SECONDS} s: {self._end_of_log()}")
            time.sleep(_LOOK_SECONDS)

    def start(self) -> float:
        """`launch`, then `await_ready`."""
        begun = self.launch()
        self.await_ready()
        self._sampling = self._profile.attach(self.process.pid) if self._profile else None
        return begun

    def kill(self) -> None:
        """SIGKILL, and waits until the process is gone."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if it has not ended a minute later."""
        if self._process is None or self._process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._sampling is not None:
            self._sampling.finish()

    def resident_mb(self) -> float:
        """The resident memory of the daemon and its children, in MB."""
        root = psutil.Process(self.process.pid)
        total = 0
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total / 1e6

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._address.read_text().strip()

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of a request by the admin."""
        token = (self.state_dir / "admin.token").read_text().strip()
        return {"Host": urlsplit(self.url).netloc, "Authorization": f"Bearer {token}"}

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The subprocess.

        Raises:
            DaemonError: it was never launched.
        """
        if self._process is None:
            raise DaemonError("the daemon was never launched")
        return self._process

    @property
    def _address(self) -> Path:
        return self.state_dir / "address"

    def _environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("LATTICED_")}
        own["PYTHONPATH"] = str(CHECKOUT)
        own[evidence.LOG_VARIABLE] = str(self.evidence)
        own[evidence.GATE_VARIABLE] = str(self.gate)
        return own

    def _end_of_log(self) -> str:
        return self.log.read_text(errors="replace").replace("\\n", "\n")[-1000:]


@contextlib.contextmanager
def running(directory: Path, *, profile: Profile | None = None, config: str = CONFIG) -> Iterator[Daemon]:
    """A daemon that is ready, with a fresh state directory; stopped at the end. After an error it is killed.

    `config` is the whole configuration file.
    """
    daemon = Daemon(directory, profile=profile, config=config)
    try:
        daemon.start()
        yield daemon
    except BaseException:
        with contextlib.suppress(DaemonError):
            daemon.kill()
        raise
    daemon.stop()

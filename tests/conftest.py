"""Fixtures: a real daemon as a subprocess, driven from outside as anybody would drive it."""

import inspect
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import httpcore2
import httpx2
import hypothesis
import psutil
import pytest

from tests import agents_for_tests, forking
from tests.tables import merged, to_toml
from tests.wait import eventually, wait_until

__all__ = ["TERMINAL", "Daemon", "eventually", "merged", "to_toml", "wait_until"]

ROOT = Path(__file__).resolve().parent.parent
TERMINAL = {"ok", "retried_ok", "partial", "failed", "rejected", "cancelled", "interrupted"}
AGENTS = {
    name: {"use": "function", "function": f"agents_for_tests:{name}"}
    for name, function in inspect.getmembers(agents_for_tests, inspect.isfunction)
    if next(iter(inspect.signature(function).parameters), None) == "ctx"
}
CONFIG: dict[str, Any] = {
    "runs": {"grace_seconds": 1.0, "kill_seconds": 1.0, "drain_seconds": 2.0},
    "agents": AGENTS,
}
"""What the fixtures' daemons are configured with; a test's own `config` is laid over it."""

# How long an example takes says how busy the machine is, and nothing of what is tested.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

# Each client would read all certificates of the machine, 20 ms long, of which none is ever needed here.
httpcore2.default_ssl_context = cache(httpcore2.default_ssl_context)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: "crash" not in item.path.parts)


@cache
def empty_database() -> bytes:
    """A database without runs. Most daemons begin with a copy, since to make one is half of a first start."""
    with TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "latticed.cli.daemon", "migrate", "--state-dir", directory]
        subprocess.run(
            command, env=os.environ | {"LATTICED_CONFIG": os.devnull}, cwd=ROOT, check=True, capture_output=True
        )
        return Path(directory, "latticed.db").read_bytes()


def _has_ended(process: psutil.Process) -> bool:
    """Also if whoever has inherited it takes its time to notice."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Daemon:
    """One daemon over all its lives: it keeps its state directory when it is stopped, killed and started again."""

    def __init__(
        self,
        home: Path,
        config: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        args: tuple[str, ...] = (),
        state_dir: Path | None = None,
        sockets: tuple[socket.socket, ...] = (),
        *,
        bare: bool = False,
        executed: bool = False,
    ) -> None:
        """`sockets` are handed over as systemd does it: numbered from 3, and the process knows that it is meant. A
        `bare` one has to make its database by itself. Unless it is to be `executed`, or has to be, it is forked off
        a process that has imported what it imports."""
        home.mkdir(parents=True, exist_ok=True)
        self.home, self.state_dir = home, state_dir or home / "state"
        self.config_file, self.log_file = home / "latticed.toml", home / "log"
        self.env, self.args, self.sockets = dict(env or {}), args, sockets
        self.workspace, self._bare, self._executed = "default", bare, executed
        self._started: list[subprocess.Popen[bytes] | forking.Forked] = []
        self._client: httpx2.Client | None = None
        self._stranger: httpx2.Client | None = None
        self._family: dict[int, psutil.Process] = {}
        self.configure(config or {})

    def configure(self, config: Mapping[str, Any]) -> None:
        """Writes the configuration file: the fixtures' own with `config` laid over it."""
        whole = merged(CONFIG, config)
        self.config_file.write_text(to_toml(whole) + "\n", encoding="utf-8")
        on_models = any(agent.get("use") in ("pydantic-ai", "pipeline") for agent in whole["agents"].values())
        self._kind = forking.ON_MODELS if on_models else forking.PLAIN

    # --- its life ---

    @property
    def arguments(self) -> list[str]:
        given = ["--port", "0", "--state-dir", str(self.state_dir), "--config", str(self.config_file)]
        return ["serve", *given, *self.args]

    @property
    def command(self) -> list[str]:
        start = [sys.executable, "-m", "latticed.cli.daemon", *self.arguments]
        if not self.sockets:
            return start
        numbered = " ".join(f"{number}<&{door.fileno()}" for number, door in enumerate(self.sockets, 3))
        give = f'export LISTEN_PID=$$ LISTEN_FDS={len(self.sockets)}; exec "$@" {numbered}'
        return ["bash", "-c", give, "bash", *start]

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment without what configures a daemon, and with the tests' agents in reach."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("LATTICED_")}
        return ours | {"PYTHONPATH": forking.PATHS} | self.env

    @property
    def process(self) -> subprocess.Popen[bytes] | forking.Forked:
        """The process of the present or latest life."""
        return self._started[-1]

    @property
    def running(self) -> bool:
        return bool(self._started) and self.process.poll() is None

    def launch(self) -> "Daemon":
        """Starts the process and does not wait for it."""
        assert not self.running, "it runs already"
        (self.state_dir / "address").unlink(missing_ok=True)
        if not self._bare and not self.state_dir.exists():
            self.state_dir.mkdir(mode=0o700, parents=True)
            (self.state_dir / "latticed.db").write_bytes(empty_database())
        with self.log_file.open("ab") as log:
            if self._executed or self.sockets or not forking.can_fork(self.env):
                self._started.append(self._execute(log))
            else:
                self._started.append(
                    forking.fork(self._kind, self.arguments, self.environment, self.home, log.fileno())
                )
        return self

    def _execute(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command,
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[door.fileno() for door in self.sockets],
        )

    def start(self, timeout: float = 30) -> "Daemon":
        """Starts it and waits until it serves."""
        return self.launch().wait_ready(timeout)

    def wait_ready(self, timeout: float = 30) -> "Daemon":
        wait_until(lambda: not self.running or self._address(), timeout, 0.002)
        assert self.running, f"the daemon ended with {self.process.returncode} at its start:\n{self.log[-4000:]}"
        return self

    def stop(self, timeout: float = 30) -> int:
        """SIGTERM; the exit code."""
        return self.end(signal.SIGTERM, timeout)

    def kill(self) -> int:
        """SIGKILL; the exit code, which is -9."""
        return self.end(signal.SIGKILL, 10)

    def end(self, signum: int, timeout: float = 30) -> int:
        """Sends a signal and waits for the end of the process."""
        self._note_family()
        if self.running:
            self.process.send_signal(signum)
        return self.wait_exit(timeout)

    def wait_exit(self, timeout: float = 30) -> int:
        """Waits for the process to end by itself; the exit code."""
        code = self.process.wait(timeout)
        self._hang_up()
        return code

    def restart(self) -> "Daemon":
        """Stops it, if it runs, and starts it again."""
        if self.running:
            self.stop()
        return self.start()

    def close(self) -> None:
        """Ends whatever is left of any life: the daemon, its process group, and what it started."""
        self._note_family()
        for process in self._started:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
        for member in self._family.values():  # psutil looks that the pid is still the same process
            with suppress(psutil.Error):
                member.kill()
        wait_until(lambda: all(map(_has_ended, self._family.values())), 5)
        self._hang_up()

    def _hang_up(self) -> None:
        for client in (self._client, self._stranger):
            if client is not None:
                client.close()
        self._client = self._stranger = None

    def _note_family(self) -> None:
        """Remembers what the daemon started, since commands run in sessions of their own."""
        if self.running:
            with suppress(psutil.Error):
                children = psutil.Process(self.process.pid).children(recursive=True)
                self._family |= {child.pid: child for child in children}

    # --- what it says ---

    def _address(self) -> str:
        try:
            text = (self.state_dir / "address").read_text(encoding="ascii")
        except FileNotFoundError:
            return ""
        return text.strip() if text.endswith("\n") else ""

    @property
    def url(self) -> str:
        return self._address()

    @property
    def token(self) -> str:
        """The admin token."""
        return (self.state_dir / "admin.token").read_text(encoding="ascii").strip()

    @property
    def log(self) -> str:
        """Everything that it wrote to stdout and stderr, in all its lives."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def log_lines(self) -> list[dict[str, Any]]:
        """The lines of its log that are JSON."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    @property
    def client(self) -> httpx2.Client:
        """Signed in as admin; for as long as this life lasts."""
        if self._client is None:
            headers = {"Authorization": f"Bearer {self.token}"}
            self._client = httpx2.Client(base_url=self.url, headers=headers, timeout=70)
        return self._client

    @property
    def stranger(self) -> httpx2.Client:
        """Not signed in, and without a memory for cookies."""
        if self._stranger is None:
            no_cookies = CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
            self._stranger = httpx2.Client(base_url=self.url, timeout=70, cookies=no_cookies)
        return self._stranger

    @property
    def agents(self) -> dict[str, dict[str, Any]]:
        """What it says of its agents, by name."""
        answer = self.client.get(self.path("agents"), params={"limit": 500})
        return {item["name"]: item for item in answer.json()["items"]}

    # --- runs ---

    def path(self, tail: str, workspace: str | None = None) -> str:
        """`runs` → `/v1/workspaces/default/runs`."""
        return f"/v1/workspaces/{workspace or self.workspace}/{tail}"

    def post_run(self, target: str, goal: str = "goal", *, wait: float | None = None, **fields: Any) -> dict[str, Any]:
        """Starts a run of an agent; the run as answered. Every other field of the body may be given."""
        workspace, key = fields.pop("workspace", None), fields.pop("idempotency_key", None)
        answer = self.client.post(
            self.path("runs", workspace),
            params={} if wait is None else {"wait": wait},
            headers={} if key is None else {"Idempotency-Key": key},
            json={"kind": "agent", "target": target, "goal": goal, **fields},
        )
        assert answer.status_code in (200, 202), answer.text
        run: dict[str, Any] = answer.json()["run"]
        return run

    def get(self, run_id: str, tail: str = "", **params: Any) -> dict[str, Any]:
        """The run, or what lies under it (`steps`, `why`)."""
        answer = self.client.get(self.path(f"runs/{run_id}/{tail}".rstrip("/")), params=params)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait(self, run_id: str, status: str | set[str] | None = None, timeout: float = 15) -> dict[str, Any]:
        """The run once it has that status, or one of those; without one, once it has ended."""
        wanted = TERMINAL if status is None else {status} if isinstance(status, str) else status

        def settled() -> dict[str, Any] | None:
            run = self.get(run_id)
            assert run["status"] in wanted or run["status"] not in TERMINAL, f"{run['status']}: {run['error']}"
            return run if run["status"] in wanted else None

        run = wait_until(settled, timeout)
        assert run is not None
        return run

    def run(self, target: str, goal: str = "goal", **fields: Any) -> dict[str, Any]:
        """Starts a run and waits for its end; the run."""
        return self.wait(self.post_run(target, goal, **fields)["id"])

    def stop_run(self, run_id: str, **body: Any) -> dict[str, Any]:
        """Asks for a run's end; the answer."""
        answer = self.client.post(self.path(f"runs/{run_id}/stop"), json=body)
        assert answer.status_code in (200, 202), answer.text
        said: dict[str, Any] = answer.json()
        return said

    def events(self, run_id: str, *types: str) -> list[dict[str, Any]]:
        """All events of a run so far, or those of the given types."""
        found: list[dict[str, Any]] = []
        after = 0
        while page := self.get(run_id, "events", after=after, limit=500)["items"]:
            found += page
            after = page[-1]["seq"]
        return [event for event in found if not types or event["type"] in types]

    def wait_event(self, run_id: str, type: str, timeout: float = 15) -> dict[str, Any]:
        """The first event of that type, once there is one."""
        return wait_until(lambda: self.events(run_id, type), timeout)[0]

    def steps(self, run_id: str) -> list[dict[str, Any]]:
        """The journal's records of a run, at most 500."""
        records: list[dict[str, Any]] = self.get(run_id, "steps", limit=500)["items"]
        return records


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons: `daemon(config={"runs": {"threads": 1}}, env={…}, args=("--banner",), start=False)`."""
    made: list[Daemon] = []

    def make(*, start: bool = True, **options: Any) -> Daemon:
        made.append(Daemon(tmp_path / f"daemon{len(made)}", **options))
        return made[-1].start() if start else made[-1]

    try:
        yield make
    finally:
        for each in made:
            each.close()


@pytest.fixture
def executed(daemon: Callable[..., Daemon]) -> Callable[..., Daemon]:
    """Makes daemons that are executed, as users start them."""
    return partial(daemon, executed=True)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all tests that neither stop it nor count what is in it."""
    one = Daemon(tmp_path_factory.mktemp("live"), executed=True)
    try:
        yield one.start()
    finally:
        one.close()

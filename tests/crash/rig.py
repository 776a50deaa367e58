"""One daemon over many deaths: boots it, loads it, kills it, and at last lets everything come to its end."""

import os
import signal
from pathlib import Path
from random import Random
from typing import Any

import psutil

from tests.conftest import TERMINAL, Daemon, wait_until
from tests.crash import checks
from tests.crash.agents import AGENTS, PIPELINES, TOOLS
from tests.crash.excuses import MAX_RECOVERIES
from tests.crash.hooks import HOOKS
from tests.crash.ledger import Ledger
from tests.crash.load import Client, Dead, Load
from tests.crash.observed import Observed, list_all
from tests.crash.plans import Maker, is_endless
from tests.crash.told import WEBHOOKS, Audience
from tests.crash.told import wrongs as wrongly_told

CONFIG: dict[str, Any] = {
    "runs": {
        "park_seconds": 0.2,
        "grace_seconds": 0.3,
        "kill_seconds": 0.3,
        "drain_seconds": 0.5,
        "max_recoveries": MAX_RECOVERIES,
    },
    "agents": AGENTS,
    "queues": {"other": {"concurrency": 5}},
}


class Rig:
    """A daemon, the ledger of its clients, and the file into which all effects go."""

    def __init__(self, home: Path, seed: str, *, on_models: bool = False, executed: bool = False) -> None:
        """`on_models`: with agents on models too, whose start is longer."""
        self.on_models = on_models
        self.audience = Audience(seed)
        config = {**CONFIG, "agents": AGENTS | PIPELINES, "tools": TOOLS} if on_models else CONFIG
        config = config | {"hooks": HOOKS | self.audience.hooks, "webhooks": WEBHOOKS}
        self.daemon = Daemon(home, config, bare=True, executed=executed)
        self.ledger = Ledger()
        self.effects = home / "effects"
        self.died_at = home / "died_at"
        self.seed = seed
        self._earlier: set[int] = set()

    # --- lives and deaths ---

    def launch(self, failpoints: str = "") -> None:
        """Starts it, with failpoints armed, and does not wait."""
        self.daemon.env = {
            "LATTICED_FAILPOINTS": failpoints, "LATTICED_FAILPOINT_LOG": str(self.died_at),
            "EFFECTS": str(self.effects),
        }  # fmt: skip
        # By their numbers, which nobody gets again so soon: psutil's times of birth are off by up to a second.
        self._earlier = {process["pid"] for process in self._processes()}
        self.daemon.launch()

    def serves(self, timeout: float = 60) -> bool:
        """Waits until it serves; False if it died before. What an earlier life started must be gone by then."""
        wait_until(lambda: not self.daemon.running or self.daemon.url, timeout, 0.005)
        if not self.daemon.running:
            self.expect_killed()
            return False
        for process in self._processes():
            if process["pid"] in self._earlier:
                self.ledger.complain(f"a process of an earlier life is still there: {process}")
        return True

    def boot(self) -> None:
        """Starts it without failpoints."""
        self.launch()
        assert self.serves(), "it does not live"

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self.daemon.running:
            os.kill(self.daemon.process.pid, signal.SIGKILL)
        self.wait_dead()

    def wait_dead(self, timeout: float = 30) -> None:
        """Waits for its death, which must be a SIGKILL."""
        self.daemon.wait_exit(timeout)
        self.expect_killed()

    def expect_killed(self) -> None:
        if self.daemon.process.returncode != -signal.SIGKILL:
            self.ledger.complain(f"it ended with {self.daemon.process.returncode}: {self.daemon.log[-2000:]}")

    def deaths(self) -> list[str]:
        """The failpoints at which it died, in order."""
        return self.died_at.read_text(encoding="ascii").split() if self.died_at.exists() else []

    def _processes(self) -> list[dict[str, Any]]:
        """Every process that a command of this daemon's started."""
        work = str(self.daemon.state_dir / "work")
        found = []
        for process in psutil.process_iter(["pid", "cwd", "cmdline", "status"]):
            cwd = process.info["cwd"]
            if cwd and cwd.startswith(work) and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.info)
        return found

    # --- to the end ---

    def load(self, life: int, clients: int) -> Load:
        """Clients at work on this life of the daemon, and a reader of its feed."""
        return Load(self.daemon, self.ledger, str(self.effects), f"{self.seed}/{life}", clients)

    def client(self, seed: str) -> Client:
        """A client that does nothing by itself."""
        return Client(self.daemon, self.ledger, Maker(str(self.effects), Random(f"{self.seed}/{seed}")))

    def settle(self, timeout: float = 60) -> None:
        """Does all that runs wait for, and stops what would never end, until every run is over."""
        client = self.client("settle")
        stopped: set[str] = set()

        def over() -> bool:
            active = self._active()
            for run in active:
                if is_endless(run) and run["id"] not in stopped:
                    stopped.add(run["id"])
                    client.stop(run["id"], "now")
            client.answer_approvals()
            client.send_signals()
            return not active

        try:
            for each in self.ledger.submissions:
                if each.key is not None and not each.accepted:
                    client.post(each)
            wait_until(over, timeout, 0.05)
            wait_until(lambda: not list_all(self.daemon, "hooks/deliveries", status="pending"), timeout, 0.05)
        except (AssertionError, Dead) as error:
            self.ledger.complain(f"not all runs end: {error!r}")
            for run in self._active():
                self.ledger.complain(f"{run} {self.daemon.get(run['id'], 'why')}")
        finally:
            client.close()

    def _active(self) -> list[dict[str, Any]]:
        """The runs that are not over. Asked for by status, one that moves on meanwhile would be missed."""
        return [run for run in list_all(self.daemon, "runs") if run["status"] not in TERMINAL]

    def wrongs(self) -> list[str]:
        """Everything that does not hold, all runs being over and the daemon alive."""
        try:
            wait_until(lambda: not self._processes(), 5)
        except AssertionError:
            self.ledger.complain(f"processes that outlive their runs: {self._processes()}")
        seen = Observed(self.daemon, self.ledger, self.effects)
        return [*checks.wrongs(seen), *wrongly_told(seen, self.audience)]

    def close(self) -> None:
        self.audience.close()
        self.daemon.close()

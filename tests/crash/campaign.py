"""Random kills: rounds of them, each round a store of its own, made from the seed and the round's number alone.

A death is one of: SIGKILL at some moment of service; SIGKILL at some moment of the start; at a failpoint, the nth time
it is passed; a SIGTERM, with or without a SIGKILL while it drains.
"""

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from random import Random

from latticed.failpoints import FAILPOINTS
from tests.conftest import wait_until
from tests.crash.rig import Rig

KILLS_A_ROUND = 20
SERVES_SECONDS = 1.2
"""How long it is let serve at most before it is killed."""
STARTS_SECONDS = 0.8
DRAIN_LIMIT_SECONDS = 0.5 + 0.3 + 5
"""Within which a drain must be over: drain_seconds + kill_seconds + 5."""


class Violation(Exception):
    """Something that must hold does not."""


class Round:
    """Some kills of one daemon, then the look whether all holds."""

    def __init__(self, home: Path, seed: int, number: int) -> None:
        self._random = Random(f"{seed}/{number}")
        self.rig = Rig(home, f"{seed}/{number}", executed=True)
        self.deaths: Counter[str] = Counter()

    def run(self, kills: int) -> None:
        """Kills it so often, lets everything end, and looks.

        Raises:
            Violation: with all that is wrong.
        """
        often = (self._while_serving, self._at_failpoints)
        ways = (*often, *often, self._while_starting, self._while_draining)
        for life in range(kills):
            self._random.choice(ways)(life)
        self.rig.boot()
        reader = self.rig.load(kills, clients=0)
        self.rig.settle()
        wrongs = self.rig.wrongs()
        self.rig.kill()
        reader.join()
        if wrongs:
            raise Violation("\n".join(wrongs))

    # --- deaths ---

    def _while_serving(self, life: int) -> None:
        self.rig.launch()
        if self.rig.serves():
            load = self.rig.load(life, clients=3)
            self._let_live(self._random.uniform(0.02, SERVES_SECONDS))
            self.rig.kill()
            load.join()
            self.deaths["serving"] += 1

    def _while_starting(self, life: int) -> None:
        self.rig.launch()
        self._let_live(self._random.uniform(0.1, STARTS_SECONDS))
        self.rig.kill()
        self.deaths["starting"] += 1

    def _at_failpoints(self, life: int) -> None:
        names = self._random.sample(sorted(FAILPOINTS), 6)
        self.rig.launch(",".join(f"{name}:{int(self._random.expovariate(0.1)) + 1}" for name in names))
        if self.rig.serves():
            load = self.rig.load(life, clients=3)
            self._let_live(2 * SERVES_SECONDS)
            self.rig.kill()
            load.join()
        self.deaths["failpoint"] += 1

    def _while_draining(self, life: int) -> None:
        self.rig.launch()
        if not self.rig.serves():
            return
        load = self.rig.load(life, clients=3)
        self._let_live(self._random.uniform(0.02, SERVES_SECONDS))
        process = self.rig.daemon.process
        os.kill(process.pid, signal.SIGTERM)
        if self._random.random() < 0.5:
            self._let_live(self._random.uniform(0.0, 1.0))
            if self.rig.daemon.running:
                os.kill(process.pid, self._random.choice((signal.SIGTERM, signal.SIGKILL)))
        began = time.monotonic()
        code = self.rig.daemon.wait_exit(30)
        took = time.monotonic() - began
        load.join()
        if code not in (0, -signal.SIGKILL):
            self.rig.ledger.complain(f"a drain ended with {code}: {self.rig.daemon.log[-2000:]}")
        if code == 0 and took > DRAIN_LIMIT_SECONDS:
            self.rig.ledger.complain(f"a drain took {took:.1f} s")
        self.deaths["draining"] += 1

    def _let_live(self, seconds: float) -> None:
        """For so long, unless it dies before."""
        until = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() >= until or not self.rig.daemon.running, seconds + 5, 0.005)


def play_round(home: Path, seed: int, number: int, kills: int = KILLS_A_ROUND) -> Counter[str]:
    """One round in an empty directory, which is gone afterwards if all holds; how it died how often.

    Raises:
        Violation: with all that is wrong; then the directory is kept.
    """
    one = Round(home, seed, number)
    try:
        one.run(kills)
    finally:
        one.rig.close()
    shutil.rmtree(home)
    return one.deaths


def play(
    home: Path, seed: int, kills: int, tell: Callable[[str], None], first: int = 0, rounds: int | None = None,
    jobs: int = 1,
) -> Counter[str]:  # fmt: skip
    """Rounds until it was killed so often, or so many rounds; `jobs` of them at a time, each in a process of its own:
    much of a life is waiting, and the clients of one round would take the time of another's.

    Raises:
        Violation: with all that is wrong and how to see it again.
    """
    deaths: Counter[str] = Counter()
    began = time.monotonic()
    numbers = range(first, first + (ceil(kills / KILLS_A_ROUND) if rounds is None else rounds))
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        played = {pool.submit(play_round, home / f"round{number}", seed, number): number for number in numbers}
        for each in as_completed(played):
            number = played[each]
            try:
                deaths += each.result()
            except Violation as violation:
                again = f"python -m tests.crash --seed {seed} --round {number}"
                wrong = Violation(f"{violation}\nstate: {home / f'round{number}'}\nagain: {again}")
                tell(f"{wrong}\nthe rounds that have begun are played to their end")
                pool.shutdown(cancel_futures=True)
                raise wrong from None
            sorts = " ".join(f"{sort} {count}" for sort, count in sorted(deaths.items()))
            tell(f"seed {seed} round {number}: {deaths.total()} kills ({sorts}), {time.monotonic() - began:.0f} s")
    return deaths

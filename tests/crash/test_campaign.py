"""The long form of the crash tests: `make crash`, or `make crash SEED=7 KILLS=500 JOBS=2`."""

import os
import random
from pathlib import Path

import pytest

from tests.crash.campaign import play


@pytest.mark.crash_long
def test_nothing_breaks_however_often_it_is_killed(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"\nseed {seed}; one round again: python -m tests.crash --seed {seed} --round N")
    jobs = int(os.environ.get("JOBS") or os.cpu_count() or 1)
    play(tmp_path, seed, int(os.environ.get("KILLS") or 2000), print, jobs=jobs)

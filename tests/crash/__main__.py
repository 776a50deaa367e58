"""`python -m tests.crash --seed N --kills 2000`: thousands of random kills; `--round R` plays one round again."""

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

from tests.crash.campaign import Violation, play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--round", type=int, help="this round alone")
    parser.add_argument("--times", type=int, default=1, help="how many rounds from --round on")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many rounds are played at a time")
    parser.add_argument("--home", type=Path, help="where the stores are; kept only where something is wrong")
    given = parser.parse_args()
    home = given.home or Path(tempfile.mkdtemp(prefix="latticed-crash-"))
    print(f"seed {given.seed}, in {home}", flush=True)
    one = given.round is not None
    try:
        play(
            home, given.seed, given.kills, lambda line: print(line, flush=True),
            first=given.round if one else 0, rounds=given.times if one else None, jobs=given.jobs,
        )  # fmt: skip
    except Violation as violation:
        print(f"\nVIOLATION\n{violation}", file=sys.stderr)
        return 1
    print("all holds")
    return 0


if __name__ == "__main__":
    sys.exit(main())

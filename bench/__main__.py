"""The benchmark: latticed over HTTP and DBOS on SQLite, alternating, round after round. See bench/README.md."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import uvloop

from bench import machine, ours, peer, profiling, report
from bench.figures import QUICK, WORKLOADS, Sizes
from bench.venvs import CHECKOUT

_PEERS: Mapping[str, peer.Journal] = {"DBOS": "delete", "DBOS WAL": "wal"}
_JOURNALS = {"delete": ["DBOS"], "wal": ["DBOS WAL"], "both": ["DBOS", "DBOS WAL"]}
_NAMES = ", ".join(WORKLOADS)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=4, help="how often each side does each workload (4)")
    add("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME", help=f"some of {_NAMES}")
    add("--peer", action=argparse.BooleanOptionalAction, default=True, help="measure DBOS (yes)")
    add("--ours", action=argparse.BooleanOptionalAction, default=True, help="measure latticed (yes)")
    add("--journal", choices=_JOURNALS, default="both", help="of SQLite under DBOS; both: where it matters (both)")
    add("--observe", choices=("poll", "sse"), default="poll", help="how throughput learns that all have ended (poll)")
    add("--quick", action="store_true", help="one small round: does it work, not how fast is it")
    add("--json", type=Path, metavar="FILE", help="write every value of every round there")
    add("--dir", type=Path, default=CHECKOUT / ".bench", help="where the databases lie, on a disk (.bench)")
    add("--profile", choices=profiling.PROFILERS, help="one round of ours with the daemon under it, no peer")
    args = parser.parse_args(argv)
    if args.quick or args.profile:
        args.rounds = 1
    if args.profile:
        args.peer = False
        if args.only == list(WORKLOADS):
            args.only = ["throughput"]
    return args


def sides(args: argparse.Namespace, workload: str) -> list[str]:
    """Who does that workload, in the order of an even round."""
    peers = _JOURNALS[args.journal] if args.peer and workload in peer.WORKLOADS else []
    if workload not in peer.JOURNAL_MATTERS:
        peers = peers[:1]
    return [*([report.OURS] if args.ours else []), *peers]


def measure(
    args: argparse.Namespace, side: str, workload: str, directory: Path, python: Path | None
) -> dict[str, float]:
    """One side does one workload once, in a fresh directory."""
    sizes = QUICK if args.quick else Sizes()
    if side == report.OURS:
        found = args.dir / "profile" / args.profile / workload if args.profile else None
        profile = profiling.Profile(args.profile, found) if found else None
        plan = ours.Plan(directory, sizes, args.observe, profile)
        return uvloop.run(ours.WORKLOADS[workload](plan))
    assert python is not None
    return peer.WORKLOADS[workload](peer.Peer(directory, sizes, _PEERS[side], python))


def run(args: argparse.Namespace, say: Callable[[str], None]) -> report.Results:
    """All rounds. A side that fails is noted and the rest goes on."""
    python = peer.set_up() if args.peer else None
    everyone = list(dict.fromkeys(side for workload in args.only for side in sides(args, workload)))
    results = report.Results(everyone)
    for number in range(args.rounds):
        for workload in args.only:
            turn = sides(args, workload)
            for side in turn if number % 2 == 0 else reversed(turn):
                directory = Path(tempfile.mkdtemp(prefix=f"{workload}-", dir=args.dir))
                begun = time.monotonic()
                try:
                    figures = measure(args, side, workload, directory, python)
                except Exception as error:
                    results.errors.append(f"round {number + 1}, {workload}, {side}: {type(error).__name__}: {error}")
                    say(f"{results.errors[-1]}\n  (its files are in {directory})")
                    continue
                shutil.rmtree(directory, ignore_errors=True)
                results.add(side, workload, figures)
                shown = ", ".join(f"{key} {report.number(value)}" for key, value in figures.items())
                say(f"round {number + 1} {workload:<10} {side:<8} {shown}  [{time.monotonic() - begun:.0f} s]")
    return results


def main() -> int:
    args = arguments()
    machine.scratch(args.dir)
    if machine.in_memory(args.dir):
        print(f"{args.dir} is in memory, where fsync costs nothing: choose a disk with --dir", file=sys.stderr)
        return 2
    described = machine.describe(args.dir)
    for name, text in described.items():
        print(f"{name:<7} {text}")
    if args.peer:
        print(f"peer    DBOS Transact {peer.VERSION} on SQLite")
    results = run(args, partial(print, flush=True))
    print(f"\nMedians of {args.rounds} rounds (lowest..highest); `to`: how many times better latticed is.\n")
    print(report.table(results))
    if args.json:
        args.json.write_text(json.dumps({"machine": described, "rounds": args.rounds, **results.as_json()}, indent=1))
    if args.profile:
        print(f"\nprofiles: {args.dir / 'profile'}")
    for error in results.errors:
        print(f"failed: {error}", file=sys.stderr)
    return 1 if results.errors else 0


if __name__ == "__main__":
    sys.exit(main())

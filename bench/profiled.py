"""Runs a module under cProfile, each of its threads too: `python -m bench.profiled DIRECTORY MODULE ARGS…`.

At the end there is one file a thread in DIRECTORY, for `pstats` or any viewer, and `report.txt` with the functions
that took most time themselves. The profiler makes Python about three times slower and flatters what is in C: look
for what is called too often, and take no times from it.
"""

import atexit
import cProfile
import io
import os
import pstats
import runpy
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

_LINES = 45
_profiles: dict[str, cProfile.Profile] = {}


def _profile_threads() -> None:
    run = threading.Thread.run

    def profiled(self: threading.Thread) -> None:
        profile = _profiles[f"thread-{len(_profiles)}-{self.name.replace('/', '_')}"] = cProfile.Profile()
        profile.runcall(run, self)

    threading.Thread.run = profiled  # type: ignore[method-assign]  # what cProfile lacks: threads


def _write_and_exit(directory: Path, leave: Callable[[int], NoReturn]) -> Callable[[int], NoReturn]:
    def write_and_exit(code: int) -> NoReturn:
        _write(directory)
        leave(code)

    return write_and_exit


def _write(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    for name, profile in _profiles.items():
        profile.dump_stats(directory / f"{name}.prof")
        stats = pstats.Stats(str(directory / f"{name}.prof"), stream=text)
        if stats.total_tt > 0.05:  # type: ignore[attr-defined]
            print(f"== {name}", file=text)
            stats.sort_stats("tottime").print_stats(_LINES)
    (directory / "report.txt").write_text(text.getvalue())


def main() -> None:
    directory, module = Path(sys.argv[1]), sys.argv[2]
    sys.argv[1:3] = []
    _profile_threads()
    atexit.register(_write, directory)
    os._exit = _write_and_exit(directory, os._exit)  # type: ignore[assignment]  # the daemon ends itself by it
    profile = _profiles["main"] = cProfile.Profile()
    profile.enable()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        profile.disable()


if __name__ == "__main__":
    main()

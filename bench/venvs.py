"""Virtual environments of the benchmark's own, for programs that the project itself does not depend on."""

import subprocess
import sys
from pathlib import Path

from bench import machine

CHECKOUT = Path(__file__).resolve().parent.parent


class NotInstalled(Exception):
    """A package could not be had."""


def python_with(name: str, *packages: str) -> Path:
    """The Python of `.venv-bench/NAME`, which has these packages; made at the first call, by `venv` and `pip install`.

    Raises:
        NotInstalled: with the end of what pip said.
    """
    venv = machine.scratch(CHECKOUT / ".venv-bench") / name
    python = venv / "bin" / "python"
    ready = venv / "ready"
    if not ready.exists():
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(venv)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise NotInstalled(f"{' '.join(command)}: {done.stderr[-2000:]}")
        ready.touch()
    return python

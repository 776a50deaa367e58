"""Most tests look at daemons that are forked off: such a process is what an executed one is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Daemon

MIRROR = """
import asyncio, os, sys, threading
from pathlib import Path

def join(name):
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join()

async def mirror(ctx, goal, inputs):
    await asyncio.to_thread(join, "warming")
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "status": {key: status[key] for key in ("SigBlk", "SigIgn", "SigCgt", "Umask", "NoNewPrivs", "Seccomp")},
        "threads": sorted({thread.name.partition(" ")[2] or thread.name for thread in threading.enumerate()}),
        "descriptors": sorted(os.readlink(f"/proc/self/fd/{n}").partition(":[")[0] for n in os.listdir("/proc/self/fd")
                              if os.path.lexists(f"/proc/self/fd/{n}")),
        "environment": dict(os.environ),
        "path": sys.path,
        "arguments": sys.argv,
        "flags": repr(sys.flags),
        "directory": os.getcwd(),
        "leads": (os.getsid(0), os.getpgid(0)) == (os.getpid(), os.getpid()),
        "encodings": [(each.encoding, each.errors) for each in (sys.stdin, sys.stdout, sys.stderr)],
        "agents": sorted(name for name in sys.modules if name.startswith(("tests.", "agents_"))),
    }
"""


def seen(one: Daemon) -> dict[str, Any]:
    """What a run sees of the process that it is in."""
    run = one.start().run("mirror")
    assert one.stop() == 0
    found: dict[str, Any] = run["output"]
    return found


@pytest.mark.parametrize("agents", [{}, {"helper": {"use": "pydantic-ai", "agent": "agents_on_models:helper"}}])
def test_a_forked_daemon_is_as_an_executed_one(
    executed: Callable[..., Daemon], tmp_path: Path, agents: dict[str, Any]
) -> None:
    (tmp_path / "mirrors.py").write_text(MIRROR)
    config = {"agents": {"mirror": {"use": "function", "function": "mirrors:mirror"}, **agents}}
    options = {"config": config, "args": ("--app-dir", str(tmp_path)), "env": {"SOME": "thing"}, "start": False}
    real = executed(**options)
    forked = Daemon(real.home, **{name: value for name, value in options.items() if name != "start"})
    try:
        assert seen(forked) == seen(real)
    finally:
        forked.close()

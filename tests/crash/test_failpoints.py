"""The daemon dies once at every failpoint, half of them on one state directory, and breaks nothing that it promised."""

import ast
from pathlib import Path
from random import Random

import pytest

from latticed.failpoints import FAILPOINTS
from tests.conftest import ROOT, wait_until
from tests.crash.plans import Maker
from tests.crash.rig import Rig

OFTEN = {"commit": 25, "submit": 6, "claim": 4, "step": 12, "end": 4, "child": 2, "hook": 5, "deliver": 8}
"""The first part of a failpoint's name → at which passage to die there, so that something is under way."""
AT_A_DRAIN = {"drain.after", "release.before", "release.after"}


def test_each_failpoint_is_somewhere_and_each_place_has_its_name() -> None:
    passed = set()
    for path in (ROOT / "latticed").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hit":
                assert isinstance(node.args[0], ast.Constant), f"{path}: a failpoint's name is a literal"
                passed.add(node.args[0].value)
    assert passed == set(FAILPOINTS)


@pytest.mark.parametrize("half", [0, 1])
def test_nothing_breaks_whichever_failpoint_it_dies_at(tmp_path: Path, half: int) -> None:
    rig = Rig(tmp_path, f"failpoints {half}")
    left = {name: OFTEN.get(name.partition(".")[0], 1) for name in sorted(FAILPOINTS)[half::2]}
    try:
        while left:
            rig.launch(",".join(f"{name}:{nth}" for name, nth in left.items()))
            if rig.serves():
                live_until_it_dies(rig, len(left), drain=left.keys() <= AT_A_DRAIN)
            died_at = rig.deaths()[-1]
            assert left.pop(died_at, None), f"it died at {died_at} twice"
        rig.boot()
        rig.settle()
        wrongs = rig.wrongs()
    finally:
        rig.close()
    assert not wrongs, "\n".join(wrongs)


def live_until_it_dies(rig: Rig, life: int, *, drain: bool) -> None:
    """Does everything there is to do, again and again, until the daemon has passed one of the failpoints left."""
    load = rig.load(life, clients=2)
    client = rig.client(f"every/{life}")
    try:
        with client.until_dead():
            client.register(rig.audience.url)
            for body in Maker(str(rig.effects), Random(life)).every():
                client.submit(body)
            client.redeliver()
        if drain:
            rig.daemon.process.terminate()
        wait_until(lambda: not rig.daemon.running, 20)
    finally:
        client.close()
        rig.kill()
        load.join()

"""The daemon dies once at every failpoint, half of them on one state directory, and breaks nothing that it promised."""

import ast
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from latticed.failpoints import FAILPOINTS
from tests.conftest import ROOT, wait_until
from tests.crash.plans import Maker
from tests.crash.rig import Rig

OFTEN = {"commit": 25, "submit": 6, "claim": 4, "step": 12, "end": 4, "child": 2, "hook": 5, "deliver": 8}
"""The first part of a failpoint's name → at which passage to die there, so that something is under way."""
REMOVALS = ("remove.", "prune.")
PEOPLE = ("token.before", "token.kept", "revoke.", "sign_in.", "sign_out.", "notes.")
CHANGES = ("changed.", "dropped.", "workspace.", "overtaken.", "lapse.")
ELSEWHERE = (*REMOVALS, *PEOPLE, *CHANGES)
"""Beginnings of the names of what is passed where something is removed, where people come in, and where one thing must
come just before another: test_removal.py, test_people.py and test_changes.py die there."""
ON_MODELS = {"model", "tool", "role", "plan", "review"}
AT_A_DRAIN = {"drain.after", "release.before", "release.after"}


def test_each_failpoint_is_somewhere_and_each_place_has_its_name() -> None:
    passed = set()
    for path in (ROOT / "latticed").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hit":
                assert isinstance(node.args[0], ast.Constant), f"{path}: a failpoint's name is a literal"
                passed.add(node.args[0].value)
    assert passed == set(FAILPOINTS)


def test_nothing_breaks_whichever_failpoint_it_dies_at(tmp_path: Path) -> None:
    names = [name for name in FAILPOINTS if name.partition(".")[0] not in ON_MODELS and not name.startswith(ELSEWHERE)]
    with ThreadPoolExecutor(2) as pool:  # Each half has a daemon of its own, since most of a life is its start.
        rigs = [Rig(tmp_path / home, f"failpoints {home}") for home in ("one", "other")]
        found = list(pool.map(die_at_each, rigs, (names[::2], names[1::2])))
    wrongs = [wrong for each in found for wrong in each]
    assert not wrongs, "\n".join(wrongs)


def test_nothing_breaks_whichever_failpoint_of_agents_on_models_it_dies_at(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "models", on_models=True)
    wrongs = die_at_each(rig, [name for name in FAILPOINTS if name.partition(".")[0] in ON_MODELS])
    assert not wrongs, "\n".join(wrongs)


def die_at_each(rig: Rig, names: list[str]) -> list[str]:
    """One life for each of these failpoints, on one state directory; everything that does not hold afterwards."""
    left = {name: OFTEN.get(name.partition(".")[0], 1) for name in names}
    try:
        while left:
            rig.launch(",".join(f"{name}:{nth}" for name, nth in left.items()))
            if rig.serves():
                live_until_it_dies(rig, len(left), drain=left.keys() <= AT_A_DRAIN)
            died_at = rig.deaths()[-1]
            assert left.pop(died_at, None), f"it died at {died_at} twice"
        rig.boot()
        rig.settle()
        return rig.wrongs()
    finally:
        rig.close()


def live_until_it_dies(rig: Rig, life: int, *, drain: bool) -> None:
    """Does everything there is to do, again and again, until the daemon has passed one of the failpoints left."""
    load = rig.load(life, clients=2)
    client = rig.client(f"every/{life}")
    try:
        with client.until_dead():
            client.register(rig.audience.url)
            maker = Maker(str(rig.effects), Random(life))
            for body in maker.pipelines() if rig.on_models else maker.every():
                client.submit(body)
            client.redeliver()
        if drain:
            rig.daemon.process.terminate()
        wait_until(lambda: not rig.daemon.running, 20)
    finally:
        client.close()
        rig.kill()
        load.join()

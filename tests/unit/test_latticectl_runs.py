"""What `latticectl runs` says of a run that waits."""

import pytest

from tests.scripted import Answer, Scripted
from tests.unit.test_latticectl import call, server

__all__ = ["server"]


@pytest.mark.parametrize(("position", "place"), [(0, "1"), (4, "5")])
def test_places_in_a_queue_are_counted_from_one(
    server: Scripted, capsys: pytest.CaptureFixture[str], position: int, place: str
) -> None:
    told = {
        "run_id": "run_1", "status": "queued", "code": "queue_full", "reason": "queue 'default' runs 1 of 1",
        "queue": "default", "position": position, "until": None, "waits_for": [],
    }  # fmt: skip
    server.answers.append(Answer(200, told))
    assert call(["runs", "why", "run_1"]) == 0
    assert ["place", place] in [line.split() for line in capsys.readouterr().out.splitlines()]

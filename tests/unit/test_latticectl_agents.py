"""`latticectl agents` and how a run of one is asked for."""

import pytest

from tests.scripted import Answer, Scripted
from tests.unit.test_latticectl import call, server

__all__ = ["server"]

AGENT = {
    "name": "clerk", "use": "pipeline", "description": "Files.", "queue": "default", "max_retries": 2,
    "recovery": "resume", "available": False, "missing": "a model", "modes": ["simulation"], "model": None,
    "tools": [{"name": "git", "use": "command", "description": "Versions."}], "roles": ["planner"],
}  # fmt: skip


def test_an_agent_is_shown_with_what_it_can_do_and_lacks(
    server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    server.answers.extend(Answer(200, {"items": [AGENT], "next_cursor": None}) for _ in range(2))
    assert call(["agents", "show", "clerk"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "clerk  pipeline  cannot run, lacks a model"
    assert "modes        simulation" in out
    assert "git   command  Versions." in out
    assert call(["agents", "show", "other"]) == 4
    assert "there is no agent 'other'" in capsys.readouterr().err


def test_the_kind_of_a_run_may_be_said(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    for words, status in ((["run", "agent", "clerk", "file it"], None), (["run", "clerk", "file", "it"], 2)):
        server.answers.append(Answer(503, {}))
        code = call(words)
        if status is None:
            assert server.asked[-1].path == "/v1/workspaces/default/runs"
            assert server.asked[-1].body["target"] == "clerk"
            assert server.asked[-1].body["goal"] == "file it"
        else:
            assert code == status
            assert "one word too many" in capsys.readouterr().err

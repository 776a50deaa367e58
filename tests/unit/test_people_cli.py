"""Tokens and the audit trail from the command line and from a program, without a daemon."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from latticed.cli.arguments import past
from latticed.cli.ctl import call
from latticed.client import Client
from latticed.clock import from_text
from latticed.errors import Forbidden, Internal, Invalid, Unavailable
from tests.scripted import Answer, Scripted, problem

NOW = from_text("2026-01-02T12:00:00.000000Z")
AT = "2026-01-01T12:00:00.000000Z"
TOKEN = {
    "id": "tok_1", "name": "Ann\u202e", "role": "operator", "workspace": "*", "lanes": ["night"], "created_at": AT,
    "expires_at": None, "revoked_at": None, "used_at": AT,
}  # fmt: skip
ROW = {
    "id": 7, "at": AT, "workspace": "default", "principal": "Ann\x1b[2J", "token_id": "tok_1", "action": "run.stop",
    "subject": "run_1", "detail": {"mode": "now", "children": True},
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.close()


@pytest.fixture
def said(server: Scripted, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What latticectl prints of these answers."""

    def say(*words: str, answer: Answer) -> str:
        server.answers.append(answer)
        assert call(["-u", server.url, "-t", "x", *words]) == 0
        return capsys.readouterr().out

    return say


ASKED = {
    "id": "apr_2", "run_id": "run_1", "node": None, "status": "pending", "schema": None, "lanes": ["office"],
    "prompt": 'Agent a wants to call the tool send with {\n  "text": "' + "x" * 100 + '\x1b[2J"\n}',
    "created_at": AT, "expires_at": None, "answered_at": None, "answered_by": None, "answer": None, "comment": None,
    "subject": {"tool": "send", "args": {}},
}  # fmt: skip

# --- the command line ------------------------------------------------------------------------------------------------


def test_a_question_is_shown_whole(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    for cursor in ("more", None):
        server.answers.append(Answer(200, {"items": [{**ASKED, "id": f"apr_{cursor}"}], "next_cursor": cursor}))
    assert call(["-u", server.url, "-t", "x", "approvals", "show", "apr_None"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "apr_None  pending"
    assert "  tool   send" in out
    assert 'send with {\n  "text": "' + "x" * 100 + "\\x1b[2J" in out
    server.answers.append(Answer(200, {"items": [], "next_cursor": None}))
    assert call(["-u", server.url, "-t", "x", "approvals", "show", "apr_3"]) == 4


def test_a_token_is_shown(server: Scripted, said: Callable[..., str]) -> None:
    text = said("tokens", "show", "tok_1", answer=Answer(200, TOKEN))
    assert server.asked[0].path == "/v1/workspaces/default/tokens/tok_1"
    assert "tok_1: Ann\\u202e" in text
    assert [line.split()[:2] for line in text.splitlines()[1:]] == [
        ["role", "operator"], ["workspace", "all"], ["lanes", "night"], ["created", "2026-01-01"],
        ["used", "2026-01-01"], ["expires", "never"],
    ]  # fmt: skip
    assert json.loads(said("tokens", "show", "tok_1", "--json", answer=Answer(200, TOKEN))) == TOKEN


def test_with_a_star_the_tokens_for_all_workspaces_are_meant(server: Scripted, said: Callable[..., str]) -> None:
    page = {"items": [TOKEN], "next_cursor": None}
    assert "USED" in said("-w", "*", "tokens", "list", answer=Answer(200, page))
    said("-w", "*", "tokens", "create", "--role", "viewer", answer=Answer(201, {**TOKEN, "token": "text"}))
    said("-w", "*", "tokens", "revoke", "tok_1", answer=Answer(204))
    said("-w", "*", "audit", "list", answer=Answer(200, {"items": [], "next_cursor": None}))
    assert [(asked.method, asked.path) for asked in server.asked] == [
        ("GET", "/v1/tokens"), ("POST", "/v1/tokens"), ("DELETE", "/v1/tokens/tok_1"), ("GET", "/v1/audit"),
    ]  # fmt: skip


def test_who_did_what_is_a_line_each_that_commands_no_terminal(server: Scripted, said: Callable[..., str]) -> None:
    page = {"items": [ROW, {**ROW, "principal": None}], "next_cursor": None}
    words = ["audit", "list", "--action", "run.", "--principal", "Ann", "--subject", "run_1", "--limit", "2"]
    text = said(*words, "--since", "2026-01-01T00:00:00Z", answer=Answer(200, page))
    assert server.asked[0].path.startswith(
        "/v1/workspaces/default/audit?action=run.&principal=Ann&subject=run_1&since=2026-01-01T00%3A00%3A00.000000Z"
    )
    assert "\x1b" not in text
    first, second = [line.split()[2:] for line in text.splitlines()[1:]]
    assert first == ["default", "Ann\\x1b[2J", "run.stop", "run_1", "mode=now", "children=true"]
    assert second[1] == "-"
    assert json.loads(said("audit", "list", "--json", answer=Answer(200, page))) == page


def test_an_export_is_a_line_of_json_each(server: Scripted, said: Callable[..., str]) -> None:
    rows = [ROW, {**ROW, "id": 8, "subject": "a\u2028b\u0085c"}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    text = said(
        "audit", "export", "--action", "run.", answer=Answer(200, chunks=[lines[:40], lines[40:99], lines[99:]])
    )
    assert [json.loads(line) for line in text.split("\n") if line] == rows
    assert server.asked[0].path == "/v1/workspaces/default/audit?action=run.&format=jsonl"


def test_a_time_is_a_moment_or_so_long_ago() -> None:
    assert past("--since", "24h", NOW) == AT
    assert past("--since", AT, NOW) == AT
    assert past("--since", "99999w", NOW).startswith("1970-01-01")
    with pytest.raises(Invalid, match="--since 'tomorrow' is not a time: say it like 2030-01-31T12:00:00Z or 5m"):
        past("--since", "tomorrow", NOW)


# --- a program -------------------------------------------------------------------------------------------------------


def lines_of(server: Scripted, answer: Answer) -> list[Any]:
    server.answers.append(answer)
    with Client(server.url, "x") as client:
        return list(client.export_audit())


def test_an_export_that_breaks_off_is_not_taken_for_all(server: Scripted) -> None:
    line = json.dumps(ROW) + "\n"
    with pytest.raises(Unavailable, match="broke"):
        lines_of(server, Answer(200, chunks=[line, line], cut=True))
    with pytest.raises(Forbidden):
        lines_of(server, problem("forbidden", 403, "no"))
    with pytest.raises(Internal, match="JSON lines"):
        lines_of(server, Answer(200, chunks=["<html>\n"]))
    assert lines_of(server, Answer(200, chunks=[])) == []


def test_a_token_is_got_by_its_id(server: Scripted) -> None:
    server.answers.append(Answer(200, TOKEN))
    with Client(server.url, "x", "mine") as client:
        assert client.get_token("tok_1") == TOKEN
    assert server.asked[0].path == "/v1/workspaces/mine/tokens/tok_1"

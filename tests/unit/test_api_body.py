"""Bodies: how much is read, what is JSON, and what fits."""

from typing import Any

import pytest

from latticed.api.body import DRAIN_BYTES
from latticed.models.runs import Submission
from tests.unit.api_lattice import RUN_ID, Client, Connection

RUNS = "/v1/workspaces/default/runs"
MIB = 1024 * 1024


def sized(size: int) -> bytes:
    """A good submission of exactly so many bytes."""
    frame = b'{"target":"digest","goal":""}'
    return frame[:-2] + b"x" * (size - len(frame)) + frame[-2:]


@pytest.mark.parametrize("chunk", [None, 60_000])
async def test_a_body_may_be_as_large_as_the_limit_and_no_larger(chunk: int | None) -> None:
    client = Client()
    assert (await client("POST", RUNS, sized(MIB), chunk=chunk)).status == 202
    answer = await client("POST", RUNS, sized(MIB + 1), chunk=chunk)
    assert (answer.status, answer.json["code"]) == (413, "too_large")
    assert len(client.lattice.calls) == 1


async def test_the_limit_is_configured() -> None:
    client = Client(request_limit_bytes=100)
    assert (await client("POST", RUNS, sized(100))).status == 202
    assert (await client("POST", RUNS, sized(101))).status == 413


async def refused(size: int, **headers: str) -> Connection:
    client = Client()
    connection = Connection(sized(size), 64 * 1024)
    scope = client.scope("POST", RUNS, "root", {name.replace("_", "-"): value for name, value in headers.items()})
    await client.app(scope, connection.receive, connection.send)
    assert connection.answer().status == 413
    return connection


async def test_a_refused_body_is_read_to_its_end_so_that_the_client_sees_the_answer() -> None:
    connection = await refused(2 * MIB, content_length=str(2 * MIB))
    assert connection.read == len(connection.parts)
    assert "connection" not in connection.answer().headers


async def test_a_body_that_says_it_is_far_too_large_is_answered_at_once() -> None:
    connection = await refused(2 * MIB, content_length=str(MIB + DRAIN_BYTES + 1))
    assert connection.read == 0
    assert connection.answer().headers["connection"] == "close"


async def test_a_body_that_does_not_say_how_large_it_is_is_read_up_to_a_bound() -> None:
    connection = await refused(16 * MIB)
    assert MIB + DRAIN_BYTES < connection.read * 64 * 1024 < MIB + DRAIN_BYTES + 256 * 1024
    assert connection.answer().headers["connection"] == "close"


async def test_a_client_that_waits_for_leave_to_send_is_told_before_it_does() -> None:
    assert (await refused(2 * MIB, content_length=str(2 * MIB), expect="100-continue")).read == 0


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "x", "²"])
async def test_a_content_length_that_is_none_does_no_harm(length: str) -> None:
    assert (await Client()("POST", RUNS, sized(50), content_length=length)).status in (202, 413)


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_forgotten() -> None:
    client = Client()
    connection = Connection(sized(1000), 100)
    connection.parts.append(b"never comes")
    connection.gone.set()

    async def receive() -> dict[str, Any]:
        return await connection.receive() if connection.read < 5 else {"type": "http.disconnect"}

    await client.app(client.scope("POST", RUNS, "root", {}), receive, connection.send)
    assert connection.start == {}
    assert client.lattice.calls == []


UNREADABLE = [
    b"", b" ", b"{", b"nonsense", b'{"goal": "x"', b'{"a":1}{"b":2}', b"{'a': 1}", b'{"goal": NaN}',
    b'{"goal": Infinity}',
    b'{"inputs": {"a": -Infinity}}', b'{"goal": "\\ud800"}', b'{"goal": "\xff"}', b'{"goal": "\xed\xa0\x80"}',
    b'\xef\xbb\xbf{"goal": "x"}', b'{"goal": "a\nb"}', b'{"inputs": {"n": 1e400}}',
    b'{"inputs": {"n": ' + b"9" * 400 + b"}}",
    b'{"inputs": {"n": ' + b"9" * 5000 + b"}}", b"[" * 100_000, b'{"inputs":' * 50_000, b'{"inputs": {"n": 01}}',
    b'{"target":"digest","goal":"x","inputs":{"a":' + b"[" * 500 + b"]" * 500 + b"}}",
    b'{"target":"digest","goal":"x","inputs":{"a":1234567890123456789,"b":' + b"[" * 500 + b"]" * 500 + b"}}",
    '{"goal": "x"}'.encode("utf-16"),
]  # fmt: skip


@pytest.mark.parametrize("raw", UNREADABLE, ids=range(len(UNREADABLE)))
async def test_what_is_not_json_is_400(raw: bytes) -> None:
    client = Client()
    answer = await client("POST", RUNS, raw)
    assert (answer.status, answer.json["code"]) == (400, "invalid")
    assert client.lattice.calls == []


UNFIT: list[tuple[Any, list[Any]]] = [
    ([], []), ("text", []), (1, []), ({}, ["target"]),
    ({"target": "d"}, ["goal"]), ({"target": "d", "goal": " \n\t "}, ["goal"]),
    ({"target": "", "goal": "x"}, ["target"]), ({"target": 5, "goal": "x"}, ["target"]),
    ({"target": "d", "goal": 5}, ["goal"]), ({"target": "d", "goal": None}, ["goal"]),
    ({"target": "d", "goal": "x", "colour": "red"}, ["colour"]),
    ({"target": "d", "goal": "x", "max_retries": "2"}, ["max_retries"]),
    ({"target": "d", "goal": "x", "max_retries": True}, ["max_retries"]),
    ({"target": "d", "goal": "x", "max_retries": 6}, ["max_retries"]),
    ({"target": "d", "goal": "x", "max_retries": -1}, ["max_retries"]),
    ({"target": "d", "goal": "x", "priority": 101}, ["priority"]),
    ({"target": "d", "goal": "x", "priority": -101}, ["priority"]),
    ({"target": "d", "goal": "x", "priority": 0.5}, ["priority"]),
    ({"target": "d", "goal": "x", "roles": ["the king"]}, ["roles"]),
    ({"target": "d", "goal": "x", "roles": "planner"}, ["roles"]),
    ({"target": "d", "goal": "x", "inputs": []}, ["inputs"]),
    ({"target": "d", "goal": "x", "run_at": "tomorrow"}, ["run_at"]),
    ({"target": "d", "goal": "x", "run_at": "2026-01-01T00:00:00"}, ["run_at"]),
    ({"target": "d", "goal": "x", "deadline_seconds": 0}, ["deadline_seconds"]),
    ({"target": "d", "goal": "x", "deadline_seconds": -1}, ["deadline_seconds"]),
    ({"target": "d", "goal": "x", "deadline_seconds": 1e300}, ["deadline_seconds"]),
    ({"target": "d", "goal": "x", "recovery": "pray"}, ["recovery"]),
    ({"target": "d", "goal": "x", "mode": "dead"}, ["mode"]),
    ({"target": "d", "goal": "x", "kind": "job"}, ["kind"]),
    ({"target": "d", "goal": "x", "queue": "../q"}, ["queue"]),
    ({"target": "d", "goal": "x", "tags": {"a": 1}}, ["tags"]),
    ({"target": "d", "goal": "x", "tags": {"": "x"}}, ["tags"]),
    ({"target": "d", "goal": "x", "tags": {str(n): "x" for n in range(33)}}, ["tags"]),
]  # fmt: skip


@pytest.mark.parametrize(("body", "where"), UNFIT)
async def test_json_that_does_not_fit_is_422_and_says_where(body: Any, where: list[Any]) -> None:
    client = Client()
    answer = await client("POST", RUNS, body)
    assert (answer.status, answer.json["code"]) == (422, "invalid")
    assert answer.json["errors"][0]["loc"][: 1 + len(where)] == ["body", *where]
    assert client.lattice.calls == []


@pytest.mark.parametrize("number", [b"18446744073709551616", b"-9223372036854775809", b"9" * 300])
async def test_a_number_beyond_64_bits_is_refused_and_not_rounded(number: bytes) -> None:
    raw = b'{"target":"digest","goal":"x","inputs":{"list":[0,{"n":%b}]}}' % number
    answer = await Client()("POST", RUNS, raw)
    assert answer.status == 422
    assert answer.json["errors"][0]["loc"] == ["body", "inputs", "list", 1, "n"]


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 1.5e300, 12345678901234567890])
async def test_numbers_that_can_be_carried_are_carried(number: float) -> None:
    client = Client()
    assert (await client("POST", RUNS, {"target": "d", "goal": "x", "inputs": {"n": number}})).status == 202
    submission: Submission = client.lattice.calls[0][1][1]
    assert submission.inputs == {"n": number}


async def test_nothing_that_was_sent_is_repeated_in_an_error() -> None:
    answer = await Client()("POST", RUNS, {"target": "d", "goal": "x", "priority": "hunter2"})
    assert b"hunter2" not in answer.body


async def test_many_mistakes_are_told_up_to_a_bound() -> None:
    answer = await Client()("POST", RUNS, {"target": "d", "goal": "x", **{f"f{n}": 1 for n in range(5000)}})
    assert len(answer.json["errors"]) == 20


async def test_a_body_where_none_is_wanted_is_ignored() -> None:
    assert (await Client()("GET", f"{RUNS}/{RUN_ID}", b"[" * 100)).status == 200

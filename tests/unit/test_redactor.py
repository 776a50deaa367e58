"""Secrets in text that comes in pieces: never shown, wherever it is cut; all other text is as it came."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latticed.models.redaction import REDACTED, is_secret
from latticed.models.redactor import Redactor

KEYS = st.sampled_from(["password", "api_key", "Token", "max_tokens", "note", 'a "b"', "x" * 60])
PROSE = st.text(st.characters(exclude_characters=":"), max_size=20)
VALUES = st.one_of(PROSE, st.sampled_from(['say "x"', '"', "a\\", '\\"', "", "}", "a: b"]))
DOCUMENTS = st.recursive(
    st.dictionaries(KEYS, VALUES | st.integers() | st.booleans(), max_size=4),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=3),
    max_leaves=5,
)


def masked(document: Any) -> Any:
    """As `redact`, but that no value is told from another, not even an empty one."""
    if not isinstance(document, dict):
        return document
    return {key: REDACTED if is_secret(key) else masked(value) for key, value in document.items()}


def shown(text: str, cuts: list[int]) -> str:
    redactor = Redactor()
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return "".join(redactor.feed(text[a:b]) for a, b in pairwise(edges)) + redactor.end()


@given(DOCUMENTS, st.lists(st.integers(0, 1000), max_size=30), st.sampled_from([None, 2]))
def test_wherever_it_is_cut_it_is_shown_as_the_whole_is(document: object, cuts: list[int], indent: int | None) -> None:
    text = json.dumps(document, indent=indent)
    assert json.loads(shown(text, cuts)) == masked(document)


@given(DOCUMENTS, st.lists(st.integers(0, 1000), max_size=30))
def test_json_in_a_text_of_json_is_looked_through(document: object, cuts: list[int]) -> None:
    text = json.dumps({"items": [json.dumps(document), 3]})
    assert json.loads(json.loads(shown(text, cuts))["items"][0]) == masked(document)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ('Here: {"password": "hunter2", "max_tokens": 5} so.', "hunter2"),
        ('{"api_key":"hunter2"}', "hunter2"),
        ('{"token" : 123456, "n": 1}', "123456"),
        ('{"password": "hunt\\"er2"}', "er2"),
        ('{"secret": "hunter2', "hunter2"),
        ('{"secret": hunter2', "hunter2"),
        ('["{\\"secret\\": \\"hunter2\\"}"]', "hunter2"),
        ('["{\\"secret\\": \\"hunter2', "hunter2"),
    ],
)
def test_a_secret_is_never_shown(text: str, secret: str) -> None:
    for size in range(1, len(text)):
        redactor = Redactor()
        pieces = [redactor.feed(text[at : at + size]) for at in range(0, len(text), size)]
        told = "".join([*pieces, redactor.end()])
        assert secret not in told
        assert "[redacted]" in told
        assert ('"max_tokens": 5} so.' in told) == ("max_tokens" in text)


@given(st.text(alphabet='ab "\\:,{}\n', max_size=60), st.lists(st.integers(0, 100), max_size=20))
def test_other_text_is_as_it_came(text: str, cuts: list[int]) -> None:
    assert shown(text, cuts) == text


def test_text_is_not_held_back_for_long() -> None:
    redactor = Redactor()
    assert redactor.feed('She said: "Well, "') == 'She said: "Well, '
    assert redactor.feed("to") == ""
    assert redactor.feed("day") == '"today'

"""Secrets are known by the exact names of keys."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latticed.models.redaction import REDACTED, is_secret, redact

SECRET = """password Password api_key apiKey API-KEY X-Api-Key token access_token authorization client_secret Set-Cookie
private_key privateKey"""
PLAIN = (
    """max_tokens tokens token_count input_tokens passwords_changed secretary keys key author cookies_eaten tokenizer"""
)


@pytest.mark.parametrize("key", [*SECRET.split(), "private key"])
def test_names_that_are_secret_however_they_are_written(key: str) -> None:
    assert is_secret(key)


@pytest.mark.parametrize("key", [*PLAIN.split(), ""])
def test_names_that_only_hold_one_are_not(key: str) -> None:
    assert not is_secret(key)


def test_at_any_depth_and_whatever_the_value_is() -> None:
    given = {"a": [{"password": "p", "max_tokens": 5}], "token": {"deep": [1]}, "n": 1, "secret": ["x"]}
    assert redact(given) == {
        "a": [{"password": REDACTED, "max_tokens": 5}], "token": REDACTED, "n": 1, "secret": REDACTED,
    }  # fmt: skip
    assert given["a"] == [{"password": "p", "max_tokens": 5}], "what was given stays as it was"


def test_nothing_is_no_secret() -> None:
    assert redact({"password": None, "token": "", "secret": []}) == {"password": None, "token": "", "secret": []}


def test_json_in_a_text_is_looked_into_and_other_texts_are_left() -> None:
    assert json.loads(redact('{"token": "abc", "n": 1}')) == {"token": REDACTED, "n": 1}
    for text in ("token: abc", '{"n":  1}', "{token", "[1,  2]", ""):
        assert redact(text) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["password", "apiKey", "x"]), inner),
)


def _holds_secret(value: Any) -> bool:
    if isinstance(value, dict):
        return any((is_secret(k) and v and v != REDACTED) or _holds_secret(v) for k, v in value.items())
    return isinstance(value, list) and any(_holds_secret(item) for item in value)


@given(JSON)
def test_no_secret_is_left_and_once_is_enough(value: Any) -> None:
    kept = redact(value)
    assert not _holds_secret(kept)
    assert redact(kept) == kept

"""Keeps secrets out of what is shown, recorded and given to a model, by the names of keys."""

import re
from typing import Any

import orjson

REDACTED = "[redacted]"
SECRET_KEYS: frozenset[str] = frozenset({
    "password", "passwd", "passphrase", "secret", "clientsecret", "secretkey", "secretaccesskey", "awssecretaccesskey",
    "sharedsecret", "signingsecret", "webhooksecret", "token", "accesstoken", "refreshtoken", "idtoken", "sessiontoken",
    "authtoken", "bearertoken", "apitoken", "apikey", "xapikey", "accesskey", "privatekey", "encryptionkey",
    "signingkey", "authorization", "proxyauthorization", "credential", "credentials", "cookie", "setcookie",
})  # fmt: skip
"""The names, in lower case and without `-`, `_` and spaces. A name must be one of these, not hold one: `max_tokens` and
`token_count` are no secrets."""

_SEPARATORS = re.compile(r"[-_ ]")
_TEXT_LIMIT = 1 << 20


def plain_key(key: str) -> str:
    """A name as SECRET_KEYS has it."""
    return _SEPARATORS.sub("", key).casefold()


def is_secret(key: str) -> bool:
    """Whether the value under this key is kept back."""
    return plain_key(key) in SECRET_KEYS


def redact(value: Any) -> Any:
    """A JSON value with every secret in it replaced, at any depth, also in texts that are JSON themselves.

    A secret that is null or empty stays as it is, since it tells nothing; so does the value that was given, in which
    nothing is changed.
    """
    if isinstance(value, dict):
        return {key: REDACTED if item and is_secret(str(key)) else redact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    if isinstance(value, str):
        return _redact_text(value)
    return value


def _redact_text(text: str) -> str:
    """JSON in a text, such as a tool's answer; any other text has no keys to go by."""
    if text.lstrip()[:1] not in ("{", "[") or len(text) > _TEXT_LIMIT:
        return text
    try:
        value = orjson.loads(text)
        kept = redact(value)
        return text if kept == value else orjson.dumps(kept).decode()
    except (ValueError, RecursionError):
        return text

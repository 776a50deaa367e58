"""Keeps secrets out of text that comes in pieces, such as a model's, in which no JSON is whole yet.

What may be the beginning of a secret is held back until it is known whether it is one. JSON inside of a text of JSON is
looked through, too, one level deep.
"""

import re

from latticed.models.redaction import REDACTED, SECRET_KEYS, is_secret, plain_key

_KEY, _COLON, _BARE = r"[A-Za-z][A-Za-z_ -]{0,39}", r"\s{0,20}:\s{0,20}", r'[^\s"{}\[\],\\]+'
_LEVELS = (
    ('"', r'(?:[^"\\]|\\.)*', r"\\?"),
    (r"\\" + '"', r'(?:[^"\\]|\\[^"\\]|\\\\(?:\\\\|\\"|[^"\\]))*', r"\\{0,3}"),
)
"""Of plain JSON, and of JSON that is a text: a quote, what is between two of them, what is left where that is cut."""
_PAIRS = [
    re.compile(
        rf"(?P<begin>(?P<quote>{quote})(?P<key>{_KEY}){quote}{_COLON})(?:{quote}{text}{quote}|{_BARE}(?=[\s,}}\]\\]))",
        re.DOTALL,
    )
    for quote, text, _ in _LEVELS
]
_BEGUN = [
    re.compile(
        rf"(?P<quote>{quote})(?:(?:{_KEY})?\\?"
        rf"|(?P<key>{_KEY}){quote}(?:\s{{0,20}}|{_COLON}(?P<value>\\?|{quote}{text}{left}|{_BARE})))\Z",
        re.DOTALL,
    )
    for quote, text, left in _LEVELS
]
"""A key, or a key and the beginning of its value, at the very end of what there is."""


class Redactor:
    """One text."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be shown by now."""
        text = self._held + piece
        for pair in _PAIRS:
            text = pair.sub(_mask, text)
        begun = min(_begun(text), key=lambda found: found.start(), default=None)
        if begun is not None:
            self._held = _shortened(begun)
            return text[: begun.start()]
        end = len(text) - text.endswith("\\")
        self._held = text[end:]
        return text[:end]

    def end(self) -> str:
        """The rest, once no more comes."""
        rest, self._held = self._held, ""
        for begun in _begun(rest):
            if begun["value"]:
                return rest[: begun.start("value")] + begun["quote"] + REDACTED + begun["quote"]
        return rest


def _begun(text: str) -> list["re.Match[str]"]:
    return [found for begun in _BEGUN if (found := begun.search(text)) is not None and _may_be_secret(found)]


def _shortened(begun: "re.Match[str]") -> str:
    """What is held back, but for the most of a value that nobody is to see."""
    text, value, quote = begun[0], begun["value"], begun["quote"]
    if not value or value == "\\":
        return text
    if not value.startswith(quote):
        return text[: -len(value)] + value[0]
    cut = len(value) - len(value.rstrip("\\"))
    return text[: -len(value)] + quote + "\\" * (cut % (2 * len(quote)))


def _may_be_secret(begun: "re.Match[str]") -> bool:
    if begun["key"] is not None:
        return is_secret(begun["key"])
    name = plain_key(begun[0].strip('\\"'))
    return any(key.startswith(name) for key in SECRET_KEYS)


def _mask(pair: "re.Match[str]") -> str:
    return pair["begin"] + pair["quote"] + REDACTED + pair["quote"] if is_secret(pair["key"]) else pair[0]

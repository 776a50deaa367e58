"""Expressions in CEL (https://cel.dev), as rules have them: no side effects, no loops but over what is given.

What is too long or too deeply nested is refused before it is parsed: the parser would use up the stack.
"""

import re
from collections.abc import Mapping
from typing import Any

BYTES = 4096
DEPTH = 32
_TEXTS = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'')


class Expression:
    """An expression that was compiled. Evaluating one lets other threads go on meanwhile."""

    def __init__(self, text: str) -> None:
        """Compiles.

        Raises:
            ValueError: it is too long, too deep, or no CEL; says where.
        """
        if (size := len(text.encode("utf-8", "replace"))) > BYTES:
            raise ValueError(f"an expression has at most {BYTES} bytes, this one {size}")
        if _depth(text) > DEPTH:
            raise ValueError(f"an expression is nested at most {DEPTH} deep")
        import cel  # late: most daemons have no rules

        try:
            self._program = cel.compile(text)
        except Exception as error:
            raise ValueError(" ".join(str(error).splitlines()[0].split())) from None

    def evaluate(self, names: Mapping[str, Any]) -> Any:
        """Its value where these names mean these JSON values.

        Raises:
            ValueError: it has none: a key is missing, types do not fit.
        """
        try:
            return self._program.execute(dict(names))
        except KeyError as missing:
            raise ValueError(f"there is no key {missing}; ask has(…) first") from None
        except Exception as error:
            raise ValueError(str(error).partition("\n")[0][:300]) from None


def _depth(text: str) -> int:
    depth = deepest = 0
    for sign in _TEXTS.sub("", text):
        if sign in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in ")]}":
            depth -= 1
    return deepest

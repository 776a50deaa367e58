"""`secret:NAME`: a reference to a secret, resolved at use and kept nowhere.

Looked for as a file `NAME` in the credential directory (systemd's `CREDENTIALS_DIRECTORY`), then in `[secrets] dir`,
then as `LATTICED_SECRET_NAME` in the environment.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from latticed.errors import LatticedError

PREFIX = "secret:"
VARIABLE = "LATTICED_SECRET_"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""What a name may be: it is part of a path."""


class NoSecret(LatticedError):
    """A secret that is referred to is not there."""

    exit_code = 78
    title = "Missing secret"


class Secrets:
    """Where secrets are. Nothing is cached, so that a renewed credential holds from its next use on."""

    def __init__(self, directory: Path | None, environ: Mapping[str, str] = os.environ) -> None:
        self._directory = directory
        self._environ = environ

    def resolve(self, reference: str) -> str:
        """The secret behind `secret:NAME`, without the newline at its end.

        Raises:
            NoSecret: it is not there, or cannot be read. Says where it was looked for, never what was found.
        """
        name = reference.removeprefix(PREFIX)
        if name == reference or not NAME.fullmatch(name):
            raise NoSecret(f"a secret is referred to as {PREFIX}NAME, with letters, digits, '_', '-' and '.' in NAME")
        credentials = self._environ.get("CREDENTIALS_DIRECTORY")
        for directory in (Path(credentials) if credentials else None, self._directory):
            if directory is None:
                continue
            try:
                return (directory / name).read_text(encoding="utf-8").rstrip("\r\n")
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not text"
                raise NoSecret(f"the secret {name!r} in {directory} cannot be read: {reason}") from None
        variable = VARIABLE + name.upper().replace("-", "_").replace(".", "_")
        if (value := self._environ.get(variable)) is not None:
            return value
        raise NoSecret(
            f"there is no secret {name!r}: put it into a file of that name in the credential directory or in "
            f"secrets.dir, or set {variable}"
        )

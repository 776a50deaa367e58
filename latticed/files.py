"""Small files that are either not there or whole."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from latticed.errors import LatticedError


class CannotWrite(LatticedError):
    """A file cannot be written."""


@contextmanager
def writing(path: Path) -> Generator[None]:
    """What is done inside changes the file at `path`.

    Raises:
        CannotWrite: it cannot be changed, with the system's reason.
    """
    try:
        yield
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror}") from error


def write_private(path: Path, text: str, mode: int) -> None:
    """Writes a file that is either not there or whole, and on disk.

    Raises:
        CannotWrite: it cannot be written.
    """
    part = path.with_name(path.name + ".part")
    with writing(path):
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)  # Else its name may be gone after a loss of power.
        finally:
            os.close(directory)

"""Fails when a file of the project has grown beyond what can be read in one go.

Run by `make check`.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("latticed", "bench", "tests", "tools")
LIMIT = 400
"""The most lines a file may have."""


def too_long(root: Path = ROOT) -> list[tuple[str, int]]:
    """The Python files over the limit, as (path below `root`, lines), longest first."""
    found = []
    for folder in FOLDERS:
        for path in (root / folder).rglob("*.py"):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > LIMIT:
                found.append((path.relative_to(root).as_posix(), lines))
    return sorted(found, key=lambda row: -row[1])


def main() -> int:
    found = too_long()
    for path, lines in found:
        print(f"{path}: {lines} lines, at most {LIMIT} are allowed; split it by what it is about", file=sys.stderr)
    if not found:
        print(f"sizes: no file in {', '.join(FOLDERS)} has more than {LIMIT} lines")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""The directories in which commands work, one a run: what lies in one goes with its run."""

import asyncio
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from latticed import ids

log = structlog.get_logger()

_PAGE = 500


class Register(Protocol):
    """Knows the runs."""

    async def those_there(self, run_ids: Collection[str]) -> set[str]:
        """Those of these runs that are on disk."""
        ...


class Workplaces:
    """The directories under `root`. A crash between the end of a run's rows and that of its directory costs nothing:
    each says by its name which run it is of."""

    def __init__(self, root: Path, store: Register) -> None:
        self._root = root
        self._store = store

    async def clear(self) -> None:
        """Removes those of runs that are not there any more. One is made only for a run that is."""
        found = await asyncio.to_thread(self._list)
        for start in range(0, len(found), _PAGE):
            page = found[start : start + _PAGE]
            there = await self._store.those_there(page)
            if gone := [run_id for run_id in page if run_id not in there]:
                await asyncio.to_thread(self._remove, gone)

    def _list(self) -> list[str]:
        try:
            return [entry.name for entry in self._root.iterdir() if ids.is_id(ids.RUN, entry.name)]
        except OSError:  # None was ever made.
            return []

    def _remove(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            directory = self._root / run_id
            shutil.rmtree(directory, ignore_errors=True)
            if directory.exists():
                log.warning("not_removed", directory=str(directory))

"""The directories in which commands work, one a run: what lies in one goes with its run."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import structlog

log = structlog.get_logger()


class Workplaces:
    """The directories under `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def clear(self, run_ids: Sequence[str]) -> None:
        """Removes those of these runs; most never had one."""
        await asyncio.to_thread(self._remove, run_ids)

    def _remove(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            directory = self._root / run_id
            shutil.rmtree(directory, ignore_errors=True)
            if directory.exists():
                log.warning("not_removed", directory=str(directory))

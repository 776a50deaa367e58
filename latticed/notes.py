"""What is kept of requests that change nothing, without one of them waiting for it.

Refusals go into the audit trail, and tokens are marked with their last use. Both are gathered in memory and written
together, at most once a second and before the trail is read. A flood is bounded: beyond a burst of refusals only their
number is kept. While the store is away nothing is kept but that number, and no answer is the later or another for it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import structlog

from latticed.clock import Clock
from latticed.errors import LatticedError
from latticed.failpoints import hit
from latticed.models.audit import Act, act
from latticed.models.people import EVERYWHERE, Principal

log = structlog.get_logger()

PAUSE_SECONDS = 1.0
"""Between two writes."""
MOST_ROWS = 1000
"""Refusals that are kept at once; of more only their number."""
ROW_SECONDS = 1 / 16
"""After how long one more is."""
USED_MICROSECONDS = 60_000_000
"""How exactly the last use of a token is known."""


class Refusal(NamedTuple):
    """Who was refused what, and why. It tells the route and not the path, which may hold anything, secrets too."""

    by: Principal | None
    route: str
    code: str
    address: str
    named: str | None
    """The workspace that was asked for, as the client wrote it; kept if there is one of that name."""


class Notebook(Protocol):
    """What keeps them."""

    async def has_workspace(self, name: str) -> bool:
        """Whether there is such a workspace."""
        ...

    async def note(self, acts: Sequence[Act], used: Mapping[str, int]) -> None:
        """Writes acts, and when tokens were last used."""
        ...


class Notes:
    """What waits to be written. All methods are called in the event loop's thread."""

    def __init__(self, store: Notebook, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._refusals: list[Refusal] = []
        self._left_out = 0
        self._full_at = 0.0
        """When a whole burst can be kept again, by the monotonic clock."""
        self._unwritten: dict[str, int] = {}
        self._used: dict[str, int] = {}
        self._away = False
        self._task: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._hurry = asyncio.Event()

    def refused(self, refusal: Refusal) -> None:
        """Somebody was refused; kept with those of the workspace of whoever asked, if that is known."""
        now = self._clock.monotonic()
        full_at = max(self._full_at, now) + ROW_SECONDS
        if full_at - now <= MOST_ROWS * ROW_SECONDS:
            self._full_at = full_at
            self._refusals.append(refusal)
        else:
            self._left_out += 1
        self._start()

    def use(self, token_id: str, now: int) -> int:
        """A token was used. Returns the time from which on that is worth saying again."""
        noted = self._used.get(token_id)
        if noted is None or now >= noted + USED_MICROSECONDS:
            noted = self._used[token_id] = self._unwritten[token_id] = now
            self._start()
        return noted + USED_MICROSECONDS

    def used_at(self, token_id: str) -> int | None:
        """When this process last noted a use of that token."""
        return self._used.get(token_id)

    def forget(self, token_id: str) -> None:
        """A token is worth nothing any more; its last use is still written."""
        self._used.pop(token_id, None)

    async def flush(self) -> None:
        """Returns once what was noted by now is written, or the store has not taken it."""
        await asyncio.shield(asyncio.ensure_future(self._write()))

    async def close(self) -> None:
        """Writes what is left, if the store takes it."""
        self._hurry.set()
        if self._task is not None:
            await self._task

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="notes")

    async def _run(self) -> None:
        while self._refusals or self._left_out or self._unwritten:
            await self._write()
            if self._away and self._hurry.is_set():
                return
            try:
                async with asyncio.timeout(PAUSE_SECONDS):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    async def _write(self) -> None:
        async with self._writing:
            refusals, self._refusals = self._refusals, []
            left_out, self._left_out = self._left_out, 0
            used, self._unwritten = self._unwritten, {}
            if not (refusals or left_out or used):
                return
            try:
                acts = await self._told(refusals)
                if left_out:
                    acts.append(act(EVERYWHERE, None, "refused", EVERYWHERE, left_out=left_out))
                hit("notes.before")
                await self._store.note(acts, used)
                hit("notes.after")
                self._away = False
            except LatticedError as error:
                self._left_out += left_out + len(refusals)
                self._unwritten = used | self._unwritten
                if not self._away:
                    log.warning("notes_not_written", refusals=self._left_out, reason=error.detail)
                self._away = True

    async def _told(self, refusals: list[Refusal]) -> list[Act]:
        names = {each.named for each in refusals if each.named is not None}
        there = {name for name in names if await self._store.has_workspace(name)}
        return [
            act(
                each.by.workspace if each.by is not None else EVERYWHERE, each.by, "refused", each.route,
                code=each.code, address=each.address, **({"workspace": each.named} if each.named in there else {}),
            )
            for each in refusals
        ]  # fmt: skip

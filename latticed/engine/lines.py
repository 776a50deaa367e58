"""Lines of a run that somebody else's tasks are, such as the tool calls that a library makes side by side.

As `gather`, where it is not us who start and await the tasks. Each line has a journal branch by its number, which must
be the same each time the code is entered: what it is the number of is decided before any of them begins.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from latticed.engine.entry import Entry, current_branch, step_key
from latticed.errors import Misuse, Unwind


class Lines:
    """A fan of lines that leave one branch of the journal; made by that branch, at the same place each time."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._parent = entry.branch()
        if step_key.get() is not None or self._parent.busy is not None:
            raise Misuse(f"lines were asked for while {self._parent.busy or 'a step'} is under way")
        self._path = f"{self._parent.path}{self._parent.gathers}"
        self._parent.gathers += 1
        self._begun: set[int] = set()
        self._open = 0
        self._none_open = asyncio.Event()

    @asynccontextmanager
    async def line(self, number: int) -> AsyncIterator[None]:
        """Inside, the task that is executing this goes its own way in the journal.

        A line that leaves because the run is to be unwound waits for the others: whoever awaits them all would cancel
        those, and the steps that are under way there are to be recorded.

        Raises:
            Misuse: this line has begun already.
        """
        if number in self._begun:
            raise Misuse(f"line {number} of this fan has begun already")
        self._begun.add(number)
        branch = self._entry.x.journal.branch(f"{self._path}.{number}/", self._parent)
        token = current_branch.set(branch)
        self._enter()
        try:
            yield
            await self._entry.seal(branch)
        except Unwind:
            self._leave()
            if self._open:
                await self._none_open.wait()
            raise
        except BaseException:
            self._leave()
            raise
        else:
            self._leave()
        finally:
            current_branch.reset(token)

    def _enter(self) -> None:
        self._none_open.clear()
        self._open += 1
        if self._open == 1:
            self._parent.busy = "what its lines do"
        else:  # The parent's own place among the running is taken by the first.
            self._entry.waits.running += 1

    def _leave(self) -> None:
        self._open -= 1
        if self._open:
            self._entry.waits.leave()
        else:
            self._parent.busy = None
            self._none_open.set()

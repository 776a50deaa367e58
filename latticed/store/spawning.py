"""An asynchronous engine, as far as readers need one.

`sqlalchemy.ext.asyncio` imports the whole ORM for sessions that nobody here opens: 6 MB for as long as the process
lives. What makes an engine asynchronous is not there but below it: the dialect of an asynchronous driver, whose waits
`greenlet_spawn` turns into those of the event loop.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.util import greenlet_spawn

T = TypeVar("T")


class AsyncEngine:
    """An engine whose driver is asynchronous."""

    def __init__(self, sync_engine: Engine) -> None:
        self.sync_engine = sync_engine
        """The engine itself: to be used in what `run` runs, and there only."""

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """What `work(sync_engine, *arguments)` gives. It is plain code, and wherever it waits for the database the
        event loop goes on; it is cancelled there too."""
        return await greenlet_spawn(work, self.sync_engine, *arguments)

    async def dispose(self) -> None:
        """Closes the connections that nobody uses."""
        await self.run(Engine.dispose)


def create_async_engine(url: URL, **options: Any) -> AsyncEngine:
    """As `create_engine`, for the URL of an asynchronous driver."""
    return AsyncEngine(create_engine(url, **options))

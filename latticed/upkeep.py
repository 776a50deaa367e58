"""What is done to a store from the machine it lies on, whether or not a daemon runs."""

import asyncio
from typing import Any

from latticed.clock import SystemClock
from latticed.config import Config
from latticed.errors import NotFound
from latticed.models.people import EVERYWHERE, TokenRequest
from latticed.people import make_token
from latticed.store import open_store, upgrade


def store_url(config: Config) -> str:
    """Where the store is: as configured, else in the state directory."""
    return config.store.url or f"sqlite+aiosqlite:///{config.state_dir / 'latticed.db'}"


def migrate(config: Config) -> str:
    """Brings the database up to date; says what was done.

    Raises:
        Unavailable: a daemon uses it.
        WrongVersion: it is newer than this program.
    """
    return upgrade(store_url(config), config.store.busy_seconds)


def create_token(config: Config, workspace: str, asked: TokenRequest) -> dict[str, Any]:
    """Makes a token, also while the daemon runs; as models.people.NewToken.

    Raises:
        NotFound: no such workspace.
        CannotOpen: there is no database.
        WrongVersion: it is of another version.
        Unavailable: the store is away.
    """
    return asyncio.run(_create_token(config, workspace, asked))


async def _create_token(config: Config, workspace: str, asked: TokenRequest) -> dict[str, Any]:
    clock = SystemClock()
    store = await open_store(store_url(config), clock, exclusive=False, busy_seconds=config.store.busy_seconds)
    store.start(lambda commit: None)
    try:
        if workspace != EVERYWHERE and not await store.has_workspace(workspace):
            raise NotFound(f"there is no workspace {workspace!r}")
        _, made = await make_token(
            store, clock, workspace=workspace, role=asked.role, name=asked.name, lanes=asked.lanes,
            expires_seconds=asked.expires_seconds, by="latticed token create",
        )  # fmt: skip
        assert made is not None
        return made
    finally:
        await store.close()

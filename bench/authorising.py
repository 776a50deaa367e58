"""What it costs to find out who asks and whether they may: the daemon's own functions, on a store of its own, without
HTTP around them, which would be a hundred times what is measured."""

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from latticed.api.auth import authenticate, authorise, need_own_page
from latticed.api.routes import ROUTES
from latticed.clock import Clock, SystemClock
from latticed.models.people import EVERYWHERE
from latticed.notes import Notes
from latticed.people import People, make_token
from latticed.permits import Permits
from latticed.store import Store, open_store

_BURST = 100
_HOST = b"127.0.0.1:8700"


class _Door(People):
    """The facade's people, without what comes behind the door."""

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__()
        self._store = store
        self._clock = clock
        self._permits = Permits(clock)
        self.notes = Notes(store, clock)

    async def _need_workspace(self, workspace: str) -> None:
        return None


async def cost(directory: Path, bursts: int) -> dict[str, float]:
    """Microseconds a request, by token and by cookie, as the median of so many bursts of 100; each is checked."""
    clock = SystemClock()
    store = await open_store(f"sqlite+aiosqlite:///{directory / 'people.db'}", clock)
    store.start(lambda commit: None)
    try:
        door = _Door(store, clock)
        made = await make_token(
            store, clock, workspace=EVERYWHERE, role="operator", name="bench", lanes=None, expires_seconds=3600,
            by="bench",
        )  # fmt: skip
        token = str((made[1] or {})["token"])
        cookie, _ = await door.sign_in(token)
        usual = {b"host": _HOST, b"accept": b"application/json", b"content-type": b"application/json"}
        by_token = usual | {b"authorization": b"Bearer " + token.encode()}
        by_cookie = usual | {b"cookie": b"latticed_session=" + cookie.encode(), b"origin": b"http://" + _HOST}
        return {
            "by_token_us": await _median(door, by_token, bursts),
            "by_cookie_us": await _median(door, by_cookie, bursts),
        }
    finally:
        await store.close()


async def _median(door: _Door, headers: Mapping[bytes, bytes], bursts: int) -> float:
    [route] = [route for route in ROUTES if route.name == "submit_run"]
    taken = []
    for _ in range(bursts):
        begun = time.perf_counter()
        for _ in range(_BURST):
            principal = await authenticate(door, headers)  # type: ignore[arg-type]  # the part of the facade it uses
            need_own_page(headers, "POST")
            authorise(route, principal, "default")
        taken.append((time.perf_counter() - begun) / _BURST * 1e6)
    return median(taken)

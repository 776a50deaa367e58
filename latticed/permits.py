"""Leave to read on: what goes on for a while lives no longer than what its reader came in by."""

import asyncio
from collections.abc import Callable

from latticed.clock import Clock
from latticed.models.people import Principal

LONGEST_SECONDS = 86_400.0
"""After which a timer looks at the clock again: the wall's clock may have been set."""


class Permit:
    """One reader's leave to go on, for as long as the token or session it came in by is worth something."""

    __slots__ = ("_permits", "_timer", "ended", "principal", "then", "workspace")

    def __init__(self, permits: "Permits", principal: Principal, workspace: str) -> None:
        self._permits = permits
        self._timer: asyncio.TimerHandle | None = None
        self.principal = principal
        self.workspace = workspace
        self.ended = asyncio.Event()
        """Set at once when it is over: by revocation, expiry, sign-out, or because the daemon ends."""
        self.then: Callable[[], object] | None = None
        """What is done at once when it is over, by a reader that waits for something else than that."""

    def watch(self, clock: Clock) -> None:
        """Ends at the principal's expiry."""
        expires_at = self.principal.expires_at
        if expires_at is None or self.ended.is_set():
            return
        left = (expires_at - clock.now()) / 1_000_000
        if left <= 0:
            self.end()
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(left, LONGEST_SECONDS), self.watch, clock)

    def end(self) -> None:
        """It is over."""
        self.ended.set()
        if self.then is not None:
            self.then()

    def close(self) -> None:
        """Its reader is through."""
        if self._timer is not None:
            self._timer.cancel()
        self._permits.open.discard(self)


class Permits:
    """Every permit there is, so that those of a token, a session or a workspace can be ended."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shut = False
        self.open: set[Permit] = set()

    def give(self, principal: Principal, workspace: str) -> Permit:
        """Leave for one reader; to be closed by it."""
        permit = Permit(self, principal, workspace)
        self.open.add(permit)
        if self._shut:
            permit.end()
        permit.watch(self._clock)
        return permit

    def end(self, meant: Callable[[Permit], bool]) -> None:
        """Ends those that are meant, at once."""
        for permit in self.open:
            if meant(permit):
                permit.end()

    def shut(self) -> None:
        """Ends all there are and will be."""
        self._shut = True
        for permit in self.open:
            permit.end()

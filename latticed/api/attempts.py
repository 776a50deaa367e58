"""Sign-ins that fail, counted by address, so that guessing costs nobody but the one who guesses."""

from collections import OrderedDict

from latticed.errors import Busy

BURST = 30
"""How many may fail at once."""
SECONDS_EACH = 2.0
"""After how long one more may."""
_ADDRESSES = 1000


class Attempts:
    """For each address how much of its burst is used up. What comes back with time needs no timer."""

    def __init__(self) -> None:
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """When an address will have its whole burst again, in seconds of the caller's clock."""

    def need_leave(self, address: str, now: float) -> None:
        """Returns if one more attempt may be made; nothing is looked up before.

        Raises:
            Busy: too many have failed.
        """
        wait = self._full_at.get(address, now) - now - (BURST - 1) * SECONDS_EACH
        if wait > 0:
            raise Busy("too many sign-ins have failed from this address; try again later", int(wait) + 1)

    def failed(self, address: str, now: float) -> None:
        """One was made with a token that is none."""
        self._full_at[address] = max(self._full_at.get(address, now), now) + SECONDS_EACH
        self._full_at.move_to_end(address)
        if len(self._full_at) > _ADDRESSES:
            self._full_at.popitem(last=False)

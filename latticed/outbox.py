"""What is asked of the store, and of the senders, about deliveries and about hooks that were registered."""

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from latticed.models.deliveries import Due, Sent
from latticed.models.hooks import DeliveryRow, HookSpec, WebhookHook
from latticed.models.people import Principal
from latticed.models.records import Once


class Outbox(Protocol):
    """What the courier asks of the store."""

    async def list_due(self, hook: str, now: int, taken: Collection[str], most: int, most_bytes: int) -> list[Due]:
        """The next deliveries of a hook, the oldest first, without those in `taken`; no more than may be in memory, and
        always one."""
        ...

    async def next_delivery(self, hook: str, taken: Collection[str]) -> int | None:
        """When there is something to be sent next, beside those in `taken`."""
        ...

    async def pending_hooks(self) -> list[str]:
        """The hooks that have something to be sent, now or later."""
        ...

    async def record_sent(self, sent: Sequence[Sent]) -> list[str]:
        """Records what became of deliveries, each with its event in the feed, all or nothing; the registered hooks that
        are disabled from now on, since their receivers want no more."""
        ...

    async def give_up_deliveries(self, hooks: Collection[str], before: int) -> int:
        """Gives up what has been due since before then for these hooks, to which nothing is sent; how many."""
        ...


class HooksStore(Outbox, Protocol):
    """What the facade asks. Where a method takes a workspace, nothing of another one is found."""

    async def count_pending(self) -> int:
        """How much is to be sent, now or later, in all workspaces."""
        ...

    async def list_deliveries(
        self, workspace: str, filters: dict[str, Any], before: str | None, limit: int
    ) -> list[DeliveryRow]:
        """Executions of hooks, newest first. `filters` are columns and the values they may have."""
        ...

    async def find_delivery(self, workspace: str, delivery_id: str) -> DeliveryRow | None:
        """One execution of a hook."""
        ...

    async def redeliver(self, workspace: str, delivery_id: str, by: Principal) -> None:
        """Puts a delivery into the outbox again. Raises `NotFound`, or `Conflict` for one that was part of a run."""
        ...

    async def list_registered(self) -> list[Any]:
        """Every registered hook of every workspace, as the columns of `hooks`, by its id."""
        ...

    async def add_hook(
        self, workspace: str, hook_id: str, name: str, spec: WebhookHook, by: Principal, once: Once | None = None
    ) -> tuple[str, bool]:
        """Keeps a registered hook unless its key was used before: (hook id, whether that was so). Raises `Conflict` if
        there is one of that name, `NotFound` if its workspace was removed."""
        ...

    async def change_hook(self, workspace: str, hook_id: str, name: str, spec: WebhookHook, by: Principal) -> int:
        """Replaces what a registered hook is; when. Raises `NotFound`, or `Conflict` for a name that another has."""
        ...

    async def remove_hook(self, workspace: str, hook_id: str, by: Principal) -> None:
        """Removes a registered hook, and skips what it was to be sent, both or neither. Raises `NotFound`."""
        ...


class Receivers(Protocol):
    """Whom webhooks are sent to."""

    async def judge(self, url: str) -> None:
        """Returns if a URL can be called, as far as that can be known now; else raises `Invalid`."""
        ...

    def check_secret(self, hook: HookSpec) -> None:
        """Returns if what signs a hook's deliveries is there; else raises `Invalid`."""
        ...

    def signing_secret(self, hook: HookSpec) -> str | None:
        """The daemon's own key for a hook, as `whsec_…`; None if the hook has a secret of its own."""
        ...

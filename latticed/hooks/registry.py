"""The hooks in force: those of the configuration file and those that were registered, one index swapped whole."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from latticed.models.hooks import HookSpec
from latticed.models.matching import HookIndex


class Registry:
    """Who asks for the hooks of this moment gets an immutable index; who must know of a change listens."""

    def __init__(self) -> None:
        self.index = HookIndex()
        self._file: tuple[HookSpec, ...] = ()
        self._registered: tuple[HookSpec, ...] = ()
        self._listeners: list[Callable[[HookIndex], None]] = []

    def listen(self, listener: Callable[[HookIndex], None]) -> None:
        """`listener` is told each index from now on, and the present one at once."""
        self._listeners.append(listener)
        listener(self.index)

    def set_file(self, hooks: Iterable[HookSpec]) -> None:
        """These are the hooks of the configuration file."""
        self._file = tuple(hooks)
        self._swap()

    def set_registered(self, hooks: Iterable[HookSpec]) -> None:
        """These are the registered hooks."""
        self._registered = tuple(hooks)
        self._swap()

    def put(self, hook: HookSpec) -> None:
        """A hook was registered, or changed."""
        self.set_registered((*(each for each in self._registered if each.id != hook.id), hook))

    def drop(self, hook_id: str) -> None:
        """A registered hook is gone."""
        self.set_registered(each for each in self._registered if each.id != hook_id)

    def forget(self, workspace: str) -> None:
        """A workspace is gone, and what was registered there with it."""
        if any(each.workspace == workspace for each in self._registered):
            self.set_registered(each for each in self._registered if each.workspace != workspace)

    def disable(self, hook_id: str) -> None:
        """A registered hook is there, and not asked any more."""
        for hook in self._registered:
            if hook.id == hook_id:
                self.put(replace(hook, table=hook.table.model_copy(update={"enabled": False})))

    def _swap(self) -> None:
        self.index = HookIndex((*self._file, *self._registered))
        for listener in self._listeners:
            listener(self.index)

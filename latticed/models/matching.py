"""Which hooks are asked: an immutable index, made anew whenever a hook comes, changes or goes."""

from collections.abc import Iterable, Iterator

from latticed.models.hooks import HookSpec

NONE: tuple[HookSpec, ...] = ()


class HookIndex:
    """The hooks of one moment, in the order in which they are asked. Whoever holds one may read it in any thread.

    Where a point has no hook at all, the question costs one look-up.
    """

    __slots__ = ("_by_key", "_points")

    def __init__(self, hooks: Iterable[HookSpec] = ()) -> None:
        """Hooks that are not enabled are known by their key, and never asked."""
        self._by_key = {hook.key: hook for hook in sorted(hooks, key=lambda hook: hook.rank)}
        self._points: dict[str, _Point] = {}
        for hook in self._by_key.values():
            if hook.table.enabled:
                self._points.setdefault(hook.point, _Point()).add(hook)
        for point in self._points.values():
            point.close()

    def at(
        self, point: str, workspace: str, kind: str, target: str, event_type: str | None = None
    ) -> tuple[HookSpec, ...]:
        """The hooks that are asked, in their order."""
        known = self._points.get(point)
        if known is None:
            return NONE
        candidates = known.places.get(workspace, known.everywhere)
        return tuple([hook for hook in candidates if hook.wants(kind, target, event_type)])

    def has(self, point: str) -> bool:
        """Whether any hook is asked at that point."""
        return point in self._points

    def find(self, key: str) -> HookSpec | None:
        """The hook of that key, enabled or not."""
        return self._by_key.get(key)

    def __iter__(self) -> Iterator[HookSpec]:
        return iter(self._by_key.values())


class _Point:
    """The hooks of one point: of all workspaces, and for each that one of them names, all that are asked there."""

    __slots__ = ("everywhere", "places")

    def __init__(self) -> None:
        self.everywhere: list[HookSpec] = []
        self.places: dict[str, list[HookSpec]] = {}

    def add(self, hook: HookSpec) -> None:
        places = hook.table.workspaces if hook.workspace is None else [hook.workspace]
        for place in dict.fromkeys(places):
            self.places.setdefault(place, []).append(hook)
        if not places:
            self.everywhere.append(hook)

    def close(self) -> None:
        for place in self.places.values():
            place += self.everywhere
            place.sort(key=lambda hook: hook.rank)

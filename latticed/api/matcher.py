"""Finding the route of a path: two or three look-ups, however many routes there are."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from latticed import ids
from latticed.api.exchange import Route
from latticed.errors import Invalid, NotFound
from latticed.models.fields import NAME_PATTERN

_ENCODED_SLASH = re.compile(rb"%2f", re.IGNORECASE)
_SIGNAL_PATTERN = r"^[^\x00-\x1f\x7f/]{1,200}$"


class MethodNotAllowed(Invalid):
    """This path does not take this method."""

    status, title = 405, "Method not allowed"

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"this path takes {self.allowed}")


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a name in braces may stand for; a path with anything else there does not exist."""

    pattern: str
    fits: Callable[[str], bool]
    description: str


def _id_of(prefix: str, what: str) -> Parameter:
    return Parameter(f"^{prefix}_[0-9a-f]{{32}}$", lambda text: ids.is_id(prefix, text), what)


def _text_of(pattern: str, what: str) -> Parameter:
    # `$` would also match before a newline at the end.
    compiled = re.compile(pattern.removesuffix("$"))
    return Parameter(pattern, lambda text: compiled.fullmatch(text) is not None, what)


PARAMETERS: Mapping[str, Parameter] = {
    "workspace": _text_of(NAME_PATTERN, "The workspace."),
    "signal": _text_of(_SIGNAL_PATTERN, "The signal's name, as the run asks for it."),
    "run_id": _id_of(ids.RUN, "The run's id."),
    "approval_id": _id_of(ids.APPROVAL, "The approval's id."),
    "hook": _text_of(NAME_PATTERN.replace("^", "^(?!deliveries$)", 1), "The hook's id or name."),
    "delivery_id": _id_of(ids.DELIVERY, "The delivery's id."),
    "token_id": _id_of(ids.TOKEN, "The token's id."),
}
"""Every name that a path of the table may have in braces."""


@dataclass(slots=True)
class Place:
    """One path of the table and what can be done there."""

    parameters: tuple[tuple[int, str], ...]
    by_method: dict[str, Route] = field(default_factory=dict)


@dataclass(slots=True)
class _Shape:
    """The paths of one length that have their words at the same positions."""

    words: Callable[[list[str]], Any]
    count: int
    places: dict[Any, Place] = field(default_factory=dict)


class Matcher:
    """Path → route. Where a word and a parameter both fit, the word is tried first."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._shapes: dict[int, list[_Shape]] = {}
        by_positions: dict[tuple[int, tuple[int, ...]], _Shape] = {}
        for route in routes:
            parts = route.path.split("/")
            positions = tuple(i for i, part in enumerate(parts) if i and not part.startswith("{"))
            shape = by_positions.get((len(parts), positions))
            if shape is None:
                shape = by_positions[len(parts), positions] = _Shape(itemgetter(*positions), len(positions))
                self._shapes.setdefault(len(parts), []).append(shape)
            parameters = tuple((i, part[1:-1]) for i, part in enumerate(parts) if part.startswith("{"))
            place = shape.places.setdefault(shape.words(parts), Place(parameters))
            if place.parameters != parameters:
                raise ValueError(f"{route.path}: a path's parameters have one name")
            if route.method in place.by_method:
                raise ValueError(f"{route.method} {route.path} is there twice")
            place.by_method[route.method] = route
        for shapes in self._shapes.values():
            shapes.sort(key=lambda shape: -shape.count)

    def find(self, method: str, path: str, raw_path: bytes) -> tuple[Route, dict[str, str]]:
        """The route of `path` and its parameters as they are written, not looked at yet.

        Raises:
            NotFound: no route has this path.
            MethodNotAllowed: there is one, for other methods.
        """
        if b"%" in raw_path and _ENCODED_SLASH.search(raw_path):
            # Decoded it would be a path of other parts than the client wrote.
            raise NotFound("no route has this path")
        parts = path.split("/")
        wanted = "GET" if method == "HEAD" else method
        allowed: set[str] = set()
        for shape in self._shapes.get(len(parts), ()):
            place = shape.places.get(shape.words(parts))
            if place is None or (allowed and not _fits(place, parts)):
                continue
            route = place.by_method.get(wanted)
            if route is not None:
                return route, {name: parts[index] for index, name in place.parameters}
            allowed.update(place.by_method)
        if allowed:
            raise MethodNotAllowed(allowed | {"HEAD"} if "GET" in allowed else allowed)
        raise NotFound("no route has this path")


def _fits(place: Place, parts: list[str]) -> bool:
    """Whether a path that has been found as words can be one with parameters, too: a name may be taken by a word."""
    return all(PARAMETERS[name].fits(parts[index]) for index, name in place.parameters)


def check_parameters(parameters: Mapping[str, str]) -> None:
    """Refuses what no path parameter can be, before anything is looked up.

    Raises:
        NotFound: one is ill-formed.
    """
    for name, text in parameters.items():
        if not PARAMETERS[name].fits(text):
            raise NotFound(f"there is no such {name.removesuffix('_id')}")

"""Query parameters: a model a route, validated like a body. Unknown ones and ones given twice are errors."""

import re
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from urllib.parse import parse_qsl

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from latticed.errors import Invalid
from latticed.models.fields import Kind
from latticed.models.hooks import DeliveryStatus, Point
from latticed.states import Status

MOST_PARAMETERS = 100
LARGEST_CURSOR = 2**63 - 1
"""What a 64-bit column can hold; a larger `after` stands for the same place: past the end."""


def whole(text: Any) -> Any:
    """Digits → a number; `+5`, `5.0`, ` 5` and `5_0`, which int() takes, are no numbers here.

    Raises:
        ValueError: anything else.
    """
    if isinstance(text, str):
        if not re.fullmatch(r"-?[0-9]{1,40}", text, re.ASCII):
            raise ValueError("must be a whole number")
        return int(text)
    return text


def seconds(text: Any) -> Any:
    """A plain decimal → a number.

    Raises:
        ValueError: anything else.
    """
    if isinstance(text, str):
        if not re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", text, re.ASCII):
            raise ValueError("must be a number of seconds")
        return float(text)
    return text


def moment(text: Any) -> Any:
    """RFC 3339, and not the seconds since 1970 that pydantic would take as well; nor what no clock has shown.

    Raises:
        ValueError: anything else.
    """
    if isinstance(text, str):
        if not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:", text):
            raise ValueError("must be a time such as 2030-01-31T12:00:00Z")
        if not "1000" <= text[:4] <= "9000":
            raise ValueError("must lie between the years 1000 and 9000")
    return text


def truth(text: Any) -> Any:
    """`true` or `false`.

    Raises:
        ValueError: anything else.
    """
    if isinstance(text, str):
        if text not in ("true", "false"):
            raise ValueError("must be true or false")
        return text == "true"
    return text


def capped(number: int) -> int:
    """Keeps a cursor within what a 64-bit column can hold."""
    return min(number, LARGEST_CURSOR)


class Query(BaseModel):
    """The query parameters of a route."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, defer_build=True)

    lists: ClassVar[frozenset[str]] = frozenset()
    """The parameters that may be given several times."""


class NoQuery(Query):
    """A route that takes no query parameters."""


class WaitQuery(Query):
    """How long to hold the answer."""

    wait: Annotated[
        float,
        Field(ge=0, le=60, description="Hold the answer for at most so many seconds, until the run is over or asks."),
        BeforeValidator(seconds),
    ] = 0.0


class ForceQuery(Query):
    """Whether to do it although something is in the way."""

    force: Annotated[bool, Field(description="Also if runs are active: they are stopped."), BeforeValidator(truth)] = (
        False
    )


Limit = Annotated[
    int,
    Field(ge=1, le=500, description="How many items at most; a page of events or steps ends after some MB."),
    BeforeValidator(whole),
]
Cursor = Annotated[
    str, StringConstraints(min_length=1, max_length=500), Field(description="`next_cursor` of the page before.")
]


class PageQuery(Query):
    """Which page of a list."""

    limit: Limit = 50
    cursor: Cursor | None = None


class RunsQuery(PageQuery):
    """Which runs. A run must fit all that is given."""

    lists: ClassVar[frozenset[str]] = frozenset({"tag"})

    kind: Kind | None = None
    status: Status | None = None
    target: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    tag: Annotated[
        list[Annotated[str, StringConstraints(pattern=r"^[^:]{1,64}:[\s\S]{1,200}$")]],
        Field(max_length=32, description="`key:value`; may be given several times, and all must fit."),
    ] = []
    parent: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None


class ApprovalsQuery(PageQuery):
    """Which approvals."""

    status: Annotated[str, StringConstraints(pattern="^(pending|approved|denied|expired|closed)$")] | None = None
    lane: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None


class AuditQuery(PageQuery):
    """Which acts. One must fit all that is given."""

    action: Annotated[
        str | None,
        StringConstraints(pattern=r"^[a-z_]{1,64}(\.[a-z_]{0,64})?$"),
        Field(description="Of this action, or of all that begin so if it ends with a dot: `run.submit`, `run.`."),
    ] = None
    principal: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=200),
        Field(description="By whom: the name or the id of a token."),
    ] = None
    subject: Annotated[
        str | None, StringConstraints(min_length=1, max_length=300), Field(description="On what: an id or a name.")
    ] = None
    since: Annotated[
        AwareDatetime | None, Field(description="At this time, RFC 3339, or later."), BeforeValidator(moment)
    ] = None
    until: Annotated[
        AwareDatetime | None, Field(description="Before this time, RFC 3339."), BeforeValidator(moment)
    ] = None
    format: Annotated[
        Literal["json", "jsonl"] | None,
        Field(
            description="`jsonl`: all of it, oldest first, one JSON object a line, as `Accept: application/x-ndjson` "
            "asks for too; `limit` and `cursor` are for pages only."
        ),
    ] = None


class WholeAuditQuery(AuditQuery):
    """Which acts of all workspaces."""

    workspace: Annotated[
        str | None,
        StringConstraints(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9_.\-]{0,63})$"),
        Field(description="In this workspace; `*` is what belongs to none."),
    ] = None


class HookQuery(Query):
    """What to show of a hook."""

    signing_secret: Annotated[
        bool,
        Field(description="Whether to show the key that the daemon signs with, if the hook is of the file."),
        BeforeValidator(truth),
    ] = False


class DeliveriesQuery(PageQuery):
    """Which executions of hooks. One must fit all that is given."""

    status: DeliveryStatus | None = None
    hook: (
        Annotated[str, StringConstraints(min_length=1, max_length=64), Field(description="A name or an id.")] | None
    ) = None
    point: Point | None = None
    run: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None


Place = Annotated[
    Annotated[int, Field(ge=0)] | None,
    Field(description="`next_cursor` of the page before: the same as `after`, which it beats."),
    BeforeValidator(whole),
]


class EventsQuery(Query):
    """Where in a timeline to begin."""

    after: Annotated[
        int,
        Field(ge=0, description="Begin behind this `seq`; of a stream, `Last-Event-ID` beats it."),
        BeforeValidator(whole),
    ] = 0
    cursor: Place = None
    limit: Limit = 50

    @property
    def begins(self) -> int:
        """Behind which event."""
        return capped(self.after if self.cursor is None else self.cursor)


class FeedQuery(Query):
    """Where in a workspace's feed to begin, and what of it to show."""

    after: Annotated[
        Annotated[int, Field(ge=0)] | None,
        Field(
            description="Begin behind this `position`; `0` is the beginning. Without it a stream begins now and a "
            "page at the beginning. Of a stream, `Last-Event-ID` beats it.",
        ),
        BeforeValidator(whole),
    ] = None
    cursor: Place = None
    limit: Limit = 50
    types: Annotated[
        str | None,
        StringConstraints(pattern=r"^[A-Za-z0-9_.\-]{1,64}(,[A-Za-z0-9_.\-]{1,64}){0,63}$"),
        Field(description="Only events of these types, separated by commas."),
    ] = None
    kind: Kind | None = None

    @property
    def begins(self) -> int | None:
        """Behind which position; None if nothing says so."""
        place = self.after if self.cursor is None else self.cursor
        return None if place is None else capped(place)

    def wanted(self) -> list[str]:
        """The types as a list; empty is all."""
        return self.types.split(",") if self.types else []


AnyQuery = TypeVar("AnyQuery", bound=Query)
_defaults: dict[type[Query], Query] = {}


def parse_query(model: type[AnyQuery], raw: bytes) -> AnyQuery:
    """The query string as `model`.

    Raises:
        Invalid: a parameter is unknown, given twice or does not fit.
    """
    if not raw:
        query = _defaults.get(model)
        if query is None:
            query = _defaults[model] = model()
        return query  # type: ignore[return-value]  # the dictionary maps each model to an instance of its own
    try:
        pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=MOST_PARAMETERS)
    except ValueError:
        raise Invalid(f"a query may have at most {MOST_PARAMETERS} parameters") from None
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name not in model.model_fields:
            known = ", ".join(sorted(model.model_fields)) or "none"
            raise invalid_query(name, f"unknown query parameter; this route knows: {known}")
        if name in model.lists:
            values.setdefault(name, []).append(text)
        elif name in values:
            raise invalid_query(name, "given more than once")
        else:
            values[name] = text
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise complaints(error, "query") from None


def invalid_query(name: str, message: str) -> Invalid:
    """One complaint about one query parameter."""
    return Invalid("the query is not valid", [{"loc": ["query", name[:100]], "msg": message}])


def complaints(error: ValidationError, where: str) -> Invalid:
    """What pydantic found, in our shape: no input is repeated, and at most twenty are told."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[:20]
    errors = [
        {"loc": [where, *(part if isinstance(part, int) else part[:100] for part in item["loc"])],
         "msg": item["msg"].removeprefix("Value error, ")}
        for item in found
    ]  # fmt: skip
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"][1:])
    return Invalid(f"{place}: {first['msg']}" if place else str(first["msg"]), errors)

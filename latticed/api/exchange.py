"""One exchange: what a handler is given (`Call`), what it gives back (`Reply`), and how a route is declared."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict
from starlette.types import Receive, Scope, Send

from latticed.api.attempts import Attempts
from latticed.api.queries import NoQuery, Query
from latticed.errors import Busy, LatticedError, Unauthenticated, Unavailable
from latticed.models.fields import Role
from latticed.models.people import Principal

if TYPE_CHECKING:
    from latticed.lattice import Lattice

RawHeaders = list[tuple[bytes, bytes]]
Q = TypeVar("Q", bound=Query)
B = TypeVar("B", bound=BaseModel | None)

JSON = (b"content-type", b"application/json")
PROBLEM = (b"content-type", b"application/problem+json")
NO_STORE = (b"cache-control", b"no-store")
NO_SNIFFING = (b"x-content-type-options", b"nosniff")
RETRY_SECONDS = 1
"""After how many seconds a client may come again when nothing better is known."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the door is told by the configuration."""

    request_limit_bytes: int = 1024 * 1024
    request_seconds: float = 30.0
    ping_seconds: float = 15.0
    version: str = "0"


class Site:
    """What all exchanges of one application share."""

    def __init__(
        self, lattice: "Lattice", settings: Settings, describe: Callable[[str], bytes], show: Callable[[str], bytes]
    ) -> None:
        self.lattice = lattice
        self.settings = settings
        self.attempts = Attempts()
        self._describe = describe
        self._show = show

    @cached_property
    def openapi(self) -> bytes:
        """The OpenAPI document; made at the first request for it."""
        return self._describe(self.settings.version)

    @cached_property
    def docs(self) -> bytes:
        """The same as a page to read."""
        return self._show(self.settings.version)


@dataclass(slots=True)
class Call(Generic[Q, B]):
    """A request that was authenticated, authorised and validated."""

    lattice: "Lattice"
    site: Site
    principal: Principal
    workspace: str
    params: Mapping[str, str]
    query: Q
    body: B
    sent: Any
    """The body as JSON, before defaults were filled in; what an idempotency key's fingerprint is made of."""
    headers: Mapping[bytes, bytes]
    path: str
    address: str
    """Of whoever opened the connection, which may be a proxy; empty on a Unix socket."""
    request_id: bytes


@dataclass(slots=True)
class Reply:
    """An answer: a body, or a `stream` that speaks ASGI for itself."""

    status: int
    body: bytes = b""
    headers: RawHeaders = field(default_factory=list)
    stream: Callable[[Scope, Receive, Send], Awaitable[None]] | None = None


def json_reply(status: int, value: Any, *headers: tuple[bytes, bytes]) -> Reply:
    """`value` as JSON."""
    return Reply(status, orjson.dumps(value), [JSON, *headers])


Handler = Callable[[Call[Any, Any]], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is no JSON, described by its media type."""

    media_type: str


Answer = type[BaseModel] | Text | None
"""What a status comes with: a model, another text, or nothing."""


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of the table. `role` is the least that is needed; None is open to all, without a token."""

    method: str
    path: str
    role: Role | None
    summary: str
    handler: Handler
    answers: Mapping[int, Answer]
    query: type[Query] = NoQuery
    body: type[BaseModel] | None = None
    body_optional: bool = False
    """An empty body stands for `{}`."""
    everywhere: bool = False
    """Needs a token for all workspaces."""
    idempotent: bool = False
    """Takes an `Idempotency-Key`."""
    streams: bool = False
    """Answers with a stream of events if that is what the client accepts."""
    also: tuple[str, ...] = ()
    """Media types that 200 can have as well, if the client accepts them."""
    problems: tuple[int, ...] = ()
    """Statuses of errors that are this route's own, beside those that follow from the rest of its entry."""

    @property
    def name(self) -> str:
        """The operation's name in the OpenAPI document; unique in the table."""
        return self.handler.__name__


class Complaint(BaseModel):
    """One thing that is wrong with a request, and where."""

    loc: list[str | int]
    msg: str


class Problem(BaseModel):
    """An error, after RFC 9457, with our stable `code`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[Complaint] = []


def problem_reply(error: LatticedError, *headers: tuple[bytes, bytes]) -> Reply:
    """The one way in which an error is told."""
    body = {
        **error.extra,
        "type": f"urn:latticed:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }
    reply = Reply(error.status, orjson.dumps(body, default=str), [PROBLEM, *headers])
    if isinstance(error, (Busy, Unavailable)):
        seconds = int(getattr(error, "retry_after", RETRY_SECONDS))
        reply.headers.append((b"retry-after", b"%d" % max(seconds, 1)))
    elif isinstance(error, Unauthenticated):
        reply.headers.append((b"www-authenticate", b'Bearer realm="latticed"'))
    return reply

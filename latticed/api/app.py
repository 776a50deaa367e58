"""The application: one endpoint through which every request goes, and the one handler of errors."""

import itertools
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from latticed.api import openapi, pages
from latticed.api.auth import ANYONE, authenticate, authorise, need_own_page
from latticed.api.body import Gone, TooSlow, Undrained, read_body, understand
from latticed.api.exchange import NO_SNIFFING, NO_STORE, Call, Reply, Route, Settings, Site, problem_reply
from latticed.api.matcher import PARAMETERS, Matcher, MethodNotAllowed, check_parameters
from latticed.api.queries import parse_query
from latticed.api.routes import ROUTES
from latticed.errors import Busy, Forbidden, Internal, LatticedError, Unauthenticated
from latticed.log import fields as log_fields
from latticed.models.people import Principal
from latticed.notes import Refusal

if TYPE_CHECKING:
    from latticed.lattice import Lattice

log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._\-]{1,64}")
_HEAD = "HEAD"


class Endpoint(BaseRoute):
    """Every request of every route: authenticate, authorise, validate, hand over, answer.

    It is Starlette's only route, since it finds its way by the table in less time than a router that tries one
    pattern after the other, and answers what is not there in the one shape of errors.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lattice = site.lattice
        self._limit = site.settings.request_limit_bytes
        self._seconds = site.settings.request_seconds
        self._matcher = Matcher(ROUTES)
        self._boot = secrets.token_hex(4)
        self._count = itertools.count(1)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL, {}) if scope["type"] == "http" else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope["headers"])
        request_id = headers.get(b"x-request-id")
        if request_id is None or not _REQUEST_ID.fullmatch(request_id):
            request_id = f"{self._boot}-{next(self._count)}".encode()
        log_fields.set(lambda: {"request_id": request_id.decode("ascii")})
        try:
            reply = await self._reply(scope, receive, headers, request_id)
            if reply.stream is not None:
                await reply.stream(scope, receive, send)
                return
        except LatticedError as error:
            reply = _told(error)
        except Gone:
            return
        except Exception:
            log.exception("request_failed", method=scope["method"], path=scope["path"])
            reply = _told(Internal())
        fields = reply.headers
        body = reply.body
        if reply.status != 204:
            fields.append((b"content-length", b"%d" % len(body)))
        fields += (NO_STORE, NO_SNIFFING, (b"x-request-id", request_id))
        await send({"type": "http.response.start", "status": reply.status, "headers": fields})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == _HEAD else body})

    async def _reply(self, scope: Scope, receive: Receive, headers: Mapping[bytes, bytes], request_id: bytes) -> Reply:
        path: str = scope["path"]
        method: str = scope["method"]
        route, params = self._matcher.find(method, path, scope.get("raw_path") or b"")
        workspace = params.get("workspace")
        principal = ANYONE
        address: str = (scope.get("client") or ("",))[0]
        try:
            if route.role is not None:
                principal = await authenticate(self._lattice, headers)
                need_own_page(headers, method)
                authorise(route, principal, workspace)
            check_parameters(params)
            if workspace is not None:
                self._lattice.enter(workspace)
            query = parse_query(route.query, scope["query_string"])
            body: Any = None
            sent: Any = None
            if route.body is not None:
                raw = await read_body(
                    receive, headers.get(b"content-length"), self._limit, waits_for_leave=b"expect" in headers,
                    seconds=self._seconds,
                )  # fmt: skip
                if route.role is not None:  # While the body came, what was shown may have become worth nothing.
                    principal = await authenticate(self._lattice, headers)
                sent, body = understand(raw, route.body, optional=route.body_optional)
            call = Call(
                lattice=self._lattice,
                site=self._site,
                principal=principal,
                workspace=workspace or "",
                params=params,
                query=query,
                body=body,
                sent=sent,
                headers=headers,
                path=path,
                address=address,
                request_id=request_id,
            )
            return await route.handler(call)
        except (Unauthenticated, Forbidden, Busy) as error:
            self._note_refusal(route, principal, workspace, address, error)
            raise

    def _note_refusal(
        self, route: Route, principal: Principal, workspace: str | None, address: str, error: LatticedError
    ) -> None:  # fmt: skip
        by = None if principal is ANYONE else principal
        named = workspace if workspace is not None and PARAMETERS["workspace"].fits(workspace) else None
        self._lattice.notes.refused(Refusal(by, f"{route.method} {route.path}", error.code, address, named))


def _headers(lines: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """A request's headers by name. Lines of one name are one value (RFC 9110, 5.3; of cookies RFC 9113, 8.2.3), so that
    of two tokens, origins or keys none is picked: together they are none."""
    headers = dict(lines)
    if len(headers) != len(lines):
        headers.clear()
        for name, value in lines:
            between = b"; " if name == b"cookie" else b", "
            headers[name] = headers[name] + between + value if name in headers else value
    return headers


def _told(error: LatticedError) -> Reply:
    """An error as an answer, with the headers that its kind asks for."""
    if isinstance(error, MethodNotAllowed):
        return problem_reply(error, (b"allow", error.allowed.encode()))
    if isinstance(error, (TooSlow, Undrained)):
        return problem_reply(error, (b"connection", b"close"))
    return problem_reply(error)


class Application(Starlette):
    """Starlette without the middleware that would do what the endpoint does itself."""

    def build_middleware_stack(self) -> ASGIApp:
        return self.router


def create_app(lattice: "Lattice", settings: Settings) -> Starlette:
    """The HTTP interface over `lattice`, to be served by any ASGI server."""
    site = Site(lattice, settings, openapi.document, pages.document)
    return Application(routes=[Endpoint(site)])

"""Who is asking, and may they: the one place where a request is authorised.

A program shows a token in every request. A browser shows it once and then has a cookie, which it sends along with
whatever any page makes it ask for: so what changes something must come from a page of our own, which `Origin` says.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from latticed.api.exchange import Route
from latticed.errors import Forbidden, Unauthenticated
from latticed.models.people import EVERYWHERE, Principal

if TYPE_CHECKING:
    from latticed.lattice import Lattice

ANYONE = Principal(token_id="", name="", role="viewer", workspace="")
"""Who asks at an open route."""

LONGEST_TOKEN = 256
SAFE = ("GET", "HEAD")
COOKIE = b"latticed_session"
SECURE_COOKIE = b"__Host-latticed_session"
"""The session's cookie where the browser speaks HTTPS: only there is it sent, and nobody else can have set it."""
_PORTS = {b"http": b":80", b"https": b":443"}

Headers = Mapping[bytes, bytes]


async def authenticate(lattice: "Lattice", headers: Headers) -> Principal:
    """The principal of a bearer token or, without one, of a browser's session.

    Raises:
        Unauthenticated: there is no token, or it is unknown, expired or revoked; nor a session.
        Unavailable: the store cannot be asked.
    """
    authorization = headers.get(b"authorization")
    if authorization is None:
        return await _by_cookie(lattice, headers)
    scheme, _, text = authorization.partition(b" ")
    token = text.strip()
    if scheme.lower() != b"bearer" or not token or len(token) > LONGEST_TOKEN or not token.isascii():
        raise Unauthenticated
    principal = await lattice.authenticate(token.decode("ascii"))
    if principal is None:
        raise Unauthenticated("this token is unknown, expired or revoked")
    return principal


async def _by_cookie(lattice: "Lattice", headers: Headers) -> Principal:
    _, text = session_cookie(headers)
    if not text:
        raise Unauthenticated
    principal = await lattice.authenticate_session(text)
    if principal is None:
        raise Unauthenticated("this session is over; sign in again")
    return principal


def need_own_page(headers: Headers, method: str) -> None:
    """What changes something, and is authorised by cookie, must come from a page of our own.

    Raises:
        Forbidden: it may come from any page.
    """
    if method in SAFE or b"authorization" in headers:
        return
    if b"origin" not in headers:
        raise Forbidden("signed in by cookie, this needs the header Origin, which a browser sends by itself")
    if is_secure(headers) != (session_cookie(headers)[0] == SECURE_COOKIE):
        raise Forbidden("this session was opened over the other one of http and https; sign in again")


def session_cookie(headers: Headers) -> tuple[bytes, str]:
    """The name and the text of the session's cookie; empty if there is none."""
    found: dict[bytes, bytes] = {}
    for pair in headers.get(b"cookie", b"").split(b";"):
        name, _, value = pair.strip().partition(b"=")
        found.setdefault(name, value)
    name = SECURE_COOKIE if SECURE_COOKIE in found else COOKIE
    text = found.get(name, b"")
    return name, text.decode("ascii") if len(text) <= LONGEST_TOKEN and text.isascii() else ""


def is_secure(headers: Headers) -> bool:
    """Whether a page of our own asks by HTTPS, be it through a proxy in front. `Origin` names the scheme and the host
    that the user sees, and no page can forge it (RFC 6454, 7); the host must be the one that was asked for.
    `X-Forwarded-…` is not looked at: whoever sends the request can write into it what they like.

    Raises:
        Forbidden: another site's page asks, or a proxy in front does not pass `Host` on.
    """
    origin = headers.get(b"origin")
    if headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none"):
        raise Forbidden("another site's page made the browser ask for this")
    if origin is None:
        return False
    scheme, _, place = origin.lower().partition(b"://")
    port = _PORTS.get(scheme)
    host = headers.get(b"host", b"").lower()
    if port is None or not host or place.removesuffix(port) != host.removesuffix(port):
        raise Forbidden(
            "Origin is not where this was sent: another site's page asks, or a proxy in front does not pass Host on"
        )
    return scheme == b"https"


def authorise(route: Route, principal: Principal, workspace: str | None) -> None:
    """Whether `principal` may use `route` in `workspace`; nothing is looked up before this.

    Raises:
        Forbidden: no right to the workspace, be it there or not, or too low a role.
    """
    if workspace is not None and not principal.enters(workspace):
        raise Forbidden("this token has no right to this workspace")
    if route.everywhere and principal.workspace != EVERYWHERE:
        raise Forbidden("this needs a token for all workspaces")
    if route.role is not None and not principal.may(route.role):
        raise Forbidden(f"this needs the role {route.role}; this token has the role {principal.role}")

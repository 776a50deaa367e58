"""Who is asking, and may they: the one place where a request is authorised."""

from typing import TYPE_CHECKING

from latticed.api.exchange import Route
from latticed.errors import Forbidden, Unauthenticated
from latticed.models.people import Principal

if TYPE_CHECKING:
    from latticed.lattice import Lattice

ANYONE = Principal(token_id="", name="", role="viewer", workspace="")
"""Who asks at an open route."""

LONGEST_TOKEN = 256


async def authenticate(lattice: "Lattice", authorization: bytes | None) -> Principal:
    """The principal of a bearer token.

    Raises:
        Unauthenticated: there is no token, or it is unknown, expired or revoked.
        Unavailable: the store cannot be asked.
    """
    if authorization is None:
        raise Unauthenticated
    scheme, _, text = authorization.partition(b" ")
    token = text.strip()
    if scheme.lower() != b"bearer" or not token or len(token) > LONGEST_TOKEN or not token.isascii():
        raise Unauthenticated
    principal = await lattice.authenticate(token.decode("ascii"))
    if principal is None:
        raise Unauthenticated("this token is unknown, expired or revoked")
    return principal


def authorise(route: Route, principal: Principal, workspace: str | None) -> None:
    """Whether `principal` may use `route` in `workspace`; nothing is looked up before this.

    Raises:
        Forbidden: no right to the workspace, be it there or not, or too low a role.
    """
    if workspace is not None and not principal.enters(workspace):
        raise Forbidden("this token has no right to this workspace")
    if route.everywhere and principal.workspace != "*":
        raise Forbidden("this needs a token for all workspaces")
    if route.role is not None and not principal.may(route.role):
        raise Forbidden(f"this needs the role {route.role}; this token has the role {principal.role}")

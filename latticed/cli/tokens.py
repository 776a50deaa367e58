"""`latticectl tokens` and `latticectl whoami`: who may do what."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer

from latticed.cli import arguments
from latticed.cli.render import Screen, fields, plain, short, table
from latticed.cli.session import Session, command, group

Document = dict[str, Any]

app = group("Look at a workspace's tokens, make and revoke them. With -w '*': those for all workspaces.")


@command(app, "list")
def list_tokens(
    session: Session,
    *,
    limit: Annotated[int | None, typer.Option(metavar="N", help="At most so many: 1 to 500, else 50.")] = None,
    cursor: Annotated[str | None, typer.Option(metavar="TEXT", help="The next page, as the last one named it.")] = None,
) -> None:
    """List tokens, without their texts."""
    page = session.client.list_tokens(limit=limit, cursor=cursor)
    session.show(page, _token_table)
    if page["next_cursor"]:
        session.hint(f"more with: --cursor {page['next_cursor']}")


@command(app, "show")
def show(session: Session, token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id.")]) -> None:
    """Show a token, without its text."""
    session.show(session.client.get_token(token_id), _token_lines)


@command(app, "create")
def create(
    session: Session,
    *,
    role: Annotated[
        Literal["viewer", "operator", "admin"],
        typer.Option(help="viewer reads, operator also starts, stops and answers, admin also manages tokens."),
    ],
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="Whose or what for.")] = None,
    lane: Annotated[list[str] | None, typer.Option(metavar="NAME", help="May answer only these lanes.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="Valid for so long: 12h, 30d.")] = None,
) -> None:
    """Make a token and print its text, this once."""
    made = session.client.create_token(
        role,
        name=name,
        lanes=lane or None,
        expires_seconds=None if expires is None else arguments.seconds("--expires", expires),
    )
    session.show(made, lambda token, screen: [token["token"]])
    if not session.json:
        session.note(f"this is {made['id']}, {made['role']} of {made['workspace']}; its text is not shown again")


@command(app, "revoke")
def revoke(session: Session, token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id.")]) -> None:
    """End a token's validity, and all that was opened with it."""
    session.client.revoke_token(token_id)
    session.show({"id": token_id, "revoked": True}, lambda gone, screen: [f"{plain(token_id)} is revoked"])


def whoami(session: Session) -> None:
    """Say whom the daemon takes you for."""
    session.show(session.client.whoami(), _whoami_lines)


def add_whoami_to(app: typer.Typer) -> None:
    """Adds `whoami`."""
    command(app, "whoami")(whoami)


def _lanes(token: Document) -> str:
    return "all" if token["lanes"] is None else plain(",".join(token["lanes"])) or "none"


def _whoami_lines(me: Document, screen: Screen) -> Iterator[str]:
    where = "every workspace" if me["workspace"] == "*" else f"workspace {plain(me['workspace'])}"
    yield f"{plain(me['name'])}: {me['role']} of {where}"
    yield from fields(
        [
            ("token", me["token_id"]),
            ("lanes", _lanes(me)),
            ("expires", screen.when(me["expires_at"]) if me["expires_at"] else None),
        ]
    )


def _token_lines(token: Document, screen: Screen) -> Iterator[str]:
    yield f"{token['id']}: {plain(token['name'])}"
    yield from fields(
        [
            ("role", token["role"]),
            ("workspace", "all" if token["workspace"] == "*" else plain(token["workspace"])),
            ("lanes", _lanes(token)),
            ("created", screen.when(token["created_at"])),
            ("used", screen.when(token["used_at"]) if token["used_at"] else "never"),
            ("expires", screen.when(token["expires_at"]) if token["expires_at"] else "never"),
            ("revoked", screen.when(token["revoked_at"]) if token["revoked_at"] else None),
        ]
    )


def _token_table(page: Document, screen: Screen) -> Iterator[str]:
    rows = [
        (
            each["id"],
            each["role"],
            _lanes(each),
            screen.ago(each["created_at"]),
            screen.ago(each["used_at"]),
            _validity(each, screen),
            short(each["name"]),
        )
        for each in page["items"]
    ]
    return table(("ID", "ROLE", "LANES", "CREATED", "USED", "EXPIRES", "NAME"), rows, screen, "no tokens")


def _validity(token: Document, screen: Screen) -> str:
    return (
        "revoked"
        if token["revoked_at"]
        else "never"
        if token["expires_at"] is None
        else screen.ago(token["expires_at"])
    )

"""`latticectl workspaces`: the isolation boundaries."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from latticed.cli.render import Screen, plain, table
from latticed.cli.session import Session, command, group

app = group("Look at workspaces and make them.")


@command(app, "list")
def list_workspaces(
    session: Session,
    *,
    limit: Annotated[int | None, typer.Option(metavar="N", help="At most so many: 1 to 500, else 50.")] = None,
    cursor: Annotated[str | None, typer.Option(metavar="TEXT", help="The next page, as the last one named it.")] = None,
) -> None:
    """List the workspaces that the token may see."""
    page = session.client.list_workspaces(limit=limit, cursor=cursor)
    session.show(page, _workspace_table)
    if page["next_cursor"]:
        session.hint(f"more with: --cursor {page['next_cursor']}")


@command(app, "create")
def create(session: Session, name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")]) -> None:
    """Make a workspace."""
    session.show(session.client.create_workspace(name), lambda made, screen: [f"{plain(made['name'])} is there"])


def _workspace_table(page: dict[str, Any], screen: Screen) -> Iterator[str]:
    rows = [(each["name"], screen.ago(each["created_at"])) for each in page["items"]]
    return table(("WORKSPACE", "CREATED"), rows, screen, "no workspaces")

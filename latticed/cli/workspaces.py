"""`latticectl workspaces`: the isolation boundaries."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from latticed.cli.render import Screen, fields, plain, table
from latticed.cli.session import Session, command, group

app = group("Look at workspaces, make and remove them.")


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


@command(app, "show")
def show(
    session: Session,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which; without it, that of -w.")] = None,
) -> None:
    """Show a workspace, its limits and its use of them."""
    session.show(session.client.get_workspace(name or session.workspace), _workspace_lines)


@command(app, "delete")
def delete(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Also if runs are active in it: they are stopped.")] = False,
) -> None:
    """Remove a workspace and all that it holds; there is no way back."""
    session.client.delete_workspace(name, force=force)
    session.show({"name": name, "deleted": True}, lambda gone, screen: [f"{plain(name)} is removed"])
    session.hint("its name is free again once all that it held is deleted")


def _workspace_lines(workspace: dict[str, Any], screen: Screen) -> Iterator[str]:
    yield plain(workspace["name"])
    yield from fields([("created", screen.when(workspace["created_at"]))])
    limits, use = workspace["limits"], workspace["use"]
    yield from fields(
        (name.replace("_", " "), str(use[name]) if most is None else f"{use[name]} of {most}")
        for name, most in limits.items()
        if most is not None or use[name] is not None
    )


def _workspace_table(page: dict[str, Any], screen: Screen) -> Iterator[str]:
    rows = [(each["name"], screen.ago(each["created_at"])) for each in page["items"]]
    return table(("WORKSPACE", "CREATED"), rows, screen, "no workspaces")

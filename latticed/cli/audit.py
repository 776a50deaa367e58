"""`latticectl audit`: who did what, and who was refused."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from latticed.cli import arguments
from latticed.cli.render import Screen, short, table, value
from latticed.cli.session import Session, command, group
from latticed.clock import SystemClock

app = group("Look at who did what. With -w '*': in all workspaces, and what belongs to none.")

Action = Annotated[str | None, typer.Option(metavar="NAME", help="run.submit; or all that begin so: run.")]
Principal = Annotated[str | None, typer.Option(metavar="TEXT", help="By whom: a token's name or id.")]
Subject = Annotated[str | None, typer.Option(metavar="TEXT", help="On what: an id or a name.")]
Since = Annotated[str | None, typer.Option(metavar="TIME", help="From then on: 2030-01-31T12:00:00Z, or 2h ago as 2h.")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Before then.")]


@command(app, "list")
def list_audit(
    session: Session,
    *,
    action: Action = None,
    principal: Principal = None,
    subject: Subject = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="At most so many: 1 to 500, else 50.")] = None,
    cursor: Annotated[str | None, typer.Option(metavar="TEXT", help="The next page, as the last one named it.")] = None,
) -> None:
    """List who did what, newest first."""
    page = session.client.list_audit(
        action=action, principal=principal, subject=subject, since=_time("--since", since),
        until=_time("--until", until), limit=limit, cursor=cursor,
    )  # fmt: skip
    session.show(page, _audit_table)
    if page["next_cursor"]:
        session.hint(f"more with: --cursor {page['next_cursor']}")


@command(app, "export")
def export(
    session: Session,
    *,
    action: Action = None,
    principal: Principal = None,
    subject: Subject = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Print all of it, oldest first, one JSON object a line."""
    rows = session.client.export_audit(
        action=action, principal=principal, subject=subject, since=_time("--since", since),
        until=_time("--until", until),
    )  # fmt: skip
    for row in rows:
        print(session.dump(row))


def _time(option: str, text: str | None) -> str | None:
    return None if text is None else arguments.past(option, text, SystemClock().now())


def _audit_table(page: dict[str, Any], screen: Screen) -> Iterator[str]:
    rows = [
        (
            screen.ago(each["at"]),
            each["workspace"],
            short(each["principal"] or "-", 30),
            each["action"],
            short(each["subject"], 60),
            "  ".join(f"{name}={value(item)}" for name, item in each["detail"].items()),
        )
        for each in page["items"]
    ]
    return table(("WHEN", "WORKSPACE", "WHO", "ACTION", "SUBJECT", "DETAIL"), rows, screen, "nothing")

"""`latticectl approvals`: what runs ask of people."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer

from latticed.cli import arguments
from latticed.cli.render import Screen, block, fields, plain, short, table, value
from latticed.cli.session import Session, command, group
from latticed.errors import NotFound

app = group("Look at what runs ask of people, and answer.")


@command(app, "list")
def list_approvals(
    session: Session,
    *,
    status: Annotated[
        Literal["pending", "approved", "denied", "expired", "closed"] | None, typer.Option(help="Only in this status.")
    ] = None,
    lane: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this lane.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="At most so many: 1 to 500, else 50.")] = None,
    cursor: Annotated[str | None, typer.Option(metavar="TEXT", help="The next page, as the last one named it.")] = None,
) -> None:
    """List questions, newest first."""
    page = session.client.list_approvals(status=status, lane=lane, limit=limit, cursor=cursor)
    session.show(page, _approval_table)
    if page["next_cursor"]:
        session.hint(f"more with: --cursor {page['next_cursor']}")


@command(app, "show")
def show(
    session: Session, approval_id: Annotated[str, typer.Argument(metavar="ID", help="The question's id.")]
) -> None:
    """Show a question whole: what exactly is asked, and about what."""
    found = next((each for each in session.client.every_approval() if each["id"] == approval_id), None)
    if found is None:
        raise NotFound(f"there is no approval {approval_id!r}; {session.command('approvals list')} lists them")
    session.show(found, _approval_lines)
    if found["status"] == "pending":
        session.hint(f"answer it with: {session.command(f'approvals answer {approval_id} approve')}")


@command(app, "answer")
def answer(
    session: Session,
    approval_id: Annotated[str, typer.Argument(metavar="ID", help="The question's id.")],
    decision: Annotated[Literal["approve", "deny"], typer.Argument(metavar="approve|deny", help="The answer.")],
    *,
    data: Annotated[str | None, typer.Option(metavar="JSON", help="An object for the code that asks.")] = None,
    comment: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; it is kept with the answer.")] = None,
) -> None:
    """Answer a question."""
    document = None if data is None else arguments.json_object("--data", data)
    session.show(session.client.answer(approval_id, decision, data=document, comment=comment), _answer_lines)


def _answer_lines(approval: dict[str, Any], screen: Screen) -> Iterator[str]:
    yield f"{approval['id']} is {screen.status(approval['status'])}; {approval['run_id']} goes on with that"


def _approval_lines(approval: dict[str, Any], screen: Screen) -> Iterator[str]:
    subject, schema = approval["subject"] or {}, approval["schema"]
    yield f"{approval['id']}  {screen.status(approval['status'])}"
    yield from fields(
        [
            ("run", approval["run_id"]),
            ("asked", screen.when(approval["created_at"])),
            ("expires", screen.when(approval["expires_at"]) if approval["expires_at"] else None),
            ("lanes", plain(", ".join(approval["lanes"]))),
            ("tool", plain(subject.get("tool", ""))),
            ("answered", screen.when(approval["answered_at"]) if approval["answered_at"] else None),
            ("by", plain(approval["answered_by"] or "")),
            ("comment", plain(approval["comment"] or "")),
            ("answer", None if approval["answer"] is None else value(approval["answer"])),
            ("schema", None if schema is None else value(schema)),
        ]
    )
    yield from block(approval["prompt"])


def _approval_table(page: dict[str, Any], screen: Screen) -> Iterator[str]:
    rows = [
        (
            each["id"],
            each["status"],
            each["run_id"],
            plain(",".join(each["lanes"])) or "-",
            screen.ago(each["expires_at"]) if each["status"] == "pending" else "-",
            short(each["prompt"]),
        )
        for each in page["items"]
    ]
    heads = ("ID", "STATUS", "RUN", "LANES", "EXPIRES", "QUESTION")
    return table(heads, rows, screen, "nobody is asked anything", status=1)

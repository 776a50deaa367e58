"""`latticectl hooks`: who is asked and told about runs, and what was sent to whom."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer

from latticed.cli.render import Screen, fields, plain, short, table, took
from latticed.cli.session import Session, command, group
from latticed.errors import Invalid

Document = dict[str, Any]
Hook = Annotated[str, typer.Argument(metavar="HOOK", help="The hook's id or name.")]
DeliveryId = Annotated[str, typer.Argument(metavar="ID", help="The delivery's id.")]
Limit = Annotated[int | None, typer.Option(metavar="N", help="At most so many: 1 to 500, else 50.")]
Cursor = Annotated[str | None, typer.Option(metavar="TEXT", help="The next page, as the last one named it.")]
Url = Annotated[str | None, typer.Option(metavar="URL", help="Where it is sent: https, or a private network's http.")]
Secret = Annotated[str | None, typer.Option(metavar="secret:NAME", help="What signs it, by reference.")]
Kind = Annotated[Literal["agent", "workflow", "flow", "*"] | None, typer.Option(help="Only runs of this kind.")]
Target = Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only runs of this target; may be repeated.")]
Event = Annotated[list[str] | None, typer.Option(metavar="TYPE", help="At on_event: a type; may be repeated.")]
Order = Annotated[int | None, typer.Option(metavar="N", help="Its place among the hooks of its point.")]
Timeout = Annotated[float | None, typer.Option(metavar="SECONDS", help="How long an answer may take.")]
OnError = Annotated[Literal["block", "ignore"] | None, typer.Option(help="What a pre_ hook without an answer does.")]
Point = Literal["pre_run", "post_run", "pre_node", "post_node", "pre_tool", "post_tool", "on_event"]
Status = Literal["pending", "ok", "blocked", "error", "skipped", "timeout", "dead"]

app = group("Look at hooks, register webhooks, and see and repeat what was sent.")


@command(app, "list")
def list_hooks(session: Session, *, limit: Limit = None, cursor: Cursor = None) -> None:
    """List hooks."""
    page = session.client.list_hooks(limit=limit, cursor=cursor)
    session.show(page, _hook_table)
    _more(session, page)


@command(app, "show")
def show(
    session: Session,
    hook: Hook,
    *,
    signing_secret: Annotated[
        bool, typer.Option("--signing-secret", help="With the daemon's key for a webhook of the file.")
    ] = False,
) -> None:
    """Show a hook."""
    session.show(session.client.get_hook(hook, signing_secret=signing_secret), _hook_lines)


@command(app, "create")
def create(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    *,
    point: Annotated[Point, typer.Option(help="Where in a run's life it is called.")],
    url: Annotated[str, typer.Option(metavar="URL", help="Where it is sent: https, or a private network's http.")],
    secret: Secret = None,
    kind: Kind = None,
    target: Target = None,
    event: Event = None,
    order: Order = None,
    timeout: Timeout = None,
    on_error: OnError = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Register it without calling it yet.")] = False,
) -> None:
    """Register a webhook; without a secret, print the key of its signatures, this once."""
    made = session.client.create_hook(
        name,
        point,
        url,
        secret=secret,
        kind=kind,
        targets=target or None,
        events=event or None,
        order=order,
        enabled=False if disabled else None,
        timeout_seconds=timeout,
        on_error=on_error,
    )
    session.show(made, lambda hook, screen: [hook["signing_secret"] or f"{hook['id']} is registered"])
    if made["signing_secret"] and not session.json:
        session.note(f"this signs what {made['id']} is sent; it is not shown again")


@command(app, "update")
def update(
    session: Session,
    hook: Hook,
    *,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Another name.")] = None,
    point: Annotated[Point | None, typer.Option(help="Where in a run's life it is called.")] = None,
    url: Url = None,
    secret: Secret = None,
    no_secret: Annotated[bool, typer.Option("--no-secret", help="Sign with a key of the daemon's own.")] = False,
    kind: Kind = None,
    target: Target = None,
    event: Event = None,
    order: Order = None,
    timeout: Timeout = None,
    on_error: OnError = None,
) -> None:
    """Change a registered hook; what is not said stays as it is."""
    asked = {
        "name": name, "point": point, "url": url, "secret": secret, "kind": kind, "targets": target or None,
        "events": event or None, "order": order, "timeout_seconds": timeout, "on_error": on_error,
    }  # fmt: skip
    changes: Document = {field: value for field, value in asked.items() if value is not None}
    if no_secret:
        changes["secret"] = None
    if not changes:
        raise Invalid("nothing to change; see latticectl hooks update --help")
    session.show(session.client.update_hook(hook, changes), _hook_lines)


@command(app, "delete")
def delete(session: Session, hook: Hook) -> None:
    """Remove a registered hook."""
    session.client.delete_hook(hook)
    session.show({"hook": hook, "deleted": True}, lambda gone, screen: [f"{plain(hook)} is gone"])


@command(app, "enable")
def enable(session: Session, hook: Hook) -> None:
    """Call a registered hook again."""
    session.show(session.client.update_hook(hook, {"enabled": True}), _hook_lines)


@command(app, "disable")
def disable(session: Session, hook: Hook) -> None:
    """Call a registered hook no more; what it is to be sent waits for a day."""
    session.show(session.client.update_hook(hook, {"enabled": False}), _hook_lines)


@command(app, "deliveries")
def list_deliveries(
    session: Session,
    *,
    status: Annotated[Status | None, typer.Option(help="Only in this status.")] = None,
    hook: Annotated[str | None, typer.Option(metavar="HOOK", help="Only of this hook, by id or name.")] = None,
    point: Annotated[Point | None, typer.Option(help="Only of this point.")] = None,
    run: Annotated[str | None, typer.Option(metavar="ID", help="Only about this run.")] = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> None:
    """List executions of hooks, newest first."""
    page = session.client.list_deliveries(
        status=status, hook=hook, point=point, run=run, limit=limit, cursor=cursor
    )  # fmt: skip
    session.show(page, _delivery_table)
    _more(session, page)


@command(app, "delivery")
def show_delivery(session: Session, delivery_id: DeliveryId) -> None:
    """Show an execution of a hook."""
    session.show(session.client.get_delivery(delivery_id), _delivery_lines)


@command(app, "redeliver")
def redeliver(session: Session, delivery_id: DeliveryId) -> None:
    """Send a delivery again, under the same id, however it ended."""
    session.show(session.client.redeliver(delivery_id), _delivery_lines)


def _more(session: Session, page: Document) -> None:
    if page["next_cursor"]:
        session.hint(f"more with: --cursor {page['next_cursor']}")


def _calls(hook: Document) -> str:
    return plain(hook["url"] or hook["function"] or " ".join(hook["argv"] or ()))


def _hook_table(page: Document, screen: Screen) -> Iterator[str]:
    rows = [
        (each["name"], each["point"], each["use"], "yes" if each["enabled"] else "no", each["id"] or "file",
         short(_calls(each)))
        for each in page["items"]
    ]  # fmt: skip
    return table(("NAME", "POINT", "USE", "ENABLED", "ID", "CALLS"), rows, screen, "no hooks")


def _hook_lines(hook: Document, screen: Screen) -> Iterator[str]:
    where = hook["id"] or "of the configuration file"
    yield f"{plain(hook['name'])} ({where}): {hook['use']} at {hook['point']}"
    yield from fields(
        [
            ("calls", _calls(hook)),
            ("enabled", "yes" if hook["enabled"] else "no"),
            ("kind", None if hook["kind"] == "*" else hook["kind"]),
            ("targets", plain(", ".join(hook["targets"]))),
            ("workspaces", plain(", ".join(hook["workspaces"]))),
            ("events", plain(", ".join(hook["events"]))),
            ("order", str(hook["order"])),
            ("timeout", took(hook["timeout_seconds"] * 1000)),
            ("on error", hook["on_error"]),
            ("secret", plain(hook["secret"] or "")),
            ("signed with", hook["signing_secret"]),
            ("made", f"{screen.when(hook['created_at'])} by {plain(hook['created_by'])}" if hook["id"] else None),
        ]
    )


def _delivery_table(page: Document, screen: Screen) -> Iterator[str]:
    rows = [
        (each["id"], each["status"], short(each["hook"], 24), each["point"], each["run_id"], str(each["attempts"]),
         screen.ago(each["created_at"]), short(each["detail"] or ""))
        for each in page["items"]
    ]  # fmt: skip
    heads = ("ID", "STATUS", "HOOK", "POINT", "RUN", "TRIES", "CREATED", "DETAIL")
    return table(heads, rows, screen, "no deliveries", status=1)


def _delivery_lines(delivery: Document, screen: Screen) -> Iterator[str]:
    yield f"{delivery['id']} is {screen.status(delivery['status'])}: {plain(delivery['hook'])} at {delivery['point']}"
    duration = delivery["duration_ms"]
    yield from fields(
        [
            ("run", delivery["run_id"]),
            ("event", None if delivery["event_position"] is None else f"position {delivery['event_position']}"),
            ("attempts", str(delivery["attempts"])),
            ("created", screen.when(delivery["created_at"])),
            ("next", screen.when(delivery["due_at"]) if delivery["due_at"] else None),
            ("last", screen.when(delivery["finished_at"]) if delivery["finished_at"] else None),
            ("took", None if duration is None else took(duration)),
            ("detail", plain(delivery["detail"] or "")),
            ("output", short(delivery["output"] or "")),
        ]
    )

"""`latticectl runs`: what became of them, and ending or repeating them."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer

from latticed.cli import arguments
from latticed.cli.events import event_lines, follow
from latticed.cli.render import Screen, fields, plain, result, short, table, took, value
from latticed.cli.session import Session, command, group
from latticed.states import TERMINAL, Status

Document = dict[str, Any]
RunId = Annotated[str, typer.Argument(metavar="ID", help="The run's id.")]

app = group("Look at runs; stop, repeat and signal them.")


@command(app, "list")
def list_runs(
    session: Session,
    *,
    status: Annotated[Status | None, typer.Option(help="Only in this status.")] = None,
    kind: Annotated[Literal["agent", "workflow", "flow"] | None, typer.Option(help="Only of this kind.")] = None,
    target: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only of this agent, workflow or blueprint.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Only with this tag.")] = None,
    parent: Annotated[str | None, typer.Option(metavar="ID", help="Only children of this run.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="At most so many: 1 to 500, else 50.")] = None,
    cursor: Annotated[str | None, typer.Option(metavar="TEXT", help="The next page, as the last one named it.")] = None,
) -> None:
    """List runs, newest first."""
    tags = [f"{name}:{text}" for name, text in arguments.pairs("--tag", tag or [], "=:").items()]
    page = session.client.list_runs(
        status=status and status.value,
        kind=kind,
        target=target,
        tag=tags or None,
        parent=parent,
        limit=limit,
        cursor=cursor,
    )
    session.show(page, _run_table)
    if page["next_cursor"]:
        session.hint(f"more with: --cursor {page['next_cursor']}")


@command(app, "show")
def show(session: Session, run_id: RunId) -> None:
    """Show a run: its state, its times, its output."""
    session.show(session.client.get_run(run_id), run_lines)


@command(app, "events")
def events(
    session: Session,
    run_id: RunId,
    *,
    watch: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as they happen, until the run has ended.")
    ] = False,
    after: Annotated[int | None, typer.Option(metavar="N", help="Begin after this sequence number.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="At most so many: 1 to 500, else all.")] = None,
) -> None:
    """Print a run's timeline, oldest first."""
    if watch:
        follow(session, run_id, after)
    elif limit is not None:
        page = session.client.list_events(run_id, after=after, limit=limit)
        session.show(page, lambda page, screen: event_lines(page["items"], screen))
        if page["next_cursor"]:
            session.hint(f"more with: --after {page['next_cursor']}")
    else:
        every = session.client.every_event(run_id, after=after)
        if session.json:
            session.show({"items": list(every), "next_cursor": None}, lambda page, screen: [])
        else:
            session.show(every, event_lines)


@command(app, "steps")
def steps(session: Session, run_id: RunId) -> None:
    """List what a run has recorded, oldest first."""
    session.show({"items": list(session.client.every_step(run_id)), "next_cursor": None}, _step_table)


@command(app, "why")
def why(session: Session, run_id: RunId) -> None:
    """Say why a run is not running."""
    session.show(session.client.why(run_id), _why_lines)


@command(app, "stop")
def stop(
    session: Session,
    run_id: RunId,
    *,
    mode: Annotated[
        Literal["graceful", "now", "kill"] | None,
        typer.Option(
            help="graceful lets the step under way end, now cancels it, kill abandons it. [default: graceful]"
        ),
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; it is kept with the run.")] = None,
) -> None:
    """Stop a run; asked again with a harder mode, harder."""
    session.show(session.client.stop(run_id, mode=mode, reason=reason), _stop_lines)


@command(app, "cancel")
def cancel(
    session: Session,
    run_id: RunId,
    *,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; it is kept with the run.")] = None,
) -> None:
    """Stop a run without waiting for the step under way: stop --mode now."""
    session.show(session.client.cancel(run_id, reason=reason), _stop_lines)


@command(app, "rerun")
def rerun(
    session: Session,
    run_id: RunId,
    *,
    from_step: Annotated[
        str | None, typer.Option(metavar="ID", help="Keep what was recorded before this step.")
    ] = None,
) -> None:
    """Start a new run like a finished one."""
    answer = session.client.rerun(run_id, from_step=from_step)
    session.show(answer, accepted_lines)
    session.hint(f"follow it with: {session.command('runs events --follow ' + answer['run']['id'])}")


@command(app, "signal")
def signal(
    session: Session,
    run_id: RunId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The signal's name.")],
    *,
    data: Annotated[str | None, typer.Option(metavar="JSON", help="What the run gets. [default: null]")] = None,
) -> None:
    """Send data to a run that waits for it, or will."""
    sent = session.client.signal(run_id, name, None if data is None else arguments.json_value("--data", data))
    session.show(sent, lambda answer, screen: [f"{plain(run_id)} has the signal {plain(name)}"])


def accepted_lines(answer: Document, screen: Screen) -> Iterator[str]:
    """A submission's answer: which run it is, and its status."""
    run = answer["run"]
    yield f"{run['id']}  {screen.status(run['status'])}"


def ending_lines(run: Document, screen: Screen) -> Iterator[str]:
    """How a run ended, or how far it is: one line, then its error or its output."""
    yield f"{run['id']}  {screen.status(run['status'])}  ({screen.between(run['started_at'], run['finished_at'])})"
    if run["error"]:
        yield f"{plain(run['error']['code'])}: {plain(run['error']['message'])}"
    if run["output"] is not None:
        yield from result(run["output"])


def run_lines(run: Document, screen: Screen) -> Iterator[str]:
    """A run, for a person: what matters of it."""
    yield f"{run['id']}  {screen.status(run['status'])}  {run['kind']} {plain(run['target'])}"
    cancel, pause, error = run["cancel"], run["pause"], run["error"]
    priority = f", priority {run['priority']}" if run["priority"] else ""
    began = run["started_at"]
    yield from fields(
        [
            ("name", plain(run["name"]) if run["name"] != run["target"] else None),
            ("goal", short(run["goal"], 400)),
            ("inputs", short(value(run["inputs"]), 400) if run["inputs"] else None),
            ("tags", plain(" ".join(f"{name}={text}" for name, text in run["tags"].items()))),
            ("queue", plain(run["queue"]) + priority),
            ("parent", run["parent_run_id"]),
            ("rerun of", run["rerun_of"]),
            (
                "created",
                f"{screen.when(run['created_at'])}" + (f" by {plain(run['created_by'])}" if run["created_by"] else ""),
            ),
            ("not before", screen.when(run["run_at"]) if run["run_at"] else None),
            ("deadline", took(run["deadline_seconds"] * 1000) if run["deadline_seconds"] else None),
            ("role", run.get("current_role")),
            ("started", f"{screen.when(began)}{_tries(run)}" if began else None),
            ("waits for", _pause(pause, screen) if pause else None),
            ("cancel", _cancel(cancel, screen) if cancel else None),
            ("finished", screen.when(run["finished_at"]) if run["finished_at"] else None),
            ("took", screen.between(began, run["finished_at"]) if began and run["finished_at"] else None),
            ("usage", ", ".join(_usage(run))),
            ("abandoned", f"its {run['abandoned']} could not be stopped" if run.get("abandoned") else None),
            ("error", f"{plain(error['code'])}: {plain(error['message'])}" if error else None),
        ]
    )
    if run["output"] is not None:
        yield "  output"
        yield from (f"    {line}".rstrip() for line in result(run["output"]))


def _tries(run: Document) -> str:
    tries = [f"attempt {run['attempt']}"] if run["attempt"] > 1 else []
    if run["recoveries"]:
        tries.append(f"recovered {run['recoveries']} times" if run["recoveries"] > 1 else "recovered once")
    return f", {', '.join(tries)}" if tries else ""


def _usage(run: Document) -> Iterator[str]:
    usage = run.get("usage") or {}
    if usage.get("requests"):
        yield f"{usage['requests']} requests"
        yield f"{usage['input_tokens']} + {usage['output_tokens']} tokens"
        if usage["cost_usd"]:
            yield f"{usage['cost_usd']:.4f} USD"
    if run.get("mode") == "simulation":
        yield "simulated"


def _pause(pause: Document, screen: Screen) -> str:
    wake = f"until {screen.when(pause['wake_at'])}" if pause["wake_at"] else ""
    return "  ".join(filter(None, [pause["kind"], *map(plain, pause["approval_ids"] or pause["facts"]), wake]))


def _cancel(cancel: Document, screen: Screen) -> str:
    by = f" by {plain(cancel['requested_by'])}" if cancel["requested_by"] else ""
    reason = f": {plain(cancel['reason'])}" if cancel["reason"] else ""
    return f"{cancel['mode']}, {screen.when(cancel['requested_at'])}{by}{reason}"


def _run_table(page: Document, screen: Screen) -> Iterator[str]:
    rows = [
        (
            run["id"],
            run["status"],
            short(run["target"], 24),
            screen.ago(run["created_at"]),
            screen.between(run["started_at"], run["finished_at"]),
            short(run["goal"]),
        )
        for run in page["items"]
    ]
    return table(("ID", "STATUS", "TARGET", "CREATED", "TOOK", "GOAL"), rows, screen, "no runs", status=1)


def _step_table(page: Document, screen: Screen) -> Iterator[str]:
    rows = []
    for step in page["items"]:
        error = step["error"]
        told = f"{error['code']}: {error['message']}" if error else value(step["outcome"])
        if step["status"] not in ("ok", "failed"):
            told = "-"
        milliseconds = step["duration_ms"]
        rows.append(
            (
                step["id"],
                short(f"{step['branch']} {step['name']}".strip(), 40),
                step["status"],
                str(step["attempt"]),
                "-" if milliseconds is None else took(milliseconds),
                short(told),
            )
        )
    return table(("ID", "STEP", "STATUS", "ATTEMPT", "TOOK", "OUTCOME"), rows, screen, "no steps yet", status=2)


def _why_lines(why: Document, screen: Screen) -> Iterator[str]:
    yield f"{screen.status(why['status'])}: {plain(why['reason'])}"
    yield from fields(
        [
            ("queue", plain(why["queue"]) if why["status"] not in TERMINAL else None),
            ("place", str(why["position"] + 1) if why["position"] is not None else None),
            ("until", screen.when(why["until"]) if why["until"] else None),
            ("waits for", plain(", ".join(why["waits_for"]))),
        ]
    )


def _stop_lines(answer: Document, screen: Screen) -> Iterator[str]:
    run_id, status = answer["run_id"], answer["status"]
    if not answer["stopped"]:
        yield f"{run_id} had already ended: {screen.status(status)}"
    elif status == Status.CANCELLED:
        yield f"{run_id} is {screen.status(status)}"
    else:
        yield f"{run_id} is {screen.status(status)}; it ends when its work has wound down"

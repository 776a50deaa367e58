"""`latticectl run`: start a run, and watch it or wait for it."""

from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from latticed.cli import arguments
from latticed.cli.events import follow
from latticed.cli.runs import accepted_lines, ending_lines
from latticed.cli.session import Session, command
from latticed.clock import SystemClock
from latticed.states import TERMINAL, Status

NOT_ENDED = 75
"""The exit code if the wait is over and the run is not: what is tried again later (sysexits EX_TEMPFAIL)."""

_GOOD = frozenset({Status.OK, Status.RETRIED_OK, Status.PARTIAL})
_FOR_EVER = "for-ever"


class RunCommand(TyperCommand):
    """A command whose `--wait` may stand alone, and whose last argument is hidden."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Of the arguments only those that are shown."""
        return super().collect_usage_pieces(ctx)[:-1]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Gives a `--wait` that is followed by no duration the value that means: until the run has ended."""
        end = args.index("--") if "--" in args else len(args)
        filled = []
        for i, word in enumerate(args):
            filled.append(word)
            if word == "--wait" and i < end and not (i + 1 < end and args[i + 1][:1].isdigit()):
                filled.append(_FOR_EVER)
        return super().parse_args(ctx, filled)


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "run", cls=RunCommand)(run)


def run(
    session: Session,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name.")],
    goal: Annotated[str | None, typer.Argument(metavar="GOAL", help="What it is to do.")] = None,
    last: Annotated[str | None, typer.Argument(hidden=True)] = None,
    *,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", "-i", metavar="K=V", help="An input: JSON if it is that, else text.")
    ] = None,
    inputs_json: Annotated[str | None, typer.Option(metavar="JSON", help="All inputs as one JSON object.")] = None,
    watch: Annotated[bool, typer.Option("--follow", "-f", help="Print its timeline until it has ended.")] = False,
    wait: Annotated[
        str | None,
        typer.Option(metavar="[SECONDS]", help="Wait until it has ended, or so long, then print its output."),
    ] = None,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="The queue. [default: the agent's]")] = None,
    priority: Annotated[int | None, typer.Option(metavar="N", help="-100 to 100, higher first. [default: 0]")] = None,
    deadline: Annotated[str | None, typer.Option(metavar="TIME", help="Give it up after so long: 90s, 5m, 2h.")] = None,
    run_at: Annotated[str | None, typer.Option(metavar="TIME", help="Not before: RFC 3339, or +5m.")] = None,
    max_retries: Annotated[
        int | None, typer.Option(metavar="N", help="Attempts after a failed one, or a reviewer's retries: 0 to 5.")
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A role of a pipeline, in order. [default: the agent's]")
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="With a scripted model in place of the real one.")
    ] = False,
    recovery: Annotated[
        Literal["resume", "requeue", "interrupt"] | None,
        typer.Option(help="What becomes of it if the daemon dies. [default: the agent's]"),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="K=V", help="A tag to find it by.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The same key within 24 h is the same run.")
    ] = None,
) -> None:
    """Start a run of an agent.

    With --follow or --wait the exit code is 0 if the run ended well, 1 if it did not, and 75 if it has not ended.
    """
    if last is not None:  # `run agent NAME GOAL`, the kind of run said first.
        if agent != "agent" or goal is None:
            raise typer.BadParameter(f"{last!r} is one word too many; a goal of several words needs quotes")
        agent, goal = goal, last
    patience = None if wait is None else float("inf") if wait == _FOR_EVER else arguments.seconds("--wait", wait)
    answer = session.client.submit(
        agent,
        goal,
        arguments.inputs(inputs or [], inputs_json) or None,
        queue=queue,
        priority=priority,
        deadline_seconds=None if deadline is None else arguments.seconds("--deadline", deadline),
        run_at=None if run_at is None else arguments.moment("--run-at", run_at, SystemClock().now()),
        max_retries=max_retries,
        roles=role or None,
        mode="simulation" if simulate else None,
        recovery=recovery,
        tags=arguments.pairs("--tag", tag or []) or None,
        idempotency_key=idempotency_key,
    )
    run_id = answer["run"]["id"]
    if watch:
        _follow(session, answer)
    elif patience is not None:
        _wait(session, answer, patience)
    else:
        session.show(answer, accepted_lines)
        session.hint(f"follow it with: {session.command(f'runs events --follow {run_id}')}")


def _follow(session: Session, answer: dict[str, Any]) -> None:
    """Prints the timeline of a run just started, then how it ended."""
    run_id = answer["run"]["id"]
    if not session.json:
        session.show(answer, accepted_lines)
    follow(session, run_id)
    ended = session.client.get_run(run_id)
    if not session.json:
        session.show(ended, ending_lines)
    raise typer.Exit(exit_code(ended))


def _wait(session: Session, answer: dict[str, Any], seconds: float) -> None:
    """Waits for a run just started, then prints what became of it."""
    run_id = answer["run"]["id"]
    try:
        waited = session.client.wait(run_id, None if seconds == float("inf") else seconds)
    except KeyboardInterrupt:
        session.goes_on(run_id)
    session.show({**answer, "run": waited}, lambda document, screen: ending_lines(document["run"], screen))
    if waited["status"] == Status.AWAITING_APPROVAL:
        for approval in (waited["pause"] or {}).get("approval_ids", []):
            session.note(f"it asks a person; answer with: {session.command(f'approvals answer {approval} approve')}")
    elif waited["status"] not in TERMINAL:
        session.note(f"{run_id} goes on; look at it with: {session.command(f'runs show {run_id}')}")
    raise typer.Exit(exit_code(waited))


def exit_code(run: dict[str, Any]) -> int:
    """0 for a run that ended well, 1 for one that did not, 75 for one that has not ended."""
    if run["status"] in _GOOD:
        return 0
    return 1 if run["status"] in TERMINAL else NOT_ENDED

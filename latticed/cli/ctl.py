"""latticectl: the command line to a daemon. What is heavy is imported late, by the command that needs it."""

import sys
from collections.abc import Sequence

import typer

from latticed.cli import agents, approvals, audit, hooks, queues, run, runs, tokens, workspaces
from latticed.cli.arguments import usage
from latticed.cli.render import plain
from latticed.cli.session import INTERRUPTED, group
from latticed.errors import Busy, LatticedError

SUMMARY = """Start, watch, stop and answer runs of a latticed daemon.

Global options may stand anywhere. Without -u, LATTICED_URL or else the file `address` in the daemon's state
directory (LATTICED_STATE_DIR, else ~/.local/state/latticed) says where the daemon is; without -t, LATTICED_TOKEN or
else `admin.token` there; without -w, LATTICED_WORKSPACE or else it is the workspace `default`.
"""


def application() -> typer.Typer:
    """latticectl's commands."""
    app = group(SUMMARY)
    run.add_to(app)
    for name, part in (
        ("runs", runs.app),
        ("approvals", approvals.app),
        ("agents", agents.app),
        ("queues", queues.app),
        ("hooks", hooks.app),
        ("workspaces", workspaces.app),
        ("tokens", tokens.app),
        ("audit", audit.app),
    ):
        app.add_typer(part, name=name)
    tokens.add_whoami_to(app)
    return app


def call(arguments: Sequence[str]) -> int:
    """Does what a command line says → the exit code; an error is one line on stderr."""
    try:
        code = application()(args=arguments, prog_name="latticectl", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except LatticedError as error:
        return _complain(told(error), error.exit_code)
    except typer.TyperException as error:
        return _complain(usage(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED


def told(error: LatticedError) -> str:
    """An error in one line, with the fields that are wrong or the time to try again."""
    detail = error.detail
    wrong = [
        f"{'.'.join(map(str, each.get('loc', ())))}: {each.get('msg', '')}".removeprefix(": ")
        for each in error.extra.get("errors", ())
        if isinstance(each, dict) and str(each.get("msg")) not in detail
    ]
    if wrong:
        detail = f"{detail.rstrip('.')}: {'; '.join(wrong)}"
    if isinstance(error, Busy):
        detail = f"{detail.rstrip('.')}; try again in {error.retry_after} s"
    return detail


def _complain(text: str, code: int) -> int:
    sys.stdout.flush()
    print(f"latticectl: {plain(text)}", file=sys.stderr)
    return code


def main() -> None:
    """The entry point of `latticectl`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a sign still shows the rest
    sys.exit(call(sys.argv[1:]))

"""What every command of latticectl shares: the global options, the client they lead to, and where output goes."""

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from latticed.cli.render import Screen
from latticed.clock import SystemClock
from latticed.errors import Unauthenticated, Unavailable
from latticed.files import CannotWrite

if TYPE_CHECKING:
    from latticed.client import Client

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it."""
PIPE_CLOSED = 141
"""The exit code if nobody reads stdout any more: 128 and the number of SIGPIPE, as shells have it."""

MOST = 500
"""The longest page there is: what is short is shown whole."""

ApiUrl = Annotated[
    str | None, typer.Option("--api-url", "-u", metavar="URL", help="The daemon's address, or unix:PATH.")
]
Token = Annotated[str | None, typer.Option("--token", "-t", metavar="TEXT", help="The token to use.")]
Workspace = Annotated[str | None, typer.Option("--workspace", "-w", metavar="NAME", help="The workspace to work in.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

GLOBAL_OPTIONS: dict[str, tuple[Any, Any]] = {
    "api_url": (ApiUrl, None),
    "token": (Token, None),
    "workspace": (Workspace, None),
    "json": (Json, False),
}
"""Name → type and default. Every command and every group takes them, so that they may stand anywhere."""


@dataclass(frozen=True)
class Settings:
    """The global options as given on one level of the command line."""

    api_url: str | None = None
    token: str | None = None
    workspace: str | None = None
    json: bool = False

    def over(self, outer: "Settings | None") -> "Settings":
        """These options, and where they say nothing those of the level outside."""
        if outer is None:
            return self
        return Settings(**{each.name: getattr(self, each.name) or getattr(outer, each.name) for each in fields(self)})


def state_dir() -> Path:
    """The state directory of this machine's daemon, as the daemon finds its own without a flag."""
    given = os.environ.get("LATTICED_STATE_DIR")
    return Path(given).expanduser() if given else Path.home() / ".local/state/latticed"


class Session:
    """One command's way to the daemon and to the terminal."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.json = settings.json

    @property
    def workspace(self) -> str:
        """The workspace in use."""
        return self.settings.workspace or os.environ.get("LATTICED_WORKSPACE") or "default"

    @cached_property
    def client(self) -> "Client":
        """The daemon.

        Raises:
            Unavailable: nothing says where the daemon is.
            Unauthenticated: the token's file may not be read.
            Invalid: the address is none.
        """
        from latticed.client import Client

        return Client(self._url, self._token(), self.workspace)

    def close(self) -> None:
        """Closes the connections to the daemon, if there are any."""
        if "client" in self.__dict__:
            self.client.close()

    @property
    def screen(self) -> Screen:
        """What text for a person is made for."""
        terminal = sys.stdout.isatty()
        width = os.get_terminal_size(sys.stdout.fileno()).columns if terminal else None
        # https://no-color.org: any text but the empty one.
        colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return Screen(now=SystemClock().now(), width=width or None, colour=colour)

    def show(self, document: Any, lines: Callable[[Any, Screen], Iterable[str]]) -> None:
        """Prints a document: as JSON if that was asked for, else as `lines` tells it."""
        if self.json:
            print(self.dump(document, indent=2 if sys.stdout.isatty() else None))
        else:
            for line in lines(document, self.screen):
                print(line)

    def dump(self, document: Any, indent: int | None = None) -> str:
        """A document as JSON that stdout can carry."""
        ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
        return json.dumps(document, ensure_ascii=ascii_only, indent=indent)

    def note(self, text: str) -> None:
        """Says something beside the output: on stderr."""
        print(f"latticectl: {text}", file=sys.stderr, flush=True)

    def hint(self, text: str) -> None:
        """Says something that helps a person and that a script does not need: only if one is looking."""
        if not self.json and sys.stderr.isatty():
            print(text, file=sys.stderr, flush=True)

    def command(self, text: str) -> str:
        """A command line to copy that goes to the same daemon and workspace as this one."""
        flags = [
            f"{flag} {value} "
            for flag, value in (("-u", self.settings.api_url), ("-w", self.settings.workspace))
            if value
        ]
        return f"latticectl {''.join(flags)}{text}"

    def goes_on(self, run_id: str) -> NoReturn:
        """Ends the command after Ctrl-C while a run was watched, which does the run no harm.

        Raises:
            Exit: always.
        """
        self.note(f"{run_id} goes on; stop it with: {self.command(f'runs stop {run_id}')}")
        raise typer.Exit(INTERRUPTED)

    def explained(self, error: Unauthenticated) -> Unauthenticated:
        """What the daemon said of the token, or, if there is none to speak of, how to give one."""
        if self._token() is not None:
            return error
        return Unauthenticated(
            f"no token found: there is none in {state_dir() / 'admin.token'}. Give one with -t or LATTICED_TOKEN"
        )

    def _url(self) -> str:
        if url := self.settings.api_url or os.environ.get("LATTICED_URL"):
            return url
        file = state_dir() / "address"
        try:
            return file.read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            raise Unavailable(
                f"no daemon found: there is no address in {file} ({(error.strerror or str(error)).lower()}). "
                "Start one with 'latticed serve', or say where it is with -u or LATTICED_URL"
            ) from error

    def _token(self) -> str | None:
        if token := self.settings.token or os.environ.get("LATTICED_TOKEN"):
            return token
        file = state_dir() / "admin.token"
        try:
            return file.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None  # the daemon says that it wants one
        except OSError as error:
            raise Unauthenticated(
                f"cannot read {file} ({(error.strerror or str(error)).lower()}); give a token with -t or LATTICED_TOKEN"
            ) from error


def group(summary: str) -> typer.Typer:
    """An empty group of commands."""
    app = typer.Typer(
        help=summary,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        invoke_without_command=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    @_with_settings
    def enter(ctx: typer.Context, settings: Settings) -> None:
        ctx.obj = settings
        if ctx.invoked_subcommand is None:
            print(ctx.get_help(), file=sys.stderr)
            raise typer.Exit(2)

    return app


def command(app: typer.Typer, name: str, **how: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds a command to a group: a function of a `Session` and of arguments and options of its own."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def run(ctx: typer.Context, settings: Settings, **values: Any) -> None:
            session = Session(settings)
            try:
                function(session, **values)
                sys.stdout.flush()
            except OSError as error:
                # What is still buffered finds no way out either: it must not be written at exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                if isinstance(error, BrokenPipeError):
                    raise typer.Exit(PIPE_CLOSED) from error
                raise CannotWrite(f"cannot write the output: {(error.strerror or str(error)).lower()}") from error
            except Unauthenticated as error:
                raise session.explained(error) from error
            finally:
                session.close()

        app.command(name, **how)(_with_settings(run))
        return function

    return register


def _with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Gives the global options to a function whose first two parameters are the context and the settings."""

    @wraps(function)
    def run(ctx: typer.Context, **values: Any) -> None:
        given = Settings(**{name: values.pop(name) for name in GLOBAL_OPTIONS})
        function(ctx, given.over(ctx.obj), **values)

    parameters = [
        inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *(
            each
            for each in inspect.signature(function, eval_str=True).parameters.values()
            if each.annotation not in (typer.Context, Session, Settings)
        ),
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for name, (annotation, default) in GLOBAL_OPTIONS.items()
        ),
    ]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what inspect looks for on any callable
        [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    )
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run

"""`latticed`: the daemon, and what is done to it from the machine it runs on."""

import json
import os
import re
import shlex
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from latticed import __version__, descriptors, log
from latticed.cli.arguments import usage
from latticed.cli.session import INTERRUPTED
from latticed.config import Config, load
from latticed.errors import Internal, Invalid, LatticedError


def _help_unless_more(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(2)


app = typer.Typer(
    help="The durable run executor.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
token_app = typer.Typer(help="Who may come in.", invoke_without_command=True, callback=_help_unless_more)
config_app = typer.Typer(help="What the daemon is told.", invoke_without_command=True, callback=_help_unless_more)
app.add_typer(token_app, name="token")
app.add_typer(config_app, name="config")

ConfigFlag = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The configuration, TOML.")]
AppDirFlag = Annotated[
    list[Path] | None, typer.Option("--app-dir", metavar="DIR", help="Where your own agents are imported from.")
]
StateDirFlag = Annotated[Path | None, typer.Option("--state-dir", metavar="DIR", help="Where everything is kept.")]
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"latticed {__version__}")
        raise typer.Exit


@app.callback()
def latticed(
    ctx: typer.Context,
    _: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="The version.")] = False,
) -> None:
    """The durable run executor."""
    _help_unless_more(ctx)


@app.command()
def serve(
    config: ConfigFlag = None,
    state_dir: StateDirFlag = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="The port to listen on; 0 takes a free one.")
    ] = None,
    app_dir: AppDirFlag = None,
    banner: Annotated[bool, typer.Option("--banner", help="When ready, say where and what to try.")] = False,
) -> None:
    """Runs the daemon until SIGTERM or SIGINT."""
    flags = {key: value for key, value in {"host": host, "port": port}.items() if value is not None}
    settings = load(config, state_dir, {"server": flags} if flags else {})
    log.setup(settings.log.level)
    _import_from(app_dir)
    settings.make_state_dir()
    descriptors.allow_many()

    import latticed.daemon as daemon

    def welcome(address: str) -> None:
        typer.echo(_banner(settings, address))

    daemon.serve(settings, welcome if banner else None)


@app.command()
def migrate(config: ConfigFlag = None, state_dir: StateDirFlag = None) -> None:
    """Brings the database up to date; so does serve."""
    settings = load(config, state_dir)
    log.setup(settings.log.level)
    settings.make_state_dir()

    from latticed import upkeep

    typer.echo(upkeep.migrate(settings))


@app.command()
def doctor(
    config: ConfigFlag = None,
    state_dir: StateDirFlag = None,
    app_dir: AppDirFlag = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Says what keeps the daemon from working, or soon may, a line a check; changes nothing."""
    import latticed.doctor as examination

    log.setup("error")
    _import_from(app_dir)
    with redirect_stdout(sys.stderr):  # What the agents' own code prints as it is loaded is no part of the report.
        findings = list(examination.examine(lambda: load(config, state_dir)))
    code = examination.exit_code(findings)
    if as_json:
        checks = [{"check": each.check, "result": each.result, "said": each.said} for each in findings]
        typer.echo(json.dumps({"exit_code": code, "checks": checks}, indent=2, ensure_ascii=False))
    else:
        typer.echo("\n".join(f"{each.result:<8} {each.check}: {' '.join(each.said.split())}" for each in findings))
    raise typer.Exit(code)


@token_app.command("create")
def create_token(
    workspace: Annotated[str, typer.Option(help="The workspace it is good for; * for every one.")],
    role: Annotated[Literal["viewer", "operator", "admin"], typer.Option(help="What it may do.")],
    lane: Annotated[
        list[str] | None, typer.Option(help="A lane whose approvals it may answer; again for more.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="30d", help="How long it is good for: 90s, 15m, 12h, 30d.")
    ] = None,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="All that is known of it.")] = False,
    config: ConfigFlag = None,
    state_dir: StateDirFlag = None,
) -> None:
    """Makes a token and prints it, this once."""
    from pydantic import ValidationError

    from latticed.api.queries import complaints
    from latticed.models.people import TokenRequest

    seconds = None if expires is None else parse_duration(expires)
    name = name or f"{role} by command line"
    try:
        asked = TokenRequest(name=name, role=role, lanes=lane or None, expires_seconds=seconds)
    except ValidationError as error:
        raise complaints(error, "token") from None
    settings = load(config, state_dir)
    log.setup(settings.log.level)

    from latticed import upkeep

    made = upkeep.create_token(settings, workspace, asked)
    typer.echo(json.dumps(made) if as_json else made["token"])


@config_app.command("show")
def show_config(
    config: ConfigFlag = None,
    state_dir: StateDirFlag = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="As one JSON object, with where each value comes from.")
    ] = False,
) -> None:
    """Prints what holds after flags, environment, credentials, file and defaults. Secrets stay references."""
    settings = load(config, state_dir)
    if as_json:
        shown = {
            "file": settings.file and str(settings.file),
            "state_dir": str(settings.state_dir),
            "config": settings.model_dump(mode="json", exclude={"state_dir"}),
            "origins": settings.origins,
        }
        typer.echo(json.dumps(shown, indent=2))
    else:
        typer.echo("\n".join(_as_toml(settings)))


def parse_duration(text: str) -> int:
    """`30d` → seconds; `s`, `m`, `h`, `d` and `w` are known, a bare number is seconds.

    Raises:
        Invalid: not a duration, or none at all.
    """
    found = re.fullmatch(r"(\d{1,9})([smhdw]?)", text)
    if found is None or int(found[1]) == 0:
        raise Invalid(f"{text!r} is not a duration; write 90s, 15m, 12h, 30d or 4w")
    return int(found[1]) * UNITS[found[2]]


def _import_from(app_dir: list[Path] | None) -> None:
    sys.path[:0] = [str(path.resolve()) for path in app_dir or []]


def _as_toml(settings: Config) -> list[str]:
    """The configuration as a file would say it; a value that is not a default says where it comes from."""
    lines = [f"# file: {settings.file or 'none, built-in defaults'}", f"# state directory: {settings.state_dir}"]

    def table(path: str, values: dict[str, Any]) -> None:
        plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
        if plain:
            lines.extend(["", f"[{path}]"])
        for key, value in plain.items():
            origin = settings.origins.get(f"{path}.{key}", "").replace(str(settings.file), "file")
            unset = "# " if value is None else ""
            shown = "" if value is None else f" {json.dumps(value, ensure_ascii=False)}"
            lines.append(f"{unset}{key} ={shown}" + (f"  # {origin}" if origin else ""))
        for key, value in values.items():
            if isinstance(value, dict):
                table(f"{path}.{_quoted(key)}", value)

    for name, values in settings.model_dump(mode="json", exclude={"state_dir"}).items():
        table(name, values)
    return lines


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def _banner(settings: Config, address: str) -> str:
    """What to paste into another terminal, as it works there: with the path of latticectl and the state directory."""
    ctl = "latticectl"
    if shutil.which(ctl) is None:
        ctl = shlex.quote(os.path.relpath(Path(sys.executable).with_name(ctl)))
    if settings.state_dir != Path.home() / ".local/state/latticed":
        ctl = f"LATTICED_STATE_DIR={shlex.quote(str(settings.state_dir))} {ctl}"
    return f"""
latticed serves {address}
its admin token lies in {settings.state_dir / "admin.token"}
try, in another terminal:

  {ctl} run digest {shlex.quote(str(Path.cwd()))} --input 'pattern=*.md' --follow
  {ctl} runs list
  {ctl} whoami
"""


def main() -> None:
    """The entry point. An error is one line on stderr and the exit code of its class; an unexpected one is logged."""
    _open_stdio()
    try:
        sys.exit(app(prog_name="latticed", standalone_mode=False))
    except LatticedError as error:
        _die(error.detail, error.exit_code)
    except typer.TyperException as error:
        _die(usage(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)
    except Exception as error:
        import structlog

        log.setup()
        structlog.get_logger().exception("crashed")
        _die(f"{type(error).__name__}: {error}", Internal.exit_code)


def _open_stdio() -> None:
    """Whoever starts it with closed descriptors gets /dev/null there: no socket may become stdout or stderr."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # open for as long as the process lives


def _die(reason: str, exit_code: int) -> NoReturn:
    print(f"latticed: {' '.join(reason.splitlines())}", file=sys.stderr)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()

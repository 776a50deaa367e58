"""What `latticed doctor` looks at: whether a daemon could start here, and how the one is that runs. It takes no lock
and writes nothing; what it loads is what a start would load."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from latticed import descriptors
from latticed.client.transport import Transport
from latticed.config import CommandConfig, Config, ConfigError, McpToolConfig
from latticed.config.modelled import CommandToolConfig
from latticed.daemon import ADDRESS_FILE, ADMIN_TOKEN_FILE
from latticed.errors import LatticedError
from latticed.hooks.assembly import KEY_FILE
from latticed.hooks.loading import load_hooks
from latticed.models.hooks import CommandHook, WebhookHook
from latticed.plugins import Agents
from latticed.secrets import NoSecret, Secrets
from latticed.store import database_path, holder, look
from latticed.upkeep import store_url

READY_SECONDS = 5.0
SCARCE_BYTES, LEAST_BYTES = 1 << 30, 32 << 20
"""Room on the disk below which there is a warning, and below which a start may fail."""
FEW_CONNECTIONS = 3000


class Result(StrEnum):
    """What came of a check."""

    OK = "ok"
    WARNING = "warning"
    """It works; something is missing, or not as it should be."""
    FAILURE = "failure"


class Finding(NamedTuple):
    """One line of the report."""

    check: str
    result: Result
    said: str
    exit_code: int = LatticedError.exit_code
    """What it makes of the whole, if it is a failure."""


def ok(check: str, said: str) -> Finding:
    """All is well."""
    return Finding(check, Result.OK, said)


def warning(check: str, said: str) -> Finding:
    """Something should be looked at."""
    return Finding(check, Result.WARNING, said)


def failure(check: str, said: str | LatticedError) -> Finding:
    """A start, or what runs, fails for it."""
    if isinstance(said, LatticedError):
        return Finding(check, Result.FAILURE, said.detail, said.exit_code)
    return Finding(check, Result.FAILURE, said)


def exit_code(findings: list[Finding]) -> int:
    """0 if nothing failed, 78 if the configuration cannot be used, else 70."""
    codes = {each.exit_code for each in findings if each.result is Result.FAILURE}
    return ConfigError.exit_code if ConfigError.exit_code in codes else LatticedError.exit_code if codes else 0


def examine(read: Callable[[], Config]) -> Iterator[Finding]:
    """Every check, in the order in which a start would fail; without a configuration, that alone."""
    try:
        config = read()
    except ConfigError as error:
        yield failure("configuration", error)
        return
    yield ok("configuration", f"{config.file or 'the built-in defaults'} can be used")
    missing = dict(_missing_secrets(config))
    for table, lack in missing.items():
        yield Finding("secrets", Result.FAILURE, f"{table}: {lack.detail}", lack.exit_code)
    if not missing:
        yield ok("secrets", f"{len(list(_references(config)))} are referred to, none is missing")
    yield from _guarded("agents", _agents(config, missing))
    yield from _guarded("hooks", _hooks(config, missing))
    yield from _guarded("programs", _programs(config))
    yield from _guarded("state directory", _state_dir(config))
    yield from _guarded("disk", _disk(config))
    yield from _guarded("database", _database(config))
    yield from _guarded("daemon", _daemon(config))
    yield _open_files()


def _guarded(check: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """What keeps one check from its end keeps no other from being made."""
    try:
        yield from findings
    except LatticedError as error:
        yield failure(check, error)
    except (Exception, SystemExit) as error:
        yield failure(check, f"{type(error).__name__}: {error}")


# --- the configuration, and what it names ----------------------------------------------------------------------------


def _references(config: Config) -> Iterator[tuple[str, str]]:
    """The table and the reference, of all secrets that a start looks for."""
    for name, model in config.models.items():
        if model.key is not None:
            yield f"models.{name}", model.key
    for name, tool in config.tools.items():
        for reference in tool.references() if isinstance(tool, McpToolConfig) else ():
            yield f"tools.{name}", reference
    for name, hook in config.hooks.items():
        if isinstance(hook, WebhookHook) and hook.enabled and hook.secret is not None:
            yield f"hooks.{name}", hook.secret


def _missing_secrets(config: Config) -> Iterator[tuple[str, NoSecret]]:
    secrets = Secrets(config.secrets.dir)
    for table, reference in _references(config):
        try:
            secrets.resolve(reference)
        except NoSecret as error:
            yield table, error


def _refusals(
    check: str, config: Config, tables: Mapping[str, Any], load: Callable[[Config], object]
) -> Iterator[Finding]:
    """Why `load` refuses these tables: then each is tried by itself, so that all that are wrong are told at once."""

    def refusal(part: Mapping[str, Any]) -> LatticedError | None:
        try:
            load(config.model_copy(update={check: part}))
        except LatticedError as error:
            return error
        return None

    if (whole := refusal(tables)) is not None:
        alone = [error for name, table in tables.items() if (error := refusal({name: table})) is not None]
        yield from {error.detail: failure(check, error) for error in alone or [whole]}.values()


def _agents(config: Config, missing: Mapping[str, NoSecret]) -> Iterator[Finding]:
    if any(not table.startswith("hooks.") for table in missing):
        yield warning("agents", "cannot be loaded without the secrets of models and tools")
        return
    refused = list(_refusals("agents", config, config.agents, Agents))
    if refused:
        yield from refused
        return
    agents = Agents(config)
    yield ok("agents", f"{len(agents.names())} load, with {len(config.models)} models and {len(config.tools)} tools")
    for name, problem in agents.lacking_models().items():
        yield warning("models", problem if problem.startswith(f"model {name}:") else f"{name}: {problem}")
    for view in agents.views():
        if not view["available"]:
            yield warning("agents", f"{view['name']} lacks {view['missing']}")


def _hooks(config: Config, missing: Mapping[str, NoSecret]) -> Iterator[Finding]:
    whole = {name: hook for name, hook in config.hooks.items() if f"hooks.{name}" not in missing}
    refused = list(_refusals("hooks", config, whole, load_hooks))
    yield from refused or [ok("hooks", f"{len(whole)} load")]


def _programs(config: Config) -> Iterator[Finding]:
    """The programs that are not there, each as the daemon would look for it."""
    for name, agent in config.agents.items():
        if isinstance(agent, CommandConfig):
            yield from _program("agents", name, agent.argv[0], agent)
    for name, tool in config.tools.items():
        if isinstance(tool, McpToolConfig) and tool.argv is not None:
            yield from _program("tools", name, tool.argv[0], tool)
        elif isinstance(tool, CommandToolConfig):
            for program in dict.fromkeys(words[0] for words in tool.allow):
                yield from _program("tools", name, program, tool)
    for name, hook in config.hooks.items():
        if isinstance(hook, CommandHook) and hook.enabled:
            yield from _program("hooks", name, hook.argv[0], hook)


def _program(
    check: str, name: str, program: str, table: CommandConfig | McpToolConfig | CommandToolConfig | CommandHook
) -> Iterator[Finding]:
    if table.cwd is not None and not table.cwd.is_dir():
        yield warning(check, f"{name}: its cwd {table.cwd} is not a directory")
        return
    if "/" in program and not os.path.isabs(program):
        if table.cwd is None:
            return  # It is looked for in a directory that is made for the run.
        program = str(table.cwd / program)
    if shutil.which(program, path=os.environ.get("PATH") if "PATH" in table.env else os.defpath) is None:
        yield warning(
            check, f"{name}: there is no program {program} that could be started; install it or name its path"
        )


# --- where it is kept ------------------------------------------------------------------------------------------------


def _state_dir(config: Config) -> Iterator[Finding]:
    check, path = "state directory", config.state_dir
    if not path.exists():
        above = next(parent for parent in path.parents if parent.exists())
        if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
            yield ok(check, f"{path} is not there; the first start makes it")
        else:
            yield failure(check, f"{path} cannot be made: {above} cannot be written; choose another by --state-dir")
    elif not path.is_dir():
        yield failure(check, f"{path} is not a directory; choose another by --state-dir")
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield failure(check, f"{path} cannot be read and written by uid {os.geteuid()}; it is {_owned(path)}")
    else:
        if os.geteuid() not in (0, path.stat().st_uid):
            yield warning(
                check, f"{path} is {_owned(path)}, not uid {os.geteuid()}'s who asks; give it to the daemon's user"
            )
        yield from _open_to_others(check, path, "700")
        yield ok(check, f"{path} is there, {_owned(path)}")
        for name in (ADMIN_TOKEN_FILE, KEY_FILE):
            yield from _open_to_others(check, path / name, "600")


def _owned(path: Path) -> str:
    return f"uid {path.stat().st_uid}'s with rights {stat.S_IMODE(path.stat().st_mode):o}"


def _open_to_others(check: str, path: Path, rights: str) -> Iterator[Finding]:
    """A warning for what others can get at: a file in a directory that is closed to them is out of their reach."""
    ways = (path,) if path.is_dir() else (path, path.parent)
    if path.exists() and all(way.stat().st_mode & 0o077 for way in ways):
        yield warning(check, f"{path} is open to others; chmod {rights} {path}")


def _disk(config: Config) -> Iterator[Finding]:
    for place in dict.fromkeys((config.state_dir, database_path(store_url(config)).parent)):
        yield _room(next(each for each in (place, *place.parents) if each.exists()))


def _room(place: Path) -> Finding:
    disk = os.statvfs(place)
    free = disk.f_bavail * disk.f_frsize
    said = f"{free >> 20} MiB are free at {place}"
    if free < LEAST_BYTES or (disk.f_files and not disk.f_favail):
        return failure("disk", f"{said}, and {disk.f_favail} files; make room")
    return warning("disk", f"{said}; make room soon") if free < SCARCE_BYTES else ok("disk", said)


def _database(config: Config) -> Iterator[Finding]:
    url = store_url(config)
    path = database_path(url)
    found = look(url)
    if found is None and config.store.url is not None and not path.parent.is_dir():
        yield failure("database", f"{path} cannot be made: there is no directory {path.parent}; make it")
    elif found is None:
        yield ok("database", f"{path} is not there; the first start makes it")
    elif found.damage is not None:
        yield failure("database", f"{path} is damaged ({found.damage}); put a backup in its place")
    elif found.revision is None:
        yield warning("database", f"{path} is empty; the next start fills it in")
    elif found.revision > found.head:
        said = f"{path} is newer ({found.revision}) than this latticed ({found.head})"
        yield failure("database", f"{said}; install the latticed that last used it, or a newer one")
    elif found.revision < found.head:
        said = f"{path} is older ({found.revision}) than this latticed ({found.head})"
        yield warning("database", f"{said}; the next start, or `latticed migrate`, brings it up to date")
    else:
        yield ok("database", f"{path} is whole and of this version ({found.revision})")
    for name in (path.name, f"{path.name}-wal"):
        yield from _open_to_others("database", path.with_name(name), "600")


def _daemon(config: Config) -> Iterator[Finding]:
    """Whether one has the lock, and whether it answers where it said that it does."""
    pid = holder(store_url(config))
    if pid is None:
        yield ok("daemon", "none runs on this state")
        return
    who = f"process {pid} holds the lock"
    try:
        where = (config.state_dir / ADDRESS_FILE).read_text().strip()
    except FileNotFoundError:
        yield warning("daemon", f"{who} and has not said where it serves: it starts, or ends; look at its log")
        return
    try:
        transport = Transport(where, None, READY_SECONDS)
        with closing(transport):
            transport.request("GET", "/readyz")
        yield ok("daemon", f"{who} and is ready at {where}")
    except LatticedError as error:
        yield failure("daemon", f"{who} and is not ready: {error.detail}; look at its log")


def _open_files() -> Finding:
    descriptors.allow_many()
    most = descriptors.most_connections()
    said = f"started from here, a daemon may have {most} connections"
    if most < FEW_CONNECTIONS:
        return warning("open files", f"{said}; raise the limit by `ulimit -Hn`, or LimitNOFILE= in the unit")
    return ok("open files", said)

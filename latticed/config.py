"""What the daemon is told: flags, the environment, credentials, a TOML file and defaults, in that order.

Every table refuses what it does not know. An error is one line that names where the key was set, the key, what is
wrong with it and, for an unknown one, the nearest that exists.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from latticed.complaint import CREDENTIALS, ENVIRONMENT, PREFIX, explain, nearest
from latticed.errors import LatticedError

SYSTEM_FILE = Path("/etc/latticed/latticed.toml")
NOT_CONFIGURATION = ("CONFIG", "STATE_DIR", "URL", "TOKEN", "WORKSPACE", "FAILPOINTS", "FAILPOINT_LOG")
"""Variables with our prefix that set no key."""
NOT_CONFIGURATION_PREFIXES = ("SECRET_", "RUN_")
PLACEHOLDER = re.compile(r"\{(?:goal|inputs\.[A-Za-z0-9_.-]+)\}")
"""What a command's argv may hold for a run to fill; always a whole argument."""


class ConfigError(LatticedError):
    """The configuration cannot be used."""

    exit_code: ClassVar[int] = 78
    title: ClassVar[str] = "Unusable configuration"


def _wrong(key: str, reason: str) -> PydanticCustomError:
    """An error that names its key itself, for a rule that looks at more than one."""
    return PydanticCustomError("rule", "{reason}", {"key": key, "reason": reason})


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(ge=1024, le=1 << 30)]
Seconds = Annotated[float, Field(gt=0, le=86_400 * 365, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, le=86_400 * 365, allow_inf_nan=False)]
Days = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Table(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerConfig(Table):
    """Where the door is."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8700
    unix_socket: Path | None = None
    request_limit_bytes: Bytes = 1 << 20
    ping_seconds: Seconds = 15.0
    allow_public: bool = False

    @model_validator(mode="after")
    def _stays_at_home(self) -> Self:
        if not (self.allow_public or self.unix_socket or _is_loopback(self.host)):
            raise _wrong(
                "server.host",
                f"{self.host} can be reached from other machines; set server.allow_public = true if that is meant",
            )
        return self


class StoreConfig(Table):
    """Where runs are kept."""

    url: str | None = None

    @field_validator("url")
    @classmethod
    def _known(cls, url: str | None) -> str | None:
        if url is not None and not re.match(r"sqlite\+aiosqlite:///[^:?]", url):
            raise ValueError("must be sqlite+aiosqlite:///PATH, a database in a file")
        return url


class BrokerConfig(Table):
    """What carries wake-ups."""

    url: Literal["memory:"] = "memory:"


class RunsConfig(Table):
    """How runs are driven."""

    concurrency: Count = 1000
    threads: Annotated[int, Field(ge=1, le=4096)] = 32
    park_seconds: SecondsOrZero = 2.0
    grace_seconds: Seconds = 30.0
    kill_seconds: Seconds = 10.0
    drain_seconds: SecondsOrZero = 30.0
    max_recoveries: Annotated[int, Field(ge=1, le=1000)] = 3
    output_limit_bytes: Bytes = 1 << 20


class QueueConfig(Table):
    """One named queue."""

    concurrency: Count = 100


class RetentionConfig(Table):
    """How long finished runs are kept; None is for ever."""

    ok_days: Days | None = None
    failed_days: Days | None = None


class AgentBase(Table):
    """What every sort of agent has."""

    max_retries: Annotated[int, Field(ge=0, le=5)] = 0
    recovery: Literal["resume", "requeue", "interrupt"] = "resume"
    queue: Name = "default"
    description: str = ""


class FunctionConfig(AgentBase):
    """An agent that is a Python function, by dotted path."""

    use: Literal["function"]
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]


class CommandConfig(AgentBase):
    """An agent that is a program. What a run gives fills whole arguments, never a part of one and never the program."""

    use: Literal["command"]
    argv: Annotated[list[str], Field(min_length=1)]
    cwd: Path | None = None
    env: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"]

    @field_validator("argv")
    @classmethod
    def _whole_arguments(cls, argv: list[str]) -> list[str]:
        if not argv[0] or PLACEHOLDER.search(argv[0]):
            raise ValueError("the program itself must be fixed, not taken from a run")
        for argument in argv:
            if "\0" in argument:
                raise ValueError("an argument holds a NUL")
            if (found := PLACEHOLDER.search(argument)) and found.group() != argument:
                raise ValueError(f"{found.group()} must be an argument of its own, not a part of {argument!r}")
        return argv

    @field_validator("cwd")
    @classmethod
    def _absolute(cls, cwd: Path | None) -> Path | None:
        if cwd is not None and not cwd.is_absolute():
            raise ValueError(f"must be an absolute path, not {str(cwd)!r}")
        return cwd


AgentConfig = Annotated[FunctionConfig | CommandConfig, Field(discriminator="use")]


class LogConfig(Table):
    """What is logged."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class SecretsConfig(Table):
    """Where `secret:NAME` is looked for, after the credential directory and before the environment."""

    dir: Path | None = None


class Settings(Table):
    """Every key that a file can set."""

    server: ServerConfig = ServerConfig()
    store: StoreConfig = StoreConfig()
    broker: BrokerConfig = BrokerConfig()
    runs: RunsConfig = RunsConfig()
    queues: Annotated[dict[Name, QueueConfig], Field(validate_default=True)] = {}
    retention: RetentionConfig = RetentionConfig()
    agents: dict[Name, AgentConfig] = {}
    log: LogConfig = LogConfig()
    secrets: SecretsConfig = SecretsConfig()

    @field_validator("queues")
    @classmethod
    def _default_queue(cls, queues: dict[str, QueueConfig]) -> dict[str, QueueConfig]:
        return {"default": QueueConfig()} | queues

    @model_validator(mode="after")
    def _queues_exist(self) -> Self:
        for name, agent in self.agents.items():
            if agent.queue not in self.queues:
                raise _wrong(
                    f"agents.{name}.queue",
                    f"there is no queue {agent.queue!r}; {nearest(agent.queue, list(self.queues), 'the queues are')}",
                )
        return self


class Config(Settings):
    """Everything the daemon is told, ready to use."""

    state_dir: Path
    """Absolute; not created by reading the configuration, see `make_state_dir`."""
    file: Path | None = Field(default=None, exclude=True)
    """The file that was read, if any."""
    origins: dict[str, str] = Field(default={}, exclude=True, repr=False)
    """Dotted key → where its value comes from, for every key that is not a default."""
    flags: tuple[Path | None, dict[str, Any]] = Field(default=(None, {}), exclude=True, repr=False)
    """The file and the keys asked for by flag, so that a reload asks for the same."""

    def make_state_dir(self) -> None:
        """Creates the state directory, readable by its owner alone, unless it is there.

        Raises:
            ConfigError: it cannot be created, or is not a directory.
        """
        try:
            self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.state_dir}: cannot be the state directory: {error.strerror}") from error

    def reload(self, environ: Mapping[str, str] = os.environ) -> "Config":
        """The configuration read again from the same places, with the same flags.

        Raises:
            ConfigError: it cannot be used now; the one at hand stays as it is.
        """
        return load(self.flags[0], self.state_dir, self.flags[1], environ)


BUILT_IN_AGENTS: dict[str, Any] = {
    "digest": {"use": "function", "function": "latticed.agents.digest:digest"},
}
"""The agents of a daemon that finds no file at all; a file brings its own."""


def load(
    config_file: Path | None = None,
    state_dir: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """Reads the configuration.

    `overrides` are flags, as nested tables: `{"server": {"port": 0}}`. Without `config_file`, `LATTICED_CONFIG` and
    then the system's file are read; without either the built-in defaults hold.

    Raises:
        ConfigError: with one line that says what to mend and where.
    """
    overrides = dict(overrides or {})
    file = _find_file(config_file, environ)
    layers: dict[str, Mapping[str, Any]] = {
        str(file or "built-in"): _read_file(file) if file else {"agents": BUILT_IN_AGENTS},
        CREDENTIALS: _from_variables(_credentials(environ), CREDENTIALS),
        ENVIRONMENT: _from_variables(environ, ENVIRONMENT),
        "flag": overrides,
    }
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for label, values in layers.items():
        merged = _merge(merged, values)
        origins.update(dict.fromkeys(_leaves(values), label))
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(explain(error, Settings, origins)) from None
    return Config(
        **{name: getattr(settings, name) for name in Settings.model_fields},
        state_dir=_find_state_dir(state_dir, environ),
        file=file,
        origins=origins,
        flags=(config_file.absolute() if config_file else None, overrides),
    )


class _Variables(Settings, BaseSettings):
    """The same tables, as pydantic-settings wants them for reading variables."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", defer_build=True)


class _VariablesSource(EnvSettingsSource):
    """Reads variables from a mapping; a value that is not the JSON its type needs is left for validation to name."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        super().__init__(_Variables)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._variables.items() if value}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def _from_variables(variables: Mapping[str, str], label: str) -> dict[str, Any]:
    """`LATTICED_SERVER__PORT=1` → `{"server": {"port": "1"}}`; a table that does not exist is refused."""
    ours = {}
    for name, value in variables.items():
        key = name.upper().removeprefix(PREFIX)
        if key == name.upper() or key in NOT_CONFIGURATION or key.startswith(NOT_CONFIGURATION_PREFIXES):
            continue
        table, _, nested = key.partition("__")
        if nested and table.lower() not in Settings.model_fields:
            known = [f"{PREFIX}{field.upper()}__{nested}" for field in Settings.model_fields]
            raise ConfigError(f"{label}: {name}: unknown key; {nearest(name.upper(), known, 'known are')}")
        ours[name] = value
    return _VariablesSource(ours)() if ours else {}


def _credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """Files of the credential directory that are named like our variables; their text without the last newline."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return {}
    try:
        files = [path for path in sorted(Path(directory).iterdir()) if path.name.upper().startswith(PREFIX)]
        return {path.name: path.read_text(encoding="utf-8").rstrip("\n") for path in files}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{directory}: the credential directory cannot be read: {error}") from error


def _find_file(asked: Path | None, environ: Mapping[str, str]) -> Path | None:
    if asked is None and (named := environ.get("LATTICED_CONFIG")):
        asked = Path(named)
    if asked is not None:
        return asked.absolute()
    return SYSTEM_FILE if SYSTEM_FILE.exists() else None


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error


def _find_state_dir(asked: Path | None, environ: Mapping[str, str]) -> Path:
    """Flag, variable, systemd's (the first, if it gives several), else under the home directory."""
    if asked is None:
        named = environ.get("LATTICED_STATE_DIR") or environ.get("STATE_DIRECTORY", "").partition(":")[0]
        asked = Path(named or "~/.local/state/latticed")
    try:
        return asked.expanduser().absolute()
    except RuntimeError:
        raise ConfigError("there is no home directory to keep state under; set --state-dir") from None


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"

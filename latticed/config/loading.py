"""Reads the configuration: flags, the environment, credentials, a TOML file and defaults, in that order.

Every table refuses what it does not know. An error is one line that names where the key was set, the key, what is
wrong with it and, for an unknown one, the nearest that exists.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from latticed.complaint import CREDENTIALS, ENVIRONMENT, PREFIX, explain, nearest
from latticed.config.fields import ConfigError
from latticed.config.settings import Settings

SYSTEM_FILE = Path("/etc/latticed/latticed.toml")
NOT_CONFIGURATION = ("CONFIG", "STATE_DIR", "URL", "TOKEN", "WORKSPACE", "FAILPOINTS", "FAILPOINT_LOG")
"""Variables with our prefix that set no key."""
NOT_CONFIGURATION_PREFIXES = ("SECRET_", "RUN_")

FIXED = ("broker", "runs.threads", "server", "store")
"""The tables and keys that hold from a daemon's start to its end, whatever a reload reads."""


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

    def fixed_changes(self, other: "Config") -> list[str]:
        """The keys in which `other` differs and which a daemon that runs cannot take over."""
        tables = {key.partition(".")[0] for key in FIXED}
        ours, theirs = (config.model_dump(include=tables) for config in (self, other))
        changed = [f"{name}.{key}" for name in ours for key in ours[name] if ours[name][key] != theirs[name][key]]
        return sorted(key for key in changed if key in FIXED or key.partition(".")[0] in FIXED)


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
    # All of it is valid: to say so again would take a second validator of everything, for as long as the daemon lives.
    return Config.model_construct(
        **{name: getattr(settings, name) for name in Settings.model_fields},
        state_dir=_find_state_dir(state_dir, environ),
        file=file,
        origins=origins,
        flags=(config_file.absolute() if config_file else None, overrides),
    )


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
    if not ours:
        return {}
    from latticed.config.variables import read_variables  # 17 MB of imports that most daemons never need.

    return read_variables(ours)


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
    try:
        SYSTEM_FILE.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        pass  # Nobody knows, and whoever reads it is told why.
    return SYSTEM_FILE


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

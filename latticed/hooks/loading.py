"""From the configuration to hooks that can be asked."""

from dataclasses import dataclass

from latticed.config import Config, ConfigError
from latticed.hooks.functions import Function, load_function
from latticed.models.hooks import HookSpec, PythonHook, WebhookHook
from latticed.secrets import NoSecret, Secrets


@dataclass(frozen=True, slots=True)
class FileHooks:
    """The hooks of a configuration file, with their code."""

    specs: tuple[HookSpec, ...]
    functions: dict[str, Function]


def load_hooks(config: Config) -> FileHooks:
    """Loads what enabled hooks need, and looks that their secrets are there.

    Raises:
        ConfigError: a function or a secret is missing; nothing has changed.
    """
    specs = tuple(HookSpec(name, table) for name, table in config.hooks.items())
    functions: dict[str, Function] = {}
    secrets = Secrets(config.secrets.dir)
    for spec in specs:
        table = spec.table
        if not table.enabled:
            continue
        if isinstance(table, PythonHook):
            functions[spec.key] = load_function(spec.name, table)
        elif isinstance(table, WebhookHook) and table.secret is not None:
            try:
                secrets.resolve(table.secret)
            except NoSecret as missing:
                raise ConfigError(f"hooks.{spec.name}.secret: {missing.detail}") from None
    return FileHooks(specs, functions)

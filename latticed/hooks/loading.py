"""From the configuration to hooks that can be asked."""

from dataclasses import dataclass

from latticed.config import Config, ConfigError
from latticed.errors import Invalid
from latticed.hooks.addresses import parse_url
from latticed.hooks.functions import Function, load_function
from latticed.hooks.signing import BadSecret, key_of
from latticed.models.hooks import HookSpec, PythonHook, WebhookHook
from latticed.models.registering import unknown_event
from latticed.secrets import NoSecret, Secrets


@dataclass(frozen=True, slots=True)
class FileHooks:
    """The hooks of a configuration file, with their code."""

    specs: tuple[HookSpec, ...]
    functions: dict[str, Function]


def load_hooks(config: Config) -> FileHooks:
    """Loads what enabled hooks need, and looks that their secrets are there and can sign.

    Raises:
        ConfigError: a function or a secret is missing, or something said of one cannot be; nothing has changed.
    """
    specs = tuple(HookSpec(name, table) for name, table in config.hooks.items())
    functions: dict[str, Function] = {}
    secrets = Secrets(config.secrets.dir)
    for spec in specs:
        table = spec.table
        if not table.enabled:
            continue
        if wrong := unknown_event(table.events):
            raise ConfigError(f"hooks.{spec.name}.events: {wrong}")
        if isinstance(table, PythonHook):
            functions[spec.key] = load_function(spec.name, table)
        elif isinstance(table, WebhookHook):
            _look_at(spec.name, table, secrets)
    return FileHooks(specs, functions)


def _look_at(name: str, table: WebhookHook, secrets: Secrets) -> None:
    """Whether a webhook can be sent, as far as that can be known without asking anybody where its host is."""
    field = "url"
    try:
        parse_url(table.url)
        field = "secret"
        if table.secret is not None:
            key_of(secrets.resolve(table.secret))
    except (Invalid, NoSecret, BadSecret) as error:
        raise ConfigError(f"hooks.{name}.{field}: {error.detail}") from None

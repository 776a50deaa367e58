"""Keys that are set by variables, as pydantic-settings reads them. Imported late: it is large."""

from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from latticed.complaint import PREFIX
from latticed.config.settings import Settings


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


def read_variables(variables: Mapping[str, str]) -> dict[str, Any]:
    """`LATTICED_SERVER__PORT=1` → `{"server": {"port": "1"}}`."""
    found: dict[str, Any] = _VariablesSource(variables)()
    return found

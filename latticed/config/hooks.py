"""The tables of `[hooks.NAME]` and `[webhooks]`. What a hook is stands in models.hooks."""

from typing import Annotated

from pydantic import AfterValidator

from latticed.config.fields import Table
from latticed.models.hooks import AnyHook

__all__ = ["AnyHook", "WebhooksConfig"]


def _network(text: str) -> str:
    import ipaddress  # late: a daemon that calls nobody does without

    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"must be a network such as 10.0.0.0/8 or ::1/128: {error}") from None


class WebhooksConfig(Table):
    """Whom webhooks may call."""

    allow_private: list[Annotated[str, AfterValidator(_network)]] = []

"""The tables of `[hooks.NAME]` and `[webhooks]`. What a hook is stands in models.hooks."""

from typing import Annotated

from pydantic import AfterValidator, Field

from latticed.config.fields import Table
from latticed.models.deliveries import RETRY_SECONDS
from latticed.models.hooks import AnyHook

__all__ = ["AnyHook", "WebhooksConfig"]


def _network(text: str) -> str:
    import ipaddress  # late: a daemon that calls nobody does without

    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"must be a network such as 10.0.0.0/8 or ::1/128: {error}") from None


Pause = Annotated[float, Field(gt=0, le=86_400 * 7, allow_inf_nan=False)]


class WebhooksConfig(Table):
    """Whom webhooks may call, and when they are tried again."""

    retry_seconds: Annotated[list[Pause], Field(max_length=100)] = list(RETRY_SECONDS)
    allow_private: list[Annotated[str, AfterValidator(_network)]] = []

"""Models by name: from `[models.NAME]` to something that can be asked."""

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model, infer_model
from pydantic_ai.settings import ModelSettings

from latticed.config.modelled import ModelConfig
from latticed.errors import Final
from latticed.secrets import Secrets

CONNECT_SECONDS = 15.0
PRELOADED = {"openai": "pydantic_ai.models.openai", "anthropic": "pydantic_ai.models.anthropic"}


@dataclass(frozen=True, slots=True)
class ModelInUse:
    """A model, ready to be asked, and what holds for its requests."""

    name: str
    model: Model | None
    """None where a ready agent brings its own."""
    config: ModelConfig
    key: str | None = None
    streams: bool = True
    joins: bool = False
    """Whether text comes joined from where it is read."""

    def settings(self) -> ModelSettings:
        """What each request says unless its agent says otherwise."""
        config = self.config
        settings = ModelSettings()
        if self.key is None and config.base_url is None:
            settings["max_retries"] = 0
        if config.temperature is not None:
            settings["temperature"] = config.temperature
        if config.max_tokens is not None:
            settings["max_tokens"] = config.max_tokens
        return settings

    def cost(self, response: ModelResponse) -> float:
        """What a reply cost, in US dollars: by the configured prices, or else as far as the library knows them."""
        used, config = response.usage, self.config
        if config.input_usd_per_million is not None and config.output_usd_per_million is not None:
            paid = used.input_tokens * config.input_usd_per_million
            return (paid + used.output_tokens * config.output_usd_per_million) / 1e6
        if config.base_url is not None or response.provider_name is None:
            return 0.0
        try:
            return float(response.cost().total_price)
        except (LookupError, AssertionError, ValueError):
            return 0.0

    def without_key(self, text: str) -> str:
        """The text without the key, should its server have repeated it."""
        return text.replace(self.key, "[redacted]") if self.key else text


class Models:
    """All configured models. One that was asked keeps its connections, for all runs."""

    def __init__(self, configs: Mapping[str, ModelConfig], secrets: Secrets) -> None:
        self._configs = configs
        self._secrets = secrets
        self._open: dict[str, tuple[bytes, Model]] = {}
        self._clients: dict[str, Any] = {}
        for provider in {config.provider for config in configs.values()} & PRELOADED.keys():
            importlib.import_module(PRELOADED[provider])  # Now, not while runs are under way: it takes a second.

    def config(self, name: str) -> ModelConfig:
        """What `[models.NAME]` says; for `provider:model`, its provider's own defaults."""
        found = self._configs.get(name)
        if found is not None:
            return found
        provider, _, model = name.partition(":")
        return ModelConfig(provider=provider, model=model)

    def use(self, name: str) -> ModelInUse:
        """A model, its key resolved now.

        Raises:
            Final: code `model_misconfigured`; what is missing.
            NoSecret: its key is not there.
        """
        config = self.config(name)
        key = None if config.key is None else self._secrets.resolve(config.key)
        digest = hashlib.sha256((key or "").encode()).digest()
        known = self._open.get(name)
        if known is None or known[0] != digest:  # A renewed key holds from here on.
            try:
                known = self._open[name] = digest, self._make(name, config, key)
            except Exception as error:
                message = str(error).replace(key, "[redacted]") if key else str(error)
                raise Final("model_misconfigured", f"model {name}: {message}") from None
        return ModelInUse(name, known[1], config, key, joins=config.provider == "openai" and name in self._clients)

    def problem(self, name: str) -> str | None:
        """Why a model cannot be asked, such as for want of its provider's own key; None if it can."""
        try:
            self.use(name)
        except Final as error:
            return error.message
        return None

    def _make(self, name: str, config: ModelConfig, key: str | None) -> Model:
        if config.provider == "openai" and (key is not None or config.base_url is not None):
            return self._openai(name, config, key)
        if config.provider == "anthropic" and key is not None:
            return self._anthropic(name, config, key)
        if key is None and config.base_url is None:
            return infer_model(f"{config.provider}:{config.model}")
        from pydantic_ai.providers import infer_provider_class

        given: dict[str, Any] = {"api_key": key, "base_url": config.base_url}
        provider = infer_provider_class(config.provider)(**{k: v for k, v in given.items() if v is not None})
        return infer_model(f"{config.provider}:{config.model}", provider_factory=lambda _: provider)

    def _openai(self, name: str, config: ModelConfig, key: str | None) -> Model:
        from openai import AsyncOpenAI
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider
        from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

        client = AsyncOpenAI(
            api_key=key or "none", base_url=config.base_url or "https://api.openai.com/v1", max_retries=0,
            http_client=self._client(name, config),
        )  # fmt: skip
        if config.base_url is None:
            return OpenAIChatModel(config.model, provider=OpenAIProvider(openai_client=client))
        return OpenAIChatModel(config.model, provider=OpenAICompatibleProvider(name, openai_client=client))

    def _anthropic(self, name: str, config: ModelConfig, key: str) -> Model:
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        client = AsyncAnthropic(
            api_key=key, base_url=config.base_url, max_retries=0, http_client=self._client(name, config)
        )
        return AnthropicModel(config.model, provider=AnthropicProvider(anthropic_client=client))

    def _client(self, name: str, config: ModelConfig) -> Any:
        """The connections of a model; one set for it, whatever its key is."""
        import httpx2

        from latticed.agents.wire import join

        if name not in self._clients:
            self._clients[name] = httpx2.AsyncClient(
                timeout=httpx2.Timeout(
                    config.silence_seconds, connect=CONNECT_SECONDS, pool=config.timeout_seconds
                ),
                limits=httpx2.Limits(max_connections=config.connections, max_keepalive_connections=config.connections),
                headers={"accept-encoding": "identity"},  # wire.py reads it as it comes.
                follow_redirects=False, event_hooks={"response": [join]},
            )  # fmt: skip
        return self._clients[name]

    async def close(self) -> None:
        """Ends all connections."""
        clients, self._clients, self._open = self._clients, {}, {}
        for client in clients.values():
            await client.aclose()

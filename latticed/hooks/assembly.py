"""All parts of hooks, wired: who is in force, how each sort is asked, and what sends the outbox."""

import ipaddress
from collections.abc import Callable, Collection

from latticed.clock import Clock
from latticed.config import Config
from latticed.engine.courier import Courier
from latticed.hooks.addresses import Network
from latticed.hooks.asking import Asker, Runner
from latticed.hooks.command import CommandRunner
from latticed.hooks.functions import FunctionRunner
from latticed.hooks.loading import FileHooks, load_hooks
from latticed.hooks.registry import Registry
from latticed.hooks.signing import Keys
from latticed.hooks.webhook import Webhooks
from latticed.metrics import Metrics
from latticed.models.hooks import HookSpec
from latticed.outbox import Outbox
from latticed.secrets import Secrets

KEY_FILE = "webhook.key"
LAST_SECONDS = 1.0
"""How long deliveries under way may take to be answered once the daemon ends."""


class HookParts:
    """What the daemon has of hooks.

    Raises:
        ConfigError: a function or a secret is missing.
    """

    def __init__(
        self, config: Config, store: Outbox, clock: Clock, queues: Callable[[], Collection[str]], metrics: Metrics
    ) -> None:  # fmt: skip
        loaded = load_hooks(config)
        self.registry = Registry()
        self.functions = FunctionRunner()
        metrics.abandoned.labels("hook").set_function(lambda: self.functions.lost)
        self.keys = Keys(config.state_dir / KEY_FILE, Secrets(config.secrets.dir))
        self.webhooks = Webhooks(self.keys, clock, _networks(config))
        runners: dict[str, Runner] = {"python": self.functions, "webhook": self.webhooks}
        runners["command"] = CommandRunner(config.state_dir)
        self.asker = Asker(self.registry, runners, queues)
        self.courier = Courier(
            store=store, clock=clock, hooks=self.asker, retry_seconds=config.webhooks.retry_seconds,
            disable=self.registry.disable, rest=self.webhooks.close_idle, died=metrics.dead.inc,
        )  # fmt: skip
        self._allowed = _networks(config)
        self._put(loaded)

    def begin(self, registered: Collection[HookSpec]) -> None:
        """These are the registered hooks. From now on the courier hears of every change."""
        self.registry.set_registered(registered)
        self.registry.listen(lambda index: self.courier.look_again())

    def take(self, config: Config, loaded: FileHooks) -> None:
        """A configuration, with its hooks loaded, is in force from now on."""
        self.keys.secrets = Secrets(config.secrets.dir)
        self.courier.retry_seconds = config.webhooks.retry_seconds
        if (allowed := _networks(config)) != self._allowed:
            self._allowed = allowed
            self.webhooks.allow(allowed)
        self._put(loaded)

    def _put(self, loaded: FileHooks) -> None:
        self.functions.functions = loaded.functions
        self.registry.set_file(loaded.specs)

    async def finish(self) -> None:
        """Ends the sending; what is not answered soon stays in the outbox."""
        await self.courier.finish(LAST_SECONDS)
        await self.webhooks.close()

    def close(self) -> None:
        """Takes no more work and waits for nobody."""
        self.functions.close()


def _networks(config: Config) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in config.webhooks.allow_private)

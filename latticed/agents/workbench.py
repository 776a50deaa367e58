"""What all agents that work on a model share: the models, the tools, places for plain tools."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from latticed.agents.models import Models
from latticed.agents.places import Places
from latticed.agents.toolbox import Toolbox
from latticed.agents.turnstile import Turnstile
from latticed.agents.warming import warm_up
from latticed.config.modelled import ModelConfig, ToolConfig
from latticed.secrets import Secrets


class Workbench:
    """Made once for a configuration; closed when nobody uses it any more."""

    def __init__(
        self, models: Mapping[str, ModelConfig], tools: Mapping[str, ToolConfig], secrets: Secrets,
        load: Callable[[str], Any], threads: int, lost: Counter[str],
    ) -> None:  # fmt: skip
        self.models = Models(models, secrets)
        self.tools = Toolbox(tools, secrets, load)
        self.turnstile = Turnstile()
        if any(model.provider == "openai" for model in models.values()):
            warm_up()
        self.places = Places(threads, lost)

    def retire(self) -> None:
        """Another has taken its place, but runs may go on using this one."""
        self.tools.retire()

    async def close(self) -> None:
        """Ends connections and shared servers; waits for no thread."""
        self.places.close()
        await self.tools.close()
        await self.models.close()

"""What all agents that work on a model share: the models, the tools, a pool of threads for plain tools."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from latticed.agents.models import Models
from latticed.agents.toolbox import Toolbox
from latticed.agents.turnstile import Turnstile
from latticed.agents.warming import warm_up
from latticed.config.modelled import ModelConfig, ToolConfig
from latticed.secrets import Secrets


class Workbench:
    """Made once for a configuration; closed when nobody uses it any more."""

    def __init__(
        self, models: Mapping[str, ModelConfig], tools: Mapping[str, ToolConfig], secrets: Secrets,
        load: Callable[[str], Any], threads: int,
    ) -> None:  # fmt: skip
        self.models = Models(models, secrets)
        self.tools = Toolbox(tools, secrets, load)
        self.turnstile = Turnstile()
        if any(model.provider == "openai" for model in models.values()):
            warm_up()
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="tool")

    def retire(self) -> None:
        """Another has taken its place, but runs may go on using this one."""
        self.tools.retire()

    async def close(self) -> None:
        """Ends connections and shared servers; waits for no thread."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        await self.tools.close()
        await self.models.close()

"""Python hooks: functions of the daemon's own process, loaded at start and at reload."""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

import orjson
import structlog

from latticed.config import ConfigError
from latticed.models.hooks import Answer, HookFailed, HookSpec, Occasion, PythonHook
from latticed.plugins import BadPlugin, load_dotted

THREADS = 32
"""Plain functions at work at once; none of the threads that agents use."""

log = structlog.get_logger()

Function = Callable[[dict[str, Any]], Any]


def load_function(name: str, table: PythonHook) -> Function:
    """The function of a hook; with `settings`, what the dotted path makes of them.

    Raises:
        ConfigError: it is not there, refuses its settings, or cannot be called.
    """
    try:
        found = load_dotted(table.function)
    except BadPlugin as error:
        raise ConfigError(f"hooks.{name}.function: {error.detail}") from error
    if table.settings is not None:
        try:
            found = found(**table.settings)
        except Exception as error:
            said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ConfigError(f"hooks.{name}.settings: {said}") from error
    if not callable(found) or inspect.isclass(found):
        raise ConfigError(f"hooks.{name}.function: {table.function} is not a function (does it need settings?)")
    function: Function = found
    return function


class FunctionRunner:
    """Calls functions: an `async def` in the event loop, a plain one in a thread.

    Each gets a payload of its own, so that nothing it does to it is seen by anybody. A thread cannot be ended from
    outside: one that takes too long is left to itself, and its answer is not waited for.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self.functions: Mapping[str, Function] = {}
        """By the hook's key; a reload puts another in its place."""
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="hook")

    async def run(self, hook: HookSpec, payload: bytes, occasion: Occasion) -> Answer:
        """Asks a hook once."""
        function = self.functions.get(hook.key)
        if function is None:
            raise HookFailed("its code is not loaded")
        try:
            returned = await self._call(function, orjson.loads(payload))
            return Answer.of(returned) if hook.judges else Answer()
        except (asyncio.CancelledError, HookFailed):
            raise
        except BaseException as error:  # Also a SystemExit: it ends neither the task nor the daemon.
            log.warning("hook_raised", hook=hook.name, run=occasion.run_id, exc_info=error)
            raise HookFailed(f"{type(error).__name__}: {error}") from None

    def close(self) -> None:
        """Takes no more work and waits for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _call(self, function: Function, told: dict[str, Any]) -> Any:
        if _is_async(function):
            return await function(told)
        call = partial(copy_context().run, _caught, function, told)
        value, error = await asyncio.wrap_future(self._threads.submit(call))
        if error is not None:
            raise error
        return await value if inspect.isawaitable(value) else value


def _caught(function: Function, told: dict[str, Any]) -> tuple[Any, BaseException | None]:
    """What a function returned or raised; a SystemExit that left a task would end the event loop."""
    try:
        return function(told), None
    except BaseException as error:
        return None, error


def _is_async(function: Function) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)

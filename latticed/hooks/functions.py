"""Python hooks: functions of the daemon's own process, loaded at start and at reload."""

import asyncio
import inspect
import sys
from collections import Counter
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
"""Plain functions at work at once; in none of the threads that agents use."""
MOST_LOST = 8
"""So many calls of one function that have not come back are enough: no more are made until one has."""

log = structlog.get_logger()

Function = Callable[[dict[str, Any]], Any]
_Returned = tuple[Any, BaseException | None]


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
    """Calls functions: an `async def` in the event loop, a plain one in a thread, as soon as there is a place.

    Each gets a payload of its own, so that nothing it does to it is seen by anybody. A thread cannot be ended from
    outside. One that is not back when its time is over is lost: it is left to itself and another takes its place, so
    that a function that hangs holds up no other. A few lost calls later that function is not called any more until
    one is back.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self.functions: Mapping[str, Function] = {}
        """By the hook's key; a reload puts another in its place."""
        self._places = asyncio.Semaphore(threads)
        self._threads = ThreadPoolExecutor(sys.maxsize, thread_name_prefix="hook")  # The places are its bound.
        self._lost: Counter[str] = Counter()

    @property
    def lost(self) -> int:
        """Calls that were given up and still hold a thread."""
        return self._lost.total()

    async def run(self, hook: HookSpec, payload: bytes, occasion: Occasion, begun: Callable[[], None]) -> Answer:
        """Asks a hook once."""
        function = self.functions.get(hook.key)
        if function is None:
            raise HookFailed("its code is not loaded")
        try:
            returned = await self._call(hook, function, orjson.loads(payload), begun)
            return Answer.of(returned) if hook.judges else Answer()
        except (asyncio.CancelledError, HookFailed):
            raise
        except BaseException as error:  # Also a SystemExit: it ends neither the task nor the daemon.
            log.warning("hook_raised", hook=hook.name, run=occasion.run_id, exc_info=error)
            raise HookFailed(f"{type(error).__name__}: {error}") from None

    def close(self) -> None:
        """Takes no more work and waits for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _call(self, hook: HookSpec, function: Function, told: dict[str, Any], begun: Callable[[], None]) -> Any:
        if _is_async(function):
            begun()
            return await function(told)
        value, error = await self._in_thread(hook, partial(copy_context().run, _caught, function, told), begun)
        if error is not None:
            raise error
        return await value if inspect.isawaitable(value) else value

    async def _in_thread(
        self, hook: HookSpec, call: Callable[[], _Returned], begun: Callable[[], None]
    ) -> _Returned:  # fmt: skip
        await self._places.acquire()
        if (lost := self._lost[hook.key]) >= MOST_LOST:
            self._places.release()
            raise HookFailed(f"{lost} calls of it have not come back")
        begun()
        loop = asyncio.get_running_loop()
        over_at = loop.time() + hook.table.timeout_seconds
        place = _Place(self._places, self._lost, hook.key, loop.create_future())
        self._threads.submit(lambda: loop.call_soon_threadsafe(place.give_back, call()))
        try:
            return await place.answer
        except asyncio.CancelledError:
            # Cut short, it may still be back in its time.
            loop.call_at(over_at, place.lose)
            raise


class _Place:
    """What a call in a thread takes: free again when it is back, or lost."""

    def __init__(
        self, places: asyncio.Semaphore, lost: Counter[str], key: str, answer: asyncio.Future[_Returned]
    ) -> None:  # fmt: skip
        self.answer = answer
        self._places, self._lost, self._key = places, lost, key
        self._back = self._is_lost = False

    def give_back(self, returned: _Returned) -> None:
        self._back = True
        if self._is_lost:
            self._lost[self._key] -= 1
        else:
            self._places.release()
        if not self.answer.done():
            self.answer.set_result(returned)

    def lose(self) -> None:
        if not self._back:
            self._is_lost = True
            self._lost[self._key] += 1
            self._places.release()


def _caught(function: Function, told: dict[str, Any]) -> _Returned:
    """What a function returned or raised; a SystemExit that left a task would end the event loop."""
    try:
        return function(told), None
    except BaseException as error:
        return None, error


def _is_async(function: Function) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)

"""The context for a plain `def`: the same names, blocking. Also how a plain agent is run in a thread."""

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial, update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar

from latticed.engine.bridge import Bridge
from latticed.engine.context import Context
from latticed.engine.entry import Shield
from latticed.engine.execution import Execution
from latticed.engine.lasting import Late
from latticed.errors import Misuse

P = ParamSpec("P")
T = TypeVar("T")


def _block(work: Coroutine[Any, Any, T]) -> T:
    bridge = Bridge.here()
    if bridge is None:
        work.close()
        raise Misuse("this context belongs to another thread; call it from the run's own code")
    return bridge.block(work)


def _blocking(
    method: Callable[Concatenate[Context, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["PlainContext", P], T]:
    """A method of Context that blocks where that awaits."""

    def call(self: "PlainContext", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return _block(method(self._context, *args, **kwargs))

    return update_wrapper(call, method)


class PlainContext:
    """`Context`, called from a thread."""

    def __init__(self, context: Context) -> None:
        self._context = context

    run_id = property(lambda self: self._context.run_id, doc=Context.run_id.__doc__)
    workspace = property(lambda self: self._context.workspace, doc=Context.workspace.__doc__)
    attempt = property(lambda self: self._context.attempt, doc=Context.attempt.__doc__)
    step_key = property(lambda self: self._context.step_key, doc=Context.step_key.__doc__)
    cancelled = property(lambda self: self._context.cancelled, doc=Context.cancelled.__doc__)

    def check_cancelled(self) -> None:
        """As Context.check_cancelled."""
        self._context.check_cancelled()

    step = _blocking(Context.step)
    sleep = _blocking(Context.sleep)
    sleep_until = _blocking(Context.sleep_until)
    ask = _blocking(Context.ask)
    wait_signal = _blocking(Context.wait_signal)
    run = _blocking(Context.run)
    emit = _blocking(Context.emit)
    progress = _blocking(Context.progress)
    log = _blocking(Context.log)

    def gather(self, *functions: Callable[[], T]) -> list[T]:
        """As Context.gather, of functions without arguments, each in a thread of its own:
        `ctx.gather(lambda: ctx.step(…), …)`."""
        lines: list[Awaitable[T]] = [_in_thread(self._context._x, function) for function in functions]
        return _block(self._context.gather(*lines))

    def shield(self, seconds: float) -> AbstractContextManager[None]:
        """As Context.shield, with a plain `with`; a thread that blocks elsewhere is not ended when its time is over."""
        return self._shield(seconds)

    @contextmanager
    def _shield(self, seconds: float) -> Iterator[None]:
        async def raised() -> Shield:
            return Shield(self._context._x, seconds)

        async def lowered() -> None:
            shield.lower()

        shield = _block(raised())
        try:
            yield
        finally:
            _block(lowered())


async def _in_thread(x: Execution, function: Callable[[], T], own: bool = True) -> T:
    x.plain_calls += 1
    try:
        result: T = await Bridge().visit(x, function, own=own)
    except Late as late:  # What it returned counts, whoever wanted it to end.
        result = late.value
    finally:
        x.plain_calls -= 1
    return result


async def run_plain(function: Callable[..., Any], context: Context, goal: str, inputs: dict[str, Any]) -> Any:
    """Runs a plain agent in the pool."""
    return await _in_thread(context._x, partial(function, PlainContext(context), goal, inputs), own=False)

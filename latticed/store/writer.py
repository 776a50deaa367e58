"""Group commit: writes that arrive together share one transaction and one fsync.

One thread owns the one writing connection. It takes what is waiting, executes it as one transaction, commits, and
hands the outcomes back to the event loop in one call. An idle writer begins at once with what a turn of the loop has
ordered; while it commits the next batch gathers, so nobody waits for a timer. If a member fails the batch is rolled
back and its members are run one by one, so that each caller sees only its own error; if the store itself is away all
members are told so at once.

While it is calm the loop commits what it has ordered by itself, where waking a thread and being woken by it would take
longer than the commit (docs/decisions/0008-calm-commits.md).
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from sqlalchemy import Connection, Engine, select

from latticed.clock import Clock
from latticed.errors import LatticedError, Unavailable
from latticed.failpoints import hit
from latticed.models.matching import HookIndex
from latticed.models.records import Birth, Change, Commit
from latticed.store.faults import translate
from latticed.store.sqlite import Patience, begin, begun, commit, roll_back
from latticed.store.tables import workspaces
from latticed.store.transaction import LAST_POSITION, Transaction, Work

BATCH_LIMIT = 512
"""Members of one transaction, so that a flood cannot hold a commit for long."""
CALM_CHANGES = 4
"""What a turn of the loop may have ordered to be committed by the loop."""
CALM_AFTER = 4
"""It is calm after as many small batches in a row of which each found the writer idle and took little time."""
CALM_SECONDS = 0.005
CALM_FOR = 128
"""After as many of them the thread has its turn, whose commits also move the journal into the database."""


@dataclass(slots=True)
class _Order:
    what: Sequence[Change] | Sequence[Birth] | Work
    future: "asyncio.Future[Any]"
    told: bool = False
    """Whether its outcome is on the way."""


class Writer:
    """The one writer. All methods are called in the event loop's thread.

    `on_commit` is called in the loop for every transaction that made something true, in commit order and before the
    callers get their outcomes. `observe(members, seconds)` is told of each commit.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        on_commit: Callable[[Commit], None],
        observe: Callable[[int, float], None] = lambda members, seconds: None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._on_commit = on_commit
        self._observe = observe
        self._orders: SimpleQueue[list[_Order] | None] = SimpleQueue()
        self._gathered: list[_Order] = []
        """Ordered in this turn of the loop."""
        self._under_way = 0
        """Orders that the thread has. While there are none the connection is the loop's."""
        self._calm = 0
        """Batches since it last was not calm."""
        self._connection: Connection | None = None
        self._patience = Patience()
        self._position: int | None = None
        self._gone: set[str] = set()
        self.measured: Callable[[str], bool] | None = None
        """Of which workspaces each commit says what it adds beside events."""
        self.hooks = HookIndex()
        """The hooks that transactions ask from now on."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, what: Sequence[Change] | Sequence[Birth] | Work) -> "asyncio.Future[Any]":
        """Orders a transaction: changes, births, or work of its own. The outcome comes once it is committed."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(_Order(what, future))
        return future

    def _hand_over(self) -> None:
        """Commits what one turn of the loop has ordered, or gives it to the thread: one wake-up for all of it, and one
        batch, where the first of many would else be committed alone while the others wait."""
        orders, self._gathered = self._gathered, []
        if orders and not (self._is_calm(orders) and self._commit_here(orders)):
            self._under_way += len(orders)
            self._orders.put(orders)

    def _is_calm(self, orders: list[_Order]) -> bool:
        small = not self._under_way and sum(_size(order.what) for order in orders) <= CALM_CHANGES
        self._calm = self._calm + 1 if small and self._calm < CALM_AFTER + CALM_FOR else 0
        return self._calm > CALM_AFTER

    def _commit_here(self, orders: list[_Order]) -> bool:
        """Commits in the loop's thread; False if that cannot begin at once, and nothing has happened."""
        connection = self._connection
        if connection is None:
            return False
        try:
            self._patience.set(connection, False)
            begin(connection)
        except Exception as error:  # Somebody else is writing, or worse: the thread waits for it and tells what it is.
            translate(error)
            self._calm = 0
            return False
        self._take(orders)
        return True

    async def close(self) -> None:
        """Commits what is ordered and ends the thread."""
        self._hand_over()
        self._orders.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        closing = False
        while not closing:
            orders: list[_Order] = []
            order = self._orders.get()
            while True:
                if order is None:
                    closing = True
                    break
                orders.extend(order)
                if len(orders) >= BATCH_LIMIT:
                    break
                try:
                    order = self._orders.get_nowait()
                except Empty:
                    break
            if orders:
                self._take(orders)
        self._discard()

    def _take(self, orders: list[_Order]) -> None:
        """Commits these orders and tells what became of them."""
        try:
            if (connection := self._connection) is None:
                connection = self._connection = self._engine.connect()
                self._patience = Patience()
            if not begun(connection):
                self._patience.set(connection, True)
            self._batch(connection, orders)
        except Exception as error:  # The connection itself is of no use any more: a new one is made next time.
            self._discard()
            self._deliver(None, [(order, translate(error)) for order in orders if not order.told])

    def _discard(self) -> None:
        if (connection := self._connection) is not None:
            self._connection = None
            try:
                connection.invalidate()
                connection.close()
            except Exception as error:
                translate(error)

    def _batch(self, connection: Any, orders: list[_Order]) -> None:
        try:
            self._transact(connection, orders)
        except Exception as error:
            roll_back(connection)
            fault = translate(error)
            if isinstance(fault, Unavailable):
                raise  # All are told, and the next begins on a new connection: this one may stay read-only for ever.
            if len(orders) == 1:
                self._deliver(None, [(order, fault) for order in orders])
                return
            for order in orders:
                self._batch(connection, [order])

    def _transact(self, connection: Any, orders: list[_Order]) -> None:
        began = self._clock.monotonic()
        if self._position is None:
            self._position = connection.execute(LAST_POSITION).scalar_one()
            self._gone = _removed(connection)
            roll_back(connection)
        transaction = Transaction(
            connection, self._clock.now(), self._position, set(self._gone), self.measured, self.hooks
        )
        outcomes: list[tuple[_Order, Any]] = []
        begin(connection)
        gathered: list[_Order] = []
        for order in orders:
            if callable(order.what):
                self._apply(transaction, gathered, outcomes)
                gathered = []
                try:
                    outcomes.append((order, order.what(transaction)))
                except LatticedError as refusal:
                    outcomes.append((order, refusal))
            else:
                gathered.append(order)
        self._apply(transaction, gathered, outcomes)
        transaction.finish()
        hit("commit.before")
        commit(connection)
        hit("commit.after")
        self._position = transaction.position
        self._gone = transaction.gone
        took = self._clock.monotonic() - began
        if took > CALM_SECONDS:
            self._calm = 0
        self._observe(len(orders), took)
        t = transaction
        self._deliver(Commit(t.rows, t.events, t.facts, t.times, t.sizes, list(dict.fromkeys(t.outbox))), outcomes)

    def _apply(self, transaction: Transaction, orders: list[_Order], outcomes: list[tuple[_Order, Any]]) -> None:
        """Births and changes of many callers as one set each. Births first: nothing refers to a run unborn."""
        births: list[Birth] = []
        changes: list[Change] = []
        spans: list[tuple[_Order, bool, int, int]] = []
        for order in orders:
            items: Any = order.what
            born = bool(items) and isinstance(items[0], Birth)
            into: list[Any] = births if born else changes
            spans.append((order, born, len(into), len(into) + len(items)))
            into.extend(items)
        rows = transaction.bear(births)
        moved = transaction.apply(changes)
        outcomes += [(order, (rows if born else moved)[start:end]) for order, born, start, end in spans]

    def _deliver(self, commit: Commit | None, outcomes: list[tuple[_Order, Any]]) -> None:
        here = threading.current_thread() is not self._thread
        for order, _ in outcomes:
            order.told = True

        def tell() -> None:
            if not here:
                self._under_way -= len(outcomes)
            if commit is not None and (commit.rows or commit.events or commit.sizes or commit.hooks):
                self._on_commit(commit)
            for order, outcome in outcomes:
                if order.future.done():
                    continue
                if isinstance(outcome, BaseException):
                    order.future.set_exception(outcome)
                else:
                    order.future.set_result(outcome)

        if here:
            self._loop.call_soon(tell)
        else:
            self._loop.call_soon_threadsafe(tell)


def _size(what: Sequence[Change] | Sequence[Birth] | Work) -> int:
    """Work of its own shape may be of any size."""
    return CALM_CHANGES + 1 if callable(what) else len(what)


def _removed(connection: Any) -> set[str]:
    return set(connection.execute(select(workspaces.c.name).where(workspaces.c.removed_at.is_not(None))).scalars())

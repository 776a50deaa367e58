"""The courier over an outbox in memory: stores that are away, hooks that misbehave, the schedule of tries."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import pytest

from latticed.clock import SystemClock
from latticed.engine.courier import CONCURRENCY, Courier
from latticed.errors import Internal, Unavailable
from latticed.models.deliveries import DAY_SECONDS, RETRY_SECONDS, Due, Sent, Undelivered
from latticed.models.hooks import Answer, HookFailed, HookSpec, Occasion, PythonHook, WebhookHook
from latticed.models.matching import HookIndex
from latticed.models.records import Commit
from tests.wait import eventually

Ask = Callable[[str], Any]


def due(number: int, hook: str = "notify") -> Due:
    run = {"id": f"run_{number}"}
    return Due(f"dlv_{number}", "default", hook, "post_run", f"run_{number}", 0, 1, run, "agent", None)


class MemoryOutbox:
    """What waits, what was recorded, and what the store is to do wrong."""

    def __init__(self) -> None:
        self.waiting: dict[str, Due] = {}
        self.recorded: list[Sent] = []
        self.batches: list[int] = []
        self.looks = 0
        self.trouble: list[Exception] = []
        self.largest = 0

    def put(self, *items: Due) -> None:
        self.waiting |= {item.id: item for item in items}

    async def list_due(self, hook: str, now: int, taken: Collection[str], most: int, most_bytes: int) -> list[Due]:
        self.looks += 1
        self.fail()
        self.largest = max(self.largest, len(taken))
        return [each for each in self.waiting.values() if each.hook == hook and each.id not in taken][:most]

    async def next_delivery(self, hook: str, taken: Collection[str]) -> int | None:
        return None

    async def pending_hooks(self) -> list[str]:
        return list({each.hook for each in self.waiting.values()})

    async def record_sent(self, sent: Sequence[Sent]) -> list[str]:
        self.fail()
        self.batches.append(len(sent))
        for each in sent:
            self.recorded.append(each)
            del self.waiting[each.id]
        return []

    async def give_up_deliveries(self, hooks: Collection[str], before: int) -> int:
        return 0

    def fail(self) -> None:
        if self.trouble:
            raise self.trouble.pop(0)


class Hooks:
    """The hooks of a test, and what each does."""

    def __init__(self, *hooks: HookSpec) -> None:
        self.index = HookIndex(hooks)
        self.asked: list[str] = []
        self.ask_one: Callable[[Occasion], Any] = lambda occasion: Answer(output="fine")

    def queues(self) -> Collection[str]:
        return ()

    async def ask(self, hook: HookSpec, payload: bytes, occasion: Occasion, begun: Callable[[], None]) -> Answer:
        begun()
        self.asked.append(occasion.delivery_id)
        answer = self.ask_one(occasion)
        given: Answer = await answer if asyncio.iscoroutine(answer) else answer
        return given


def webhook(name: str = "notify", **more: Any) -> HookSpec:
    return HookSpec(name, WebhookHook(use="webhook", point="post_run", url="https://example.org/", **more))


NOTIFY = webhook()
LOCAL = HookSpec("local", PythonHook(use="python", point="post_run", function="a:b", timeout_seconds=0.05))


@pytest.fixture
async def started() -> AsyncIterator[Callable[..., Courier]]:
    """Starts couriers."""
    made: list[Courier] = []

    def start(store: MemoryOutbox, hooks: Hooks, **more: Any) -> Courier:
        made.append(Courier(store=store, clock=SystemClock(), hooks=hooks, **more))
        made[-1].start()
        return made[-1]

    yield start
    for each in made:
        await each.finish(0.1)


Start = Callable[..., Courier]


async def test_what_was_pending_at_the_start_is_sent_and_recorded_together(started: Start) -> None:
    store, hooks = MemoryOutbox(), Hooks(NOTIFY)
    store.put(*(due(number) for number in range(200)))
    started(store, hooks)
    await eventually(lambda: len(store.recorded) == 200)
    assert len(hooks.asked) == len(set(hooks.asked)) == 200
    assert max(store.batches) > 1
    assert store.largest <= 2 * CONCURRENCY["webhook"]
    assert {(sent.status, sent.attempts, sent.output) for sent in store.recorded} == {("ok", 1, "fine")}


async def test_so_many_are_under_way_at_a_time_and_no_more(started: Start) -> None:
    store, hooks = MemoryOutbox(), Hooks(NOTIFY)
    store.put(*(due(number) for number in range(100)))
    release = asyncio.Event()

    async def wait(occasion: Occasion) -> Answer:
        await release.wait()
        return Answer()

    hooks.ask_one = wait
    started(store, hooks)
    await eventually(lambda: len(hooks.asked) == CONCURRENCY["webhook"])
    assert store.recorded == []
    release.set()
    await eventually(lambda: len(store.recorded) == 100)


async def test_a_store_that_is_away_is_waited_for_and_nothing_is_sent_twice(started: Start) -> None:
    store, hooks = MemoryOutbox(), Hooks(NOTIFY)
    store.trouble = [Unavailable()]
    store.put(due(1))
    courier = started(store, hooks)
    await eventually(lambda: store.recorded)
    store.trouble = []

    def lose_the_record(occasion: Occasion) -> Answer:
        store.trouble = [Unavailable()]
        return Answer()

    hooks.ask_one = lose_the_record
    store.put(due(2))
    courier.told(Commit([], [], [], [], ["notify"]))
    await eventually(lambda: len(store.recorded) == 2)
    assert hooks.asked == ["dlv_1", "dlv_2"]


async def test_what_cannot_be_recorded_is_sent_again_but_not_in_a_hurry(started: Start) -> None:
    store, hooks = MemoryOutbox(), Hooks(NOTIFY)

    def fault(occasion: Occasion) -> Answer:
        store.trouble = [Internal()]
        return Answer()

    hooks.ask_one = fault
    store.put(due(1))
    started(store, hooks)
    await eventually(lambda: hooks.asked)
    hooks.ask_one = lambda occasion: Answer()
    await eventually(lambda: store.recorded)
    assert hooks.asked == ["dlv_1", "dlv_1"]


@pytest.mark.parametrize(
    ("misdeed", "status", "detail"),
    [
        (lambda occasion: asyncio.Event().wait(), "timeout", "no answer within 0.05 s"),
        (lambda occasion: exec("raise asyncio.CancelledError"), "error", "it cancelled itself"),
        (lambda occasion: exec("raise SystemExit(3)"), "error", "SystemExit: 3"),
        (lambda occasion: exec("raise TimeoutError('mine')"), "error", "TimeoutError: mine"),
        (lambda occasion: exec("raise ValueError('x' * 9999)"), "error", "ValueError: " + "x" * 488),
    ],
)  # fmt: skip
async def test_whatever_a_hook_does_it_is_over_after_that(
    started: Start, misdeed: Ask, status: str, detail: str
) -> None:
    store, hooks = MemoryOutbox(), Hooks(LOCAL)
    hooks.ask_one = misdeed  # type: ignore[assignment]  # a method, replaced for this one
    store.put(due(1, "local"))
    started(store, hooks)
    [sent] = await eventually(lambda: store.recorded)
    assert (sent.status, sent.detail, sent.due_at, sent.attempts) == (status, detail, None, 1)
    assert sent.told["status"] == status


async def test_nothing_is_sent_for_a_hook_that_is_not_there_or_disabled(started: Start) -> None:
    store, hooks = MemoryOutbox(), Hooks(webhook(enabled=False))
    store.put(due(1), due(2, "nobody"))
    courier = started(store, hooks)
    courier.look("notify")
    await asyncio.gather(*(asyncio.create_task(courier.tick()) for _ in range(3)))
    assert hooks.asked == []
    hooks.index = HookIndex([NOTIFY])
    courier.look_again()
    await eventually(lambda: store.recorded)
    assert hooks.asked == ["dlv_1"]


async def test_a_run_that_is_gone_is_skipped(started: Start) -> None:
    store, hooks = MemoryOutbox(), Hooks(NOTIFY)
    store.put(replace(due(1), run=None))
    started(store, hooks)
    [sent] = await eventually(lambda: store.recorded)
    assert (sent.status, sent.detail, hooks.asked) == ("skipped", "its run is gone", [])


# The schedule


async def outcome(started: Start, failure: HookFailed, attempts: int = 0, **more: Any) -> tuple[Sent, float]:
    """What becomes of a try that fails, after so many; and in how many seconds it is tried again."""
    store, hooks = MemoryOutbox(), Hooks(NOTIFY)

    def fail(occasion: Occasion) -> Answer:
        raise failure

    hooks.ask_one = fail
    store.put(replace(due(1), attempts=attempts))
    started(store, hooks, **more)
    [sent] = await eventually(lambda: store.recorded)
    return sent, 0.0 if sent.due_at is None else (sent.due_at - sent.finished_at) / 1e6


async def test_the_tries_fill_a_day_and_then_it_is_dead(started: Start) -> None:
    assert 0.9 * DAY_SECONDS < sum(RETRY_SECONDS) <= DAY_SECONDS
    assert list(RETRY_SECONDS) == sorted(RETRY_SECONDS)
    for attempts, pause in enumerate(RETRY_SECONDS):
        sent, seconds = await outcome(started, Undelivered("no"), attempts)
        assert (sent.status, sent.attempts, sent.detail) == ("pending", attempts + 1, "no")
        assert pause <= seconds <= 1.1 * pause
        assert sent.told["next_at"] is not None
    sent, _ = await outcome(started, Undelivered("no"), len(RETRY_SECONDS))
    assert (sent.status, sent.due_at, sent.told["status"], sent.told["next_at"]) == ("dead", None, "error", None)


async def test_what_was_dead_and_is_sent_again_has_all_its_tries_anew(started: Start) -> None:
    tries = len(RETRY_SECONDS) + 1
    sent, seconds = await outcome(started, Undelivered("no"), tries)
    assert (sent.status, sent.attempts) == ("pending", tries + 1)
    assert RETRY_SECONDS[0] <= seconds <= 1.1 * RETRY_SECONDS[0]
    sent, _ = await outcome(started, Undelivered("no"), 2 * tries - 1)
    assert (sent.status, sent.due_at) == ("dead", None)
    sent, _ = await outcome(started, Undelivered("no"), retry_seconds=[])
    assert sent.status == "dead"


async def test_a_receiver_says_how_long_it_wants_to_be_left_alone(started: Start) -> None:
    for asked, least in ((0.0, 1.0), (77.0, 77.0), (1e9, DAY_SECONDS)):
        sent, seconds = await outcome(started, Undelivered("no", retry_seconds=asked))
        assert sent.status == "pending"
        assert least <= seconds <= max(least, 1.1)


async def test_what_is_of_no_use_is_not_tried_again(started: Start) -> None:
    for failure in (Undelivered("no", again=False), Undelivered("no", gone=True)):
        sent, _ = await outcome(started, failure)
        assert (sent.status, sent.gone) == ("dead", failure.gone)


async def test_the_last_words_of_a_receiver_that_was_replaced_count_for_nothing(started: Start) -> None:
    store, hooks = MemoryOutbox(), Hooks(NOTIFY)

    def leave(occasion: Occasion) -> Answer:
        hooks.index = HookIndex([HookSpec("notify", NOTIFY.table.model_copy(update={"url": "https://other.example/"}))])
        raise Undelivered("it answered 410", gone=True)

    hooks.ask_one = leave
    store.put(due(1))
    started(store, hooks)
    [sent] = await eventually(lambda: store.recorded)
    assert (sent.status, sent.detail, sent.gone) == ("pending", "it answered 410", False)


async def test_the_end_gives_what_is_under_way_a_moment_and_leaves_the_rest(started: Start) -> None:
    store, hooks = MemoryOutbox(), Hooks(NOTIFY, LOCAL)
    answered = asyncio.Event()

    async def wait(occasion: Occasion) -> Answer:
        if occasion.delivery_id == "dlv_1":
            await answered.wait()
            return Answer()
        return await asyncio.Event().wait() and Answer()

    hooks.ask_one = wait
    store.put(due(1), due(2))
    courier = started(store, hooks)
    await eventually(lambda: len(hooks.asked) == 2)
    ending = asyncio.create_task(courier.finish(0.2))
    store.put(due(3))
    courier.told(Commit([], [], [], [], ["notify"]))
    answered.set()
    await ending
    assert [sent.id for sent in store.recorded] == ["dlv_1"]
    assert set(store.waiting) == {"dlv_2", "dlv_3"}
    assert hooks.asked == ["dlv_1", "dlv_2"]


async def test_the_end_waits_for_what_is_being_recorded(started: Start) -> None:
    class Slow(MemoryOutbox):
        written = asyncio.Event()

        async def record_sent(self, sent: Sequence[Sent]) -> list[str]:
            self.looks = -1
            await self.written.wait()
            return await super().record_sent(sent)

    store = Slow()
    store.put(due(1))
    courier = started(store, Hooks(NOTIFY))
    await eventually(lambda: store.looks == -1)
    ending = asyncio.create_task(courier.finish(30))
    await eventually(lambda: courier.pausing and not any(a.under_way for a in courier._addressees.values()))
    store.written.set()
    await ending
    assert [sent.id for sent in store.recorded] == ["dlv_1"]

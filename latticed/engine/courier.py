"""Sends what the outbox holds: a delivery for each hook that is told of a run's end, or of an event.

Each hook is an addressee of its own, with so many deliveries under way and so many in memory and no more: one that is
slow, or hangs, holds up nobody else's. What was read for it stays pending on disk until its outcome is recorded, so
that whatever a crash cuts short is sent again, under the same id. Outcomes are recorded together, as they come.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import orjson
import structlog

from latticed.clock import Clock, to_text
from latticed.engine.loop import AFTER_FAILURE_SECONDS, Loop
from latticed.engine.patience import Asked, TooLate
from latticed.errors import Unavailable
from latticed.failpoints import hit
from latticed.models import hooks as model
from latticed.models.deliveries import DAY_SECONDS, RETRY_SECONDS, Due, Sent, Undelivered
from latticed.models.hooks import HookFailed, HookSpec, Occasion
from latticed.models.records import Commit
from latticed.outbox import Outbox
from latticed.ports import Hooks

CONCURRENCY = {"webhook": 16, "python": 8, "command": 4}
"""Deliveries of one hook that are under way at a time."""
READ_BYTES = 4 << 20
"""What one look for an addressee brings into memory."""
GATHER_SECONDS = 0.02
"""One that is busy is looked for no more often, so that one look brings several."""
LOOK_SECONDS = 30.0
"""How often the disk is asked for addressees that nobody has woken: what a missed wake-up can cost."""
JITTER = 0.1
RECORDED_TOGETHER = 256

log = structlog.get_logger()


class Courier(Loop):
    """All addressees. `disable` is told a registered hook whose receiver wants no more, `died` how many deliveries were
    given up; `rest` is called at times."""

    def __init__(
        self, *, store: Outbox, clock: Clock, hooks: Hooks, retry_seconds: Sequence[float] = RETRY_SECONDS,
        disable: Callable[[str], None] = lambda hook_id: None, rest: Callable[[], Awaitable[None]] | None = None,
        died: Callable[[int], None] = lambda number: None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.store = store
        self.clock = clock
        self.hooks = hooks
        self.retry_seconds = retry_seconds
        self.pausing = True
        self._disable = disable
        self._rest = rest
        self._died = died
        self._addressees: dict[str, Addressee] = {}
        self._outcomes: list[Sent] = []
        self._recording: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.pausing = False
        super().start()

    def told(self, commit: Commit) -> None:
        """Something became true on disk: perhaps hooks have something to be sent."""
        for key in commit.hooks:
            self.look(key)

    def look(self, key: str) -> None:
        """There is something to be sent for a hook."""
        if self.pausing:
            return
        addressee = self._addressees.get(key)
        if addressee is None:
            self._addressees[key] = Addressee(self, key)
        else:
            addressee.more.set()

    def look_again(self) -> None:
        """Hooks came, changed or went."""
        for addressee in self._addressees.values():
            addressee.more.set()

    async def tick(self) -> float:
        """Finds addressees that nobody has woken, and gives up what nobody can send."""
        waiting = await self.store.pending_hooks()
        for key in waiting:
            self.look(key)
        index = self.hooks.index
        if unsent := [key for key in waiting if (hook := index.find(key)) is None or not hook.table.enabled]:
            given_up = await self.store.give_up_deliveries(unsent, self.clock.now() - int(DAY_SECONDS * 1e6))
            if given_up:
                log.warning("deliveries_given_up", deliveries=given_up)
                self._died(given_up)
        if self._rest is not None:
            await self._rest()
        return LOOK_SECONDS

    def report(self, sent: Sent) -> None:
        """What became of a delivery, to be recorded with whatever else has come until then."""
        self._outcomes.append(sent)
        if self._recording is None:
            self._recording = asyncio.get_running_loop().create_task(self._record())

    async def _record(self) -> None:
        while self._outcomes:
            batch = self._outcomes[:RECORDED_TOGETHER]
            try:
                disabled = await self.store.record_sent(batch)
                self._died(sum(sent.status == "dead" for sent in batch))
            except Unavailable as away:
                log.warning("deliveries_wait", reason=away.detail)
                await asyncio.sleep(AFTER_FAILURE_SECONDS)
                continue
            except Exception as error:  # They stay pending, and are sent again.
                log.error("deliveries_not_recorded", exc_info=error)
                await asyncio.sleep(AFTER_FAILURE_SECONDS)
                disabled = []
            del self._outcomes[: len(batch)]
            for sent in batch:
                if (addressee := self._addressees.get(sent.due.hook)) is not None:
                    addressee.free(sent.id)
            for hook_id in disabled:
                log.warning("hook_disabled", hook=hook_id, reason="its receiver answered 410 Gone")
                self._disable(hook_id)
        self._recording = None

    def ended(self, addressee: "Addressee") -> None:
        """There is nothing to be sent to it, now or later."""
        if self._addressees.get(addressee.key) is addressee:
            del self._addressees[addressee.key]

    def pause(self) -> None:
        """From now on nothing more is taken up."""
        self.pausing = True

    async def finish(self, seconds: float) -> None:
        """Ends: what is under way has so long to be answered, and what was answered is recorded. The rest stays pending
        for the next start."""
        self.pause()
        await self.stop()
        addressees = list(self._addressees.values())
        tasks = [task for addressee in addressees for task in addressee.under_way]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for addressee in addressees:
            addressee.close()
        await asyncio.gather(*(addressee.task for addressee in addressees), *tasks, return_exceptions=True)
        if (recording := self._recording) is not None:
            await asyncio.wait((recording,), timeout=seconds)
            recording.cancel()


class Addressee:
    """One hook's deliveries."""

    def __init__(self, courier: Courier, key: str) -> None:
        self.key = key
        self.more = asyncio.Event()
        """Set when there may be something to do."""
        self.under_way: set[asyncio.Task[None]] = set()
        self._courier = courier
        self._taken: set[str] = set()
        """What was read and is not recorded yet."""
        self._held_until: int = 0
        self._held_url: str | None = None
        """The receiver at that address wants to be left alone until then."""
        self._slots: asyncio.Semaphore | None = None
        self.task = asyncio.get_running_loop().create_task(self._run(), name=f"Addressee {key}")

    def free(self, delivery_id: str) -> None:
        """A delivery's outcome is recorded."""
        self._taken.discard(delivery_id)
        self.more.set()

    def close(self) -> None:
        """Cuts short whatever is under way."""
        for task in (self.task, *self.under_way):
            task.cancel()

    async def _run(self) -> None:
        while True:
            self.more.clear()
            try:
                pause = await self._fill()
            except Unavailable as away:
                log.warning("addressee_waits", hook=self.key, reason=away.detail)
                pause = AFTER_FAILURE_SECONDS
            except Exception as error:
                log.error("addressee_failed", hook=self.key, exc_info=error)
                pause = AFTER_FAILURE_SECONDS
            if pause is None:
                if not self.more.is_set():
                    self._courier.ended(self)
                    return
                continue
            try:
                async with asyncio.timeout(pause):
                    await self.more.wait()
            except TimeoutError:
                pass

    async def _fill(self) -> float | None:
        """Takes up what is due; after how many seconds to look again if nothing happens, None if there is nothing."""
        courier, now = self._courier, self._courier.clock.now()
        hook = courier.hooks.index.find(self.key)
        if hook is None or not hook.table.enabled or courier.pausing:
            return LOOK_SECONDS
        if self._is_held(hook, now):
            return (self._held_until - now) / 1e6
        at_once = CONCURRENCY[hook.sort]
        if len(self._taken) > at_once:
            return LOOK_SECONDS  # Whoever is done says so.
        if self._slots is None:
            self._slots = asyncio.Semaphore(at_once)
        room = 2 * at_once - len(self._taken)
        found = await courier.store.list_due(self.key, now, self._taken, room, READ_BYTES)
        if found:
            hit("deliver.before")
            for due in found:
                self._taken.add(due.id)
                task = asyncio.create_task(self._deliver(due, self._slots))
                self.under_way.add(task)
                task.add_done_callback(self.under_way.discard)
            await asyncio.sleep(GATHER_SECONDS)
            return 0.0
        next_at = await courier.store.next_delivery(self.key, self._taken)
        if next_at is None:
            return LOOK_SECONDS if self._taken else None
        return min(LOOK_SECONDS, max(0.0, (next_at - courier.clock.now()) / 1e6))

    async def _deliver(self, due: Due, slots: asyncio.Semaphore) -> None:
        """One attempt."""
        reported = False
        try:
            async with slots:
                hook = self._courier.hooks.index.find(self.key)
                if hook is None or not hook.table.enabled or self._courier.pausing:
                    return  # It stays pending, or was settled by whoever took the hook away.
                if self._is_held(hook, self._courier.clock.now()):
                    return
                sent = await self._send(hook, due)
            hit("deliver.answered")
            self._courier.report(sent)
            reported = True
        finally:
            if not reported:
                self.free(due.id)

    def _is_held(self, hook: HookSpec, now: int) -> bool:
        return now < self._held_until and hook.url == self._held_url

    async def _send(self, hook: HookSpec, due: Due) -> Sent:
        clock = self._courier.clock
        if due.run is None:
            return self._outcome(hook, due, "skipped", "its run is gone", "", 0.0)
        if hook.point != due.point:
            hook = replace(hook, table=hook.table.model_copy(update={"point": due.point}))
        subject = {} if due.event is None else {"event": due.event}
        told = model.payload(hook, due.workspace, due.run, **subject)
        occasion = Occasion(due.id, due.workspace, due.run_id, due.created_at)
        began = clock.monotonic()
        answer = await Asked(self._courier.hooks, hook, orjson.dumps(told), occasion).answer()
        duration = round((clock.monotonic() - began) * 1000, 3)
        if (
            isinstance(answer, Undelivered)
            and (now := self._courier.hooks.index.find(self.key))
            and now.url != hook.url
        ):
            answer = Undelivered(
                str(answer), answer.output
            )  # Its last words are none of the receiver that is there now.
        if isinstance(answer, HookFailed):
            status = "timeout" if isinstance(answer, TooLate) else "error"
            return self._outcome(hook, due, status, str(answer), answer.output, duration, answer)
        return self._outcome(hook, due, "ok", "", answer.output, duration)

    def _outcome(
        self, hook: HookSpec, due: Due, status: str, detail: str, output: str, duration_ms: float,
        failure: HookFailed | None = None,
    ) -> Sent:  # fmt: skip
        now, attempts = self._courier.clock.now(), due.attempts + 1
        again = self._again(hook, status, attempts, failure)
        due_at = None if again is None else now + int(again * 1e6)
        kept = "pending" if due_at is not None else status
        if due_at is None and hook.sort == "webhook" and status in ("error", "timeout"):
            kept = "dead"
        detail, output = model.clip(detail, model.DETAIL_CHARS), model.clip(output, model.OUTPUT_CHARS)
        told = {
            "hook": hook.name, "point": hook.point, "sort": hook.sort, "delivery_id": due.id, "status": status,
            "attempt": attempts, "duration_ms": duration_ms, "detail": detail or None, "output": output,
            "next_at": None if due_at is None else to_text(due_at),
        }  # fmt: skip
        gone = isinstance(failure, Undelivered) and failure.gone
        return Sent(due.id, kept, attempts, due_at, now, duration_ms, detail, output, due, told, gone)

    def _again(self, hook: HookSpec, status: str, attempts: int, failure: HookFailed | None) -> float | None:
        """After how many seconds it is tried again; None: it is not. Only what goes over a network is: a hook of this
        machine that fails has been asked, and has answered."""
        if hook.sort != "webhook" or status not in ("error", "timeout"):
            return None
        asked = 0.0
        if isinstance(failure, Undelivered):
            if not failure.again:
                return None
            if failure.retry_seconds is not None:
                asked = min(failure.retry_seconds, DAY_SECONDS)
                self._held_until, self._held_url = self._courier.clock.now() + int(asked * 1e6), hook.url
        pauses = self._courier.retry_seconds
        tried = attempts % (len(pauses) + 1)  # What was dead and is sent again has all the tries before it anew.
        return None if tried == 0 else max(asked, pauses[tried - 1] * (1 + JITTER * random.random()))

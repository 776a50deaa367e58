"""Sends what the outbox holds: a delivery for each hook that is told of a run's end, or of an event.

Each hook is an addressee of its own, with so many deliveries under way and so many in memory and no more: one that is
slow, or hangs, holds up nobody else's. What was read for it stays pending on disk until its outcome is recorded, so
that whatever a crash cuts short is sent again, under the same id. Outcomes are recorded together, as they come.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import orjson
import structlog

from latticed.clock import Clock, to_text
from latticed.engine.loop import AFTER_FAILURE_SECONDS, Loop
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
    """All addressees. `disable` is told a registered hook whose receiver wants no more; `rest` is called at times."""

    def __init__(
        self, *, store: Outbox, clock: Clock, hooks: Hooks, retry_seconds: Sequence[float] = RETRY_SECONDS,
        disable: Callable[[str], None] = lambda hook_id: None, rest: Callable[[], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.store = store
        self.clock = clock
        self.hooks = hooks
        self.retry_seconds = retry_seconds
        self.pausing = True
        self._disable = disable
        self._rest = rest
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
        for key in await self.store.pending_hooks():
            self.look(key)
        given_up = await self.store.give_up_deliveries(self.clock.now() - int(DAY_SECONDS * 1e6))
        if given_up:
            log.warning("deliveries_given_up", deliveries=given_up)
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
        self._held_until = 0
        """The receiver wants to be left alone until then."""
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
        if now < self._held_until:
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
                now = self._courier.clock.now()
                if now < self._held_until:
                    return
                sent = await self._send(hook, due)
            hit("deliver.answered")
            self._courier.report(sent)
            reported = True
        finally:
            if not reported:
                self.free(due.id)

    async def _send(self, hook: HookSpec, due: Due) -> Sent:
        clock = self._courier.clock
        if due.run is None:
            return self._outcome(hook, due, "skipped", "its run is gone", "", 0.0)
        subject = {} if due.event is None else {"event": due.event}
        told = model.payload(hook, due.workspace, due.run, **subject)
        occasion = Occasion(due.id, due.workspace, due.run_id, due.created_at)
        began = clock.monotonic()
        failure: HookFailed | None = None
        status, detail, output = "ok", "", ""
        limit = asyncio.timeout(hook.table.timeout_seconds)
        try:
            async with limit:
                output = (await self._courier.hooks.ask(hook, orjson.dumps(told), occasion)).output
        except HookFailed as error:
            failure, output = error, error.output
            status, detail = "error", str(error)
        except BaseException as error:  # A hook's own SystemExit, too: it does not end the daemon.
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            if limit.expired() and isinstance(error, TimeoutError):
                status, detail = "timeout", f"no answer within {hook.table.timeout_seconds:g} s"
            else:
                log.info("hook_raised", hook=hook.name, delivery=due.id, exc_info=error)
                status, detail = "error", f"{type(error).__name__}: {error}"
        duration = round((clock.monotonic() - began) * 1000, 3)
        return self._outcome(hook, due, status, detail, output, duration, failure)

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
                self._held_until = self._courier.clock.now() + int(asked * 1e6)
        pauses = self._courier.retry_seconds
        if attempts > len(pauses):
            return None
        return max(asked, pauses[attempts - 1] * (1 + JITTER * random.random()))

"""The workloads against the daemon, over HTTP. Each starts a daemon of its own with a fresh state directory."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench import authorising, evidence, recovery, sse
from bench.client import Client, Refused, accepted
from bench.daemon import CONFIG, HOOKS, Daemon, running
from bench.figures import Sizes
from bench.http1 import Connection, Response
from bench.profiling import Profile
from bench.receiver import Receiver
from bench.samples import MS, median, p50_p99

Observe = Literal["poll", "sse"]
_APART_SECONDS = 0.02
"""Between two runs that are measured one at a time."""
_WAIT = 60
"""For `?wait=`, in seconds."""
_PATIENCE_SECONDS = 120
_FEW = 16
"""Connections for work that is not on the clock."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a workload needs to know."""

    directory: Path
    sizes: Sizes
    observe: Observe = "poll"
    profile: Profile | None = None

    def daemon(self) -> Any:
        """A context with a daemon that is ready."""
        return running(self.directory, profile=self.profile)


async def throughput(plan: Plan) -> dict[str, float]:
    with plan.daemon() as daemon:
        return await _flood(plan, Client(daemon))


async def _flood(plan: Plan, client: Client) -> dict[str, float]:
    n = plan.sizes.runs
    async with client.connections(plan.sizes.clients) as connections:
        await _spread_over(connections, [client.submission("one", "warm", wait=_WAIT)] * plan.sizes.clients)
        bodies = [client.submission("one", f"run {i}") for i in range(n)]
        finished = asyncio.Event()
        feed = await _finishes(client, n, finished) if plan.observe == "sse" else None
        begun = time.perf_counter()
        submit, answers = await _spread_over(connections, bodies)
        if feed is None:
            await client.until_none(connections[0], "queued", "running", every_seconds=0.01)
        else:
            await finished.wait()
            feed.close()
        took = time.perf_counter() - begun
        for answer in answers:
            accepted(answer)
        ok = await client.count(connections[0], "ok")
    if ok != n + plan.sizes.clients:
        raise Refused(f"{ok} runs are ok, not {n + plan.sizes.clients}")
    return {"runs_per_s": n / took, **p50_p99("submit", submit)}


async def hooks(plan: Plan) -> dict[str, float]:
    """The same flood without hooks and with them, in turn, each on a fresh state directory."""
    bare, hooked, told = [], [], []
    expected = plan.sizes.runs + plan.sizes.clients
    for number in range(plan.sizes.pairs):
        with running(plan.directory / f"bare{number}", profile=plan.profile) as daemon:
            bare.append((await _flood(plan, Client(daemon)))["runs_per_s"])
        async with Receiver() as receiver:
            config = CONFIG + HOOKS.format(url=receiver.url)
            with running(plan.directory / f"hooked{number}", profile=plan.profile, config=config) as daemon:
                begun = time.perf_counter()
                hooked.append((await _flood(plan, Client(daemon)))["runs_per_s"])
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    while receiver.count < expected:
                        await asyncio.sleep(0.005)
                told.append(expected / (time.perf_counter() - begun))
    return {
        "bare_per_s": median(bare),
        "hooked_per_s": median(hooked),
        "hooked_ratio": median(hooked) / median(bare),
        "told_per_s": median(told),
    }


async def latency(plan: Plan) -> dict[str, float]:
    waits = []
    with plan.daemon() as daemon:
        client = Client(daemon)
        request = client.submission("one", "alone", wait=_WAIT)
        async with client.connections(1) as (connection,):
            await connection.request(request)
            for _ in range(plan.sizes.singles):
                await asyncio.sleep(_APART_SECONDS)
                begun = time.time()
                run = accepted(await connection.request(request))
                waits.append(run["output"] - begun)
    return p50_p99("first_step", waits)


async def steps(plan: Plan) -> dict[str, float]:
    alone, rates = [], []
    with plan.daemon() as daemon:
        client = Client(daemon)
        request = client.submission("ten", "ten", wait=_WAIT)
        async with client.connections(100) as connections:
            accepted(await connections[0].request(request))
            for _ in range(plan.sizes.tens):
                await asyncio.sleep(_APART_SECONDS)
                begun = time.perf_counter()
                _ok(await connections[0].request(request))
                alone.append(time.perf_counter() - begun)
            for _ in range(plan.sizes.bursts):
                await asyncio.sleep(_APART_SECONDS)
                begun = time.perf_counter()
                _, answers = await _spread_over(connections, [request] * 100)
                rates.append(1000 / (time.perf_counter() - begun))
                for answer in answers:
                    _ok(answer)
    return {**p50_p99("ten_steps", alone), "steps_per_s": median(rates)}


async def cancel(plan: Plan) -> dict[str, float]:
    terminal, coroutine = [], []
    n = plan.sizes.cancels
    with plan.daemon() as daemon:
        client = Client(daemon)
        async with client.connections(1) as (connection,):
            for i in range(n):
                key = f"run{i}"
                run_id = accepted(await connection.request(client.submission("awaiting", key)))["id"]
                watch = _Watch()
                stream = await sse.listen(client.url, client.events(run_id), watch.stream)
                await watch.seen("step.finished")
                await asyncio.sleep(0.05 + i / n)
                request = client.on_run(run_id, "cancel")
                begun = time.time()
                answer = await connection.request(request)
                if answer.status != 202:
                    raise Refused(f"cancel: {answer.status} {answer.body[:500]!r}")
                terminal.append(await watch.seen("run.finished") - begun)
                coroutine.append(await _noted(daemon.evidence, "ended", key) - begun)
                stream.close()
    both = [max(pair) for pair in zip(terminal, coroutine, strict=True)]
    return {
        "terminal_p50_ms": median(terminal) * MS,
        "ended_p50_ms": median(coroutine) * MS,
        "cancelled_p50_ms": median(both) * MS,
    }


async def events(plan: Plan) -> dict[str, float]:
    figures: dict[str, float] = {}
    with plan.daemon() as daemon:
        client = Client(daemon)
        for name, readers in (("one", 1), ("many", plan.sizes.subscribers)):
            figures |= p50_p99(f"to_{name}", await _deliveries(client, readers, plan.sizes.ticks))
    return figures


async def _deliveries(client: Client, readers: int, ticks: int) -> list[float]:
    async with client.connections(1) as (connection,):
        inputs = {"ticks": ticks, "gap_seconds": 0.1}
        run_id = accepted(await connection.request(client.submission("ticking", "ticking", inputs)))["id"]
        request = client.events(run_id)
        streams: list[sse.Recording] = []
        for chunk in range(0, readers, 50):
            opening = (sse.listen(client.url, request, sse.Recording) for _ in range(chunk, min(chunk + 50, readers)))
            streams += await asyncio.gather(*opening)
        answer = await connection.request(client.on_run(run_id, "signals/go"))
        if answer.status >= 300:
            raise Refused(f"signal: {answer.status} {answer.body[:500]!r}")
        await asyncio.wait_for(asyncio.gather(*(stream.closed.wait() for stream in streams)), 120)
    heard = (event for stream in streams for event in sse.decode(stream.arrivals) if event.name == "x.tick")
    waits = [event.at - event.json()["data"]["t"] for event in heard]
    if len(waits) != readers * ticks:
        raise Refused(f"{len(waits)} events of {readers * ticks} arrived")
    return waits


class _Crossing:
    """The daemon as `recovery.cross` wants it."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.evidence = daemon.evidence
        self.gate = daemon.gate
        self.again = daemon.launch
        self.kill = daemon.kill
        self.end = daemon.kill

    def succeeded(self) -> int:
        return asyncio.run(self._succeeded())

    async def _succeeded(self) -> int:
        client = Client(self._daemon)
        async with client.connections(1) as (connection,):
            await asyncio.wait_for(client.until_none(connection, "queued", "running", every_seconds=0.05), 60)
            return await client.count(connection, "ok")

    def load(self, runs: int) -> None:
        self._daemon.start()
        asyncio.run(self._submit(runs))

    async def _submit(self, runs: int) -> None:
        client = Client(self._daemon)
        async with client.connections(_FEW) as connections:
            requests = [client.submission("crossing", f"run{i}") for i in range(runs)]
            _, answers = await _spread_over(connections, requests)
        for answer in answers:
            accepted(answer)


async def recover(plan: Plan) -> dict[str, float]:
    daemon = Daemon(plan.directory, profile=plan.profile)
    return await asyncio.to_thread(recovery.cross, _Crossing(daemon), plan.sizes.in_flight)


async def memory(plan: Plan) -> dict[str, float]:
    with plan.daemon() as daemon:
        client = Client(daemon)
        await asyncio.sleep(2)
        idle = daemon.resident_mb()
        async with client.connections(_FEW) as connections:
            bodies = [client.submission("sleeping", f"run{i}") for i in range(plan.sizes.sleeping)]
            for answer in (await _spread_over(connections, bodies))[1]:
                accepted(answer)
            await client.until_none(connections[0], "queued", "running", every_seconds=0.1)
            await asyncio.sleep(2)
            sleeping = daemon.resident_mb()
            asleep = await client.count(connections[0], "waiting")
    if asleep != plan.sizes.sleeping:
        raise Refused(f"{asleep} runs sleep, not {plan.sizes.sleeping}")
    return {"idle_mb": idle, "sleeping_mb": sleeping - idle}


async def start(plan: Plan) -> dict[str, float]:
    daemon = Daemon(plan.directory, profile=plan.profile)
    took = []
    try:
        daemon.start()
        await _runs(daemon, 100)
        daemon.stop()
        for _ in range(plan.sizes.starts):
            begun = daemon.start()
            await _runs(daemon, 1)
            took.append(time.time() - begun)
            daemon.stop()
    finally:
        daemon.stop()
    return {"first_run_s": median(took)}


async def _runs(daemon: Daemon, count: int) -> None:
    client = Client(daemon)
    async with client.connections(min(count, _FEW)) as connections:
        _, answers = await _spread_over(connections, [client.submission("one", "run", wait=_WAIT)] * count)
    for answer in answers:
        _ok(answer)


async def authorise(plan: Plan) -> dict[str, float]:
    return await authorising.cost(plan.directory, plan.sizes.asked)


Answers = tuple[list[float], list[Response]]
"""How long each took, in seconds, and what it was."""


async def _spread_over(connections: Sequence[Connection], requests: Sequence[bytes]) -> Answers:
    """Sends the requests, each connection the next one as soon as it has its answer."""
    left = iter(requests)
    durations: list[float] = []
    answers: list[Response] = []

    async def work(connection: Connection) -> None:
        for request in left:
            begun = time.perf_counter()
            answer = await connection.request(request)
            durations.append(time.perf_counter() - begun)
            answers.append(answer)

    await asyncio.gather(*map(work, connections))
    return durations, answers


async def _finishes(client: Client, n: int, finished: asyncio.Event) -> sse.Live:
    count = 0

    def heard(event: sse.Event) -> None:
        nonlocal count
        count += event.name == "run.finished"
        if count == n:
            finished.set()

    return await client.finishes(heard)


class _Watch:
    """When the first event of each name arrived on a stream."""

    def __init__(self) -> None:
        self._futures: dict[str, asyncio.Future[float]] = {}

    def stream(self) -> sse.Live:
        """The protocol of the stream to watch."""
        return sse.Live(self._heard)

    async def seen(self, name: str) -> float:
        """When that event arrived, in Unix seconds; waits for it for a minute."""
        return await asyncio.wait_for(self._future(name), 60)

    def _heard(self, event: sse.Event) -> None:
        if not (future := self._future(event.name)).done():
            future.set_result(event.at)

    def _future(self, name: str) -> asyncio.Future[float]:
        if name not in self._futures:
            self._futures[name] = asyncio.get_running_loop().create_future()
        return self._futures[name]


async def _noted(log: Path, place: str, key: str) -> float:
    while not (times := evidence.read(log)[place][key]):
        await asyncio.sleep(0.001)
    return times[0]


def _ok(answer: Response) -> None:
    run = accepted(answer)
    if run["status"] != "ok":
        raise Refused(f"the run is {run['status']}: {run['error']}")


WORKLOADS: dict[str, Callable[[Plan], Coroutine[Any, Any, dict[str, float]]]] = {
    "throughput": throughput,
    "hooks": hooks,
    "latency": latency,
    "steps": steps,
    "cancel": cancel,
    "events": events,
    "recovery": recover,
    "memory": memory,
    "start": start,
    "authorise": authorise,
}

"""Drives DBOS Transact on SQLite in its own process and venv, the way its users do: in-process, `start_workflow_async`.

`python -m bench.dbos_driver WORKLOAD --db FILE …` prints one line of JSON: the figures of the workload, named as ours.
Needs `dbos` and `uvloop`, and nothing of latticed.
"""

import argparse
import asyncio
import importlib
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from bench import evidence
from bench.samples import MS, median, p50_p99

dbos: Any = importlib.import_module("dbos")
DBOS: Any = dbos.DBOS

_APART_SECONDS = 0.02
"""Between two runs that are measured one at a time."""

started: dict[str, float] = {}
ended: dict[str, float] = {}
gate = evidence.Gate()


async def _mark(key: str) -> str:
    started[key] = time.perf_counter()
    return key


async def _echo(key: str, i: int) -> int:
    return i


async def _long_await(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def _note(place: str, key: str) -> None:
    evidence.note(place, key)


mark = DBOS.step()(_mark)
echo = DBOS.step()(_echo)
long_await = DBOS.step(preemptible=True)(_long_await)
note = DBOS.step()(_note)


async def _one(key: str) -> str:
    result: str = await mark(key)
    return result


async def _ten(key: str) -> str:
    for i in range(10):
        await echo(key, i)
    return key


async def _awaiting(key: str) -> None:
    try:
        await mark(key)
        await long_await(600)
    finally:
        ended[key] = time.perf_counter()


async def _sleeping(key: str) -> None:
    await mark(key)
    await DBOS.sleep_async(600)
    await mark(key)


async def _ticking(key: str, ticks: int, gap_seconds: float) -> None:
    for _ in range(ticks):
        await asyncio.sleep(gap_seconds)
        await DBOS.write_stream_async("ticks", time.time())
    await DBOS.close_stream_async("ticks")


async def _crossing(key: str) -> None:
    evidence.note("entered", key)
    await note("first", key)
    evidence.note("held", key)
    await gate.wait()
    await note("second", key)


one, ten, awaiting, sleeping, ticking, crossing = (
    DBOS.workflow()(body) for body in (_one, _ten, _awaiting, _sleeping, _ticking, _crossing)
)


async def run(workflow: Any, *args: object) -> Any:
    """Starts a workflow and waits for its result."""
    return await (await DBOS.start_workflow_async(workflow, *args)).get_result()


async def throughput(n: int, width: int) -> dict[str, float]:
    await asyncio.gather(*(run(one, f"warm{i}") for i in range(width)))
    keys = iter(range(n))
    handles: list[Any] = []
    submit: list[float] = []

    async def client() -> None:
        for i in keys:
            begun = time.perf_counter()
            handle = await DBOS.start_workflow_async(one, f"run{i}")
            submit.append(time.perf_counter() - begun)
            handles.append(handle)

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(width)))
    await asyncio.gather(*(handle.get_result() for handle in handles))
    return {"runs_per_s": n / (time.perf_counter() - begun), **p50_p99("submit", submit)}


async def latency(n: int, width: int) -> dict[str, float]:
    await run(one, "warm")
    waits = []
    for i in range(n):
        await asyncio.sleep(_APART_SECONDS)
        key = f"run{i}"
        begun = time.perf_counter()
        await run(one, key)
        waits.append(started[key] - begun)
    return p50_p99("first_step", waits)


async def steps(n: int, width: int) -> dict[str, float]:
    await run(ten, "warm")
    alone = []
    for i in range(n):
        await asyncio.sleep(_APART_SECONDS)
        begun = time.perf_counter()
        await run(ten, f"alone{i}")
        alone.append(time.perf_counter() - begun)
    rates = []
    for burst in range(width):
        begun = time.perf_counter()
        await asyncio.gather(*(run(ten, f"burst{burst}-{i}") for i in range(100)))
        rates.append(1000 / (time.perf_counter() - begun))
    return {**p50_p99("ten_steps", alone), "steps_per_s": median(rates)}


async def cancel(n: int, width: int) -> dict[str, float]:
    terminal, coroutine = [], []
    for i in range(n):
        key = f"run{i}"
        handle = await DBOS.start_workflow_async(awaiting, key)
        while key not in started:
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.05 + i / n)  # every phase of its one poll a second, evenly
        begun = time.perf_counter()
        await DBOS.cancel_workflow_async(handle.workflow_id)
        while (await DBOS.get_workflow_status_async(handle.workflow_id)).status != "CANCELLED":
            pass
        terminal.append(time.perf_counter() - begun)
        while key not in ended:
            await asyncio.sleep(0.001)
        coroutine.append(ended[key] - begun)
    both = [max(pair) for pair in zip(terminal, coroutine, strict=True)]
    return {
        "terminal_p50_ms": median(terminal) * MS,
        "ended_p50_ms": median(coroutine) * MS,
        "cancelled_p50_ms": median(both) * MS,
    }


async def events(n: int, width: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, readers in (("one", 1), ("many", width)):
        handle = await DBOS.start_workflow_async(ticking, name, n, 0.1)
        waits: list[float] = []

        async def reader(workflow_id: str, waits: list[float]) -> None:
            async for at in DBOS.read_stream_async(workflow_id, "ticks"):
                waits.append(time.time() - at)

        await asyncio.gather(*(reader(handle.workflow_id, waits) for _ in range(readers)))
        if len(waits) != n * readers:
            raise RuntimeError(f"{len(waits)} events of {n * readers} arrived")
        figures |= p50_p99(f"to_{name}", waits)
    return figures


async def memory(n: int, width: int) -> dict[str, float]:
    await asyncio.sleep(2)
    idle = _resident_mb()
    for chunk in range(0, n, 50):
        keys = [f"run{i}" for i in range(chunk, min(chunk + 50, n))]
        await asyncio.gather(*(DBOS.start_workflow_async(sleeping, key) for key in keys))
    while len(started) < n:
        await asyncio.sleep(0.05)
    await asyncio.sleep(2)
    return {"idle_mb": idle, "sleeping_mb": _resident_mb() - idle}


async def first_run(n: int, width: int) -> dict[str, float]:
    await run(one, f"run{time.time()}")
    return {"done_at": time.time()}


async def populate(n: int, width: int) -> dict[str, float]:
    await asyncio.gather(*(run(one, f"run{i}") for i in range(n)))
    return {}


async def hold(n: int, width: int) -> dict[str, float]:
    """Starts `n` runs that wait at the gate (none after a crash: they are recovered) and stays until it is killed."""
    for chunk in range(0, n, 50):
        keys = [f"run{i}" for i in range(chunk, min(chunk + 50, n))]
        await asyncio.gather(*(DBOS.start_workflow_async(crossing, key) for key in keys))
    await asyncio.Event().wait()
    return {}


def _resident_mb() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


Workload = Callable[[int, int], Awaitable[dict[str, float]]]
WORKLOADS: dict[str, Workload] = {
    workload.__name__: workload
    for workload in (throughput, latency, steps, cancel, events, memory, first_run, populate, hold)
}


async def _main(workload: Workload, n: int, width: int) -> None:
    DBOS.launch()
    print(json.dumps(await workload(n, width)), flush=True)
    os._exit(0)  # what still sleeps or waits is not worth an orderly end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--db", required=True)
    parser.add_argument("-n", type=int, default=0)
    parser.add_argument("--width", type=int, default=1, help="clients, bursts or subscribers")
    args = parser.parse_args()
    url = f"sqlite:///{args.db}"
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR", "application_version": "1"})
    uvloop.run(_main(WORKLOADS[args.workload], args.n, args.width))


if __name__ == "__main__":
    main()

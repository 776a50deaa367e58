"""Agents on a model: what durability costs a call, and what many at once do. `python -m bench.models [--rounds N]`.

- `call`: what a request with its tool call takes longer in a run than by pydantic-ai in a process of its own, both at
  the same scripted model and streaming; of ten requests a conversation, medians of rounds that alternate.
- `block`: the longest time for which the daemon's event loop stood still while 200 such runs went on at once.
- `lag`: 100 runs stream 50 tokens a second each to a subscriber each: from the sending of a token by the model to the
  arrival of the event that holds it, which joins text for up to 80 ms.
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from bench import machine, sse
from bench.client import Client, accepted
from bench.daemon import Daemon
from bench.samples import median, quantile
from bench.venvs import CHECKOUT

REQUESTS, AT_ONCE, STREAMS, TOKENS, RATE = 10, 200, 100, 150, 50


@contextlib.contextmanager
def scripted_model() -> Iterator[str]:
    """The address of the model, as long as this lasts."""
    process = subprocess.Popen([sys.executable, "-m", "bench.scripted_model"], cwd=CHECKOUT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


def config(url: str) -> str:
    """What is beyond the defaults: the agents, and a queue that lets all of them run at once."""
    return f"""
[queues.default]
concurrency = 1000
[models.scripted]
model = "m"
base_url = "{url}"
connections = 1000
[agents.talker]
use = "pydantic-ai"
agent = "bench.talkers:talker"
model = "scripted"
[agents.lagging]
use = "function"
function = "bench.talkers:lagging"
"""


async def directly(url: str, conversations: int) -> float:
    """Seconds a request, by pydantic-ai alone, one conversation after the other."""
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    from bench.talkers import talker

    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    model = OpenAIChatModel("m", provider=OpenAICompatibleProvider("scripted", openai_client=client))
    taken = []
    for _ in range(conversations):
        began = time.perf_counter()
        async with talker.run_stream(f"calls {REQUESTS}", model=model) as result:
            await result.get_output()
        taken.append((time.perf_counter() - began) / REQUESTS)
    await client.close()
    return median(taken)


async def in_runs(client: Client, conversations: int) -> float:
    """Seconds a request, in runs, one after the other."""
    taken = []
    async with client.connections(1) as (connection,):
        for _ in range(conversations):
            began = time.perf_counter()
            answer = await connection.request(client.submission("talker", f"calls {REQUESTS}", wait=60))
            taken.append((time.perf_counter() - began) / REQUESTS)
            _need_ok(accepted(answer))
    return median(taken)


async def longest_block(client: Client) -> tuple[float, float]:
    """Seconds for which the loop stood still at most while many ran at once, and how long all of them took."""
    async with client.connections(AT_ONCE + 1) as (watching, *connections):
        probe = asyncio.ensure_future(
            watching.request(client.submission("lagging", "look", {"seconds": 20}, wait=60))
        )  # fmt: skip
        await asyncio.sleep(1)
        began = time.perf_counter()
        asked = client.submission("talker", f"calls {REQUESTS}", wait=60)
        answers = await asyncio.gather(*(connection.request(asked) for connection in connections))
        took = time.perf_counter() - began
        for answer in answers:
            _need_ok(accepted(answer))
        longest = accepted(await probe)["output"]
    return float(longest), took


async def lags(client: Client) -> list[float]:
    """Seconds from each token to its arrival."""
    recordings = []
    async with client.connections(1) as (connection,):
        asked = client.submission("talker", f"tokens {TOKENS} {RATE}")
        for _ in range(STREAMS):
            run = accepted(await connection.request(asked))
            recordings.append(await sse.listen(client.url, client.events(run["id"]), sse.Recording))
        await asyncio.gather(*(recording.closed.wait() for recording in recordings))
    found = []
    for recording in recordings:
        for event in sse.decode(recording.arrivals):
            if event.name == "text.delta":
                sent = map(float, event.json()["data"]["text"].split())
                found += [event.at - at for at in sent]
    if len(found) != STREAMS * TOKENS:
        raise RuntimeError(f"{len(found)} tokens of {STREAMS * TOKENS} came")
    return found


def _need_ok(run: dict[str, object]) -> None:
    if run["status"] != "ok":
        raise RuntimeError(f"a run ended {run['status']}: {run['error']}")


async def measure(directory: Path, rounds: int, only: str | None) -> None:
    """All of it, or what is asked for, printed."""
    with scripted_model() as url:
        daemon = Daemon(directory, config=config(url))
        daemon.start()
        try:
            client = Client(daemon)
            await in_runs(client, 3)
            if only in (None, "call"):
                await directly(url, 3)
                alone, durable = [], []
                for _ in range(rounds):
                    alone.append(await directly(url, 5))
                    durable.append(await in_runs(client, 5))
                added = median(durable) - median(alone)
                print(
                    f"call    {median(alone) * 1e3:.2f} ms alone, {median(durable) * 1e3:.2f} ms in a run: "
                    f"{added * 1e3:.2f} ms more"
                )
            if only in (None, "block"):
                blocked, took = await longest_block(client)
                print(f"block   {blocked * 1e3:.0f} ms, {AT_ONCE} runs at once in {took:.1f} s")
            if only in (None, "lag"):
                found = await lags(client)
                print(f"lag     p50 {quantile(found, 0.5) * 1e3:.0f} ms, p99 {quantile(found, 0.99) * 1e3:.0f} ms")
        finally:
            daemon.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.models", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("call", "block", "lag"))
    parser.add_argument("--dir", type=Path, default=CHECKOUT / ".bench")
    args = parser.parse_args()
    machine.scratch(args.dir)
    with tempfile.TemporaryDirectory(prefix="models-", dir=args.dir) as directory:
        uvloop.run(measure(Path(directory), args.rounds, args.only))


if __name__ == "__main__":
    main()

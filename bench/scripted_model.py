"""An OpenAI-compatible model that costs next to nothing, in a process of its own: `python -m bench.scripted_model`.

It prints its port. A conversation whose first user message begins with `calls N` calls the tool `echo` in each of its
turns but the Nth, and then says something; one that begins with `tokens N RATE` gets N tokens at that rate a second,
each of which is the time at which it was sent.
"""

import asyncio
import json
import time
from typing import Any

import uvloop

_CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _frame(data: str) -> bytes:
    line = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(line), line)


def _delta(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return _frame(json.dumps({**_CHUNK, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))


_END = _frame(json.dumps({**_CHUNK, "choices": [], "usage": _USAGE})) + _frame("[DONE]") + b"0\r\n\r\n"
_SAID = _delta({"role": "assistant", "content": "done"}) + _delta({}, "stop")


def _call(turn: int) -> bytes:
    function = {"name": "echo", "arguments": json.dumps({"n": turn})}
    call = {"index": 0, "id": f"call_{turn}", "type": "function", "function": function}
    return _delta({"role": "assistant", "tool_calls": [call]}) + _delta({}, "tool_calls")


async def _answer(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    messages = body["messages"]
    goal = next(message["content"] for message in messages if message["role"] == "user")
    sort, count, *rest = goal.split()
    writer.write(_HEAD)
    if sort == "calls":
        turn = sum(message["role"] == "assistant" for message in messages)
        writer.write((_SAID if turn >= int(count) - 1 else _call(turn)) + _END)
        return
    began, rate = time.monotonic(), float(rest[0])
    for number in range(int(count)):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        writer.write(_delta({"role": "assistant", "content": f"{time.time():.4f} "}))
    writer.write(_delta({}, "stop") + _END)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
            await _answer(json.loads(await reader.readexactly(length)), writer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    """Serves until it is killed."""
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())

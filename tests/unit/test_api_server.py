"""How an answer gets onto the wire."""

import asyncio
from typing import Any, cast

import uvicorn

from latticed.api.server import JoiningProtocol, JoiningTransport
from tests.wait import eventually

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Wire:
    """A transport that remembers what was done with it."""

    def __init__(self) -> None:
        self.done: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append(b"closed")

    def is_closing(self) -> bool:
        return self.done[-1:] == [b"closed"]


def joining() -> tuple[Wire, JoiningTransport]:
    wire = Wire()
    return wire, JoiningTransport(cast(Any, wire), asyncio.get_running_loop())


async def turn() -> None:
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done


async def test_head_and_body_leave_together() -> None:
    wire, transport = joining()
    transport.write(HEAD)
    transport.write(b"body")
    transport.write(b"more")
    assert wire.done == [HEAD + b"body", b"more"]
    await turn()
    assert len(wire.done) == 2


async def test_a_head_alone_leaves_in_the_next_turn() -> None:
    wire, transport = joining()
    transport.write(HEAD)
    assert wire.done == []
    await turn()
    assert wire.done == [HEAD]
    transport.write(b"chunk")
    assert wire.done == [HEAD, b"chunk"]


async def test_what_was_written_leaves_before_the_end() -> None:
    wire, transport = joining()
    transport.write(HEAD)
    transport.close()
    assert wire.done == [HEAD, b"closed"]
    assert transport.is_closing()
    await turn()
    assert len(wire.done) == 2


async def served(app: Any, protocol: type[JoiningProtocol]) -> tuple[uvicorn.Server, int]:
    """A server of this application, and its port."""
    config = uvicorn.Config(app, port=0, http=protocol, lifespan="off", ws="none", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    return server, server.servers[0].sockets[0].getsockname()[1]


async def test_uvicorn_serves_with_it() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    server, port = await served(app, JoiningProtocol)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert await reader.readexactly(2) == b"ok"
    writer.close()
    await server.shutdown()


LARGE = 64 << 20
"""More than any socket's buffers take."""


class Impatient(JoiningProtocol):
    taking_seconds = 0.2


async def large(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % LARGE)]})
    await send({"type": "http.response.body", "body": bytes(LARGE)})


async def test_who_takes_nothing_of_an_answer_is_let_go() -> None:
    server, port = await served(large, Impatient)
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    await eventually(lambda: bool(server.server_state.total_requests))
    await eventually(lambda: not server.server_state.connections)
    writer.close()
    await server.shutdown()


async def test_who_takes_an_answer_slowly_gets_all_of_it() -> None:
    server, port = await served(large, Impatient)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    loop, taken = asyncio.get_running_loop(), 0
    began = loop.time()
    while taken < LARGE:
        if loop.time() - began < 3 * Impatient.taking_seconds:  # Slow for longer than it may stand still.
            pause = loop.create_future()
            loop.call_later(Impatient.taking_seconds / 20, pause.set_result, None)
            await pause
        part = await reader.read(1 << 20)
        assert part, "it was let go"
        taken += len(part)
    assert taken == LARGE
    writer.close()
    await server.shutdown()

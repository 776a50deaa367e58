"""A receiver of webhooks on loopback, which answers as it is told, and lies, hangs and floods if that is wanted."""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

ALLOWED = {"allow_private": ["127.0.0.0/8"]}
"""The configuration under which a receiver may be called."""


@dataclass(frozen=True)
class Request:
    """What came."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        """The delivery's id."""
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        """The CloudEvent."""
        found: dict[str, Any] = orjson.loads(self.body)
        return found

    @property
    def run_id(self) -> str:
        return str(self.event["data"]["run"]["id"])


def plain(status: int = 204, body: bytes = b"", *headers: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


Behaviour = Callable[[Request, socket.socket], bytes | None]
"""Gives an answer, or does with the connection what it likes and gives None, which closes it."""


@dataclass
class Receiver:
    """Listens on a port of its own. `answers` are given in turn, and then `behaviour` answers."""

    behaviour: Behaviour = lambda request, channel: plain()
    host: str = "127.0.0.1"
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self.over = threading.Event()
        """Set when the test is over: whoever hangs waits for that."""
        self._listener = socket.create_server((self.host, self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        """The ids that came, in order."""
        return [request.id for request in self.requests]

    def about(self, run_id: str) -> list[Request]:
        """What came about a run."""
        return [request for request in list(self.requests) if request.run_id == run_id]

    def close(self) -> None:
        self.over.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                channel, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    def _serve(self, channel: socket.socket) -> None:
        with channel:
            rest = b""
            while not self.over.is_set():
                try:
                    request, rest = self._read(channel, rest)
                    if request is None:
                        return
                    self.requests.append(request)
                    answer = self.answers.pop(0) if self.answers else self.behaviour(request, channel)
                    if answer is None:
                        return
                    channel.sendall(answer)
                except OSError:
                    return

    def _read(self, channel: socket.socket, rest: bytes) -> tuple[Request | None, bytes]:
        while b"\r\n\r\n" not in rest:
            part = channel.recv(65536)
            if not part:
                return None, b""
            rest += part
        head, _, rest = rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(rest) < length:
            part = channel.recv(65536)
            if not part:
                return None, b""
            rest += part
        return Request(first.split(" ")[1], headers, rest[:length], time.monotonic()), rest[length:]

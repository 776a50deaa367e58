"""A server that says exactly what a test wants it to say."""

import json
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """One scripted answer; `chunks` makes it a stream, `cut` one that breaks off, `hold` one that stays open."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[str] | None = None
    cut: bool = False
    hold: threading.Event | None = None


@dataclass
class Asked:
    """One request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Scripted:
    """A server on a free port that gives the answers put into it, one a request."""

    def __init__(self) -> None:
        self.answers: deque[Answer] = deque()
        self.asked: list[Asked] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                outer.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("content-length") or 0)
        body = json.loads(handler.rfile.read(length)) if length else None
        self.asked.append(
            Asked(handler.command, handler.path, {k.lower(): v for k, v in handler.headers.items()}, body)
        )
        answer = self.answers.popleft() if self.answers else problem("internal", 500, "nothing is scripted")
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if answer.chunks is None:
            content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            if answer.status != 204:
                handler.send_header("content-length", str(len(content)))
            handler.end_headers()
            if answer.status != 204:
                handler.wfile.write(content)
            return
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        raws = [chunk.encode() for chunk in answer.chunks]
        said = b"".join(f"{len(raw):x}\r\n".encode() + raw + b"\r\n" for raw in raws)
        if answer.hold is not None:
            handler.wfile.write(said)
            answer.hold.wait(30)
            return
        handler.wfile.write(said if answer.cut else said + b"0\r\n\r\n")
        handler.close_connection = True

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def problem(code: str, status: int, detail: str, **more: Any) -> Answer:
    headers = {"content-type": "application/problem+json", **more.pop("headers", {})}
    return Answer(status, {"type": "about:blank", "status": status, "code": code, "detail": detail, **more}, headers)


def event(seq: int, kind: str = "log", **data: Any) -> str:
    document = {"run_id": "run_1", "seq": seq, "type": kind, "at": "2026-01-01T00:00:00.000000Z", "data": data}
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps(document)}\n\n"


END = 'event: end\ndata: {"status": "ok"}\n\n'

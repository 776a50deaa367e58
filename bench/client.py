"""The daemon's HTTP interface as the load uses it; bodies are rendered before the clock starts."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from bench import sse
from bench.daemon import Daemon
from bench.http1 import Connection, ProtocolError, Response, render

_BASE = "/v1/workspaces/default"
_PAGE = 500


class Refused(ProtocolError):
    """The daemon answered with a status that a workload does not expect."""


def accepted(response: Response) -> dict[str, Any]:
    """The run in the answer to a submission.

    Raises:
        Refused: it is no 202.
    """
    if response.status != 202:
        raise Refused(f"{response.status}: {response.body[:500]!r}")
    run: dict[str, Any] = response.json()["run"]
    return run


class Client:
    """Renders requests for one daemon and opens connections to it."""

    def __init__(self, daemon: Daemon) -> None:
        self.url = daemon.url
        self._headers = daemon.headers

    def submission(
        self, target: str, goal: str, inputs: Mapping[str, Any] | None = None, *, wait: int | None = None
    ) -> bytes:
        """A `POST …/runs`; with `wait` it is answered when the run is terminal."""
        body = {"kind": "agent", "target": target, "goal": goal, "inputs": inputs or {}}
        path = f"{_BASE}/runs" + (f"?wait={wait}" if wait is not None else "")
        return self.post(path, body)

    def post(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Any POST."""
        return render("POST", path, self._headers, json.dumps(body).encode())

    def on_run(self, run_id: str, verb: str, body: Mapping[str, Any] | None = None) -> bytes:
        """A `POST …/runs/{id}/{verb}`."""
        return self.post(f"{_BASE}/runs/{run_id}/{verb}", body or {})

    def listing(self, status: str, *, limit: int = 1, cursor: str | None = None) -> bytes:
        """A page of the runs in one state."""
        path = f"{_BASE}/runs?status={status}&limit={limit}" + (f"&cursor={cursor}" if cursor else "")
        return render("GET", path, self._headers)

    def events(self, run_id: str) -> bytes:
        """The event stream of one run, from its first event."""
        return self._stream(f"{_BASE}/runs/{run_id}/events")

    async def finishes(self, heard: Callable[[sse.Event], None]) -> sse.Live:
        """Listens for the end of any run, from now on, on one stream."""
        request = self._stream(f"{_BASE}/events?types=run.finished")
        return await sse.listen(self.url, request, lambda: sse.Live(heard))

    def _stream(self, path: str) -> bytes:
        return render("GET", path, {**self._headers, "Accept": "text/event-stream", "Connection": "close"})

    @contextlib.asynccontextmanager
    async def connections(self, count: int) -> AsyncIterator[list[Connection]]:
        """That many open connections."""
        opened = [await Connection.open(self.url) for _ in range(count)]
        try:
            yield opened
        finally:
            for connection in opened:
                connection.close()

    async def count(self, connection: Connection, status: str) -> int:
        """How many runs are in a state, by paging through all of them: for checks off the clock."""
        total, cursor = 0, None
        while True:
            page = (await connection.request(self.listing(status, limit=_PAGE, cursor=cursor))).json()
            total += len(page["items"])
            cursor = page["next_cursor"]
            if cursor is None:
                return total

    async def until_none(self, connection: Connection, *statuses: str, every_seconds: float = 0.005) -> None:
        """Returns when no run is in the first state, then none in the second, and so on.

        Asked in the order in which runs pass through the states, after the last submission, that is when all have left.
        """
        for status in statuses:
            request = self.listing(status)
            while (await connection.request(request)).json()["items"]:
                await asyncio.sleep(every_seconds)

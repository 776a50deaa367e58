"""Figures for Prometheus. Most are read off what becomes true on disk, so that no part has to count for them."""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.metrics_core import HistogramMetricFamily, Metric

from latticed.models.records import Commit
from latticed.states import TERMINAL

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_REMEMBERED = 100_000


class Timer:
    """A histogram of seconds (or of counts) that costs a bisection; prometheus_client's own costs ten times that."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...] = _SECONDS) -> None:
        self.name = name
        self.text = text
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """One more."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterable[Metric]:
        """For prometheus_client."""
        family = HistogramMetricFamily(self.name, self.text)
        running = list(accumulate(self._counts))
        edges = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        family.add_metric([], buckets=list(zip(edges, running, strict=True)), sum_value=self._sum)
        yield family


class Metrics:
    """All figures of this process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.runs = Gauge(
            "latticed_runs", "Runs that are not over, by state and queue", ("status", "queue"), registry=registry
        )
        self.finished = Counter("latticed_runs_finished", "Runs that ended, by state", ("status",), registry=registry)
        self.recoveries = Counter("latticed_recoveries", "Runs taken over from a dead process", registry=registry)
        self.abandoned = Gauge(
            "latticed_abandoned", "Code that was given up and still runs, by sort", ("what",), registry=registry
        )
        self.streams = Gauge("latticed_open_streams", "Readers of timelines", registry=registry)
        self.asked = Counter(
            "latticed_hooks_asked", "Times that a hook was asked or told, by its point, sort and how that ended",
            ("point", "sort", "status"), registry=registry,
        )  # fmt: skip
        self.pending = Gauge("latticed_deliveries_pending", "Deliveries that are still to be sent", registry=registry)
        self.dead = Counter("latticed_deliveries_dead", "Deliveries that were given up", registry=registry)
        self.running = Gauge("latticed_slots_taken", "Runs that hold a slot", registry=registry)
        self.refusals = Counter(
            "latticed_refusals", "Requests refused by a limit of their workspace", ("workspace", "limit"),
            registry=registry,
        )  # fmt: skip
        self.pruned = Counter("latticed_pruned_rows", "Rows deleted, by what was removed", ("what",), registry=registry)
        self.batch = self._timer(
            "latticed_commit_members", "Writes that shared a commit", (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
        )
        self.commit = self._timer("latticed_commit_seconds", "A transaction, from its beginning to its fsync")
        self.submit = self._timer("latticed_submit_seconds", "A submission, until it is on disk")
        self.queue_wait = self._timer("latticed_queue_wait_seconds", "From claimable to claimed")
        self.step = self._timer("latticed_step_seconds", "A step, from its beginning to its record")
        self.cancel = self._timer("latticed_cancel_seconds", "From a cancel's request to its effect")
        self._queued: dict[str, int] = {}
        self._cancelling: dict[str, int] = {}

    def _timer(self, name: str, text: str, bounds: tuple[float, ...] = _SECONDS) -> Timer:
        timer = Timer(name, text, bounds)
        self._registry.register(timer)
        return timer

    def observe_commit(self, members: int, seconds: float) -> None:
        """The writer committed a batch."""
        self.batch.observe(members)
        self.commit.observe(seconds)

    def told(self, commit: Commit) -> None:
        """Something became true on disk."""
        for event in commit.events:
            kind = event.type
            if kind == "step.finished":
                self.step.observe((orjson.loads(event.data).get("duration_ms") or 0) / 1000)
            elif kind == "run.started":
                if (since := self._queued.pop(event.run_id, None)) is not None:
                    self.queue_wait.observe(max(0, event.at - since) / 1e6)
            elif kind in ("run.queued", "run.woken"):
                if len(self._queued) < _REMEMBERED:
                    self._queued[event.run_id] = event.at
            elif kind == "run.cancelling":
                self._cancelling[event.run_id] = event.at
            elif kind == "hook.finished":
                told = orjson.loads(event.data)
                self.asked.labels(told["point"], told["sort"], told["status"]).inc()
            elif kind == "run.recovered":
                self.recoveries.inc()
            elif kind == "run.finished":
                self._queued.pop(event.run_id, None)
                if (since := self._cancelling.pop(event.run_id, None)) is not None:
                    self.cancel.observe(max(0, event.at - since) / 1e6)
        for row in commit.rows:
            if row.status in TERMINAL:
                self.finished.labels(row.status).inc()

    def text(self, counts: Iterable[tuple[str, str, str, int]], gauges: dict[Gauge, float]) -> bytes:
        """Everything in Prometheus' text format; `counts` are (workspace, queue, status, runs)."""
        self.runs.clear()
        for _, queue, status, number in counts:
            self.runs.labels(status, queue).inc(number)
        for gauge, value in gauges.items():
            gauge.set(value)
        return generate_latest(self._registry)

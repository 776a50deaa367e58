"""What is measured: every figure of every workload, in the order of the table, and how large a workload is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a workload."""

    key: str
    title: str
    unit: str
    higher_is_better: bool = False
    reach: float | None = None
    """What latticed has to reach on a machine of two cores."""
    aim: float | None = None
    """What it aims at there."""

    def meets(self, value: float, goal: float) -> bool:
        """Whether `value` is as good as `goal`."""
        return value >= goal if self.higher_is_better else value <= goal


WORKLOADS: dict[str, tuple[Figure, ...]] = {
    "throughput": (
        Figure("runs_per_s", "submit → terminal, single step, 64 clients", "runs/s", True, 2500, 4500),
        Figure("submit_p50_ms", "submit at that load, p50", "ms", False, 20, 12),
        Figure("submit_p99_ms", "submit at that load, p99", "ms", False, 60, 40),
    ),
    "hooks": (
        Figure("bare_per_s", "single step, without hooks", "runs/s", True),
        Figure("hooked_per_s", "… with a pre_run function and a post_run webhook", "runs/s", True),
        Figure("hooked_ratio", "… of what it is without", "×", True, 0.5, 0.8),
        Figure("told_per_s", "… runs that the webhook was told of", "runs/s", True),
    ),
    "latency": (
        Figure("first_step_p50_ms", "unloaded submit → first step, p50", "ms", False, 2.1, 1.2),
        Figure("first_step_p99_ms", "unloaded submit → first step, p99", "ms"),
    ),
    "steps": (
        Figure("ten_steps_p50_ms", "10-step run alone, p50", "ms", False, 8, 5),
        Figure("ten_steps_p99_ms", "10-step run alone, p99", "ms"),
        Figure("steps_per_s", "steps, 100 such runs at once", "steps/s", True, 8000, 16000),
    ),
    "cancel": (
        Figure("terminal_p50_ms", "cancel → terminal, p50", "ms"),
        Figure("ended_p50_ms", "cancel → its coroutine ended, p50", "ms"),
        Figure("cancelled_p50_ms", "cancel → both, p50", "ms", False, 4, 2),
    ),
    "events": (
        Figure("to_one_p50_ms", "event → one subscriber, p50", "ms", False, 1.1, 0.7),
        Figure("to_one_p99_ms", "event → one subscriber, p99", "ms"),
        Figure("to_many_p50_ms", "event → 500 subscribers, p50", "ms", False, 30, 15),
        Figure("to_many_p99_ms", "event → 500 subscribers, p99", "ms"),
    ),
    "recovery": (
        Figure("resumed_s", "1,000 in flight, kill -9: start → all resumed", "s", False, 1.5, 0.7),
        Figure("first_resumed_s", "… → the first resumed", "s"),
        Figure("lost", "… runs lost", "runs", False, 0, 0),
        Figure("twice", "… runs with a recorded step run again", "runs", False, 0, 0),
    ),
    "memory": (
        Figure("idle_mb", "resident memory, idle", "MB", False, 80, 55),
        Figure("sleeping_mb", "… more with 1,000 sleeping runs", "MB", False, 5, 1),
    ),
    "start": (Figure("first_run_s", "process start → first run done, existing database", "s", False, 1.2, 0.6),),
    "authorise": (
        Figure("by_token_us", "who asks, and may they: by token", "µs", False, 30, 10),
        Figure("by_cookie_us", "… by a browser's cookie, for a change", "µs", False, 30, 15),
    ),
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each; the same for both sides."""

    runs: int = 4000
    """Of the throughput workload."""
    clients: int = 64
    pairs: int = 3
    """Times that the throughput without hooks and with them is measured, in turn."""
    singles: int = 300
    """Runs of the latency workload, one at a time."""
    tens: int = 50
    """Ten-step runs, one at a time."""
    bursts: int = 5
    """Times that 100 ten-step runs go at once; the median of them is the figure of the round."""
    cancels: int = 20
    ticks: int = 40
    """Events sent to the subscribers, 0.1 s apart."""
    subscribers: int = 500
    in_flight: int = 1000
    sleeping: int = 1000
    starts: int = 5
    asked: int = 300
    """Bursts of 100 requests to be authorised; the median of them is the figure of the round."""


QUICK = Sizes(runs=1000, pairs=1, singles=50, tens=10, bursts=2, cancels=5, ticks=10, starts=2, asked=30)
"""To see that everything works, not to quote."""

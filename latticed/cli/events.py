"""A run's timeline on the terminal: one event a line."""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from latticed.cli.render import Screen, block, clock_time, day, short, took, value
from latticed.cli.session import Session

TYPE_COLUMN = 18
"""Columns for an event's type; only a few rare ones are longer."""
INDENT = " " * 14
"""What lines that belong to an event begin with: as much as its time takes."""

Data = dict[str, Any]


def _error(data: Data) -> str:
    error = data.get("error")
    if isinstance(error, dict):
        return f"{error.get('code', 'error')}: {short(error.get('message', ''), 200)}"
    return short(error, 200) if error else ""


def _parts(*texts: object) -> str:
    return "  ".join(str(text) for text in texts if text not in (None, ""))


def _duration(data: Data) -> str:
    milliseconds = data.get("duration_ms")
    return f"({took(milliseconds)})" if isinstance(milliseconds, int | float) else ""


def _attempt(data: Data) -> str:
    attempt = data.get("attempt")
    return f"attempt {attempt}" if isinstance(attempt, int) and attempt > 1 else ""


def _step(data: Data) -> str:
    name = short(data.get("name", "?"))
    where = f"in {short(data['branch'])}" if data.get("branch") else ""
    return _parts(name, where, _attempt(data), _duration(data), _error(data))


def _started(data: Data) -> str:
    epoch = data.get("epoch")
    return _parts(_attempt(data), f"epoch {epoch}" if isinstance(epoch, int) and epoch > 1 else "")


def _retrying(data: Data) -> str:
    next_at = data.get("next_at")
    return _parts(_error(data), f"again at {clock_time(next_at)}" if next_at else "")


def _finished(data: Data) -> str:
    return _parts(data.get("status", ""), _error(data))


def _progress(data: Data) -> str:
    done, total = data.get("done"), data.get("total")
    return _parts(value(done) if total is None else f"{value(done)}/{value(total)}", short(data.get("message") or ""))


def _log(data: Data) -> str:
    rest = {name: item for name, item in data.items() if name not in ("level", "message")}
    return _parts(short(data.get("level", "info")), short(data.get("message", ""), 400), _any(rest))


def _output(data: Data) -> str:
    stream = data.get("stream")
    mark = "err" if stream == "stderr" else "out" if stream == "stdout" else stream
    return _parts(mark, value(data.get("line", "")))


def _asked(data: Data) -> str:
    lanes = data.get("lanes")
    return _parts(
        short(data.get("prompt", "")),
        short(data.get("approval_id") or ""),
        f"of {short(', '.join(map(str, lanes)))}" if isinstance(lanes, list) and lanes else "",
        f"until {clock_time(data['expires_at'])}" if data.get("expires_at") else "",
    )


def _escalated(data: Data) -> str:
    rungs = {1: "asked to stop", 2: "cancelled", 3: "killed"}
    rung, after = data.get("rung"), data.get("after_ms")
    told = rungs[rung] if isinstance(rung, int) and rung in rungs else f"rung {rung}"
    return _parts(told, f"after {took(after)}" if isinstance(after, int | float) and after else "")


def _called(data: Data) -> str:
    return _parts(short(data.get("tool", "?")), short(value(data.get("args", {})), 200))


def _returned(data: Data) -> str:
    said = _error(data) if "error" in data else f"→ {short(value(data.get('result')), 200)}"
    return _parts(short(data.get("tool", "?")), said, _duration(data))


def _usage(data: Data) -> str:
    total = data.get("total")
    tokens = f"{data.get('input_tokens', 0)} + {data.get('output_tokens', 0)} tokens"
    if not isinstance(total, dict):
        return tokens
    cost = total.get("cost_usd")
    return _parts(
        short(data.get("agent") or ""), tokens,
        f"in all {total.get('input_tokens', 0)} + {total.get('output_tokens', 0)}, {total.get('requests', 0)} requests",
        f"${cost:.4f}" if isinstance(cost, int | float) and cost else "",
    )  # fmt: skip


def _retry(data: Data) -> str:
    retry = data.get("retry")
    return f"retry {retry}" if isinstance(retry, int) and retry > 0 else ""


def _role(data: Data) -> str:
    return _parts(short(data.get("role", "?")), data.get("status", ""), _retry(data), short(data.get("reason") or ""))


def _handoff(data: Data) -> str:
    way = f"{short(data.get('source', '?'))} → {short(data.get('target', '?'))}"
    return _parts(way, _retry(data), short(data.get("reason") or "", 200))


def _review(data: Data) -> str:
    confidence = data.get("confidence")
    return _parts(
        short(data.get("outcome", "")),
        short(data.get("reason") or "", 200),
        short(data.get("notes") or "", 200),
        f"by {short(data['by'])}" if data.get("by") else "",
        f"confidence {confidence:g}" if isinstance(confidence, int | float) else "",
    )


def _plan(data: Data) -> str:
    return _parts(f"{len(_steps(data))} steps", f"by {short(data['source'])}" if data.get("source") else "")


def _steps(data: Data) -> list[Any]:
    steps = data.get("steps")
    return steps if isinstance(steps, list) else []


def _any(data: Data) -> str:
    """Whatever an event brings, as far as it fits on a line."""
    return "  ".join(
        f"{short(name)}={short(value(item))}" for name, item in data.items() if item not in (None, "", [], {})
    )


_TOLD: dict[str, Callable[[Data], str]] = {
    "run.started": _started,
    "run.retrying": _retrying,
    "run.finished": _finished,
    "step.started": _step,
    "step.finished": _step,
    "step.failed": _step,
    "progress": _progress,
    "log": _log,
    "output": _output,
    "text.delta": lambda data: value(data.get("text", data.get("delta", ""))),
    "tool.called": _called,
    "tool.returned": _returned,
    "usage": _usage,
    "cancel.escalated": _escalated,
    "approval.requested": _asked,
    "role.started": _role,
    "role.finished": _role,
    "plan.made": _plan,
    "plan.reviewed": _review,
    "review.requested": _role,
    "review.approved": _review,
    "review.rejected": _review,
    "review.failed": _review,
    "retry.requested": _handoff,
    **{f"handoff.{status}": _handoff for status in ("created", "accepted", "running", "completed")},
}
"""How the events that people look at most are told; any other shows its data."""

_WORDS = {
    "step.finished": "ok", "step.failed": "failed", "run.retrying": "retrying", "run.cancelling": "cancelling",
    "cancel.escalated": "cancelling", "approval.requested": "pending", "run.awaiting_approval": "pending",
}  # fmt: skip
"""Event type → the status whose colour it takes."""


def event_line(event: Data, screen: Screen) -> str:
    """One event: `12:00:01.123  step.finished       fetch  (12 ms)`."""
    kind, data = event["type"], event["data"]
    told = _TOLD.get(kind, _any)(data)
    name = short(kind).ljust(TYPE_COLUMN if told else 0)
    word = data.get("status", "") if kind == "run.finished" else _WORDS.get(kind, "")
    coloured = screen.status(word).replace(word, name) if word else name
    return f"{clock_time(event['at'])}  {coloured}  {told}".rstrip()


def event_lines(events: Iterable[Data], screen: Screen) -> Iterator[str]:
    """A timeline, with the date wherever a new one begins after the first."""
    last_day = None
    for event in events:
        today = day(event["at"])
        if last_day not in (None, today):
            yield f"-- {today} --"
        last_day = today
        yield event_line(event, screen)
        for line in _more(event["type"], event["data"]):
            yield INDENT + line


def _more(kind: str, data: Data) -> Iterator[str]:
    """What of an event does not fit on its line, and must be seen whole: a plan, and what a person is asked."""
    if kind == "plan.made":
        for step in _steps(data):
            if isinstance(step, dict):
                yield f"{short(step.get('index', '?'))}. {short(step.get('description', ''), 200)}"
    elif kind == "approval.requested" and short(prompt := str(data.get("prompt", ""))) != prompt:
        yield from block(prompt)


def follow(session: Session, run_id: str, after: int | None = None) -> None:
    """Prints a run's events as they happen until the run has ended; with JSON one object a line.

    Raises:
        Exit: Ctrl-C; the run goes on and the user is told how to stop it.
        LatticedError: the daemon refused, or stayed away.
    """
    events = session.client.follow(run_id, after=after, notice=session.note)
    try:
        watched = _with_questions(session, events)
        for line in map(session.dump, watched) if session.json else event_lines(watched, session.screen):
            print(line, flush=True)
    except KeyboardInterrupt:
        sys.stdout.flush()
        session.goes_on(run_id)


def _with_questions(session: Session, events: Iterable[Data]) -> Iterator[Data]:
    """The same events; whoever watches is told how to answer what is asked."""
    for event in events:
        yield event
        if event["type"] == "approval.requested" and (approval := event["data"].get("approval_id")):
            session.hint(f"answer it with: {session.command(f'approvals answer {approval} approve')}")

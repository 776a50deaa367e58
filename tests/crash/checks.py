"""What must hold of a store whose daemon was killed again and again. Each check yields what is wrong, if anything."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from tests.conftest import TERMINAL
from tests.crash import excuses
from tests.crash.observed import Observed
from tests.crash.plans import results, uses

Wrongs = Iterator[str]

BEFORE_A_START = {"run.queued", "run.woken", "run.recovered", "run.released", "run.retrying"}
ENDED_BY_FORCE = {"cancelled", "failed"}


def accepted_runs_are_there(seen: Observed) -> Wrongs:
    """Each accepted submission is one run, however often it was asked for; a refused one is none."""
    by_number: dict[str, list[str]] = defaultdict(list)
    for run_id, run in seen.runs.items():
        if run["parent_run_id"] is None:
            by_number[run["tags"]["n"]].append(run_id)
    for each in seen.ledger.submissions:
        there = by_number.pop(str(each.number), [])
        if each.accepted and there != sorted(each.run_ids):
            yield f"run {each.number} was accepted as {sorted(each.run_ids)} and is there as {there}"
        if len(there) > (1 if each.accepted or each.unanswered else 0):
            yield f"run {each.number} was asked for under {each.key} and is there as {there}"
        began = [seen.runs[run_id]["started_at"] for run_id in there if each.body.get("run_at")]
        if any(at and datetime.fromisoformat(at) < datetime.fromisoformat(each.body["run_at"]) for at in began):
            yield f"{there} began at {began}, before its time {each.body['run_at']}"
    for number, there in by_number.items():
        yield f"{there} is there as run {number}, which nobody asked for"


def runs_end_once(seen: Observed) -> Wrongs:
    """Each run is over, and says so once, as its last event."""
    for run_id, run in seen.runs.items():
        events = seen.timelines[run_id]
        if run["status"] not in TERMINAL or run["owner"] is not None or run["finished_at"] is None:
            yield f"{run_id} is not over: {run['status']}, owner {run['owner']}"
            continue
        ends = [event for event in events if event["type"] == "run.finished"]
        if len(ends) != 1 or events[-1] != ends[0] or ends[0]["data"]["status"] != run["status"]:
            yield f"{run_id} is {run['status']} and its timeline ends with {ends or events[-1:]}"


def timelines_are_whole(seen: Observed) -> Wrongs:
    """Sequence numbers from 1 without a gap; each claim has a reason and the next epoch; none follows a cancel."""
    for run_id, run in seen.runs.items():
        events = seen.timelines[run_id]
        if [event["seq"] for event in events] != list(range(1, len(events) + 1)):
            yield f"{run_id} has the sequence numbers {[event['seq'] for event in events]}"
        epoch, reason, cancelled = 0, False, False
        for event in events:
            type = event["type"]
            if type == "run.started":
                epoch += 1
                if not reason or cancelled or event["data"]["epoch"] != epoch:
                    yield f"{run_id}: claim {event} (reason {reason}, cancelled {cancelled}, claims {epoch})"
                reason = False
            reason |= type in BEFORE_A_START
            if cancelled and type in BEFORE_A_START:
                yield f"{run_id} was revived after its cancel: {event}"
            cancelled |= type == "run.cancelling"
        if run["epoch"] != epoch or events[0]["type"] != "run.queued":
            yield f"{run_id} has epoch {run['epoch']}, {epoch} claims, and begins with {events[0]}"


def readers_saw_the_truth(seen: Observed) -> Wrongs:
    """What was streamed is on disk, in one order, nothing left out; each run's timeline is its part of it."""
    streamed = seen.ledger.seen
    if streamed:
        stored = [event for event in seen.feed if event["position"] <= streamed[-1]["position"]]
        if streamed != stored:
            where = next((i for i, (a, b) in enumerate(zip(streamed, stored, strict=False)) if a != b), len(stored))
            yield f"streamed {streamed[where : where + 2]}, stored {stored[where : where + 2]}, of {len(stored)}"
    by_run: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in seen.feed:
        if event["seq"] is None:
            continue
        by_run[event["run_id"]].append(
            {name: value for name, value in event.items() if name not in ("position", "kind")}
        )
    for run_id, events in seen.timelines.items():
        if by_run[run_id] != events:
            yield f"{run_id} has {len(events)} events and {len(by_run[run_id])} in the feed"


def recorded_steps_never_ran_again(seen: Observed) -> Wrongs:
    """The last effect of a step is the one that is recorded; before it there is at most one an epoch and try."""
    for run_id, run in seen.runs.items():
        keys = set()
        for step in seen.steps[run_id]:
            if step["kind"] != "step" or step["name"].startswith("model:") or step["name"] == "recall":
                continue
            key = f"{run_id}/{step['branch']}:{step['name']}/{step['occurrence']}"
            keys.add(key)
            effects = [effect.nonce for effect in seen.effects.get(key, [])]
            outcome = step["outcome"]["returned"] if step["name"].startswith("tool:") else step["outcome"]
            if step["status"] == "ok" and effects[-1:] != [outcome]:
                yield f"{key} is recorded as {step['outcome']}; its effects are {effects}"
            if step["status"] == "failed" and not (
                run["status"] in ENDED_BY_FORCE  # the daemon killed it
                if step["name"] == "command"
                else effects and effects[-1] in step["error"]["message"]
            ):
                yield f"{key} is recorded as {step['error']}; its effects are {effects}"
            if step["name"] == "fragile" and len(effects) > 1:
                yield f"{key} must not run again after a crash and has the effects {effects}"
            tries = 3 if step["name"] == "flaky" else 1
            if len(effects) > run["epoch"] * tries:
                yield f"{key} ran {len(effects)} times in {run['epoch']} epochs"
        if run["status"] in ("ok", "retried_ok"):
            missing = [key for key in seen.effects if key.startswith(run_id) and key not in keys and "/~" not in key]
            if missing:
                yield f"{run_id} is {run['status']} without a record of {missing}"


def records_are_told_once(seen: Observed) -> Wrongs:
    """Each recorded step has one `step.finished`, or a final `step.failed`; a replay tells nothing."""
    for run_id, run in seen.runs.items():
        if seen.begins_anew(run_id):
            continue
        told: Counter[tuple[Any, ...]] = Counter()
        for event in seen.timelines[run_id]:
            data = event["data"]
            if event["type"] == "step.finished" or (event["type"] == "step.failed" and data["final"]):
                told[data["branch"], data["name"], data["occurrence"], event["type"]] += 1
        recorded: Counter[tuple[Any, ...]] = Counter()
        for step in seen.steps[run_id]:
            if step["kind"] == "step" and step["status"] in ("ok", "failed"):
                type = "step.finished" if step["status"] == "ok" else "step.failed"
                key = (step["branch"], step["name"], step["occurrence"], type)
                recorded[key] += 1
                if step["status"] == "failed" and run["attempt"] > 1:  # Each attempt of the run runs it again.
                    told[key] = min(told[key], 1)
        if told != recorded:
            yield f"{run_id} tells {dict(told - recorded)} too much and {dict(recorded - told)} too little"


def nothing_ran_after_the_end(seen: Observed) -> Wrongs:
    """No step begins once its run is over."""
    for key, effects in seen.effects.items():
        run_id = key.partition("/")[0]
        if run_id not in seen.runs:
            yield f"{key} had an effect and there is no such run"
            continue
        ended = datetime.fromisoformat(seen.runs[run_id]["finished_at"]).timestamp()
        yield from (f"{key} ran after its run was over: {e}" for e in effects if e.at_ns / 1e9 > ended + 0.001)


def nobody_waits_for_nothing(seen: Observed) -> Wrongs:
    """A run is unwound once for each thing that it waits for, and again only after it was recovered or released."""
    for run_id in seen.runs:
        waited = seen.count(run_id, "run.waiting", "run.awaiting_approval")
        reasons = sum(step["kind"] not in ("step", "hook") for step in seen.steps[run_id])
        again = seen.count(run_id, "run.recovered", "run.released", "run.retrying")
        if waited > reasons * (1 + again) and not seen.begins_anew(run_id):
            yield f"{run_id} was unwound {waited} times with {reasons} things to wait for and {again} new beginnings"


def hooks_answer_once(seen: Observed) -> Wrongs:
    """Each answer is on record once and holds: its changes are the run's, its veto is its end, and nobody who has
    answered was asked again; before an answer there is at most one execution an epoch."""
    for run_id, run in seen.runs.items():
        told = [event["data"] for event in seen.timelines[run_id] if event["type"] == "hook.finished"]
        answers = [each["hook"] for each in told if each["status"] != "skipped"]
        recorded = [step for step in seen.steps[run_id] if step["kind"] == "hook"]
        if answers != [step["name"] for step in recorded]:
            yield f"{run_id} tells of {answers} and has recorded {[step['name'] for step in recorded]}"
        for step in recorded:
            key = f"{run_id}/{step['branch']}:{step['name']}/0"
            effects = [effect.nonce for effect in seen.effects.get(key, [])]
            said = step["outcome"]["veto"] or step["outcome"]["changes"]["tags"][step["name"]]
            if effects[-1:] != [said] or len(effects) > run["epoch"]:
                yield f"{key} is recorded as {said} in {run['epoch']} epochs; its effects are {effects}"
            if step["outcome"]["veto"] is None and run["tags"].get(step["name"]) != said:
                yield f"{key} said {said} and the tags are {run['tags']}"
        vetoes = [step for step in recorded if step["outcome"]["veto"] is not None]
        code = (run["error"] or {}).get("code")
        overtaken = bool(vetoes) and (run["status"] == "cancelled" or code == "deadline_exceeded")
        if bool(vetoes) != (code == "blocked") and not overtaken:
            yield f"{run_id} is {run['status']} ({run['error']}) with the vetoes {vetoes}"
        own = [step for step in seen.steps[run_id] if step["kind"] != "hook"]
        if vetoes and own:
            yield f"{run_id} was blocked and has recorded {own}"
        if run["target"] == "judged" and own and len(recorded) != 2:
            yield f"{run_id} began with the answers {answers}"
        moved = run["inputs"].get("verdict") == "move" and bool(own)
        if moved != (run["queue"] == "other") and own:
            yield f"{run_id} was to be moved: {moved}; it is in the queue {run['queue']}"


def outputs_are_what_was_recorded(seen: Observed) -> Wrongs:
    """A run's output is made of its records: nonces of steps, answers, signals, its children's outputs."""
    for run_id, run in seen.runs.items():
        if run["status"] not in ("ok", "retried_ok") or run["target"] == "pipeline":
            continue
        recorded = Counter(step["outcome"] for step in seen.steps[run_id] if step["kind"] == "step" and step["outcome"])
        if "plan" not in run["inputs"]:
            given = Counter([run["output"]])
        else:
            pairs = list(results(seen.plan(run_id), run["output"]))
            steps = ("step", "slow", "thread", "fragile", "flaky")
            given = Counter(result for operation, result in pairs if operation[0] in steps)
            children = [seen.runs[child] for child, (parent, _) in seen.births.items() if parent == run_id]
            outputs = [child["output"] for child in children] + [child["id"] for child in children]
            for operation, result in pairs:
                if operation[0] == "child" and result not in outputs:
                    yield f"{run_id}: a child gave {result}, the children are {[child['id'] for child in children]}"
        if given != recorded:
            yield f"{run_id} gave {given} and recorded {recorded}"


def pipelines_tell_each_fact_once(seen: Observed) -> Wrongs:
    """A role begins and ends once in each round, each handoff is made once, and nothing that was used is forgotten."""
    for run_id, run in seen.runs.items():
        if run["target"] != "pipeline" or seen.begins_anew(run_id):
            continue
        told: Counter[tuple[Any, ...]] = Counter()
        for event in seen.timelines[run_id]:
            if event["type"].startswith(("role.", "handoff.", "plan.", "review.", "retry.")):
                data = event["data"]
                told[event["type"], data.get("role"), data.get("retry"), data.get("handoff_id")] += 1
        yield from (f"{run_id} tells {fact} {times} times" for fact, times in told.items() if times > 1)
        replies = sum(step["name"].startswith("model:") and step["status"] == "ok" for step in seen.steps[run_id])
        if run["usage"]["requests"] != replies and run["status"] == "retried_ok":
            yield f"{run_id} has used {run['usage']}, and {replies} replies are recorded"


def cancels_held(seen: Observed) -> Wrongs:
    """Whose stop was confirmed is cancelled; whose end came first stays as it ended."""
    for stop in seen.ledger.stops:
        status = seen.runs[stop.run_id]["status"]
        if stop.stopped is True and status != "cancelled":
            yield f"{stop.run_id} was to be stopped ({stop.status}) and is {status}"
        if stop.stopped is False and status != stop.status:
            yield f"{stop.run_id} was {stop.status} when a stop came too late, and is {status}"


def children_follow_their_parents(seen: Observed) -> Wrongs:
    """Each child is told of and is there, once; an attached one that its parent's end or cancel found is cancelled."""
    spared = {stop.run_id for stop in seen.ledger.stops if not stop.children}
    for child, run in seen.runs.items():
        if (parent := run["parent_run_id"]) is None:
            continue
        told, detached = seen.births.get(child, (None, True))
        if told != parent:
            yield f"{child} is a child of {parent}, and {told} says so"
        elif detached or parent in spared or run["status"] == "cancelled":
            continue
        elif seen.ends[child] > seen.cancels[parent]:
            yield f"{child} is {run['status']}, after its parent {parent} was {seen.runs[parent]['status']}"
    for child, (parent, _) in seen.births.items():
        if child not in seen.runs:
            yield f"{parent} tells of its child {child}, which is not there"
    for run_id in seen.runs:
        if not seen.begins_anew(run_id):
            asked = sum(step["kind"] == "child" for step in seen.steps[run_id])
            born = sum(run["parent_run_id"] == run_id for run in seen.runs.values())
            if asked != born:
                yield f"{run_id} asked for {asked} children and has {born}"


def people_are_heard_once(seen: Observed) -> Wrongs:
    """One answer to an approval wins and is what the run got; none stays open."""
    won: Counter[str] = Counter()
    given: dict[str, list[Any]] = defaultdict(list)
    for decision in seen.ledger.decisions:
        approval = seen.approvals[decision.approval_id]
        if decision.status != 409 and decision.approve:
            given[approval["run_id"]].append(decision.data)
        if decision.status == 200:
            won[decision.approval_id] += 1
            wanted = "approved" if decision.approve else "denied"
            if approval["status"] != wanted or (decision.approve and approval["answer"] != decision.data):
                yield f"{decision} won and the approval is {approval}"
    yield from (f"{approval_id} was answered {times} times" for approval_id, times in won.items() if times > 1)
    yield from (f"{each['id']} is still open" for each in seen.approvals.values() if each["status"] == "pending")
    for run_id, run in seen.runs.items():
        if run["status"] in ("ok", "retried_ok") and uses(seen.plan(run_id), "ask"):
            got = [result for operation, result in results(seen.plan(run_id), run["output"]) if operation[0] == "ask"]
            if any(data not in given[run_id] for data in got) or any(got.count(data) > 1 for data in got):
                yield f"{run_id} got the answers {got}, given were {given[run_id]}"


def signals_arrive_once(seen: Observed) -> Wrongs:
    """A run takes each signal once, and none before one that was accepted earlier."""
    for run_id, run in seen.runs.items():
        if run["status"] not in ("ok", "retried_ok") or not uses(seen.plan(run_id), "signal"):
            continue
        took = [result for operation, result in results(seen.plan(run_id), run["output"]) if operation[0] == "signal"]
        sent = {each.number: each for each in seen.ledger.signals if each.run_id == run_id and each.status != 409}
        if len(set(took)) != len(took) or not set(took) <= set(sent):
            yield f"{run_id} took {took} of the signals {list(sent)}"
        elif not seen.begins_anew(run_id):
            for each in sent.values():
                later = [number for number in took if each.answered_at and sent[number].sent_at > each.answered_at]
                if each.number not in took and later:
                    yield f"{run_id} took {later} and not {each}, which was accepted before"


def ends_have_reasons(seen: Observed) -> Wrongs:
    """A run that nothing befell ends well; what else it may be depends on what was done to it."""
    for run_id, run in seen.runs.items():
        code = (run["error"] or {}).get("code")
        if (run["status"], code) not in excuses.ways_to_end(seen, run_id):
            yield f"{run_id} ({run['target']} {seen.plan(run_id)}) is {run['status']} for no reason: {run['error']}"


CHECKS: tuple[Callable[[Observed], Wrongs], ...] = (
    accepted_runs_are_there,
    timelines_are_whole,
    readers_saw_the_truth,
    recorded_steps_never_ran_again,
    records_are_told_once,
    runs_end_once,
    nothing_ran_after_the_end,
    nobody_waits_for_nothing,
    hooks_answer_once,
    outputs_are_what_was_recorded,
    pipelines_tell_each_fact_once,
    cancels_held,
    children_follow_their_parents,
    people_are_heard_once,
    signals_arrive_once,
    ends_have_reasons,
)


def wrongs(seen: Observed) -> list[str]:
    """Everything that does not hold."""
    found = [f"at once: {each}" for each in seen.ledger.wrong]
    for check in CHECKS:
        new = [f"{check.__name__}: {each}" for each in check(seen)]
        found += new
        if new and check is runs_end_once:
            break  # The others presume that all is over.
    return found

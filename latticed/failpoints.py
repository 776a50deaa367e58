"""Named places to die at: compiled in always, active only by environment.

`LATTICED_FAILPOINTS=submit.before,step.after_effect:3` kills the process with SIGKILL at the
first time the first place is passed, or at the third time the second is, whichever comes first. Before it
dies the process appends the place's name to the file named by `LATTICED_FAILPOINT_LOG`, if that is set, so
that a crash test knows where it died.
"""

import os
import signal

FAILPOINTS: dict[str, str] = {
    "migrate.before": "the database is there, its schema is missing or old",
    "migrate.after": "the schema is up to date, nothing else has begun",
    "commit.before": "a batch is executed, not committed",
    "commit.after": "a batch is committed, nobody has been told",
    "submit.before": "a submission was read, nothing is written",
    "submit.after": "the queued row is committed, the client has no answer and the dispatcher no wake-up",
    "claim.before": "a run was picked, its claim is not written",
    "claim.after": "the claim is committed, user code has not begun",
    "step.before_effect": "a step is about to run",
    "step.after_effect": "a step's effect happened, its record is not written",
    "step.after_record": "a step's record is committed, user code has not got it",
    "wait.before": "a run is unwound, its move to waiting is not written",
    "wait.after": "a run waits on disk, its owner still holds the slot",
    "expire.before": "a deadline has passed, the end of its sleeping run is not written",
    "expire.after": "the end of a sleeping run whose deadline has passed is committed",
    "wake.before": "a timer is due, the wake-up is not written",
    "wake.after": "the wake-up is committed, the dispatcher has not been told",
    "child.before": "a child is asked for, not written",
    "child.after": "the child's row and its id in the journal are committed",
    "signal.before": "a signal was read, nothing is written",
    "signal.after": "a signal is committed, its run has not been told",
    "ask.before": "an approval is asked for, not written",
    "ask.after": "an approval is open, its run has not unwound",
    "answer.before": "an answer was read, nothing is written",
    "answer.after": "an answer is committed, its run has not been told",
    "stop.before": "a stop was read, nothing is written",
    "stop.after": "the cancel is on record, nothing was told to wind down",
    "cancel.before_end": "the coroutine has ended, the run is not yet cancelled on disk",
    "end.before": "user code has ended, the terminal move is not written",
    "end.after": "the terminal move is committed, the slot is not given back",
    "retry.before": "an attempt failed, the backoff is not written",
    "retry.after": "the backoff is committed",
    "recover.before": "orphans are known, none is dealt with",
    "recover.after": "orphans are dealt with, the door is not open",
    "command.started": "a command's process is running",
    "command.ended": "a command's process has ended, its step is not recorded",
    "stop.before_answer": "a cancel is on record, the client has no answer",
    "door.before_address": "the door is open, nobody was told where",
    "drain.after": "every run is given back, the process has not ended",
    "token.after_file": "the admin token's file is written, the token is not kept",
    "token.before": "a token was asked for, nothing is written",
    "token.kept": "a token is committed, nobody has its text",
    "revoke.before": "the end of a token was asked for, nothing is written",
    "revoke.after": "a token's end is committed, what it opened goes on",
    "sign_in.before": "who signs in is known, no session is written",
    "sign_in.after": "a session is committed, its browser has no cookie",
    "sign_out.before": "a sign-out was read, nothing is written",
    "sign_out.after": "a session's end is committed, what it opened goes on",
    "notes.before": "refusals, and when tokens were used, are known and not written",
    "notes.after": "refusals, and when tokens were used, are committed, and in memory they are not",
    "release.before": "a drained run's code has ended, its release is not written",
    "release.after": "a drained run is given back on disk",
    "cancel.after_end": "a run is cancelled on disk, its slot is not given back",
    "recover.half": "some orphans are dealt with, others not",
    "remove.before": "the removal of a workspace was read, nothing is written",
    "remove.marked": "a workspace is marked as removed, nobody was told and nothing is deleted",
    "remove.before_cancel": "runs of a removed workspace are known, their cancel is not on record",
    "remove.half": "a removed workspace has no runs any more, but other rows",
    "remove.after": "a removed workspace is gone, nobody was told that its name is free",
    "prune.slice": "some rows of runs that are to go are deleted, others perhaps not",
    "prune.retired": "runs whose time is over are out of reach, nothing of them is deleted",
    "hook.before": "a hook is about to be asked",
    "hook.answered": "a hook has answered, nothing of that is written",
    "hook.after": "a hook's answer and its changes are committed, the next is not asked",
    "block.before": "a hook said no, the end of its run is not written",
    "block.after": "the end of a blocked run is committed, the slot is not given back",
    "queue.before": "a hook has chosen another queue, the release into it is not written",
    "queue.after": "the release into another queue is committed, the slot is not given back",
    "deliver.before": "deliveries were read, none of them is sent",
    "deliver.answered": "a receiver has answered, that is not recorded",
    "deliver.recorded": "what became of deliveries is committed, the courier does not know",
    "redeliver.after": "a delivery is in the outbox again, nobody was told",
    "registered.after": "a hook is registered on disk, it is not in force",
    "changed.before": "a registered hook is to be another, nothing is written",
    "changed.after": "a registered hook is another on disk, in force is what it was",
    "dropped.before": "a registered hook is not in force any more, on disk it is there",
    "dropped.after": "a registered hook is gone on disk, nobody was told",
    "workspace.before": "a workspace was asked for, nothing is written",
    "workspace.after": "a workspace is committed, the client has no answer",
    "overtaken.before": "a cancel was faster than a veto, what the hook has said is not written",
    "overtaken.after": "what the hook of an overtaken veto has said is committed, the end of its run is not written",
    "lapse.before": "the time of approvals is over, nothing of that is written",
    "lapse.after": "approvals have expired on disk, their runs are not entered",
    "signal.taken": "a signal's consumption is recorded, user code has not got it",
    "model.before_request": "a model is about to be asked",
    "model.after_reply": "a model's reply is whole, and not recorded",
    "tool.before_call": "a tool is about to be called",
    "tool.after_call": "a tool has answered, its answer is not recorded",
    "role.after_start": "a role has begun on disk, and has done nothing yet",
    "role.after_end": "a role's end and the handoff to the next are on disk, the next has not begun",
    "plan.after_step": "a step of a plan is over on disk, the next has not begun",
    "review.after": "a review is on disk, what follows from it is not",
}
"""Every failpoint and what holds when the process dies there."""

_armed: dict[str, int] = {}


def arm(spec: str) -> None:
    """Reads `name[:nth],…`.

    Raises:
        ValueError: a name that is not in `FAILPOINTS`.
    """
    for item in filter(None, spec.split(",")):
        name, _, nth = item.strip().partition(":")
        if name not in FAILPOINTS:
            raise ValueError(f"unknown failpoint {name!r}")
        _armed[name] = int(nth or 1)


def hit(name: str) -> None:
    """Dies here if this place is armed and it is its turn; otherwise costs one look-up in an empty dict."""
    if _armed and name in _armed:
        _armed[name] -= 1
        if _armed[name] <= 0:
            if path := os.environ.get("LATTICED_FAILPOINT_LOG"):
                with open(path, "a", encoding="ascii") as log:
                    log.write(name + "\n")
                    log.flush()
                    os.fsync(log.fileno())
            os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get("LATTICED_FAILPOINTS", ""))

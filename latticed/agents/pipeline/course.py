"""Which role comes next, and how a pipeline ends. Pure: every rule of it stands in `decide`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

EXECUTOR, PLANNER, REVIEWER = "executor", "planner", "reviewer"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a role ended. `approved`, `rejected` and `retry` are what a reviewer says; a reviewer that said nothing that
    can be read has `failed`. Of any other role, `rejected` means that its plan was."""

    how: Literal["ok", "failed", "approved", "rejected", "retry"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Go:
    """On with the role at this place."""

    position: int


@dataclass(frozen=True, slots=True)
class Rewind:
    """Back to the executor at this place, with what the reviewer said."""

    position: int


@dataclass(frozen=True, slots=True)
class Finish:
    """A good end."""

    status: Literal["ok", "retried_ok", "partial"]


@dataclass(frozen=True, slots=True)
class Fail:
    """A bad one."""

    code: Literal["role_failed", "plan_rejected", "review_rejected", "retries_exhausted"]
    message: str


Move = Go | Rewind | Finish | Fail


def has_failed(role: str, ended: Ended) -> bool:
    """Whether the role has not done its part. A reviewer that rejects has; a planner whose plan is rejected has not."""
    return ended.how == "failed" or (ended.how == "rejected" and role != REVIEWER)


def decide(
    roles: Sequence[str], position: int, ended: Ended, *, retries: int, most_retries: int, complete: bool
) -> Move:
    """What follows on the end of the role at `position`.

    `retries` is how often the work went back already; `complete`, whether everything planned was done and no role
    failed for good. A failed role is for a reviewer that is still to come to judge, but for a planner, without which
    there is nothing to do; without such a reviewer the pipeline has failed.
    """
    role = roles[position]
    match ended.how:
        case "rejected" if role != REVIEWER:
            return Fail("plan_rejected", f"the plan was rejected: {ended.reason}")
        case "rejected":
            return Fail("review_rejected", f"the {role} rejected the work: {ended.reason}")
        case "retry":
            back = [place for place in range(position) if roles[place] == EXECUTOR]
            if not back:
                return Fail("retries_exhausted", f"the {role} wants another try, and no executor came before it")
            if retries >= most_retries:
                return Fail(
                    "retries_exhausted", f"the {role} wants another try after {retries} retries: {ended.reason}"
                )
            return Rewind(back[-1])
        case "failed" if role == PLANNER or REVIEWER not in roles[position + 1 :]:
            return Fail("role_failed", f"the {role} failed: {ended.reason}")
    if position + 1 < len(roles):
        return Go(position + 1)
    if not complete:
        return Finish("partial")
    return Finish("retried_ok" if retries else "ok")

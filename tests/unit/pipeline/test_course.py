"""Which role comes next: every rule, and what holds whatever the roles and their ends are."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latticed.agents.pipeline.course import Ended, Fail, Finish, Go, Move, Rewind, decide

DEFAULT = ("planner", "executor", "reviewer")
ROLES = st.lists(
    st.sampled_from(["researcher", "planner", "executor", "reviewer", "release", "editor"]), min_size=1, unique=True
)
HOWS: dict[str, tuple[str, ...]] = {"planner": ("ok", "failed", "rejected"), "executor": ("ok", "failed", "rejected"),
        "reviewer": ("approved", "rejected", "retry", "failed")}  # fmt: skip


def after(
    how: Any, roles: tuple[str, ...] = DEFAULT, at: int | None = None, *, retries: int = 0, complete: bool = True
) -> Move:
    position = len(roles) - 1 if at is None else at
    return decide(roles, position, Ended(how, "so"), retries=retries, most_retries=2, complete=complete)


def test_an_approval_at_the_end_is_ok_and_after_a_retry_it_says_so() -> None:
    assert after("approved") == Finish("ok")
    assert after("approved", retries=1) == Finish("retried_ok")


def test_what_was_skipped_or_failed_and_is_approved_all_the_same_is_partial() -> None:
    assert after("approved", complete=False, retries=2) == Finish("partial")


def test_a_retry_goes_back_to_the_executor_until_none_is_left() -> None:
    assert after("retry", retries=1) == Rewind(1)
    exhausted = after("retry", retries=2)
    assert isinstance(exhausted, Fail)
    assert exhausted.code == "retries_exhausted"


def test_a_retry_without_an_executor_to_go_back_to_fails() -> None:
    alone = after("retry", ("reviewer", "executor"), 0)
    assert isinstance(alone, Fail)
    assert alone.code == "retries_exhausted"


def test_a_rejection_fails_and_says_of_what() -> None:
    of_work, of_plan = after("rejected"), after("rejected", at=0)
    assert isinstance(of_work, Fail)
    assert isinstance(of_plan, Fail)
    assert (of_work.code, of_plan.code) == ("review_rejected", "plan_rejected")


@pytest.mark.parametrize("roles", [("planner", "executor"), ("executor",), ("researcher", "release"), DEFAULT])
def test_a_failed_last_role_fails_the_run(roles: tuple[str, ...]) -> None:
    failed = after("failed", roles)
    assert isinstance(failed, Fail)
    assert failed.code == "role_failed"


def test_a_failed_executor_is_for_the_reviewer_to_judge_and_a_failed_planner_is_not() -> None:
    assert after("failed", at=1) == Go(2)
    assert isinstance(after("failed", at=0), Fail)


@given(roles=ROLES, most=st.integers(0, 5), data=st.data())
def test_every_course_ends_and_never_well_after_a_bad_word(roles: list[str], most: int, data: st.DataObject) -> None:
    position, retries, failed = 0, 0, set[str]()
    for _ in range(len(roles) * (most + 1) + 1):
        role = roles[position]
        failed.discard(role)
        how: Any = data.draw(st.sampled_from(HOWS.get(role, ("ok", "failed"))))
        move = decide(roles, position, Ended(how), retries=retries, most_retries=most, complete=not failed)
        if how == "failed":
            failed.add(role)
        match move:
            case Go(place):
                assert place == position + 1
                assert how not in ("rejected", "retry")
            case Rewind(place):
                retries += 1
                assert how == "retry"
                assert roles[place] == "executor"
                assert retries <= most
            case Finish(status):
                assert how in ("ok", "approved")
                assert position == len(roles) - 1
                assert status == ("partial" if failed else "retried_ok" if retries else "ok")
                assert not failed or "reviewer" in roles
                return
            case Fail():
                assert how in ("failed", "rejected", "retry")
                return
        position = move.position
    pytest.fail("it goes on for ever")

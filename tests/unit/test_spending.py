"""What is used, and when that is too much."""

import json

import pytest

from latticed.agents.spending import Used, recorded
from latticed.config.modelled import BudgetConfig
from latticed.models.records import StepRecord


def record(name: str, outcome: object, status: str = "ok", epoch: int = 1) -> StepRecord:
    return StepRecord(1, "step", "", name, 0, status, 1, epoch, 0, 0, None, json.dumps(outcome).encode(), b"null")


@pytest.mark.parametrize(
    ("budget", "spent", "over"),
    [
        (BudgetConfig(max_requests=None), False, False),
        (BudgetConfig(max_requests=2), True, False),
        (BudgetConfig(max_requests=1), True, True),
        (BudgetConfig(max_tokens=31), False, False),
        (BudgetConfig(max_tokens=30), True, False),
        (BudgetConfig(max_tokens=29), True, True),
        (BudgetConfig(max_cost_usd=0.5), True, False),
        (BudgetConfig(max_cost_usd=0.4), True, True),
        (BudgetConfig(max_cost_usd=0.6), False, False),
    ],
)
def test_a_budget_is_spent_when_the_next_request_would_exceed_it(budget: BudgetConfig, spent: bool, over: bool) -> None:
    used = Used(2, 20, 10, 0.5)
    assert (used.spent(budget) is not None, used.over(budget) is not None) == (spent, over)


def test_a_budget_of_zero_is_spent_before_anything_is_used() -> None:
    for name in ("max_requests", "max_tokens", "max_cost_usd"):
        assert name in str(Used().spent(BudgetConfig.model_validate({name: 0})))


def test_what_is_recorded_is_counted_once_and_not_what_a_rerun_took_over() -> None:
    reply = {"reply": {}, "used": Used(1, 10, 5, 0.1).view()}
    records = [
        record("model:a", reply), record("model:b", reply), record("model:a", {"again_seconds": 1}),
        record("tool:x", reply), record("model:a", reply, status="failed"), record("model:a", reply, epoch=0),
    ]  # fmt: skip
    assert recorded(records) == Used(2, 20, 10, 0.2)

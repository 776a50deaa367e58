"""What a run has used of its models, and whether it may use more."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from latticed.config.modelled import BudgetConfig
from latticed.models.records import StepRecord

MODEL_STEP = "model:"
"""How the names of the steps begin that are a request to a model."""


@dataclass(slots=True)
class Used:
    """Requests that were answered, their tokens, and what they cost in US dollars."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0

    def add(self, other: "Used") -> None:
        """Counts `other`, too."""
        self.requests += other.requests
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cost_usd = round(self.cost_usd + other.cost_usd, 9)

    def view(self) -> dict[str, Any]:
        """As models.runs.UsageView."""
        return asdict(self)

    def over(self, budget: BudgetConfig) -> str | None:
        """Which limit is exceeded; None if none is."""
        return _first_over(self._against(budget), beyond=True)

    def spent(self, budget: BudgetConfig) -> str | None:
        """Which limit is reached, so that another request would exceed it; None if none is."""
        return _first_over(self._against(budget), beyond=False)

    def _against(self, budget: BudgetConfig) -> list[tuple[str, float, float | None]]:
        return [
            ("max_requests", self.requests, budget.max_requests),
            ("max_tokens", self.input_tokens + self.output_tokens, budget.max_tokens),
            ("max_cost_usd", self.cost_usd, budget.max_cost_usd),
        ]


def _first_over(limits: list[tuple[str, float, float | None]], *, beyond: bool) -> str | None:
    for name, used, most in limits:
        if most is not None and (used > most if beyond else used >= most):
            return f"budget.{name} is {most:g}, and {used:g} {'is' if used == 1 else 'are'} used"
    return None


def recorded(records: Iterable[StepRecord]) -> Used:
    """What the replies in a run's journal have used; not those that a rerun has taken over from another run, which paid
    for them."""
    used = Used()
    for record in records:
        if record.name.startswith(MODEL_STEP) and record.status == "ok" and record.epoch:
            outcome = orjson.loads(record.outcome)
            if isinstance(outcome, dict) and isinstance(paid := outcome.get("used"), dict):
                used.add(Used(**paid))
    return used

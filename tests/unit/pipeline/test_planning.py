"""What is a plan, and which plans may be carried out."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latticed.models.pipeline import STEP_LIMIT
from latticed.models.planning import BadPlan, objection_to, steps_of


def test_texts_and_objects_are_steps_in_order() -> None:
    steps = steps_of(["  look ", {"description": "act", "tool": "hammer"}, {"description": "run", "workflow": "w"}])
    assert [(step.index, step.description, step.tool, step.workflow) for step in steps] == [
        (1, "look", None, None), (2, "act", "hammer", None), (3, "run", None, "w"),
    ]  # fmt: skip
    assert {step.status for step in steps} == {"planned"}


@pytest.mark.parametrize(
    "given",
    ["one text", {"steps": []}, None, [5], [None], [""], [" \n"], [{"description": ""}], [{"tool": "x"}],
     [{"description": "x", "colour": "red"}], [{"description": "x", "tool": 5}],
     [{"description": "x", "tool": "t", "workflow": "w"}]],
)  # fmt: skip
def test_what_is_no_plan_is_refused(given: Any) -> None:
    with pytest.raises(BadPlan):
        steps_of(given)


def test_the_rules() -> None:
    good = steps_of(["look", {"description": "act", "tool": "hammer"}])
    assert objection_to(good, ["hammer"]) is None
    assert "no steps" in (objection_to([], []) or "")
    assert "'hammer'" in (objection_to(good, ["saw"]) or "")
    assert "it has saw" in (objection_to(good, ["saw"]) or "")
    assert objection_to(good, None) is None, "what a server's tools are is not known yet"
    assert "2000 characters" in (objection_to(steps_of(["x" * 2001]), []) or "")


def test_a_plan_of_ten_thousand_steps_is_not_carried_out() -> None:
    told = objection_to(steps_of(["again"] * 10_000), [])
    assert told == f"it has 10000 steps, more than the {STEP_LIMIT} that a plan may have"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(
    st.sampled_from(["description", "tool", "workflow", "x"]), x)))  # fmt: skip
def test_whatever_it_is_it_is_steps_or_refused(value: Any) -> None:
    try:
        steps = steps_of(value)
    except BadPlan:
        return
    assert [step.index for step in steps] == list(range(1, len(value) + 1))

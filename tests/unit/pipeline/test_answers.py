"""What counts as an answer of a model."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latticed.agents.pipeline.answers import BadAnswer, Findings, PlanAnswer, Verdict, read

GOOD = {"outcome": "retry", "reason": "thin", "confidence": 0.4, "notes": "more"}


@pytest.mark.parametrize("text", [json.dumps(GOOD), f"\n{json.dumps(GOOD)} ", f"```json\n{json.dumps(GOOD)}\n```",
                                  f"Here:\n```\n{json.dumps(GOOD)}\n```\nDone."])  # fmt: skip
def test_json_alone_or_in_one_block(text: str) -> None:
    assert read(Verdict, text).model_dump() == GOOD


@pytest.mark.parametrize(
    "text",
    ["banana", "", "approve", '"approve"', "[]", "null", "{}", '{"outcome": "yes"}', '{"outcome": "Approve"}',
     '{"outcome": "approve", "confidence": 7}', '{"outcome": ["approve"]}', '{"outcome": "approve"',
     'I approve. {"outcome": "approve"}', '```\n{"outcome":"approve"}\n```\n```\n{"outcome":"reject"}\n```'],
)  # fmt: skip
def test_nonsense_is_no_verdict(text: str) -> None:
    with pytest.raises(BadAnswer):
        read(Verdict, text)


@given(st.text())
def test_no_text_that_is_not_json_is_a_verdict(text: str) -> None:
    try:
        value: Any = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        with pytest.raises(BadAnswer):
            read(Verdict, text)


def test_notes_may_be_a_list_of_lines() -> None:
    assert read(Verdict, '{"outcome": "retry", "notes": ["a", "b"]}').notes == "a\nb"


def test_a_plan_of_texts_or_objects_and_never_an_empty_one() -> None:
    plan = read(PlanAnswer, '{"steps": ["a", {"description": "b", "tool": "t"}]}')
    assert [(step.description, step.tool) for step in plan.steps] == [("a", None), ("b", "t")]
    for text in ('{"steps": []}', '{"steps": [""]}', '{"steps": 5}', '{"steps": null}', "{}"):
        with pytest.raises(BadAnswer):
            read(PlanAnswer, text)


def test_at_most_ten_findings() -> None:
    assert read(Findings, json.dumps({"items": ["x"] * 10})).items == ["x"] * 10
    with pytest.raises(BadAnswer):
        read(Findings, json.dumps({"items": ["x"] * 11}))


def test_a_plan_may_be_a_bare_list_of_steps() -> None:
    assert [step.description for step in read(PlanAnswer, '["a", "b"]').steps] == ["a", "b"]

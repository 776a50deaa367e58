"""The hooks that come with latticed: rules in CEL, and redaction."""

from pathlib import Path
from typing import Any

import pytest

from latticed.config import load
from latticed.expressions import Expression
from latticed.hooks.loading import load_hooks
from latticed.hooks.policy import Policy
from latticed.hooks.redaction import Redaction
from latticed.models.hooks import Block

ROOT = Path(__file__).resolve().parents[2]
RUN = {"id": "run_1", "target": "t", "goal": "go", "priority": 0, "inputs": {"n": 5}, "tags": {"team": "a"}}


def judged(*rules: dict[str, Any], **run: Any) -> Any:
    return Policy(rules=list(rules))({"run": RUN | run, "workspace": "w"})


def test_the_first_rule_that_blocks_decides() -> None:
    small, large = {"when": "run.inputs.n < 5", "block": "small"}, {"when": "run.inputs.n > 3", "block": "large"}
    assert judged(small, large, {"block": "all"}) == Block("large")
    assert judged(small) is None


def test_an_allowed_run_is_not_looked_at_further() -> None:
    assert judged({"when": "workspace == 'w'", "allow": True}, {"block": "all"}) is None
    assert judged({"tags": {"x": "1"}, "allow": True}, {"tags": {"y": "2"}}) == {"tags": {"team": "a", "x": "1"}}


def test_rules_choose_a_queue_and_add_tags() -> None:
    rules = [{"queue": "slow", "tags": {"a": "1"}}, {"when": "run.inputs.n == 5", "queue": "fast", "tags": {"b": "2"}}]
    assert judged(*rules) == {"queue": "fast", "tags": {"team": "a", "a": "1", "b": "2"}}


@pytest.mark.parametrize(
    ("when", "complaint"),
    [
        ("run.inputs.missing > 1", "rule 1: there is no key 'missing'; ask has"),
        ("run.inputs.n > 'a'", "rule 1: No such overload"),
        ("run.inputs.n", "rule 1: `when` is not true or false but int"),
        ("nobody()", "rule 1: "),
        ("1 / 0 == 1", "rule 1: "),
    ],
)
def test_a_rule_that_cannot_be_judged_is_an_error(when: str, complaint: str) -> None:
    with pytest.raises(ValueError) as failed:
        judged({"when": when, "block": "x"})
    assert str(failed.value).startswith(complaint)


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ({"when": "run. =="}, "rule 2: "),
        ({"whem": "true"}, "rule 2: whem"),
        ({"allow": False}, "rule 2: allow"),
        ({"block": "x", "queue": "y"}, "rule 2: a rule that blocks does nothing else"),
        ({"tags": {"a": 1}}, "rule 2: tags.a"),
        ("true", "rule 2: "),
        ({"when": "x" * 5000}, "rule 2: an expression has at most 4096 bytes, this one 5000"),
    ],
)
def test_a_bad_rule_is_found_at_start(rule: Any, complaint: str) -> None:
    with pytest.raises(ValueError) as failed:
        Policy(rules=[{"allow": True}, rule])
    assert str(failed.value).startswith(complaint)


@pytest.mark.parametrize("deep", ["(" * 40 + "1" + ")" * 40, "[" * 33 + "]" * 33, "f(" * 40 + ")" * 40])
def test_an_expression_that_is_nested_too_deeply_is_not_parsed(deep: str) -> None:
    with pytest.raises(ValueError, match="nested at most 32"):
        Expression(deep)


def test_brackets_in_a_text_are_no_nesting() -> None:
    assert Expression('"' + "(" * 100 + '" == "(" || true').evaluate({}) is True


def test_what_is_long_but_allowed_is_evaluated() -> None:
    assert Expression("1" + "+1" * 2000).evaluate({}) == 2001
    assert Expression("true" + " && true" * 450).evaluate({}) is True


def test_the_policy_that_is_shipped_holds(tmp_path: Path) -> None:
    shipped = load(ROOT / "config" / "latticed.toml", tmp_path, {}, {})
    enabled = {name: hook.model_copy(update={"enabled": True}) for name, hook in shipped.hooks.items()}
    loaded = load_hooks(shipped.model_copy(update={"hooks": enabled}))
    assert [spec.name for spec in loaded.specs] == ["policy", "redaction", "syslog", "notify"]
    policy = loaded.functions["policy"]

    def judge(target: str, goal: str, **inputs: str) -> Any:
        return policy({"run": RUN | {"target": target, "goal": goal, "inputs": inputs}, "workspace": "w"})

    assert isinstance(judge("sizes", "/"), Block)
    assert isinstance(judge("search", "word", path="/"), Block)
    assert judge("sizes", "/srv") is judge("search", "/", path="/srv") is judge("search", "word") is None


def redacted(inputs: Any, *keys: str) -> Any:
    return Redaction(keys=list(keys or ("password", "token", "api_key")))({"run": {"inputs": inputs}})


def test_exactly_the_named_keys_are_masked_at_any_depth() -> None:
    inputs = {
        "Password": "x", "token": ["a", "b"], "max_tokens": 5, "tokens": 1, "password_hint": "h", "api-key": "k",
        "deep": [{"api_key": {"id": 1}, "name": "n"}, [{"TOKEN": 0}]], "none": None,
    }  # fmt: skip
    mask = "[redacted]"
    assert redacted(inputs) == {
        "inputs": inputs
        | {"Password": mask, "token": mask, "deep": [{"api_key": mask, "name": "n"}, [{"TOKEN": mask}]]}
    }
    assert inputs["Password"] == "x"


def test_where_nothing_is_to_be_masked_nothing_changes() -> None:
    assert redacted({"max_tokens": 5, "token": None}) is None
    assert redacted({}) is None


def test_a_masked_input_stays_as_it_is() -> None:
    assert redacted({"token": "[redacted]"}) is None


@pytest.mark.parametrize("settings", [{"keys": []}, {"keys": "password"}, {"keys": [1]}, {"keys": ["a"], "mask": 1}])
def test_bad_settings_are_found_at_start(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Redaction(**settings)

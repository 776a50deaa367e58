"""Hooks as data: which are asked and in what order, and what counts as an answer."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from latticed.models.hooks import Answer, AnyHook, Block, HookFailed, HookSpec, clip, clip_end, payload
from latticed.models.matching import HookIndex


def hook(name: str, workspace: str | None = None, **fields: Any) -> HookSpec:
    """A webhook; with a workspace it was registered there."""
    table: Any = TypeAdapter(AnyHook).validate_python(
        {"use": "webhook", "url": "https://x.example/", "point": "pre_run"} | fields
    )
    return HookSpec(name, table, None if workspace is None else f"hook_{name}_{workspace}", workspace)


def names(index: HookIndex, point: str = "pre_run", workspace: str = "w", **about: Any) -> list[str]:
    asked = {"kind": "agent", "target": "t"} | about
    return [found.name for found in index.at(point, workspace, **asked)]


def test_the_lowest_order_is_first_and_among_equals_the_name_decides() -> None:
    index = HookIndex([hook("b"), hook("a", "w"), hook("z", order=-1), hook("c", order=101), hook("B")])
    assert names(index) == ["z", "B", "a", "b", "c"]


def test_a_hook_is_asked_about_what_it_is_for_only() -> None:
    index = HookIndex(
        [
            hook("all"),
            hook("kind", kind="flow"),
            hook("target", targets=["t", "u"]),
            hook("place", workspaces=["v"]),
            hook("registered", "v"),
            hook("off", enabled=False),
            hook("elsewhere", point="post_run"),
        ]
    )
    assert names(index) == ["all", "target"]
    assert names(index, target="other") == ["all"]
    assert names(index, kind="flow", target="t") == ["all", "kind", "target"]
    assert names(index, workspace="v") == ["all", "place", "registered", "target"]
    assert names(index, "post_run") == ["elsewhere"]
    assert names(index, "pre_tool") == []
    assert (index.has("pre_run"), index.has("pre_tool")) == (True, False)


def test_a_subscription_chooses_its_events() -> None:
    every, some = hook("every", point="on_event"), hook("some", point="on_event", events=["run.finished"])
    index = HookIndex([every, some])
    assert names(index, "on_event", event_type="run.finished") == ["every", "some"]
    assert names(index, "on_event", event_type="run.queued") == ["every"]


def test_a_hook_is_found_by_its_key_also_when_it_is_not_enabled() -> None:
    filed, registered = hook("same", enabled=False), hook("same", "w")
    index = HookIndex([filed, registered])
    assert index.find("same") is filed
    assert index.find("hook_same_w") is registered
    assert index.find("other") is None
    assert {found.key for found in index} == {"same", "hook_same_w"}


@pytest.mark.parametrize(("point", "on_error"), [("pre_run", "block"), ("pre_tool", "block"), ("post_run", "ignore")])
def test_what_is_asked_before_fails_closed_unless_it_is_said_otherwise(point: str, on_error: str) -> None:
    assert hook("a", point=point).table.on_error == on_error
    assert hook("a", point=point, on_error="ignore").table.on_error == "ignore"


@pytest.mark.parametrize(
    "fields",
    [
        {"events": ["run.finished"]},
        {"timeout_seconds": 0},
        {"timeout_seconds": float("inf")},
        {"workspaces": ["a b"]},
        {"secret": "hunter2"},
        {"url": "file:///etc/passwd"},
        {"on_error": "retry"},
        {"point": "mid_run"},
        {"more": 1},
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        hook("a", **fields)
    assert "hunter2" not in refused.value.errors()[0]["msg"]


def test_a_payload_says_who_is_asked_about_what() -> None:
    told = payload(hook("a", point="pre_tool"), "w", {"id": "run_1"}, tool={"name": "search", "args": {}})
    assert told == {
        "hook": "a", "point": "pre_tool", "workspace": "w", "run": {"id": "run_1"},
        "tool": {"name": "search", "args": {}},
    }  # fmt: skip


def test_what_a_function_may_return() -> None:
    assert Answer.of(None) == Answer()
    assert Answer.of(Block(" no ")) == Answer.of({"block": "no"}) == Answer(block="no")
    assert Answer.of({"tags": {}}).changes == {"tags": {}}
    assert Answer.of(Block("x" * 600)).block == "x" * 500


@pytest.mark.parametrize(
    "value", ["no", 1, True, [], {"block": ""}, {"block": None}, {"block": "x", "tags": {}}, Block("")]
)
def test_what_it_may_not(value: Any) -> None:
    with pytest.raises(HookFailed):
        Answer.of(value)


def test_what_a_program_may_print() -> None:
    assert Answer.read(b" \n", "said") == Answer.read(b"null\n", "said") == Answer(output="said")
    assert Answer.read(b'{"block": "no"}\n') == Answer(block="no")
    for body in (b"[]", b"{", b'"no"', b"\xff", b'{"a": NaN}'):
        with pytest.raises(HookFailed) as failed:
            Answer.read(body, "said")
        assert failed.value.output == "said"


def test_what_is_kept_can_be_stored() -> None:
    assert clip("a\ud800\0b", 4) == "a?\ufffdb"
    assert clip_end("x" * 9 + "end", 3) == "end"

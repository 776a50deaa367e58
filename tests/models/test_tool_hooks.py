"""Hooks around the tool calls of a model: asked before each, told after it, each once."""

from tests.conftest import Daemon, wait_until
from tests.endpoint import Call, Endpoint, Say
from tests.models.conftest import Ledger


def told(daemon: Daemon, run_id: str) -> list[tuple[str, str, str]]:
    """Point, status and tool of each execution of a hook of a run."""
    events = [event["data"] for event in daemon.events(run_id, "hook.finished")]
    return [(each["point"], each["status"], each["tool"]) for each in events]


def test_a_hook_can_block_a_tool_and_the_model_is_told(modelled: Daemon, endpoint: Endpoint, ledger: Ledger) -> None:
    run = modelled.run("hooked", endpoint.script("unlucky", Call("add", a=1300, b=1), Say("Not that one.")))
    assert run["output"] == "Not that one."
    assert "guard: 1300 brings bad luck" in endpoint.told("unlucky")[0]
    assert ledger.lines("add 1300") == []
    assert told(modelled, run["id"])[0] == ("pre_tool", "blocked", "add")


def test_a_hook_can_change_what_a_tool_is_called_with(modelled: Daemon, endpoint: Endpoint, ledger: Ledger) -> None:
    run = modelled.run("hooked", endpoint.script("changed", Call("add", a=2100, b=1), Say("2201")))
    assert run["output"] == "2201"
    assert ledger.lines("add 2100") == []
    assert ledger.lines("add 2200") == ["add 2200 1"]
    assert ledger.lines("witness add 2200") == ["witness add 2200 ['returned']"]
    assert told(modelled, run["id"]) == [("pre_tool", "ok", "add"), ("post_tool", "ok", "add")]


def test_each_of_several_calls_has_hooks_of_its_own(modelled: Daemon, endpoint: Endpoint, ledger: Ledger) -> None:
    both = Call.several(("add", {"a": 1300, "b": 2}), ("add", {"a": 3100, "b": 2}))
    run = modelled.run("hooked", endpoint.script("several", both, Say("one of them")))
    assert ledger.lines("add 3100") == ["add 3100 2"]
    assert sorted(told(modelled, run["id"])) == [
        ("post_tool", "ok", "add"), ("post_tool", "ok", "add"),
        ("pre_tool", "blocked", "add"), ("pre_tool", "ok", "add"),
    ]  # fmt: skip
    kept = modelled.client.get(modelled.path("hooks/deliveries"), params={"run": run["id"]}).json()["items"]
    assert len(kept) == 4


def test_a_hook_that_answered_is_not_asked_again_after_a_crash(
    mortal: Daemon, endpoint: Endpoint, done: Ledger
) -> None:  # fmt: skip
    run = mortal.post_run("hooked", endpoint.script("crashed", Call("hold", name="guarded"), Say("held")))
    wait_until(lambda: done.lines("hold guarded"))
    mortal.kill()
    done.touch("guarded")
    mortal.start()
    assert mortal.wait(run["id"])["output"] == "held"
    assert done.lines("hold guarded") == ["hold guarded"] * 2
    assert done.lines("guard") == ["guard hold guarded"]
    assert done.lines("witness") == ["witness hold guarded ['returned']"]
    assert told(mortal, run["id"]) == [("pre_tool", "ok", "hold"), ("post_tool", "ok", "hold")]

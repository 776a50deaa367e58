"""Which tools may be called: by themselves, once a person agrees, or not at all."""

from tests.conftest import Daemon
from tests.endpoint import Call, Endpoint, Say
from tests.models.conftest import Ledger, answer, approve, pending


def test_a_denied_tool_is_not_called_and_the_model_is_told(
    modelled: Daemon, endpoint: Endpoint, ledger: Ledger
) -> None:  # fmt: skip
    run = modelled.run("wary", endpoint.script("denied", Call("plain_add", a=100, b=1), Say("I may not.")))
    assert run["output"] == "I may not."
    assert "policy" in endpoint.told("denied")[0]
    assert ledger.lines("plain_add 100") == []
    assert [event["data"]["ok"] for event in modelled.events(run["id"], "tool.returned")] == [False]


def test_a_tool_that_is_asked_about_waits_for_a_person(modelled: Daemon, endpoint: Endpoint, ledger: Ledger) -> None:
    run = modelled.post_run("wary", endpoint.script("asked", Call("add", a=200, b=1), Say("201")))
    modelled.wait(run["id"], "awaiting_approval")
    assert ledger.lines("add 200") == []
    asked = approve(modelled, run["id"])
    assert asked["subject"]["tool"] == "add"
    assert asked["subject"]["args"] == {"a": 200, "b": 1}
    assert asked["expires_at"] is not None
    assert modelled.wait(run["id"])["output"] == "201"
    assert ledger.lines("add 200") == ["add 200 1"]
    assert endpoint.asked("asked") == [1, 1]


def test_a_no_is_told_to_the_model(modelled: Daemon, endpoint: Endpoint, ledger: Ledger) -> None:
    run = modelled.post_run("wary", endpoint.script("no", Call("add", a=300, b=1), Say("Then not.")))
    approve(modelled, run["id"], "deny", "not on a Friday")
    assert modelled.wait(run["id"])["output"] == "Then not."
    assert "not on a Friday" in endpoint.told("no")[0]
    assert ledger.lines("add 300") == []


def test_a_tool_that_is_marked_asks_by_itself(modelled: Daemon, endpoint: Endpoint, ledger: Ledger) -> None:
    run = modelled.post_run("helper", endpoint.script("marked", Call("drop", table="users"), Say("dropped")))
    asked = approve(modelled, run["id"])
    assert asked["subject"] | {"args_sha256": None} == {
        "tool": "drop", "args": {"table": "users"}, "args_sha256": None, "call_id": "call_0",
    }  # fmt: skip
    assert modelled.wait(run["id"])["output"] == "dropped"
    assert endpoint.told("marked") == ["dropped users"]
    assert ledger.lines("drop users") == ["drop users"]


def test_a_no_to_a_marked_tool_is_told_to_the_model(modelled: Daemon, endpoint: Endpoint, ledger: Ledger) -> None:
    run = modelled.post_run("helper", endpoint.script("marked-no", Call("drop", table="keep"), Say("kept")))
    approve(modelled, run["id"], "deny", "never")
    assert modelled.wait(run["id"])["output"] == "kept"
    assert "never" in endpoint.told("marked-no")[0]
    assert ledger.lines("drop keep") == []


def test_a_marked_tool_that_policy_asks_about_is_asked_about_once(
    modelled: Daemon, endpoint: Endpoint, ledger: Ledger
) -> None:  # fmt: skip
    run = modelled.post_run("asks_all", endpoint.script("once", Call("drop", table="once"), Say("dropped")))
    approve(modelled, run["id"])
    assert modelled.wait(run["id"], {"ok", "awaiting_approval"})["status"] == "ok"
    assert ledger.lines("drop once") == ["drop once"]


def test_a_marked_tool_that_policy_denies_is_not_asked_about(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.post_run("drops_nothing", endpoint.script("never", Call("drop", table="never"), Say("so be it")))
    assert modelled.wait(run["id"], {"ok", "awaiting_approval"})["status"] == "ok"
    assert "policy" in endpoint.told("never")[0]


def test_a_program_that_is_not_on_the_list_is_not_asked_about(modelled: Daemon, endpoint: Endpoint) -> None:
    goal = endpoint.script("unlisted", Call("programs", argv=["rm", "-rf", "/"]), Say("so be it"))
    run = modelled.post_run("armed_and_asked", goal)
    assert modelled.wait(run["id"], {"ok", "awaiting_approval"})["status"] == "ok"
    assert "is not allowed" in endpoint.told("unlisted")[0]


def test_what_is_too_long_to_ask_about_is_told_to_the_model(modelled: Daemon, endpoint: Endpoint) -> None:
    goal = endpoint.script("long", Call("hold", name="x" * 70_000), Say("shorter, then"))
    run = modelled.run("asks_all", goal)
    assert (run["status"], run["output"]) == ("ok", "shorter, then"), run["error"]
    assert "too long to ask a person about" in endpoint.told("long")[0]
    assert modelled.events(run["id"], "approval.requested") == []


def test_each_call_has_its_own_question(modelled: Daemon, endpoint: Endpoint, ledger: Ledger) -> None:
    both = Call.several(("add", {"a": 400, "b": 1}), ("add", {"a": 500, "b": 1}))
    run = modelled.post_run("wary", endpoint.script("both", both, Say("one of them")))
    modelled.wait(run["id"], "awaiting_approval")
    first, second = pending(modelled, run["id"])
    by_number = {asked["subject"]["args"]["a"]: asked for asked in (first, second)}
    answer(modelled, by_number[500], "approve")
    modelled.wait(run["id"], "awaiting_approval")
    answer(modelled, by_number[400], "deny", "too small")
    assert modelled.wait(run["id"])["status"] == "ok"
    told = endpoint.told("both")
    assert "too small" in told[0]
    assert told[1] == "501"
    assert ledger.lines("add 400") == []
    assert ledger.lines("add 500") == ["add 500 1"]


def test_a_call_beside_a_question_is_made_meanwhile(modelled: Daemon, endpoint: Endpoint, ledger: Ledger) -> None:
    both = Call.several(("add", {"a": 600, "b": 1}), ("hold", {"name": "beside"}))
    run = modelled.post_run("wary", endpoint.script("beside", both, Say("done")))
    modelled.wait_event(run["id"], "approval.requested")
    assert modelled.get(run["id"])["status"] == "running"
    ledger.touch("beside")
    approve(modelled, run["id"])
    assert modelled.wait(run["id"])["status"] == "ok"
    assert endpoint.told("beside") == ["601", "held beside"]
    assert ledger.lines("hold beside") == ["hold beside"]


def test_a_run_that_waits_for_an_answer_can_be_stopped(modelled: Daemon, endpoint: Endpoint) -> None:
    run = modelled.post_run("wary", endpoint.script("stopped", Call("add", a=1, b=1), Say("2")))
    modelled.wait(run["id"], "awaiting_approval")
    assert modelled.stop_run(run["id"])["cancellation"] == "immediate"
    assert pending(modelled, run["id"]) == []

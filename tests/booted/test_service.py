"""The long form of the tests of the unit: `make systemd`. What it promises is tried under a systemd that has booted."""

import json
import os

import pytest

from tests.booted.conftest import Machine
from tests.conftest import wait_until

pytestmark = pytest.mark.systemd_long
BAD = "[server]\nprot = 1\n"
COMPLAINT = "/etc/latticed/latticed.toml: server.prot: unknown key; did you mean server.port?"
FILE = "/etc/latticed/latticed.toml"
DIGEST = "run digest d --input path=/usr/share/doc/bash --wait"
ENDED = ("ActiveState", "Result", "ExecMainStatus")


def nap(machine: Machine) -> str:
    """The id of a run of a command that lasts."""
    run_id = machine.sh("latticectl run nap 86400").split()[0]
    wait_until(lambda: is_running(machine, run_id), timeout=60)
    return run_id


def is_running(machine: Machine, run_id: str) -> bool:
    process = machine.sh("pgrep -fxc '/bin/sleep 86400' || true")
    return machine.ctl(f"runs show {run_id}")["status"] == "running" and process == "1"


def test_systemd_has_nothing_against_it_where_it_runs(machine: Machine) -> None:
    assert machine.sh("systemd-analyze verify --recursive-errors=yes /etc/systemd/system/latticed.service") == ""
    machine.sh("systemd-analyze security --threshold=20 --no-pager latticed")


def test_it_is_active_once_it_serves_and_its_state_is_its_own(machine: Machine) -> None:
    assert machine.show("ActiveState", "StatusText") == ["active", "http://127.0.0.1:8700"]
    assert machine.sh("curl -s http://127.0.0.1:8700/readyz") == '{"status":"ready"}'
    kept = "/var/lib/latticed /var/lib/latticed/admin.token /var/lib/latticed/latticed.db /etc/latticed/latticed.toml"
    assert machine.sh(f"stat -c '%U:%G %a' {kept}").splitlines() == [
        "latticed:latticed 700",
        "latticed:latticed 600",
        "latticed:latticed 600",
        "root:latticed 640",
    ]
    assert machine.sh("latticectl whoami").startswith("admin")
    lines = machine.sh(f"journalctl -o cat _PID={machine.pid()}").splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["ready"]


def test_agents_work_and_commands_are_confined(machine: Machine) -> None:
    assert machine.ctl(DIGEST)["run"]["output"]["totals"]["files"] > 0
    for denied in (
        "touch /etc/x",
        "touch /opt/latticed/x",
        "ls /root/*",
        "cat /etc/latticed/secrets/*",
        "unshare -U true",
    ):
        said = machine.sh(f"latticectl run sh '{denied} || echo denied' --wait")
        assert said.endswith("denied"), denied
    wrote = machine.sh("latticectl run sh 'touch here /tmp/x && id -un' --wait")
    assert wrote.endswith("latticed")
    assert not os.path.exists(machine.root / "tmp" / "x")


def test_the_native_wheels_need_no_memory_that_is_written_and_run(machine: Machine) -> None:
    machine.write("/etc/systemd/system/latticed.service.d/x.conf", "[Service]\nMemoryDenyWriteExecute=yes\n")
    machine.sh("systemctl daemon-reload; systemctl restart latticed")
    assert machine.ctl(DIGEST)["run"]["status"] == "ok"
    assert machine.ctl("run sizes /usr/share/doc --wait")["run"]["status"] == "ok"  # A hook in CEL is asked about it.


def test_a_reload_says_by_the_status_how_it_went(machine: Machine) -> None:
    good = (machine.root / FILE[1:]).read_text()
    machine.write(FILE, BAD)
    machine.sh("systemctl reload latticed")
    refused = f"http://127.0.0.1:8700; reload refused: {COMPLAINT}"
    wait_until(lambda: machine.show("ActiveState", "StatusText") == ["active", refused])
    machine.write(FILE, good)
    machine.sh("systemctl reload latticed")
    wait_until(lambda: machine.show("ActiveState", "StatusText") == ["active", "http://127.0.0.1:8700"])


def test_a_stop_drains_says_goodbye_and_ends_with_0_and_a_start_goes_on(machine: Machine) -> None:
    run_id = nap(machine)
    head = "Authorization: Bearer $(cat /var/lib/latticed/admin.token)"
    feed = f"http://127.0.0.1:8700/v1/workspaces/default/runs/{run_id}/events"
    curl = f'curl -sN {feed} -H "{head}" -H "Accept: text/event-stream" > /root/stream &'
    machine.sh(f"{curl} until [ -s /root/stream ]; do sleep 0.1; done; systemctl stop latticed; wait")
    assert machine.sh("grep ^event: /root/stream").splitlines()[-2:] == ["event: run.released", "event: bye"]
    assert machine.show(*ENDED) == ["inactive", "success", "0"]
    assert machine.sh("pgrep -c sleep || true") == "0"
    machine.sh("latticed token create --workspace default --role viewer; systemctl start latticed")
    wait_until(lambda: is_running(machine, run_id), timeout=60)


@pytest.mark.parametrize(("death", "result"), [("KILL", "signal"), ("STOP", "watchdog")])
def test_a_daemon_that_dies_or_hangs_is_started_again_and_goes_on(machine: Machine, death: str, result: str) -> None:
    run_id, pid = nap(machine), machine.pid()
    machine.sh(f"kill -{death} {pid}")
    machine.wait_for_another(pid)
    assert f"'{result}'" in machine.sh(
        "journalctl -u latticed -n 200 -o cat _PID=1 | grep 'Failed with result' | tail -1"
    )
    wait_until(lambda: is_running(machine, run_id), timeout=60)
    assert "run.recovered" in machine.sh(f"latticectl runs events {run_id}")


def test_a_configuration_that_cannot_be_used_ends_with_78_and_is_not_tried_again(machine: Machine) -> None:
    machine.write(FILE, BAD)
    machine.sh("! systemctl restart latticed")
    assert machine.show(*ENDED, "NRestarts") == ["failed", "exit-code", "78", "0"]
    assert machine.sh("journalctl -n 1 -o cat _SYSTEMD_UNIT=latticed.service") == f"latticed: {COMPLAINT}"


def test_a_store_that_another_has_locked_ends_with_75_and_is_tried_again(machine: Machine) -> None:
    machine.sh("systemctl stop latticed")
    other = f"runuser -u latticed -- /opt/latticed/bin/latticed serve --state-dir /var/lib/latticed --config {FILE}"
    machine.sh(f"{other} --port 8701 > /dev/null 2>&1 & until [ -e /var/lib/latticed/address ]; do sleep 0.1; done")
    machine.sh("! systemctl start latticed")
    assert "status=75" in machine.sh("systemctl status --no-pager latticed || true; journalctl -u latticed -n 9 _PID=1")
    machine.sh("pkill -u latticed -f 'port 8701'")
    machine.wait_for_another(0)


def test_a_secret_is_handed_over_as_a_credential(machine: Machine) -> None:
    hook = '[hooks.told]\nuse = "webhook"\npoint = "post_run"\nurl = "https://x.example"\nsecret = "secret:told"\n'
    with (machine.root / FILE[1:]).open("a") as file:
        file.write(hook)
    machine.sh("! systemctl restart latticed")
    assert machine.show("ExecMainStatus") == ["78"]
    machine.write("/etc/latticed/secrets/told", "a key", 0o600)
    load = "[Service]\nLoadCredential=told:/etc/latticed/secrets/told\n"
    machine.write("/etc/systemd/system/latticed.service.d/x.conf", load)
    machine.sh("systemctl daemon-reload; systemctl restart latticed")
    assert machine.show("ActiveState") == ["active"]


def test_no_connection_is_refused_while_it_restarts_or_dies_behind_the_socket(machine: Machine) -> None:
    machine.sh(
        "install -Dm644 /root/systemd/latticed.socket /etc/systemd/system/latticed.socket; systemctl daemon-reload"
    )
    machine.sh("systemctl stop latticed && systemctl start latticed.socket && systemctl start latticed")
    ask = "curl -s -o /dev/null -w '%{http_code}\\n' http://127.0.0.1:8700/healthz"
    ask = f"for i in $(seq 100); do {ask}; done | sort -u"
    assert machine.sh(f"({ask}) & systemctl restart latticed; wait") == "200"
    pid = machine.pid()
    machine.sh(f"kill -KILL {pid}; until ! kill -0 {pid}; do :; done 2>/dev/null")
    assert machine.sh(ask) == "200"
    machine.wait_for_another(pid)
    machine.sh("systemctl stop latticed.socket latticed")
    assert machine.show("ActiveState", unit="latticed.socket") == ["inactive"]

"""The store away: requests are refused with the reason, nothing is half-written, work goes on when it is back."""

import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from latticed.errors import Unavailable
from latticed.store.faults import translate
from tests.conftest import Daemon, empty_database, wait_until
from tests.timeline import begun, lines, pending_question, well_ended

Make = Callable[..., Daemon]


@contextmanager
def locked(one: Daemon) -> Iterator[None]:
    """Another process's write transaction."""
    other = sqlite3.connect(one.state_dir / "latticed.db", isolation_level=None, timeout=10)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


@contextmanager
def unwritable(one: Daemon) -> Iterator[None]:
    """No file of the daemon's grows any more: each write beyond 32 KiB is an error."""
    pid, unlimited = one.process.pid, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (32768, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)


@contextmanager
def full(one: Daemon) -> Iterator[None]:
    """Not a byte is left on the file system of the state directory."""
    ballast = one.state_dir / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def read_only(one: Daemon) -> Iterator[None]:
    """The files of the store may not be changed, not even by root; what is open already is found out at the first
    write."""
    files = [str(path) for path in one.state_dir.glob("latticed.db*") if path.suffix in (".db", ".db-wal")]
    if subprocess.run(["chattr", "+i", *files], capture_output=True, check=False).returncode != 0:
        pytest.skip("may not make files immutable")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *files], check=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of four megabytes."""
    path = tmp_path_factory.mktemp("small")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(path)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("may not mount a small file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


BUSY_SECONDS = 0.3
CONFIG = {
    "store": {"busy_seconds": BUSY_SECONDS},
    "queues": {"narrow": {"concurrency": 1}},
    "runs": {"park_seconds": 0.1, "drain_seconds": 1.0, "grace_seconds": 0.5, "kill_seconds": 0.5},
}


@pytest.mark.parametrize(
    ("away", "reason"),
    [
        (locked, "locked by another process"),
        (unwritable, "does not read or write"),
        (full, "the disk is full"),
        (read_only, "the database is read-only"),
    ],
)
def test_while_the_store_is_away(
    daemon: Make, tmp_path: Path, request: pytest.FixtureRequest, away: Any, reason: str
) -> None:
    state_dir = request.getfixturevalue("small") / "state" if away is full else tmp_path / "state"
    one = daemon(config=CONFIG, state_dir=state_dir)
    effects = tmp_path / "effects"
    for _ in range(3):
        one.run("steps", inputs={"n": 20})
    working = begun(one, "steps", {"n": 3, "seconds": 0.2, "effects": str(effects)}, queue="narrow")
    behind = one.post_run("echo", queue="narrow")["id"]
    telling = begun(one, "long_wait", {"what": "signal"})
    asker = begun(one, "asker")
    one.wait(asker, "awaiting_approval")
    one.wait(telling, "waiting")
    question = pending_question(one, asker)
    one.wait_event(working, "step.started")
    given_up = begun(one, "slow_to_end", {"seconds": 0.8})
    one.stop_run(given_up)
    body = {"target": "echo", "goal": "refused", "tags": {"refused": "1"}}
    asked: list[tuple[str, Any, dict[str, str]]] = [
        ("runs", body, {}),
        ("runs", body, {"Idempotency-Key": "refused-once"}),
        (f"runs/{telling}/stop", {}, {}),
        (f"runs/{telling}/signals/go", {"data": 1}, {}),
        (f"approvals/{question}", {"decision": "approve"}, {}),
        ("tokens", {"name": "refused", "role": "viewer"}, {}),
    ]

    with away(one):
        if away is read_only:
            one.client.post(one.path("runs"), json=body)
        with ThreadPoolExecutor(len(asked)) as pool:
            answers = list(
                pool.map(lambda a: one.client.post(one.path(a[0]), json=a[1], headers=a[2], timeout=30), asked)
            )
        for answer in answers:
            problem = answer.json()
            assert (answer.status_code, problem["code"]) == (503, "unavailable")
            assert reason in problem["detail"]
        unready = one.client.get("/readyz")
        assert (unready.status_code, unready.json()["code"]) == (503, "unavailable")
        assert reason in unready.json()["detail"]
        assert one.client.get("/healthz").status_code == 200
        assert one.client.get(one.path("runs"), params={"tag": "refused:1"}).json()["items"] == []
        wait_until(lambda: [line for line in one.log_lines if line["event"] == "store_away"])
        assert one.get(working)["status"] == "running"
        assert one.get(behind)["status"] == "queued"
        assert one.get(telling)["status"] == "waiting"

    wait_until(lambda: one.client.get("/readyz").status_code == 200)  # and nobody did anything about it
    assert well_ended(one, working, "ok")["output"] == [0, 1, 2]
    assert lines(effects) == ["step 0", "step 1", "step 2"], "no step ran again"
    assert (one.get(working)["recoveries"], one.get(working)["epoch"]) == (0, 1)
    assert well_ended(one, behind, "ok")["epoch"] == 1
    assert well_ended(one, given_up)["abandoned"] == "task", "although its code has ended meanwhile"
    again = [one.client.post(one.path(tail), json=sent, headers=headers) for tail, sent, headers in asked]
    assert [answer.status_code for answer in again] == [202, 202, 202, 409, 200, 201]
    assert well_ended(one, telling)["cancel"] is not None
    assert one.wait(asker)["status"] == "ok"
    assert len(one.client.get(one.path("runs"), params={"tag": "refused:1"}).json()["items"]) == 2
    assert one.stop() == 0


def test_a_submission_that_the_store_refuses_leaves_its_slot_free(daemon: Make) -> None:
    one = daemon(config=CONFIG)
    body = {"target": "echo", "goal": "goal", "queue": "narrow"}
    with locked(one):
        for _ in range(2):
            assert one.client.post(one.path("runs"), json=body).status_code == 503
    assert one.run("echo", queue="narrow")["status"] == "ok"


def test_a_cancel_and_a_drain_survive_that_the_store_is_away(daemon: Make) -> None:
    runs = {"grace_seconds": 0.1, "kill_seconds": 0.1, "drain_seconds": 0.2}
    one = daemon(config={"store": {"busy_seconds": BUSY_SECONDS}, "runs": runs})
    stopped, swallow, held = begun(one, "awaiter"), begun(one, "swallow"), begun(one, "innocent")
    one.stop_run(stopped)
    one.stop_run(swallow)
    with locked(one):
        wait_until(lambda: {stopped, swallow, held} <= {line.get("run") for line in one.log_lines})
        assert {one.get(run_id)["status"] for run_id in (stopped, swallow)} == {"cancelling"}
        assert one.get(held)["status"] == "running"
        assert one.stop() == 0
    one.start()
    well_ended(one, stopped)
    well_ended(one, swallow)
    assert well_ended(one, held, "ok")["epoch"] == 2


def test_an_outcome_is_recorded_also_if_the_code_gave_up_waiting_for_that(daemon: Make, tmp_path: Path) -> None:
    one = daemon(config={"store": {"busy_seconds": BUSY_SECONDS}, "runs": {"park_seconds": 0.1}})
    effects, gate = tmp_path / "effects", tmp_path / "gate"
    run_id = begun(one, "hurried", {"effects": str(effects), "gate": str(gate)})
    wait_until(lambda: lines(effects) == ["works"])
    with locked(one):
        gate.touch()
        # The first is of the commit that is given up, and none would follow if nobody wrote the outcome any more.
        wait_until(
            lambda: [line["event"] for line in one.log_lines if line.get("run") == run_id].count("store_away") > 2
        )
        assert lines(effects) == ["works"]
    run = well_ended(one, run_id, "ok")
    assert (run["output"], run["epoch"]) == ("more", 2)
    assert lines(effects) == ["works", "gave up"], "the step did not run again, and had its outcome when asked again"
    assert [(step["name"], step["status"]) for step in one.steps(run_id) if step["kind"] == "step"] == [
        ("work", "ok"), ("more", "ok"),
    ]  # fmt: skip


@pytest.mark.parametrize("pragma", ["query_only = ON", "mode=ro"])
def test_a_store_that_is_read_only_is_away_and_says_so(tmp_path: Path, pragma: str) -> None:
    path = tmp_path / "some.db"
    sqlite3.connect(path).execute("CREATE TABLE t (a)").connection.close()
    engine = create_engine(f"sqlite:///file:{path}?uri=true" + ("&mode=ro" if pragma == "mode=ro" else ""))
    with engine.connect() as connection:
        if pragma != "mode=ro":
            connection.execute(text(f"PRAGMA {pragma}"))
        with pytest.raises(DBAPIError) as raised:
            connection.execute(text("INSERT INTO t VALUES (1)"))
    engine.dispose()
    fault = translate(raised.value)
    assert isinstance(fault, Unavailable)
    assert "the database is read-only" in fault.detail


def test_a_daemon_does_not_start_on_what_it_cannot_write(daemon: Make, small: Path) -> None:
    one = daemon(config={"store": {"url": f"sqlite+aiosqlite:///{small}/read-only.db"}}, start=False)
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    try:
        assert one.launch().wait_exit() == 70
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
    [line] = one.log.splitlines()
    assert line.startswith("latticed: ")
    assert "read-only" in line.lower()


@pytest.mark.parametrize("last", [Daemon.stop, Daemon.kill])
def test_a_daemon_does_not_start_on_a_full_disk(daemon: Make, small: Path, last: Callable[[Daemon], int]) -> None:
    one = daemon(state_dir=small / last.__name__)
    begun(one, "long_wait", {"what": "signal"})
    last(one)
    said = len(one.log)
    (one.state_dir / "address").unlink(missing_ok=True)  # A start removes it, and then there is a little room.
    with full(one):
        assert one.launch().wait_exit() == 70
    [line] = one.log[said:].splitlines()
    assert line.startswith("latticed: cannot open ")
    one.start()


def launched_with_little_room(one: Daemon) -> Daemon:
    """Started so that none of its files grows beyond 32 KiB: enough to open the store, not for the work of a start."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32768, before[1]))
    try:
        return one.launch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("work", ["the first start's", "to recover runs"])
def test_a_store_that_goes_away_before_it_is_ready_ends_the_start_with_70(daemon: Make, work: str) -> None:
    one = daemon(start=False, executed=True)
    if work == "to recover runs":
        one.start()
        for _ in range(10):
            one.wait_event(one.post_run("stepper_long")["id"], "step.started")
        one.kill()
        with sqlite3.connect(one.state_dir / "latticed.db") as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        one.log_file.unlink()
    else:
        one.state_dir.mkdir()
        (one.state_dir / "latticed.db").write_bytes(empty_database())
    assert launched_with_little_room(one).wait_exit() == 70, one.log
    [line] = one.log.splitlines()
    assert line.startswith("latticed: cannot start: the store is away: ")
    assert one.start().run("echo")["status"] == "ok"


def test_a_daemon_does_not_start_on_a_database_that_is_read_only(daemon: Make) -> None:
    one = daemon()
    one.stop()
    said = len(one.log)
    with read_only(one):
        assert one.launch().wait_exit() == 70
    [line] = one.log[said:].splitlines()
    assert line.startswith("latticed: cannot open ")

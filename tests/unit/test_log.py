"""The log, as a process that is not watched writes it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BEGIN = """
import logging, os, sys
from latticed import log
log.setup("info")
import structlog
say = structlog.get_logger()
"""


def logged(program: str) -> list[dict[str, Any]]:
    """What a process that runs `program` after the set-up writes to its stderr."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_line_is_one_json_object_with_what_is_bound_around_it() -> None:
    (line,) = logged("""
with structlog.contextvars.bound_contextvars(run="run_1", workspace="w", epoch=2):
    say.info("ready", url="http://x", path=__import__("pathlib").Path("/a"), big=2**70, odd="\\ud800")
""")
    assert line.pop("at").endswith("Z")
    assert line == {
        "event": "ready", "level": "info", "run": "run_1", "workspace": "w", "epoch": 2,
        "url": "http://x", "path": "/a", "big": 2**70, "odd": "\ud800",
    }  # fmt: skip


def test_an_exception_is_in_its_line() -> None:
    (line,) = logged("""
try:
    1 / 0
except ZeroDivisionError:
    say.exception("failed")
""")
    assert (line["event"], line["level"]) == ("failed", "error")
    assert line["exception"].endswith("ZeroDivisionError: division by zero")


def test_the_level_can_be_changed_for_loggers_already_in_use() -> None:
    lines = logged("""
say.debug("one"); say.info("two")
log.setup("debug"); say.debug("three")
log.setup("error"); say.warning("four"); say.error("five")
""")
    assert [line["event"] for line in lines] == ["two", "three", "five"]


def test_what_libraries_log_comes_out_the_same_way() -> None:
    (line,) = logged("""
logging.getLogger("some.library").info("not this")
logging.getLogger("some.library").warning("%d%% of {it}", 5)
""")
    assert (line["event"], line["level"], line["logger"]) == ("5% of {it}", "warning", "some.library")


def test_a_log_that_nobody_reads_fails_nothing() -> None:
    # Ended as the daemon ends: some Pythons would try at their end what could not be written before, and complain.
    assert logged("os.close(2); say.info('gone'); say.error('gone too'); os._exit(0)") == []


def test_the_log_does_not_load_rich() -> None:
    assert logged("assert 'rich' not in sys.modules; import rich") == []

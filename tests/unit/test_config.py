"""The configuration: what beats what, what is refused and how that is said."""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from latticed.config import (
    CommandConfig,
    Config,
    ConfigError,
    LimitsConfig,
    QueueConfig,
    load,
    loading,
)

COMMAND = '[agents.a]\nuse = "command"\nargv = ["/bin/x"]\n'


@pytest.fixture(autouse=True)
def no_system_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "SYSTEM_FILE", tmp_path / "etc" / "latticed.toml")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "latticed.toml"


def read(file: Path, text: str, environ: Mapping[str, str] | None = None, **overrides: Any) -> Config:
    file.write_text(text, encoding="utf-8")
    return load(file, None, overrides, {"HOME": "/nowhere"} | dict(environ or {}))


def refusal(file: Path, text: str = "", environ: Mapping[str, str] | None = None, **overrides: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(file, text, environ, **overrides)
    assert caught.value.exit_code == 78
    assert "\n" not in caught.value.detail
    return caught.value.detail.replace(str(file), "FILE")


# --- what beats what -------------------------------------------------------------------------------------------------


def test_flag_beats_environment_beats_credential_beats_file_beats_default(file: Path, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for name, value in {"HOST": "::1", "PORT": "4", "PING_SECONDS": "4"}.items():
        (credentials / f"LATTICED_SERVER__{name}").write_text(f"{value}\n")
    (credentials / "notify").write_text("a secret that is no configuration")
    settings = read(
        file,
        '[server]\nhost = "127.0.0.3"\nport = 3\nping_seconds = 3\nrequest_limit_bytes = 3333\n',
        {"CREDENTIALS_DIRECTORY": str(credentials), "LATTICED_SERVER__HOST": "localhost", "LATTICED_SERVER__PORT": "5"},
        server={"port": 6},
    )
    server = settings.server
    assert (server.port, server.host, server.ping_seconds, server.request_limit_bytes) == (6, "localhost", 4.0, 3333)
    assert server.allow_public is False
    assert settings.origins == {
        "server.port": "flag",
        "server.host": "environment",
        "server.ping_seconds": "credential directory",
        "server.request_limit_bytes": str(file),
    }


def test_the_file_is_the_flags_then_the_variables_then_the_systems_then_none(tmp_path: Path) -> None:
    flag, variable, system = tmp_path / "flag.toml", tmp_path / "variable.toml", loading.SYSTEM_FILE
    system.parent.mkdir()
    for port, path in enumerate((flag, variable, system), 1):
        path.write_text(f"[server]\nport = {port}\n")
    environ = {"LATTICED_CONFIG": str(variable)}
    assert load(flag, None, {}, environ).server.port == 1
    assert load(None, None, {}, environ).server.port == 2
    assert load(None, None, {}, {}).file == system
    system.unlink()
    without = load(None, None, {}, {})
    assert (without.file, without.server.port, set(without.agents)) == (None, 8700, {"digest"})


def test_a_systems_file_that_is_not_for_everybody_is_refused_with_the_reason() -> None:
    user = os.geteuid()
    loading.SYSTEM_FILE.parent.mkdir(mode=0)
    os.seteuid(user or 65534)  # The superuser may look anywhere.
    try:
        with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
            load(None, None, {}, {})
    finally:
        os.seteuid(user)


def test_a_file_brings_its_own_agents(file: Path) -> None:
    assert set(read(file, COMMAND).agents) == {"a"}


def test_every_key_can_be_set_by_the_environment(file: Path) -> None:
    environ = {
        "LATTICED_QUEUES__BULK__CONCURRENCY": "5",
        "LATTICED_AGENTS__X__USE": "command",
        "LATTICED_AGENTS__X__ARGV": '["/bin/echo", "{goal}"]',
        "LATTICED_SERVER": '{"ping_seconds": 3}',
        "LATTICED_SERVER__ALLOW_PUBLIC": "true",
        "LATTICED_LOG__LEVEL": "",
    }
    settings = read(file, "[queues.bulk]\nconcurrency = 4\n", environ)
    assert settings.queues == {"default": QueueConfig(), "bulk": QueueConfig(concurrency=5)}
    assert settings.agents["x"] == CommandConfig(use="command", argv=["/bin/echo", "{goal}"])
    assert (settings.server.ping_seconds, settings.server.allow_public) == (3.0, True)
    assert settings.log.level == "info"


def test_variables_that_are_no_configuration_are_left_alone(file: Path) -> None:
    names = ["CONFIG", "STATE_DIR", "URL", "TOKEN", "WORKSPACE", "FAILPOINTS", "FAILPOINT_LOG", "SECRET_A__B", "RUN_ID"]
    environ = {f"LATTICED_{name}": "x" for name in names}
    of_kubernetes = {"LATTICED_PORT": "tcp://10.0.0.1:8700", "LATTICED_SERVICE_HOST": "10.0.0.1"}
    assert read(file, "", environ | of_kubernetes).origins == {}


# --- what is refused, and how that is said ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1", "FILE: server.prot: unknown key; did you mean server.port?"),
        ("port = 1", "FILE: port: unknown key; did you mean server.port?"),
        ("[servr]\nport = 1", "FILE: servr: unknown key; did you mean server?"),
        ("[log]\ncolour = true", "FILE: log.colour: unknown key; known here are level"),
        ('state_dir = "/x"', "FILE: state_dir: unknown key; known here are server, store, broker, "),
        ("server = 5", "FILE: server: must be a table"),
        ("[queues.default]\nconcurency = 4", "did you mean queues.default.concurrency?"),
        (
            '[agents.a]\nuse = "function"\nfunctoin = "a:b"',
            "FILE: agents.a.functoin: unknown key; did you mean agents.a.fun",
        ),
        (COMMAND + "retries = 1", "FILE: agents.a.retries: unknown key; did you mean agents.a.max_retries?"),
        (
            '[agents.a]\nuse = "tube"',
            "FILE: agents.a: 'use' must be one of 'function', 'command', 'pydantic-ai', 'pipeline'",
        ),
        ("[agents.a]\nargv = []", "FILE: agents.a: 'use' is needed"),
        ('[agents.a]\nuse = "function"', "FILE: agents.a.function: is needed"),
        ("[server", "FILE: not TOML: "),
        ('[server]\n"a\\nb" = 1', "FILE: server.a b: unknown key"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_right_one(file: Path, text: str, said: str) -> None:
    assert said in refusal(file, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nport = 70000", "FILE: server.port: must be less than or equal to 65535, not '70000'"),
        ("[server]\nport = -1", "server.port: must be greater than or equal to 0"),
        ("[runs]\nconcurrency = 0", "runs.concurrency: must be greater"),
        ("[runs]\nthreads = 0", "runs.threads: must be greater"),
        ("[runs]\ngrace_seconds = 0", "runs.grace_seconds: must be greater than 0"),
        ("[runs]\nkill_seconds = nan", "runs.kill_seconds: must be a finite number"),
        ("[runs]\ndrain_seconds = -1", "runs.drain_seconds: must be greater"),
        ("[runs]\nmax_recoveries = 0", "runs.max_recoveries: must be greater"),
        ("[queues.default]\nconcurrency = -5", "queues.default.concurrency: must be greater"),
        ("[retention]\nok_days = 0", "retention.ok_days: must be greater"),
        ('[log]\nlevel = "loud"', "log.level: must be 'debug', 'info', 'warning' or 'error', not 'loud'"),
        ('[broker]\nurl = "nats://x"', "broker.url: must be 'memory:'"),
        (
            '[store]\nurl = "postgresql+asyncpg://u:pw@h/d"',
            "store.url: must be sqlite+aiosqlite:///PATH, a database in a file",
        ),
        ('[store]\nurl = "sqlite+aiosqlite:///:memory:"', "store.url: must be sqlite+aiosqlite:///PATH"),
        (COMMAND + "max_retries = 6", "agents.a.max_retries: must be less than or equal to 5"),
        (COMMAND + 'recovery = "again"', "agents.a.recovery: must be 'resume', 'requeue' or 'interrupt'"),
        (COMMAND + 'queue = "bacth"\n[queues.batch]', "agents.a.queue: there is no queue 'bacth'; did you mean batch?"),
        (COMMAND + 'queue = "x"', "agents.a.queue: there is no queue 'x'; the queues are default"),
        (COMMAND + 'cwd = "srv"', "agents.a.cwd: must be an absolute path, not 'srv'"),
        (COMMAND + 'env = ["A=1"]', "agents.a.env.0: must match pattern"),
        (COMMAND.replace("agents.a", "agents.'a b'"), "agents.a b: must match pattern"),
        (f"[queues.{'q' * 65}]", "must match pattern"),
        ('[agents.a]\nuse = "function"\nfunction = "digest"', "agents.a.function: must match pattern"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_it_must_be(file: Path, text: str, said: str) -> None:
    assert said in refusal(file, text)


def test_the_password_of_an_address_is_not_repeated(file: Path) -> None:
    assert "pw" not in refusal(file, '[store]\nurl = "postgresql+asyncpg://u:pw@h/d"')


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "agents.a.argv: "),
        ([""], "the program itself must be fixed"),
        (["{goal}"], "the program itself must be fixed"),
        (["/bin/x", "--text={goal}"], "{goal} must be an argument of its own, not a part of '--text={goal}'"),
        (["/bin/sh", "-c", "ls {inputs.path}"], "{inputs.path} must be an argument of its own"),
        (["/bin/x", "a\0b"], "an argument holds a NUL"),
    ],
)
def test_what_a_run_gives_is_a_whole_argument_and_never_the_program(file: Path, argv: list[str], said: str) -> None:
    agent = {"use": "command", "argv": argv}
    assert said in refusal(file, agents={"a": agent})


def test_braces_that_are_no_placeholder_are_text(file: Path) -> None:
    argv = ["/usr/bin/awk", "{print $1}", "{}", "{goals}", "{inputs.a-b.c}", "{goal}"]
    agent = read(file, "", agents={"a": {"use": "command", "argv": argv}}).agents["a"]
    assert isinstance(agent, CommandConfig)
    assert agent.argv == argv


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "LATTICED_SERVER__PROT",
            "1",
            "environment: LATTICED_SERVER__PROT: unknown key; did you mean LATTICED_SERVER__PORT?",
        ),
        (
            "LATTICED_SERVRE__PORT",
            "1",
            "environment: LATTICED_SERVRE__PORT: unknown key; did you mean LATTICED_SERVER__PORT?",
        ),
        ("LATTICED_SERVER__PORT", "abc", "environment: LATTICED_SERVER__PORT: must be a valid integer"),
        ("LATTICED_SERVER", "abc", "environment: LATTICED_SERVER: must be a table"),
        ("LATTICED_AGENTS__A__ENV", "HOME", "environment: LATTICED_AGENTS__A__ENV: must be a valid list"),
    ],
)
def test_a_wrong_variable_is_named_as_it_is_written(file: Path, name: str, value: str, said: str) -> None:
    assert said in refusal(file, COMMAND, {name: value})


def test_a_wrong_flag_is_named(file: Path) -> None:
    assert refusal(file, "", server={"port": 99999}).startswith("flag: server.port: must be less than")


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    for asked, environ in ((missing, {}), (None, {"LATTICED_CONFIG": str(missing)})):
        with pytest.raises(ConfigError, match=re.escape(f"{missing}: cannot be read: No such file")):
            load(asked, None, {}, environ)


def test_a_file_that_is_no_text_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not TOML"):
        load(file, None, {}, {})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_loopback_address_needs_nothing(file: Path, host: str) -> None:
    assert read(file, "", server={"host": host}).server.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_another_address_needs_allow_public(file: Path, host: str) -> None:
    said = refusal(file, f'[server]\nhost = "{host}"')
    assert said.startswith(
        f"FILE: server.host: {host} can be reached from other machines; set server.allow_public = true"
    )
    assert read(file, f'[server]\nhost = "{host}"\nallow_public = true').server.host == host
    assert read(file, f'[server]\nhost = "{host}"\nunix_socket = "/run/x"').server.unix_socket == Path("/run/x")


# --- the state directory and reloading -------------------------------------------------------------------------------


def test_the_state_directory_is_the_flags_then_the_variables_then_systemds_then_the_homes(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("")
    ours, systemds = {"LATTICED_STATE_DIR": "/ours"}, {"STATE_DIRECTORY": "/first:/second"}
    monkeypatch.setenv("HOME", "/somebody")
    assert load(file, Path("/flag"), {}, ours | systemds).state_dir == Path("/flag")
    assert load(file, None, {}, ours | systemds).state_dir == Path("/ours")
    assert load(file, None, {}, systemds).state_dir == Path("/first")
    assert load(file, None, {}, {}).state_dir == Path("/somebody/.local/state/latticed")
    assert load(file, Path("here"), {}, {}).state_dir == Path.cwd() / "here"


def test_the_state_directory_is_made_when_asked_for_and_is_its_owners_alone(file: Path, tmp_path: Path) -> None:
    file.write_text("")
    settings = load(file, tmp_path / "deep" / "state", {}, {})
    assert not settings.state_dir.exists()
    settings.make_state_dir()
    settings.make_state_dir()
    assert stat.S_IMODE(settings.state_dir.stat().st_mode) == 0o700


def test_a_state_directory_that_cannot_be_is_refused(file: Path) -> None:
    file.write_text("")
    with pytest.raises(ConfigError, match="cannot be the state directory"):
        load(file, file / "state", {}, {}).make_state_dir()
    with pytest.raises(ConfigError, match="cannot be the state directory"):
        load(file, file, {}, {}).make_state_dir()


def test_a_reload_asks_the_same_places_and_a_bad_file_leaves_what_is_at_hand(file: Path) -> None:
    first = read(file, "[runs]\nthreads = 4\n", {}, server={"port": 6})
    file.write_text("[runs]\nthreads = 5\n[server]\nport = 7\n")
    again = first.reload({})
    assert (again.runs.threads, again.server.port, again.state_dir) == (5, 6, first.state_dir)
    file.write_text("[runs]\nthread = 5\n")
    with pytest.raises(ConfigError, match=r"did you mean runs\.threads\?"):
        first.reload({})
    assert first.runs.threads == 4


def test_what_was_read_cannot_be_changed(file: Path) -> None:
    settings = read(file, "")
    with pytest.raises(ValueError, match="frozen"):
        settings.server.port = 1  # type: ignore[misc]  # the point


# --- limits ----------------------------------------------------------------------------------------------------------


def test_a_workspaces_own_limits_come_before_those_for_all(file: Path) -> None:
    settings = read(
        file,
        """
        [limits]
        active_runs = 10
        queued_runs = 5
        [workspaces.own]
        active_runs = 2
        queued_runs = "none"
        event_bytes = 0
        """,
    )
    assert settings.limits_of("any") == LimitsConfig(active_runs=10, queued_runs=5)
    assert settings.limits_of("own").given == {"active_runs", "event_bytes"}
    assert settings.limits_of("own").active_runs == 2


@pytest.mark.parametrize("limit", ["-1", "1.5", '"many"', "true", "[]"])
def test_a_limit_is_a_whole_number_or_none(file: Path, limit: str) -> None:
    assert "workspaces.own.active_runs" in refusal(file, f"[workspaces.own]\nactive_runs = {limit}")


def test_a_limit_that_does_not_exist_is_refused_with_the_nearest(file: Path) -> None:
    assert "did you mean limits.active_runs?" in refusal(file, "[limits]\nactive_run = 1")

"""The configuration of agents on a model: models, tools, and what names them."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from latticed.config.modelled import (
    CommandToolConfig,
    FunctionToolConfig,
    McpToolConfig,
    ModelConfig,
    RunToolConfig,
)
from latticed.errors import LatticedError
from latticed.plugins import Agents
from latticed.secrets import NoSecret
from tests.unit.test_annotated_file import SHIPPED, assignments
from tests.unit.test_config import file, no_system_file, read, refusal

__all__ = ["file", "no_system_file"]


def test_what_agents_on_a_model_work_with_is_shown_key_by_key_and_would_be_accepted(file: Path) -> None:
    begin, end = "# What agents on a model work with", "# A pipeline works on a model in roles"
    shown = SHIPPED.read_text().split(begin)[1].split(end)[0]
    text = "\n".join(line.removeprefix("#").strip() for line in shown.splitlines() if line.startswith("#   "))
    tables = {
        "models.local": ModelConfig, "tools.weather": FunctionToolConfig, "tools.files": McpToolConfig,
        "tools.digest": RunToolConfig, "tools.git": CommandToolConfig,
    }  # fmt: skip
    found = assignments(text)
    said = {key.rpartition(".")[2] for key in found if key.startswith("tools.")}
    for table, model in tables.items():
        wanted = set(model.model_fields)
        there = {key.rpartition(".")[2] for key in found if key.rpartition(".")[0] == table}
        common = {"description", "timeout_seconds"} if table.startswith("tools.") else set()
        assert wanted - common <= there <= wanted, table
        assert common <= said
    defaults = {name: field.default for name, field in ModelConfig.model_fields.items()}
    local = tomllib.loads(text.replace('url = "https', '# url = "https').replace("headers", "# headers"))
    for name in ("timeout_seconds", "silence_seconds", "attempts", "longest_wait_seconds", "connections"):
        assert local["models"]["local"][name] == defaults[name]
    config = read(file, text.replace('url = "https', '# url = "https'))
    assert config.agents["helper"].use == "pydantic-ai"


MODEL = '[models.local]\nmodel = "m"\nbase_url = "http://127.0.0.1:1/v1"\n'
PIPE = '[agents.p]\nuse = "pipeline"\nmodel = "openai:gpt-5"\n'
HELPER = '[agents.a]\nuse = "pydantic-ai"\nagent = "a:b"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MODEL + HELPER + 'model = "locl"', "FILE: agents.a.model: there is no table [models.locl], nor is it"),
        (HELPER + 'tools = ["x"]', "FILE: agents.a.tools: there is no tool 'x'; none is configured"),
        (MODEL + 'key = "sk-123"', "FILE: models.local.key: "),
        (MODEL + "input_usd_per_million = 1", "input_usd_per_million and output_usd_per_million are set together"),
        (
            MODEL + HELPER + 'model = "local"\nbudget = { max_cost_usd = 1 }',
            "FILE: agents.a.budget.max_cost_usd: what model 'local' costs is not known",
        ),
        (
            MODEL + PIPE + 'budget = { max_cost_usd = 1 }\n[agents.p.roles.executor]\nmodel = "local"',
            "FILE: agents.p.budget.max_cost_usd: what model 'local' costs is not known",
        ),
        (MODEL + PIPE + 'roles.executor.model = "locl"', "FILE: agents.p.roles.executor.model: there is no table"),
        (MODEL + PIPE + 'roles.executor.tools = ["x"]', "FILE: agents.p.roles.executor.tools: there is no tool 'x'"),
        (MODEL + PIPE + 'default_roles = ["wizard"]', "FILE: agents.p: default_roles: unknown role 'wizard'"),
        (MODEL + PIPE + 'default_roles = ["executor", "executor"]', "default_roles: executor: a role can be named"),
        ('[tools.t]\nuse = "mcp"', "an MCP server has either argv, a program to start, or url, an address"),
        (
            '[tools.t]\nuse = "mcp"\nargv = ["x"]\ncwd = "srv"',
            "FILE: tools.t.cwd: must be an absolute path, not 'srv'",
        ),
        ('[tools.t]\nuse = "mcp"\nurl = "http://[::1/mcp"', "FILE: tools.t: "),
        (HELPER + 'lanes = ["_office"]', "FILE: agents.a.lanes.0: "),
        ('[tools.t]\nuse = "command"\nallow = []', "FILE: tools.t.allow"),
        (HELPER + 'policy = { "a b" = "ask" }', "is no pattern of tools' names"),
        (HELPER + 'policy = { a = "maybe" }', "FILE: agents.a.policy.a: must be 'auto', 'ask' or 'deny'"),
    ],
)  # fmt: skip
def test_what_agents_on_a_model_cannot_work_with_is_refused(file: Path, text: str, said: str) -> None:
    assert said in refusal(file, text)


def test_a_secret_of_a_model_or_a_server_that_is_missing_is_found_at_the_start(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = '[tools.t]\nuse = "mcp"\nurl = "http://127.0.0.1:1/mcp"\nheaders = { A = "Bearer secret:there" }\n'
    for text in (MODEL + 'key = "secret:there"\n', server):
        monkeypatch.delenv("LATTICED_SECRET_THERE", raising=False)
        with pytest.raises(NoSecret, match="LATTICED_SECRET_THERE") as caught:
            Agents(read(file, text))
        assert caught.value.exit_code == 78
        monkeypatch.setenv("LATTICED_SECRET_THERE", "x")
        Agents(read(file, text))


CANNOT = (("builtins:iter", "tools.t: builtins:iter cannot be a tool"), ("no.where:f", "cannot import"))


def test_a_function_that_cannot_be_a_tool_is_found_at_the_start(file: Path) -> None:
    text = MODEL + HELPER.replace("a:b", "tests.agents_on_models:bare") + '[tools.t]\nuse = "function"\n'
    for function, said in (
        ("builtins:iter", "tools.t: builtins:iter cannot be a tool"),
        ("no.where:f", "cannot imp"),
    ):
        with pytest.raises(LatticedError, match=said) as caught:
            Agents(read(file, text + f'function = "{function}"\n'))
        assert caught.value.exit_code == 78


def test_a_daemon_without_agents_on_a_model_imports_nothing_for_them(tmp_path: Path) -> None:
    program = f"""
import pathlib, sys
from latticed import daemon
from latticed.config import load
daemon._load_agents(load(pathlib.Path({str(tmp_path / "latticed.toml")!r})))
print([name for name in ("pydantic_ai", "openai", "anthropic", "mcp", "fastmcp") if name in sys.modules])
"""
    (tmp_path / "latticed.toml").write_text(
        '[agents.digest]\nuse = "function"\nfunction = "latticed.agents.digest:digest"'
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"

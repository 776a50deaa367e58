"""The annotated file: every key, with its default."""

import re
import tomllib
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from latticed.config import (
    BUILT_IN_AGENTS,
    CommandConfig,
    FunctionConfig,
    PipelineConfig,
    QueueConfig,
    Settings,
    load,
)
from latticed.models.hooks import CommandHook, PythonHook, WebhookHook

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "latticed.toml"


def assignments(text: str) -> dict[str, str]:
    """Dotted key → its line without the comment sign, for keys that are set and keys that are commented out."""
    found, table = {}, ""
    for line in text.splitlines():
        if heading := re.match(r"\[([\w.]+)\]", line):
            table = heading[1]
        elif key := re.match(r"(?:# )?(\w+) = ", line):
            found[f"{table}.{key[1]}"] = line.removeprefix("# ")
    return found


def keys_of(model: type[BaseModel], table: str) -> set[str]:
    return {f"{table}.{name}" for name in model.model_fields}


def test_the_annotated_file_holds_every_key_of_the_model_and_no_other() -> None:
    tables = {
        "queues.default": QueueConfig, "agents.digest": FunctionConfig, "agents.search": CommandConfig,
        "agents.research": PipelineConfig,
    }  # fmt: skip
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            tables[name] = field.annotation
    tables |= {"hooks.policy": PythonHook, "hooks.syslog": CommandHook, "hooks.notify": WebhookHook}
    wanted = set().union(*(keys_of(model, table) for table, model in tables.items())) - {"hooks.policy.settings"}
    shown = {key for key in assignments(SHIPPED.read_text()) if key.rpartition(".")[0] in tables}
    assert shown == wanted


def test_the_annotated_file_shows_the_defaults() -> None:
    shipped = load(SHIPPED, None, {}, {})
    bare = shipped.model_copy(update={"agents": {}, "hooks": {}})
    assert bare.model_dump(exclude={"state_dir"}) == Settings().model_dump()
    own = {"targets", "order", "enabled", "settings", "on_error"}
    for hook in shipped.hooks.values():
        defaults = {n: f.default for n, f in type(hook).model_fields.items() if not f.is_required() and n not in own}
        assert hook.model_dump(include=set(defaults)) == defaults
    for agent in shipped.agents.values():
        fields = type(agent).model_fields.items()
        defaults = {name: to_jsonable_python(field.default) for name, field in fields if not field.is_required()}
        assert agent.model_dump(mode="json", include=set(defaults) - {"description"}) == {
            name: value for name, value in defaults.items() if name != "description"
        }


def test_each_key_that_is_commented_out_in_the_annotated_file_would_be_accepted(tmp_path: Path) -> None:
    file = tmp_path / "latticed.toml"
    text = SHIPPED.read_text()
    uncommented = re.sub(r"(?m)^# (\w+ = )", r"\1", text)
    assert uncommented != text
    file.write_text(uncommented, encoding="utf-8")
    settings = load(file, None, {}, {"HOME": "/nowhere"})
    assert settings.store.url == "sqlite+aiosqlite:////var/lib/latticed/latticed.db"
    assert settings.retention.ok_days == 30


def test_the_built_in_agents_are_those_of_the_annotated_file() -> None:
    agents = tomllib.loads(SHIPPED.read_text())["agents"]
    for name, built_in in BUILT_IN_AGENTS.items():
        assert built_in.items() <= agents[name].items()

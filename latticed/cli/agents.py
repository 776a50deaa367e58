"""`latticectl agents`: what a run can target."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from latticed.cli.render import Screen, fields, plain, short, table
from latticed.cli.session import MOST, Session, command, group
from latticed.errors import NotFound

app = group("Look at agents.")


@command(app, "list")
def list_agents(session: Session) -> None:
    """List the agents that a run can target."""
    session.show(session.client.list_agents(limit=MOST), _agent_table)


@command(app, "show")
def show_agent(
    session: Session, name: Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name.")]
) -> None:  # fmt: skip
    """Show what an agent can do, and what it lacks."""
    found = [each for each in session.client.list_agents(limit=MOST)["items"] if each["name"] == name]
    if not found:
        raise NotFound(f"there is no agent {name!r}; {session.command('agents list')} lists them")
    session.show(found[0], agent_lines)


def agent_lines(agent: dict[str, Any], screen: Screen) -> Iterator[str]:
    """An agent, for a person."""
    yield f"{plain(agent['name'])}  {agent['use']}" + ("" if agent["available"] else f"  {_missing(agent)}")
    yield from fields(
        [
            ("description", plain(agent["description"])),
            ("modes", ", ".join(agent["modes"])),
            ("model", None if agent["model"] is None else plain(agent["model"])),
            ("roles", plain(", ".join(agent["roles"]))),
            ("queue", plain(agent["queue"])),
            ("retries", str(agent["max_retries"])),
            ("recovery", agent["recovery"]),
        ]
    )
    if agent["tools"]:
        rows = [(each["name"], each["use"], short(each["description"])) for each in agent["tools"]]
        yield from table(("TOOL", "USE", "DESCRIPTION"), rows, screen, "")


def _agent_table(page: dict[str, Any], screen: Screen) -> Iterator[str]:
    rows = [
        (each["name"], each["use"], each["queue"], short(each["description"] if each["available"] else _missing(each)))
        for each in page["items"]
    ]
    return table(("AGENT", "USE", "QUEUE", "DESCRIPTION"), rows, screen, "no agents are configured")


def _missing(agent: dict[str, Any]) -> str:
    return f"cannot run: {agent['missing'] or 'something is missing'}"

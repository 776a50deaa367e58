"""`latticectl agents`: what a run can target."""

from collections.abc import Iterator
from typing import Any

from latticed.cli.render import Screen, short, table
from latticed.cli.session import Session, command, group

app = group("Look at agents.")


@command(app, "list")
def list_agents(session: Session) -> None:
    """List the agents that a run can target."""
    session.show(session.client.list_agents(), _agent_table)


def _agent_table(page: dict[str, Any], screen: Screen) -> Iterator[str]:
    rows = [
        (each["name"], each["use"], each["queue"], short(each["description"] if each["available"] else _missing(each)))
        for each in page["items"]
    ]
    return table(("AGENT", "USE", "QUEUE", "DESCRIPTION"), rows, screen, "no agents are configured")


def _missing(agent: dict[str, Any]) -> str:
    return f"cannot run: {agent['missing'] or 'something is missing'}"

"""`latticectl queues`: limits and loads."""

from collections.abc import Iterator
from typing import Any

from latticed.cli.render import Screen, table
from latticed.cli.session import MOST, Session, command, group

app = group("Look at queues.")


@command(app, "list")
def list_queues(session: Session) -> None:
    """List the queues, with their limits and loads."""
    session.show(session.client.list_queues(limit=MOST), _queue_table)


def _queue_table(page: dict[str, Any], screen: Screen) -> Iterator[str]:
    rows = [
        (each["name"], str(each["queued"]), str(each["running"]), str(each["concurrency"])) for each in page["items"]
    ]
    return table(("QUEUE", "QUEUED", "RUNNING", "LIMIT"), rows, screen, "no queues are configured")

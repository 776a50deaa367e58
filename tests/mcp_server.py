"""An MCP server made with the official SDK: `python -m tests.mcp_server [PORT]`, by stdio or by streamable HTTP."""

import os
import subprocess
import sys
from pathlib import Path

from mcp.server import MCPServer

server = MCPServer("test-tools")


def _note(line: str) -> None:
    ledger = os.environ.get("LEDGER")
    if ledger:
        with Path(ledger).open("a") as file:
            file.write(line + "\n")


@server.tool()
def shout(text: str) -> str:
    """Says it louder."""
    _note(f"shout {text} by {os.getpid()}")
    return text.upper()


@server.tool()
def secret() -> str:
    """What the environment has kept."""
    return os.environ.get("KEPT", "nothing")


@server.tool()
def variables() -> str:
    """The names of the environment; Python adds a locale by itself."""
    return " ".join(sorted(os.environ.keys() - {"LC_CTYPE"}))


@server.tool()
def breed() -> str:
    """Starts a program that leaves the server's session."""
    child = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True, env={})
    _note(f"bred {child.pid}")
    return "bred"


@server.tool()
def broken() -> str:
    """Raises."""
    raise RuntimeError("it is broken")


@server.tool()
def die() -> str:
    """Takes the server down."""
    _note(f"die by {os.getpid()}")
    os._exit(3)


if __name__ == "__main__":
    _note(f"begin by {os.getpid()}")
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")

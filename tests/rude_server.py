"""An MCP server by stdio that breaks the rules, as none that is made with the SDK could."""

import json
import sys
from typing import Any

TOOLS = ("refuse", "nonsense", "babble", "ponder", "echo")


def answer(asked: dict[str, Any]) -> dict[str, Any] | None:
    match asked["method"], asked.get("params", {}):
        case "initialize", {"protocolVersion": version}:
            about = {"serverInfo": {"name": "rude", "version": "1"}, "capabilities": {"tools": {}}}
            return {"result": {"protocolVersion": version, **about}}
        case "tools/list", _:
            tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
            return None if "listless" in sys.argv else {"result": {"tools": tools, "nextCursor": "again"}}
        case "tools/call", {"name": "refuse"}:
            return {"error": {"code": -32602, "message": "not like this"}}
        case "tools/call", {"name": "nonsense"}:
            return {"result": {"banana": 1}}
        case "tools/call", {"name": "babble"}:
            return {"result": {"content": [{"type": "text", "text": "x" * (50 << 20)}]}}
        case "tools/call", {"name": "ponder"}:
            return None
        case "tools/call", _:
            return {"result": {"content": [{"type": "text", "text": "polite"}]}}
    return {"error": {"code": -32601, "message": "no such method"}}


print("Welcome! This is no message.", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked and (said := answer(asked)) is not None:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **said}), flush=True)

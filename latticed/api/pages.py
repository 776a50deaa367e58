"""The interface as one page of HTML, made from the OpenAPI document. It holds no script and loads nothing."""

from html import escape
from typing import Any

import orjson

from latticed.api import openapi

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8886; padding: .5rem 0 1rem; }
h2 code { font-size: 1rem; } h3 { margin: 1rem 0 .3rem; font-size: 1rem; }
b.get { color: #17803d; } b.post { color: #b45309; } b.delete { color: #b91c1c; }
table { border-collapse: collapse; } td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
pre { overflow-x: auto; background: #8881; padding: .5rem; } a { color: inherit; }
"""


def document(version: str) -> bytes:
    """The whole page."""
    description = openapi.build(version)
    operations = [
        (path, method, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>latticed {escape(version)}: HTTP interface</title><style>{_STYLE}</style>",
        f"<h1>latticed {escape(version)}: HTTP interface</h1>",
        "<p>The same for programs: <a href='openapi.json'>openapi.json</a>.</p>",
        "<ul>",
        *(
            f"<li><a href='#{operation['operationId']}'>{escape(operation['summary'])}</a>"
            for _, _, operation in operations
        ),
        "</ul>",
        *(_operation(path, method, operation) for path, method, operation in operations),
        "<h1>Shapes</h1>",
        *(_shape(name, schema) for name, schema in description["components"]["schemas"].items()),
        "</html>",
    ]
    return "\n".join(parts).encode()


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{escape(item['name'])}</code><td>{item['in']}<td>{escape(item.get('description', ''))}"
        f" <code>{escape(_short(item['schema']))}</code>"
        for item in operation["parameters"]
    ]
    if "requestBody" in operation:
        rows.append(f"<tr><td>body<td><td>{_content(operation['requestBody']['content'])}")
    answers = [
        f"<tr><td>{status}<td>{escape(answer['description'])}<td>{_content(answer.get('content', {}))}"
        for status, answer in operation["responses"].items()
    ]
    return (
        f"<section id='{operation['operationId']}'><h2><b class={method}>{method.upper()}</b> "
        f"<code>{escape(path)}</code></h2><p>{escape(operation['description'])}"
        f"{'<h3>Takes</h3><table>' + ''.join(rows) + '</table>' if rows else ''}"
        f"<h3>Gives</h3><table>{''.join(answers)}</table></section>"
    )


def _content(content: dict[str, Any]) -> str:
    told = []
    for media_type, described in content.items():
        name = described["schema"].get("$ref", "").rsplit("/", 1)[-1]
        link = f" <a href='#shape-{name}'>{name}</a>" if name else ""
        told.append(f"<code>{escape(media_type)}</code>{link}")
    return "<br>".join(told)


def _short(schema: dict[str, Any]) -> str:
    return orjson.dumps(schema).decode()


def _shape(name: str, schema: dict[str, Any]) -> str:
    text = orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode()
    return f"<section id='shape-{name}'><h2>{name}</h2><pre>{escape(text)}</pre></section>"

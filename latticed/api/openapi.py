"""The OpenAPI 3.1 document, made from the table of routes and the models."""

import re
from collections.abc import Iterable
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from latticed.api.auth import COOKIE, SECURE_COOKIE
from latticed.api.exchange import Problem, Route, Text
from latticed.api.matcher import PARAMETERS
from latticed.api.routes import ROUTES
from latticed.errors import ERRORS, LatticedError, Unreadable

REFERENCE = "#/components/schemas/{model}"
_ERRORS: list[type[LatticedError]] = [*ERRORS.values(), Unreadable]
_TITLES = {error.status: error.title for error in _ERRORS}
_PLAIN = {200: "Done", 201: "Made", 202: "Accepted", 204: "Nothing to say"}
_NAMED = re.compile(r"{(\w+)}")

IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and body within 24 hours give the first answer again, with status 200.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "Of a stream: continue behind this event. Beats `after`.",
    "schema": {"type": "string", "pattern": "^[0-9]{0,40}$"},
}
SESSION = "Of a browser, from `POST /v1/session`. What changes something needs an `Origin` that is the daemon's."
REQUEST_ID = {"description": "What the log calls this request.", "schema": {"type": "string"}}


def document(version: str) -> bytes:
    """The whole document as JSON."""
    return orjson.dumps(build(version))


def build(version: str) -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "latticed", "version": version, "description": "The durable run executor's HTTP interface."},
        "paths": paths,
        "security": [{"bearer": []}, {"session": []}, {"session_over_https": []}],
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": COOKIE.decode(), "description": SESSION},
                "session_over_https": {"type": "apiKey", "in": "cookie", "name": SECURE_COOKIE.decode()},
            },
        },
    }


def models() -> list[type[BaseModel]]:
    """Every model of the table, once."""
    found: dict[str, type[BaseModel]] = {Problem.__name__: Problem}
    for route in ROUTES:
        for model in (route.body, *route.answers.values()):
            if isinstance(model, type):
                found[model.__name__] = model
    return list(found.values())


def _schemas() -> dict[str, Any]:
    _, schema = models_json_schema([(model, "validation") for model in models()], ref_template=REFERENCE)
    definitions: dict[str, Any] = schema["$defs"]
    return definitions


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=model.__name__)}


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": _description(route),
        "tags": [_tag(route)],
        "parameters": [*_path_parameters(route), *_query_parameters(route), *_header_parameters(route)],
        "responses": _responses(route),
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": {"application/json": {"schema": _reference(route.body)}},
        }
    if route.role is None:
        operation["security"] = []
    return operation


def _description(route: Route) -> str:
    text = (route.handler.__doc__ or route.summary).strip()
    if route.role is None:
        return f"{text} Open to all."
    where = " for all workspaces" if route.everywhere else ""
    return f"{text} Needs a token{where} with at least the role `{route.role}`."


def _tag(route: Route) -> str:
    parts = [part for part in route.path.removeprefix("/v1/workspaces/{workspace}").split("/") if part]
    return "workspaces" if parts[:2] in ([], ["v1", "workspaces"]) else "daemon" if not _scoped(route) else parts[0]


def _scoped(route: Route) -> bool:
    return "{workspace}" in route.path


def _path_parameters(route: Route) -> Iterable[dict[str, Any]]:
    for name in _NAMED.findall(route.path):
        parameter = PARAMETERS[name]
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": parameter.description,
            "schema": {"type": "string", "pattern": parameter.pattern},
        }


def _query_parameters(route: Route) -> Iterable[dict[str, Any]]:
    schema = route.query.model_json_schema()
    definitions = schema.get("$defs", {})
    for name, field in schema.get("properties", {}).items():
        described = {key: value for key, value in field.items() if key not in ("title", "description")}
        parameter = {"name": name, "in": "query", "required": False, "schema": _inlined(described, definitions)}
        told = [field, *field.get("anyOf", ())]
        if description := next((each["description"] for each in told if "description" in each), None):
            parameter["description"] = description
        yield parameter


def _inlined(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A query parameter's schema without references and without the `null` that no query can carry."""
    if "$ref" in schema:
        schema = {**definitions[schema["$ref"].rsplit("/", 1)[1]], **{k: v for k, v in schema.items() if k != "$ref"}}
    if "anyOf" in schema:
        given = [option for option in schema["anyOf"] if option != {"type": "null"}]
        rest = {k: v for k, v in schema.items() if k != "anyOf" and not (k == "default" and v is None)}
        schema = {**_inlined(given[0], definitions), **rest} if len(given) == 1 else {**rest, "anyOf": given}
    return {key: value for key, value in schema.items() if key not in ("title", "description")}


def _header_parameters(route: Route) -> Iterable[dict[str, Any]]:
    if route.idempotent:
        yield IDEMPOTENCY_KEY
    if route.streams:
        yield LAST_EVENT_ID


def statuses_of_problems(route: Route) -> set[int]:
    """The errors that this route can answer with."""
    found = {422, 500, *route.problems}
    if route.role is not None:
        found |= {401, 403, 503}
    if _NAMED.search(route.path):
        found.add(404)
    if route.body is not None:
        found |= {400, 413}
    return found


def _responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in route.answers.items():
        responses[str(status)] = _answer(route, status, answer)
    if route.streams:
        responses["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
        responses["204"] = {
            "description": "The run is over and `Last-Event-ID` was its last event",
            "headers": {"x-request-id": REQUEST_ID},
        }
    for media_type in route.also:
        responses["200"]["content"][media_type] = {"schema": {"type": "string"}}
    for status in sorted(statuses_of_problems(route)):
        headers: dict[str, Any] = {"x-request-id": REQUEST_ID}
        if status == 401:
            headers["WWW-Authenticate"] = {"required": True, "schema": {"type": "string"}}
        if status in (429, 503):
            headers["Retry-After"] = {"required": True, "schema": {"type": "integer", "minimum": 1}}
        responses[str(status)] = {
            "description": _TITLES[status],
            "headers": headers,
            "content": {"application/problem+json": {"schema": _reference(Problem)}},
        }
    return responses


def _answer(route: Route, status: int, answer: Any) -> dict[str, Any]:
    response: dict[str, Any] = {"description": _PLAIN[status], "headers": {"x-request-id": REQUEST_ID}}
    if route.idempotent and status == 200:
        response["description"] = "The first answer again: this key was used before"
        response["headers"]["Idempotency-Replayed"] = {"required": True, "schema": {"const": "true"}}
    if isinstance(answer, Text):
        response["content"] = {answer.media_type: {"schema": {"type": "string"}}}
    elif answer is not None:
        response["content"] = {"application/json": {"schema": _reference(answer)}}
    return response

"""The description and what it describes are the same thing."""

import re
from typing import Any

import jsonschema_rs
import orjson
import pytest

from latticed.api import openapi, pages
from latticed.api.exchange import Route
from latticed.api.routes import ROUTES
from tests.unit.api_lattice import Client, run_view

DOCUMENT = openapi.build("1.2.3")


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(item) for item in value.values()))
    return set().union(*(references(item) for item in value)) if isinstance(value, list) else set()


def operation(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][route.path][route.method.lower()]
    return found


def test_it_has_every_route_and_no_other() -> None:
    described = {(path, method.upper()) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == {(route.path, route.method) for route in ROUTES}


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        assert reference.removeprefix("#/components/schemas/") in DOCUMENT["components"]["schemas"]


def test_every_schema_is_one() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}), name


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_a_route_is_described_whole(route: Route) -> None:
    described = operation(route)
    parameters = {(item["in"], item["name"]) for item in described["parameters"]}
    assert {name for place, name in parameters if place == "path"} == set(re.findall(r"{(\w+)}", route.path))
    assert {name for place, name in parameters if place == "query"} == set(route.query.model_fields)
    assert (("header", "Idempotency-Key") in parameters) == route.idempotent
    assert (("header", "Last-Event-ID") in parameters) == route.streams
    assert ("requestBody" in described) == (route.body is not None)
    assert set(map(str, route.answers)) <= set(described["responses"])
    assert (described.get("security") == []) == (route.role is None)
    if route.role is not None:
        assert {"401", "403", "503"} <= set(described["responses"])
    for status, response in described["responses"].items():
        if int(status) >= 400:
            assert list(response["content"]) == ["application/problem+json"]


def test_query_parameters_carry_their_bounds() -> None:
    [limit] = [item for item in DOCUMENT["paths"]["/v1/workspaces"]["get"]["parameters"] if item["name"] == "limit"]
    assert limit["schema"] == {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}


def test_a_run_of_the_facade_is_the_run_that_is_described() -> None:
    schema = {"$ref": "#/components/schemas/Run", "components": DOCUMENT["components"]}
    assert jsonschema_rs.is_valid(schema, run_view())
    assert not jsonschema_rs.is_valid(schema, {**run_view(), "status": "done"})


async def test_it_is_served_to_whoever_has_a_token() -> None:
    client = Client(version="1.2.3")
    answer = await client("GET", "/openapi.json", token="viewer")
    assert orjson.loads(answer.body) == DOCUMENT
    assert (await client("GET", "/openapi.json", token=None)).status == 401


async def test_the_page_tells_every_route_and_loads_nothing() -> None:
    answer = await Client(version="1.2.3").__call__("GET", "/docs", token="viewer")
    page = answer.body.decode()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert all(f"id='{route.name}'" in page for route in ROUTES)
    assert not re.search(r"<script|<img|<link|src=|https?:|//[a-z]", page)


def test_what_is_written_into_the_page_is_escaped() -> None:
    assert b"<b>1" not in pages.document("<b>1")

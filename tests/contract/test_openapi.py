"""The document that the daemon serves, and whether others can read it."""

import re

import schemathesis

from latticed.api import openapi
from latticed.api.routes import ROUTES
from tests.conftest import Daemon


def test_what_is_served_is_what_the_models_say(live: Daemon) -> None:
    served = live.client.get("/openapi.json")
    assert served.headers["content-type"] == "application/json"
    document = served.json()
    assert document == openapi.build(document["info"]["version"])
    assert document["openapi"].startswith("3.1")


def test_it_is_valid_openapi(live: Daemon) -> None:
    schema = schemathesis.openapi.from_dict(live.client.get("/openapi.json").json())
    schema.validate()
    found = {(operation.ok().method.upper(), operation.ok().path) for operation in schema.get_all_operations()}
    assert found == {(route.method, route.path) for route in ROUTES}


def test_the_page_is_served_whole_and_loads_nothing(live: Daemon) -> None:
    answer = live.client.get("/docs")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert not re.search(r"<script|<img|<link|src=|https?:", answer.text)
    assert all(route.summary in answer.text.replace("&#x27;", "'") for route in ROUTES)

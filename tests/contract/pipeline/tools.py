"""Tools for pipelines. What they do is counted in a file, so that a call that is made twice is seen."""

import os
from pathlib import Path


def weather(city: str) -> dict[str, object]:
    """The weather in a city."""
    return {"city": city, "sky": "clear", "api_key": "hidden-in-a-tool", "max_tokens": 7}


def sell(item: str) -> str:
    """Sells an item, for good."""
    with Path(os.environ["SALES"]).open("a", encoding="utf-8") as sales:
        sales.write(f"{item}\n")
    return f"sold {item}"

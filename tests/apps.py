"""Applications under test, as a team's own code would be: called through wire "python"."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any


def by_rule(input: Mapping[str, Any]) -> dict[str, str]:
    """Always right."""
    return {"label": "billing" if "billing" in str(input["text"]) else "delivery"}


def always_billing(input: Mapping[str, Any]) -> dict[str, str]:
    """Right for every other case."""
    return {"label": "billing"}


async def by_prompt(input: Mapping[str, Any], messages: Any) -> dict[str, str]:
    """Right under prompt v1, careless under v2: what a bad edit does."""
    careless = "Prompt v2" in str(messages)
    return always_billing(input) if careless else by_rule(input)


def fails_on_sevens(input: Mapping[str, Any]) -> dict[str, str]:
    """Raises for every text that starts with a 7."""
    if str(input["text"]).startswith("7"):
        raise RuntimeError("the database is down")
    return by_rule(input)


async def late(input: Mapping[str, Any]) -> dict[str, str]:
    """Right, but it holds the event loop for half a second, so that no deadline can cut it off."""
    time.sleep(0.5)  # noqa: ASYNC251
    return by_rule(input)

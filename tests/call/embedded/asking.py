"""Prompts for the embedded model, as the tests of this folder write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.call.embedded.model import EmbeddedModel, Spoken
from evalkit.call.embedded.similarity import HashedBackend
from evalkit.records import Message


def prompt(system: str, data: str = "", documents: Sequence[tuple[str, str]] = ()) -> list[Message]:
    """A system message, and a user message with the documents and the delimited data."""
    blocks = [f'<document id="{name}">\n{text}\n</document>' for name, text in documents]
    user = "\n\n".join([*blocks, f"<data>\n{data}\n</data>"])
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def ask(messages: Sequence[Message], schema: Mapping[str, Any] | None = None) -> Spoken:
    return EmbeddedModel(HashedBackend()).reply(messages, schema)


def value(messages: Sequence[Message], schema: Mapping[str, Any] | None = None) -> Any:
    return json.loads(ask(messages, schema).text)


def choice(*labels: str, field: str = "label") -> dict[str, Any]:
    """The schema of an answer that is one label."""
    return {
        "type": "object",
        "properties": {field: {"type": "string", "enum": list(labels)}},
        "required": [field],
    }


def record(**fields: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an answer with these fields, all required."""
    return {"type": "object", "properties": fields, "required": list(fields)}


def nullable(kind: str) -> dict[str, Any]:
    return {"type": [kind, "null"]}

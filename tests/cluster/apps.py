"""Applications that write down who was asked what: `calls`, a key of the input, names the file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.apps import by_rule


@dataclass(frozen=True)
class Counted:
    """An answer that says what it took."""

    text: dict[str, str]
    usage: Mapping[str, int]


async def noted(input: Mapping[str, Any]) -> Counted:
    """Right, after 20 ms."""
    note(Path(input["calls"]), str(input["text"]))
    await asyncio.sleep(0.02)
    return Counted(by_rule(input), {"prompt_tokens": 10, "completion_tokens": 5})


def note(calls: Path, text: str) -> None:
    with calls.open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {text}\n")


async def deadly(input: Mapping[str, Any]) -> dict[str, str]:
    """Takes its whole process with it at the seventh case."""
    if str(input["text"]).startswith("7:"):
        os._exit(1)
    return by_rule(input)


def asked(calls: Path) -> list[tuple[int, str]]:
    """(process, text) of every call so far."""
    if not calls.exists():
        return []
    lines = calls.read_text(encoding="utf-8").splitlines()
    return [(int(pid), text) for pid, _, text in (line.partition(" ") for line in lines)]

"""The application under test, which counts for itself how often it was called.

A case's name goes into a file beside the working folder before it is answered: the count
survives whatever becomes of the process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CASE = re.compile(r"\[case ([^\]]+)\]")


def log_of(folder: Path) -> Path:
    """Where the calls of command lines in `folder` are counted."""
    return folder.with_name(folder.name + ".calls")


async def counted(input: Mapping[str, Any], messages: Any) -> dict[str, str]:
    """Right under prompt v1; under v2 always `billing`, which is right for every other case."""
    text = str(input["text"])
    named = _CASE.search(text)
    version = "v2" if "Prompt v2" in str(messages) else "v1"
    descriptor = os.open(log_of(Path.cwd()), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{version} {named[1] if named else '?'}\n".encode())
    os.close(descriptor)
    return {"label": "billing" if version == "v2" or "billing" in text else "delivery"}

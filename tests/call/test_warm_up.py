"""What an orchestrator loads as it is entered: what its features use, and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HTTP = """
[providers.far]
wire = "openai"
base_url = "http://127.0.0.1:9/v1"
[models.m]
provider = "far"
id = "m-1"
"""
FEATURE = """
[features.answer]
task = "generate"
prompt = "answer@v1"
model = "{model}"
guard = {guard}
"""
LOADED = """
import asyncio, sys
from evalkit import Orchestrator

async def enter():
    async with Orchestrator.from_config(sys.argv[1]):
        print(" ".join(name for name in ("aiohttp", "jinja2", "re2") if name in sys.modules))

asyncio.run(enter())
"""


@pytest.mark.parametrize(
    ("model", "guard", "loaded"),
    [("m", "true", "aiohttp jinja2 re2"), ("embedded", "false", "jinja2")],
)
def test_entering_loads_what_the_features_use(
    tmp_path: Path, model: str, guard: str, loaded: str
) -> None:
    config = tmp_path / "evalkit.toml"
    config.write_text(HTTP + FEATURE.format(model=model, guard=guard))

    done = subprocess.run(
        [sys.executable, "-c", LOADED, config], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == loaded.split()

"""Call a feature once for each attack, and print what it cost: a line of JSON each.

`python -m tests.hostile.hostile_client PORT FOLDER DEADLINE_MS`; a process of its own, so that
its memory is that of the calls alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from evalkit.call.orchestrator import Orchestrator
from evalkit.config import load_settings
from evalkit.records import CallResult
from tests.hostile.hostile_server import ATTACKS
from tests.hostile.memory import peak_mb
from tests.hostile.waiting import queued_s

CONFIG = """
[providers.{name}]
wire = "openai"
base_url = "http://127.0.0.1:{port}/{name}"
[models.{name}]
provider = "{name}"
id = "m"
[features.{name}]
task = "generate"
prompt = "ask@v1"
model = "{name}"
max_tokens = 64
max_latency_ms = {deadline_ms}
ttft_ms = {deadline_ms}
retries = 0
"""


def write(folder: Path, port: int, deadline_ms: int) -> Path:
    text = "".join(CONFIG.format(name=n, port=port, deadline_ms=deadline_ms) for n in ATTACKS)
    (folder / "prompts/ask").mkdir(parents=True, exist_ok=True)
    (folder / "prompts/ask/v1.md").write_text("## user\n{{ text }}\n", encoding="utf-8")
    config = folder / "evalkit.toml"
    config.write_text(text, encoding="utf-8")
    return config


async def attack(app: Orchestrator, name: str, *, streamed: bool) -> CallResult:
    if not streamed:
        return await app.execute(name, {"text": "hello"})
    said = [event async for event in app.stream(name, {"text": "hello"})]
    assert isinstance(said[-1], CallResult)
    return said[-1]


async def main(port: int, folder: Path, deadline_ms: int) -> None:
    settings = load_settings(write(folder, port, deadline_ms))
    async with Orchestrator.from_config(settings) as app:
        await attack(app, "html", streamed=False)  # what a first call imports is no attack
        for name in ATTACKS:
            for streamed in (False, True):
                before = peak_mb()
                took_s: list[float] = []
                ends: list[CallResult] = []
                # Late once, it is the machine's fault perhaps; three times, it is not.
                while len(ends) < 3 and (not ends or took_s[-1] > deadline_ms / 1000 + 0.2):
                    began = time.monotonic() - queued_s()
                    ends.append(await attack(app, name, streamed=streamed))
                    took_s.append(round(time.monotonic() - queued_s() - began, 3))
                result = ends[0]
                row = {
                    "attack": name,
                    "streamed": streamed,
                    "kind": result.error_kind,
                    "attempts": [one.error_kind for one in result.record.attempts],
                    "took_s": took_s,
                    "grew_mb": round(peak_mb() - before, 1),
                }
                sys.stdout.write(json.dumps(row) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))

"""Run the loopback provider as a process; its port is the one line on stdout."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from pathlib import Path

from tests.loopback.behaviour import Rule
from tests.loopback.server import Loopback


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.loopback", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--script", type=Path, help="JSON file with a list of rules")
    options = parser.parse_args()
    rules = json.loads(options.script.read_text(encoding="utf-8")) if options.script else []
    server = Loopback(
        *map(Rule.from_json, rules), delay_ms=options.delay_ms, port=options.port, keep=0
    )
    serving = asyncio.create_task(server.serve())
    await asyncio.to_thread(server.started.wait, 10)
    print(server.port, flush=True)
    await serving


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())

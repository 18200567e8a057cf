"""10,000 users on the call path, half of them on a provider that has stalled.

    python -m benchmarks.shedding [--users 10000] [--seconds 60] [--json FILE]

Two features, two providers, one process. By turns only the healthy feature's users come, spread
over the time, and then the same ones with as many of the other feature between them, whose provider
takes every request and never answers. Shown: that no call is without a record in the store, that
the stalled feature's users are told so in time by a kind of the failure table, what that does to
the healthy feature's 95th percentile (median over the rounds of busy / calm), and the memory it
takes. Exit status 1 when a bound does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DELAY_MS = 50
WARM = 200
ROUNDS = 4
"""Calm and busy by turns, so that both meet the same machine."""
DEADLINE_S, SLACK_S = 3.0, 0.5
BOUND_P95, BOUND_MB = 2.0, 300.0

CONFIG = """
[providers.healthy]
wire = "openai"
base_url = "{healthy}/v1"
max_in_flight = 200
[providers.stalled]
wire = "openai"
base_url = "{stalled}/v1"
max_in_flight = 200
[models.healthy]
provider = "healthy"
id = "m"
price = {{ input = 0.1, output = 0.2 }}
[models.stalled]
provider = "stalled"
id = "m"
[features.healthy]
task = "generate"
prompt = "say@v1"
model = "healthy"
max_tokens = 64
max_latency_ms = {deadline_ms}
[features.stalled]
task = "generate"
prompt = "say@v1"
model = "stalled"
max_tokens = 64
max_latency_ms = {deadline_ms}
retries = 1
"""


@contextmanager
def provider(script: list[dict[str, Any]]) -> Iterator[str]:
    """A loopback provider in a process of its own; yields its URL."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(script, file)
        file.flush()
        command = [sys.executable, "-m", "tests.loopback", "--delay-ms", str(DELAY_MS)]
        with subprocess.Popen(
            [*command, "--script", file.name], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def write_project(folder: Path, *, healthy: str, stalled: str) -> Path:
    (folder / "prompts/say").mkdir(parents=True)
    (folder / "prompts/say/v1.md").write_text("## user\n{{ text }}\n", encoding="utf-8")
    path = folder / "evalkit.toml"
    text = CONFIG.format(healthy=healthy, stalled=stalled, deadline_ms=int(DEADLINE_S * 1000))
    path.write_text(text, encoding="utf-8")
    return path


class Users:
    """Sends calls at their times and keeps how each ended."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.took_s: dict[str, list[float]] = {"healthy": [], "stalled": []}
        self.kinds: dict[str, Counter[str | None]] = {"healthy": Counter(), "stalled": Counter()}

    async def one(self, feature: str, number: int, at: float) -> None:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        began = time.monotonic()
        result = await self._app.execute(
            feature, {"text": f"Question {number} of {feature}"}, user_id=f"user-{number}"
        )
        self.took_s[feature].append(time.monotonic() - began)
        self.kinds[feature][result.error_kind] += 1

    async def come(self, features: list[str], *, each: int, seconds: float) -> None:
        start = time.monotonic() + 0.5
        await asyncio.gather(
            *(
                self.one(feature, number, start + seconds * number / each)
                for number in range(each)
                for feature in features
            )
        )

    def p95_ms(self, *, since: int) -> float:
        """Of the healthy feature, from its call of that number on."""
        return round(statistics.quantiles(self.took_s["healthy"][since:], n=20)[-1] * 1000, 1)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


async def load(config: Path, *, users: int, seconds: float) -> dict[str, Any]:
    """Both parts; what came of them, without a judgement."""
    from evalkit import Orchestrator
    from evalkit.store.call_log import CallLog
    from evalkit.store.views import open_store

    each, path = users // (2 * ROUNDS) * ROUNDS, config.parent / ".evalkit"
    log = CallLog(path)
    async with Orchestrator.from_config(config, sink=log) as app:
        await Users(app).come(["healthy"], each=WARM, seconds=0.5)
        before_mb = peak_mb()
        calm, busy = Users(app), Users(app)
        p95_ms: list[tuple[float, float]] = []
        for _ in range(ROUNDS):
            n = len(calm.took_s["healthy"])
            await calm.come(["healthy"], each=each // ROUNDS, seconds=seconds / ROUNDS)
            both = ["healthy", "stalled"]
            await busy.come(both, each=each // ROUNDS, seconds=seconds / ROUNDS)
            p95_ms.append((calm.p95_ms(since=n), busy.p95_ms(since=n)))
    log.close()
    with open_store(path).production() as engine:
        [row] = engine.rows("SELECT count(*) AS n, count(DISTINCT trace_id) AS ids FROM calls")
    return {
        "users": 2 * each,
        "calls": WARM + 3 * each,
        "records": row["n"],
        "distinct_records": row["ids"],
        "p95_ms": p95_ms,
        "p95_ratio": round(statistics.median(b / a for a, b in p95_ms), 2),
        "healthy_kinds": {str(k): n for k, n in busy.kinds["healthy"].items()},
        "stalled_kinds": {str(k): n for k, n in busy.kinds["stalled"].items()},
        "healthy_slowest_s": round(max(busy.took_s["healthy"]), 3),
        "stalled_slowest_s": round(max(busy.took_s["stalled"]), 3),
        "stalled_median_s": round(statistics.median(busy.took_s["stalled"]), 3),
        "before_mb": round(before_mb, 1),
        "grew_mb": round(peak_mb() - before_mb, 1),
    }


def broken(facts: dict[str, Any]) -> list[str]:
    """Which bounds do not hold."""
    from evalkit.call.failures import FAILURES

    ratio = facts["p95_ratio"]
    bounds = {
        "a record of every call": facts["records"] == facts["distinct_records"] == facts["calls"],
        "healthy calls answered": set(facts["healthy_kinds"]) == {"None"},
        "stalled calls are kinds of the failure table": set(facts["stalled_kinds"])
        <= set(FAILURES),
        "stalled calls end in time": facts["stalled_slowest_s"] <= DEADLINE_S + SLACK_S,
        f"healthy p95 below {BOUND_P95:g} times its calm value ({ratio:.2f})": ratio < BOUND_P95,
        f"less than {BOUND_MB:g} MB for it": facts["grew_mb"] < BOUND_MB,
    }
    return [what for what, holds in bounds.items() if not holds]


def measure(*, users: int, seconds: float) -> dict[str, Any]:
    from evalkit.session import run_async

    with (
        tempfile.TemporaryDirectory() as folder,
        provider([]) as healthy,
        provider([{"stall_after": -1}]) as stalled,
    ):
        config = write_project(Path(folder), healthy=healthy, stalled=stalled)
        return run_async(load(config, users=users, seconds=seconds))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shedding")
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    facts = measure(users=asked.users, seconds=asked.seconds)
    for name, value in facts.items():
        print(f"{name:20} {value}")
    failed = broken(facts)
    print("\n".join(f"does not hold: {one}" for one in failed) or "every bound holds")
    if asked.json:
        asked.json.write_text(json.dumps(facts | {"broken": failed}, indent=1) + "\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

"""What a look at the dashboard takes when production made ten million calls in a week.

    python -m benchmarks.dashboard [--rows N] [--days D]

Draws the calls (`benchmarks.traffic`) into a temporary folder, asks for the dashboard three
times, each in a process of its own, and removes the folder. The first look counts the calls,
once for each file of the log; a log that rolls by the hour has an hour to count between two
looks. The ratio is to one DuckDB query in the same process that only sums the costs by feature.
Exits with 1 when a later look takes a second or more of processor time.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.traffic import PRICES, START_US, write_calls

DAY_US = 86_400_000_000
BYTES_PER_CALL = 250
BOUND_S = 1.0


def look(store: Path, days: int) -> dict[str, Any]:
    """One dashboard, from the figures to the page, and the query it is held against."""
    from evalkit.dashboard.figures import gather
    from evalkit.dashboard.page import render_dashboard
    from evalkit.dashboard.window import Window
    from evalkit.settings import BudgetSettings, ModelSettings, Price, Settings, SpendCap
    from evalkit.store.views import open_store

    models = {
        name: ModelSettings(
            name=name, provider="p", id=name, tier="frontier" if name == "large" else "cheap",
            price=Price(input=price[0], output=price[1]),
        )
        for name, price in PRICES.items()
    }  # fmt: skip
    settings = Settings(
        root=store, models=models, budgets=BudgetSettings(total=SpendCap(month_usd=1e6))
    )
    until = START_US + days * DAY_US
    started, cpu = time.perf_counter(), time.process_time()
    found = gather(open_store(store), settings, Window.of(START_US, until), now=until - 1)
    page = render_dashboard(found, project=store)
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "calls": found.total.calls,
        "cost_usd": str(found.total.cost_usd),
        "page_kb": len(page) / 1024,
        "s": took,
        "cpu_s": cpu,
        "peak_mb": peak_mb,
        "one_sum_s": _one_sum(store),
    }


def _one_sum(store: Path) -> float:
    from evalkit.store.views import open_store

    with open_store(store).production() as engine:
        engine.rows("SELECT 1 FROM calls LIMIT 1")
        started = time.perf_counter()
        engine.rows("SELECT feature, sum(cost_usd) FROM calls GROUP BY feature")
        return time.perf_counter() - started


def in_a_process(store: Path, days: int) -> dict[str, Any]:
    argv = [sys.executable, "-m", "benchmarks.dashboard", "--look", str(store), "--days", str(days)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--look", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.look is not None:
        print(json.dumps(look(given.look, given.days)))
        return 0
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < 2 * BYTES_PER_CALL * given.rows:
        print(f"{free / 1e9:.1f} GB free is too little for {given.rows:,} calls", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="evalkit-dashboard-") as folder:
        store = Path(folder) / "store"
        write_calls(store, rows=given.rows, days=given.days)
        looks = [in_a_process(store, given.days) for _ in range(3)]
    for name, one in zip(("first look", "second look", "third look"), looks, strict=True):
        print(
            f"{name}: {one['s']:.2f} s, {one['cpu_s']:.2f} s of processor time, "
            f"{one['peak_mb']:.0f} MB, {one['s'] / one['one_sum_s']:.2f} of one sum over the calls"
        )
    print(
        f"{looks[0]['calls']:,} calls, ${looks[0]['cost_usd']}, page {looks[0]['page_kb']:.0f} KB"
    )
    return int(max(one["cpu_s"] for one in looks[1:]) >= BOUND_S)


if __name__ == "__main__":
    sys.exit(main())

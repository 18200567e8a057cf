"""What the spending ledger costs a call: one reserve and one settle.

    python -m benchmarks.ledger [--calls 20000] [--folder DIR]

All four scopes are limited by day and month, 50 users and 5 tenants take turns. Times are
of the pair, on the clock and of the process; on a busy machine the CPU time is the one to
trust.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from evalkit.call.ledger import Ledger
from evalkit.settings import BudgetSettings, SpendCap

ROOMY = SpendCap(day_usd=1e6, month_usd=1e6, day_tokens=10**12, month_calls=10**9)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="Where the file is; default: a temporary one.")
    options = parser.parse_args()
    caps = BudgetSettings(total=ROOMY, user=ROOMY, tenant=ROOMY, feature=ROOMY)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        times, cpu_s = asyncio.run(warm_and_measure(folder, caps, options.calls))
    times.sort()
    for name, share in (("median", 0.5), ("90 %", 0.9), ("99 %", 0.99)):
        print(f"{name:8}{times[int(share * len(times))] * 1e6:8.0f} us")
    print(f"{'CPU':8}{cpu_s / len(times) * 1e6:8.0f} us a call")


async def warm_and_measure(
    folder: str, caps: BudgetSettings, calls: int
) -> tuple[list[float], float]:
    async with aclosing(Ledger(Path(folder) / "budget.sqlite", caps)) as ledger:
        await measure(ledger, 1000)
        return await measure(ledger, calls)


async def measure(ledger: Ledger, calls: int) -> tuple[list[float], float]:
    """Seconds of each pair, and CPU seconds of all."""
    times, cpu_s = [], time.process_time()
    for number in range(calls):
        started = time.perf_counter()
        user, tenant = f"user-{number % 50}", f"tenant-{number % 5}"
        hold = await ledger.reserve(0.001, 1000, user=user, tenant=tenant, feature="classify")
        ledger.settle(hold, 0.0007, 800)
        times.append(time.perf_counter() - started)
    return times, time.process_time() - cpu_s


if __name__ == "__main__":
    main()

"""A year of looking every day: how often a steady series alarms, how soon one that fell.

    python -m benchmarks.drift_year [--years N] [--falls N] [--answers N] [--workers N]

Each replicate is a year of sampled answers, looked at after each day by the test behind
`evalkit drift` (`FallTest`). A steady year that has raised an alarm by its last day is a false
alarm: at most alpha of them are promised, all 365 looks together. Then the mean falls on day
100, by 2, 5 and 10 points, and the days until the alarm are counted. Seeded.
"""

from __future__ import annotations

import argparse
import math
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from evalkit.decide.sequential import FallTest

DAYS, FALL_DAY, ALPHA, MEAN = 365, 100, 0.05, 0.85
DROPS = (0.02, 0.05, 0.10)


def days_until_alarm(seed: int, *, answers: int, drop: float, days: int = DAYS) -> int | None:
    """Looks until the alarm; None when the year had none."""
    rng = np.random.default_rng(seed)
    test = FallTest(alpha=ALPHA)
    for day in range(days):
        good = int(rng.binomial(answers, MEAN - drop * (day >= FALL_DAY)))
        if test.add([0.0, 1.0], 1.0, [answers - good, good]):
            return test.alarm_at
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--years", type=int, default=2_000, help="steady ones")
    parser.add_argument("--falls", type=int, default=200, help="years with a fall, each kind")
    parser.add_argument("--answers", type=int, default=200, help="sampled a day")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    with ProcessPoolExecutor(options.workers) as pool:
        steady = partial(days_until_alarm, answers=options.answers, drop=0.0)
        found = list(pool.map(steady, range(options.years), chunksize=10))
        alarms = sum(day is not None for day in found)
        rate = alarms / len(found)
        margin = 3 * math.sqrt(ALPHA * (1 - ALPHA) / len(found))
        print(
            f"steady, {options.answers} answers a day, mean {MEAN}: {alarms} of {len(found)} years "
            f"alarmed, {rate:.2%}; promised at most {ALPHA:.0%}"
        )
        print("\n| fall on day 100 | found within the year | days until then: median | 90 % |")
        print("| ---: | ---: | ---: | ---: |")
        for drop in DROPS:
            fallen = partial(days_until_alarm, answers=options.answers, drop=drop)
            ends = list(pool.map(fallen, range(10_000, 10_000 + options.falls), chunksize=10))
            delays = sorted(DAYS if end is None else end - FALL_DAY for end in ends
                            if end is None or end > FALL_DAY)  # fmt: skip
            share = sum(end is not None and end > FALL_DAY for end in ends) / len(delays)
            print(f"| {drop:.0%} | {share:.1%} | {_shown(delays, 0.5)} | {_shown(delays, 0.9)} |")
    print(f"\n{time.monotonic() - started:.0f} s")
    if rate > ALPHA + margin:
        raise SystemExit(f"{rate:.2%} false alarms: more than {ALPHA:.0%} and three errors")


def _shown(delays: list[int], share: float) -> str:
    at = delays[min(len(delays) - 1, int(share * len(delays)))]
    return "-" if at >= DAYS else str(at)


if __name__ == "__main__":
    main()

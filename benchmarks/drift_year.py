"""A year of looking every day: how often a steady production alarms, how soon one that fell.

    python -m benchmarks.drift_year [--years N] [--falls N] [--answers N] [--series N] [--workers N]

Each replicate is a year of a production with several series of sampled answers: half of them
begin on the first day, a quarter after a week, the rest one by one over the year (new prompt
versions). After each day all are looked at by the test behind `evalkit drift` (`FallTest`), each
with its share of alpha (`alpha_shares`). A steady year in which any has raised an alarm by
its last day is a false alarm: at most alpha of them are promised, all series and all 365 looks
together. Then the mean of one falls on day 100, by 2, 5 and 10 points, and the days until its
alarm are counted: as the only series, and as one of them all. Seeded.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from evalkit.decide.sequential import FallTest
from evalkit.decide.series import alpha_shares
from evalkit.decide.series_rows import Block, Series

DAYS, FALL_DAY, ALPHA, MEAN = 365, 100, 0.05, 0.85
DROPS = (0.02, 0.05, 0.10)


def begins(n: int) -> list[int]:
    """On which day of the year each of `n` series begins."""
    first, weekly = math.ceil(n / 2), n // 4
    rest = n - first - weekly
    return [0] * first + [7] * weekly + [30 + i * 300 // max(rest, 1) for i in range(rest)]


def shares(days: Sequence[int]) -> list[float]:
    """What of alpha the series that begin on these days have, as `evalkit drift` gives it."""
    one = np.ones(1)
    blocks = {day: [Block(at=day, values=one, weights=one, counts=one)] for day in days}
    return alpha_shares(
        [
            Series(names=("f", "m", "v", f"m{n}"), blocks=blocks[day], worse="below")
            for n, day in enumerate(days)
        ]
    )


def days_until_alarm(
    seed: int, *, answers: int, drop: float = 0.0, days: int = DAYS, share: float = 1.0
) -> int | None:
    """Looks until the alarm of one series; None when it had none."""
    rng = np.random.default_rng(seed)
    test = FallTest(alpha=ALPHA * share)
    for day in range(days):
        good = int(rng.binomial(answers, MEAN - drop * (day >= FALL_DAY)))
        if test.add([0.0, 1.0], 1.0, [answers - good, good]):
            return test.alarm_at
    return None


def alarms(year: int, *, answers: int, series: int) -> int:
    """How many series of one steady year alarmed."""
    started = begins(series)
    return sum(
        days_until_alarm(year * series + n, answers=answers, days=DAYS - day, share=share)
        is not None
        for n, (day, share) in enumerate(zip(started, shares(started), strict=True))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--years", type=int, default=2_000, help="steady ones")
    parser.add_argument("--falls", type=int, default=200, help="years with a fall, each kind")
    parser.add_argument("--answers", type=int, default=200, help="sampled a day")
    parser.add_argument("--series", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    with ProcessPoolExecutor(options.workers) as pool:
        rate = _steady(pool, options)
        first = shares(begins(options.series))[0]
        print(
            f"\n| fall on day {FALL_DAY} | only series: found within the year | days until then: "
            f"median, 90 % | one of {options.series}: found | days: median, 90 % |"
        )
        print("| ---: | ---: | ---: | ---: | ---: |", flush=True)
        for drop in DROPS:
            cells = [_fallen(pool, options, drop, share) for share in (1.0, first)]
            print(f"| {drop:.0%} | {' | '.join(' | '.join(one) for one in cells)} |", flush=True)
    print(f"\n{time.monotonic() - started:.0f} s")
    margin = 3 * math.sqrt(ALPHA * (1 - ALPHA) / options.years)
    if rate > ALPHA + margin:
        raise SystemExit(f"{rate:.2%} false alarms: more than {ALPHA:.0%} and three errors")


def _steady(pool: ProcessPoolExecutor, options: argparse.Namespace) -> float:
    """Share of steady years with an alarm of any series."""
    steady = partial(alarms, answers=options.answers, series=options.series)
    found = list(pool.map(steady, range(options.years), chunksize=10))
    years = sum(n > 0 for n in found)
    rate = years / len(found)
    print(
        f"steady, {options.series} series, {options.answers} answers a day each, mean {MEAN}: "
        f"{years} of {len(found)} years alarmed, {rate:.2%}; promised at most {ALPHA:.0%}",
        flush=True,
    )
    return rate


def _fallen(
    pool: ProcessPoolExecutor, options: argparse.Namespace, drop: float, share: float
) -> tuple[str, str]:
    """Share of falls that were found, and the days until then: median and 90 %."""
    fallen = partial(days_until_alarm, answers=options.answers, drop=drop, share=share)
    ends = list(pool.map(fallen, range(10_000, 10_000 + options.falls), chunksize=10))
    after = [end for end in ends if end is None or end > FALL_DAY]
    delays = sorted(DAYS if end is None else end - FALL_DAY for end in after)
    found = sum(end is not None for end in after) / len(delays)
    return f"{found:.1%}", f"{_shown(delays, 0.5)}, {_shown(delays, 0.9)}"


def _shown(delays: list[int], share: float) -> str:
    at = delays[min(len(delays) - 1, int(share * len(delays)))]
    return "-" if at >= DAYS else str(at)


if __name__ == "__main__":
    main()

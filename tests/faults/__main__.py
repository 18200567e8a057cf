"""Carry out the scenarios and print the table; exit 1 if anything was lost or wrong."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.faults.forks import Forks
from tests.faults.scenarios import SCENARIOS
from tests.faults.table import Outcome, carry_out, lines_of

SHORT = 8
"""Places tried for each kind of fault, without --full."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--full", action="store_true", help="every place there is for a fault")
    parser.add_argument("--jobs", type=int, default=2, help="scenarios at once; 2")
    parser.add_argument("words", nargs="*", help="only scenarios whose names begin so")
    asked = parser.parse_args()
    names = [name for name in SCENARIOS if not asked.words or name.startswith(tuple(asked.words))]
    with ThreadPoolExecutor(asked.jobs) as pool:
        outcomes = list(pool.map(partial(_one, places=None if asked.full else SHORT), names))
    for line in lines_of(outcomes):
        print(line)
    return 0 if all(one.held or one.skipped for one in outcomes) else 1


def _one(name: str, *, places: int | None) -> Outcome:
    started = time.monotonic()
    with Forks() as forks:
        outcome = carry_out(SCENARIOS[name], name, forks=forks, places=places)
    ended = "" if outcome.held or outcome.skipped else ", not held: " + "; ".join(outcome.said[:1])
    print(f"{name}: {time.monotonic() - started:.1f} s{ended}", file=sys.stderr, flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main())

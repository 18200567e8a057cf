"""The call log and its sampling job at scale: what they take, in time and memory.

    python -m benchmarks.call_log [--rows N] [--folder DIR] [--processes N] [--seconds S]

Draws `--rows` calls of a week into a store (or uses the one in `--folder`), and samples one
percent of them, by rate and by quotas of strata, each in a process of its own whose largest
resident size is printed. Held to its bound is the processor time: two threads share it, so that
a machine of its own takes no longer; where others are at work the clock tells of them. Then
`--processes` processes log into one store for `--seconds`: each record has to be there once.
Sixteen of them on two cores also show that no call waits.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.traffic import FEATURES, START_US, write_calls
from evalkit.score.log_draw import DrawRule
from evalkit.score.online import SamplePlan, draw_window
from evalkit.store.views import open_store

DAY_US = 86_400_000_000
MAX_S, MAX_MB = 5.0, 2_000
LOGS = """
import json, sys, time
from dataclasses import replace
from evalkit.store.call_log import CallLog
from tests.store.journal_lines import call
store, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
one, slowest, n = call(), 0.0, 0
with CallLog(store) as log:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        record = replace(one, trace_id=f"{name}-{n:08d}")
        started = time.thread_time()
        log(record)
        slowest = max(slowest, time.thread_time() - started)
        n += 1
        time.sleep(0.002)
print(json.dumps({"n": n, "slowest_ms": slowest * 1000, "lost": log.lost}))
"""


class AllFeatures(SamplePlan):
    """A plan of every feature, without metrics: the draw alone."""

    __slots__ = ()

    @property
    def features(self) -> list[str]:
        return [one.feature for one in FEATURES]


def draw(folder: str, rule: DrawRule) -> None:
    """Draw once; print what was found and what it took, as JSON."""
    plan = AllFeatures(
        run_id="bench", since=START_US, until=START_US + 7 * DAY_US, rule=rule,
        by=("feature", "model", "prompt_version"), sets=(), limits_ms={}, concurrency=1,
        budget=None,
    )  # fmt: skip
    started, cpu = time.monotonic(), time.process_time()
    with open_store(folder).production(since=plan.since, until=plan.until) as engine:
        window = draw_window(engine, plan)
    print(
        json.dumps(
            {
                "calls": window.size,
                "drawn": len(window.drawn),
                "seconds": time.monotonic() - started,
                "cpu_s": time.process_time() - cpu,
                "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


def _measured(folder: Path, rate: str, per_stratum: str) -> bool:
    command = [sys.executable, "-m", "benchmarks.call_log", "--folder", str(folder), "--draw"]
    done = subprocess.run([*command, rate, per_stratum], capture_output=True, text=True, check=True)
    one = json.loads(done.stdout)
    holds = one["cpu_s"] < MAX_S and one["megabytes"] < MAX_MB
    how = f"rate {rate}" if rate != "-" else f"{per_stratum} of each stratum"
    print(
        f"{how}: {one['drawn']:,} of {one['calls']:,} calls in {one['cpu_s']:.1f} s of processor "
        f"time ({one['seconds']:.1f} s by the clock), {one['megabytes']:.0f} MB: "
        f"{'ok' if holds else f'MORE than {MAX_S:.0f} s or {MAX_MB} MB'}"
    )
    return holds


def _logged_by(processes: int, seconds: float) -> bool:
    with tempfile.TemporaryDirectory() as store:
        started = [
            subprocess.Popen(
                [sys.executable, "-c", LOGS, store, f"p{n:02d}", str(seconds)],
                stdout=subprocess.PIPE, text=True,
            )
            for n in range(processes)
        ]  # fmt: skip
        ends = [json.loads(process.communicate()[0]) for process in started]
        logged = sum(end["n"] for end in ends)
        found = open_store(store).sql("SELECT count(*) n, count(DISTINCT trace_id) d FROM calls")[0]
    holds = found["n"] == found["d"] == logged and not any(end["lost"] for end in ends)
    slowest = max(end["slowest_ms"] for end in ends)
    print(
        f"{processes} processes for {seconds:.0f} s: {logged:,} records, {found['n']:,} in the "
        f"store, {found['d']:,} of them distinct: {'ok' if holds else 'NOT each of them once'}; "
        f"the slowest took {slowest:.2f} ms of its caller"
    )
    return holds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="a store with such calls")
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--draw", nargs=2, metavar=("RATE", "QUOTA"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.draw:
        rate, quota = (None if text == "-" else float(text) for text in options.draw)
        draw(str(options.folder), DrawRule(rate=rate, per_stratum=quota and int(quota)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.folder is None:
            write_calls(Path(folder), rows=options.rows)
        store = options.folder or Path(folder)
        holds = [_measured(store, "0.01", "-"), _measured(store, "-", "10000")]
    holds.append(_logged_by(options.processes, options.seconds))
    if not all(holds):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

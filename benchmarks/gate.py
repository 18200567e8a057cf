"""What a verdict costs: two small files in all, a million score rows, two hundred comparisons.

    python -m benchmarks.gate [--json FILE]

Each figure is the median of three processes of their own, next to its bound. "In all" is the
whole `evalkit gate` from start to exit, imports included; the others count CPU from files to
verdict after the imports. The ratio is to one DuckDB query that only joins the two files and
averages the differences, in the same process.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.runner import Measured, measure

REPEATS = 3
SMALL, LARGE, METRICS = 1_000, 500_000, 200
CHECKOUT = Path(__file__).resolve().parent.parent
SIDES = ("baseline", "candidate")


@dataclass(frozen=True)
class Figure:
    """One measured number and what it has to stay under."""

    name: str
    value: float
    unit: str
    bound: float | None = None

    @property
    def holds(self) -> bool:
        return self.bound is None or self.value <= self.bound

    def __str__(self) -> str:
        bound = "" if self.bound is None else f" (bound {self.bound:g} {self.unit})"
        mark = "    " if self.bound is None else "ok  " if self.holds else "OVER"
        return f"  {mark} {self.name}: {self.value:.2f} {self.unit}{bound}"


# --- results files --------------------------------------------------------------------


def write_files(folder: Path) -> None:
    """Small CSV, large Parquet, and one with many metrics; a fifth of the cases fails."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    generator = np.random.default_rng(1)
    for side in SIDES:
        passed = generator.random(SMALL) < 0.8
        rows = "".join(f"case-{n},label,{int(one)}\n" for n, one in enumerate(passed))
        (folder / f"small-{side}.csv").write_text("case_id,metric,score\n" + rows)
        for name, n_cases, n_metrics in (("large", LARGE, 1), ("many", SMALL, METRICS)):
            ids = [f"case-{n:06}" for n in range(n_cases)]
            metrics = [f"metric-{n:03}" for n in range(n_metrics) for _ in range(n_cases)]
            scores = (generator.random(n_cases * n_metrics) < 0.8).astype(np.float64)
            table = pa.table({"case_id": ids * n_metrics, "metric": metrics, "score": scores})
            pq.write_table(table, folder / f"{name}-{side}.parquet")


def arguments(folder: Path, name: str, suffix: str) -> list[str]:
    sides = [(f"--{side}", str(folder / f"{name}-{side}.{suffix}")) for side in SIDES]
    return ["gate", "--json", *(word for pair in sides for word in pair)]


# --- measuring ------------------------------------------------------------------------


def in_all(folder: Path) -> list[Measured]:
    """The command on two small files, from start to exit."""
    command = [sys.executable, "-m", "evalkit", *arguments(folder, "small", "csv")]
    return [_exits_with_a_verdict(command, folder) for _ in range(REPEATS)]


def _exits_with_a_verdict(command: list[str], folder: Path) -> Measured:
    try:
        return measure(command, folder)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"the gate ended with status {error.returncode}") from None


def after_imports(folder: Path, name: str) -> list[dict[str, float]]:
    command = [sys.executable, "-m", "benchmarks.gate", "--work", name, "--folder", str(folder)]
    return [
        json.loads(subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True).stdout)
        for _ in range(REPEATS)
    ]


def work(folder: Path, name: str) -> int:
    """In a process of its own: CPU of the bare query and of the gate, and peak memory."""
    import jsonschema  # noqa: F401

    import evalkit.config
    import evalkit.decide.gate
    import evalkit.exchange.results  # noqa: F401
    from evalkit.cli.main import main as evalkit_main

    os.chdir(folder)  # no project's configuration is read
    command = arguments(folder, name, "parquet")
    gate_s = _cpu_s(lambda: evalkit_main(command))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    bare_s = _cpu_s(lambda: _bare(*(folder / f"{name}-{side}.parquet" for side in SIDES)))
    print(json.dumps({"gate_s": gate_s, "bare_s": bare_s, "peak_mb": peak_mb}))
    return 0


def _cpu_s(run: Callable[[], Any]) -> float:
    started = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        run()
    return time.process_time() - started


def _bare(baseline: Path, candidate: Path) -> None:
    from evalkit.store.views import Engine

    with Engine() as engine:
        engine.add_files("b", [baseline])
        engine.add_files("c", [candidate])
        engine.rows(
            "SELECT metric, avg(c.score - b.score), stddev_samp(c.score - b.score) "
            "FROM b JOIN c USING (case_id, metric) GROUP BY metric"
        )


# --- the whole ------------------------------------------------------------------------


def figures(folder: Path) -> list[Figure]:
    small = in_all(folder)
    found = [
        Figure("two files of 1,000 cases, wall in all", _median(m.wall_s for m in small), "s", 1.5),
        Figure("the same, CPU in all", _median(m.cpu_s for m in small), "s", 0.8),
    ]
    for name, what, bound in (
        ("large", "1,000,000 score rows", 3.0),
        ("many", "200 comparisons of 1,000 cases", 1.0),
    ):
        runs = after_imports(folder, name)
        gate_s = _median(run["gate_s"] for run in runs)
        found.append(Figure(f"{what}, CPU after imports", gate_s, "s", bound))
        found.append(Figure(f"{what}, to the bare query", gate_s / runs[0]["bare_s"], "times"))
        if name == "large":
            found.append(Figure(f"{what}, peak memory", runs[0]["peak_mb"], "MB", 1000))
    return found


def _median(values: Any) -> float:
    return statistics.median(values)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.folder, options.work)
    with tempfile.TemporaryDirectory() as scratch:
        write_files(Path(scratch))
        found = figures(Path(scratch))
    for figure in found:
        print(figure)
    if options.json:
        result = {one.name: {"value": one.value, "bound": one.bound} for one in found}
        options.json.write_text(json.dumps(result, indent=2))
    return 0 if all(figure.holds for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main())

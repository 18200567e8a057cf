"""Does the gate keep its promises? Error rates and power on golden sets whose truth is known.

    python -m benchmarks.gate_calibration [--short] [--only TEXT] [--others DIR]
        [--json FILE] [--markdown FILE]

Every replicate draws both sides (`worlds`), and asks the code that the gate itself asks.
Printed: the share of replicates, three Monte Carlo standard errors, the bound, and whether
it holds; exit code 1 when one does not. A bound from above gets the three errors, a bound
from below gets none; `--short` grants five either way. `--others` runs other published
gates on the same files (`other_gates`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scenarios import CELLS, REPLICATES, SHOWN, Cell

PORTION = 250
"""Replicates of one task of the pool; each portion has a seed of its own."""
WORKERS = 2


@dataclass(frozen=True)
class Line:
    """One bound, as measured."""

    scenario: str
    cell: str
    measure: str
    value: float
    errors: float
    """Three Monte Carlo standard errors; five of a short run."""
    bound: str
    holds: bool


def portion_of(task: tuple[int, int, int]) -> dict[str, float]:
    """Sum of every measure over one portion of a cell's replicates."""
    index, portion, replicates = task
    cell = CELLS[index]
    generator = np.random.default_rng([20_260, index, portion])
    sums: dict[str, float] = {}
    for _ in range(replicates):
        for name, value in cell.replicate(generator, **cell.options).items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def lines_of(
    cell: Cell, means: Mapping[str, float], replicates: int, *, lenient: bool
) -> Iterable[Line]:
    for bound in cell.bounds:
        value = bound.value(means)
        errors = (5 if lenient else 3) * bound.standard_error(means, replicates)
        holds = bound.holds(value, errors, lenient=lenient)
        yield Line(cell.scenario, cell.name, bound.measure, value, errors, bound.text, holds)


def calibrate(scale: float, *, only: str = "", workers: int = WORKERS) -> list[Line]:
    """Run every cell with `scale` times its replicates; lines in the order of the cells.

    `only` is a part of the scenario's name; a cell draws the same with and without it.
    """
    wanted = [
        max(round(cell.replicates * scale), 1) if only in cell.scenario else 0 for cell in CELLS
    ]
    tasks = [
        (index, start, min(PORTION, replicates - start))
        for index, replicates in enumerate(wanted)
        for start in range(0, replicates, PORTION)
    ]
    totals: list[dict[str, float]] = [{} for _ in CELLS]
    with ProcessPoolExecutor(workers) as pool:
        for (index, _, _), sums in zip(tasks, pool.map(portion_of, tasks), strict=True):
            for name, value in sums.items():
                totals[index][name] = totals[index].get(name, 0.0) + value
    lines = []
    for cell, total, replicates in zip(CELLS, totals, wanted, strict=True):
        if replicates == 0:
            continue
        means = {name: value / replicates for name, value in total.items()}
        lines += lines_of(cell, means, replicates, lenient=scale < 1)
    return lines


def render(lines: Sequence[Line]) -> str:
    """A table for people; one heading per scenario."""
    out, scenario = [], ""
    for line in lines:
        if line.scenario != scenario:
            scenario = line.scenario
            out.append(f"\n{scenario}")
        mark = "    " if line.bound == SHOWN else "ok  " if line.holds else "FAIL"
        value = f"{100 * line.value:6.2f} ± {100 * line.errors:4.2f} %"
        out.append(f"  {mark} {value}  {line.bound:<34} {line.measure}: {line.cell}")
    return "\n".join(out)


PAGE = """# Calibration of the gate

Made by `python -m benchmarks.gate_calibration --markdown docs/calibration.md --others DIR`.
Simulated golden sets with known truth, {replicates:,} replicates a cell unless the interval says
otherwise; the worst cell of each row is shown. What the rows mean is in
[statistics.md](statistics.md).

"""

OTHERS = """
## Other published gates on the same files

Share of simulated builds that each gate blocks, passes, or leaves undecided, with its own
defaults. Cases pass or fail, their difficulty logit-normal with spread 2, mean pass rate 80 %.
For evalkit "undecided" is inconclusive (exit 0, or 3 with `--strict`) or unmeasurable (exit 3).

"""


def page(lines: Sequence[Line], others: Sequence[Mapping[str, Any]]) -> str:
    """docs/calibration.md: one row per scenario and bound, its worst cell shown."""
    groups: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.scenario, line.measure, line.bound), []).append(line)
    rows = [
        "| scenario | measured | bound | cells | worst cell | value | holds |",
        "|---" * 7 + "|",
    ]
    for (scenario, measure, bound), group in groups.items():
        worst = _worst(group, bound)
        value = f"{100 * worst.value:.1f} % ± {100 * worst.errors:.1f}"
        holds = "yes" if all(line.holds for line in group) else "**no**"
        holds = "" if bound == SHOWN else holds
        rows.append(_row(scenario, measure, bound, len(group), worst.cell, value, holds))
    text = PAGE.format(replicates=REPLICATES) + "\n".join(rows) + "\n"
    if not others:
        return text
    rows = ["| scenario | builds | gate | blocks | passes | undecided |", "|---" * 6 + "|"]
    for row in others:
        shares = (f"{100 * row[word]:.0f} %" for word in ("block", "pass", "undecided"))
        rows.append(_row(row["scenario"], row["builds"], row["gate"], *shares))
    return text + OTHERS + "\n".join(rows) + "\n"


def _worst(group: Sequence[Line], bound: str) -> Line:
    if bound.startswith("≤"):
        return max(group, key=lambda line: line.value)
    if bound.startswith("≥") or bound == SHOWN:
        return min(group, key=lambda line: line.value)
    return max(group, key=lambda line: abs(line.value - 0.9))


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gate_calibration", description=__doc__)
    parser.add_argument("--short", action="store_true", help="few replicates, some seconds")
    parser.add_argument("--only", default="", help="scenarios whose name has this in it")
    parser.add_argument("--json", type=Path, help="write every line as JSON")
    parser.add_argument("--markdown", type=Path, help="write docs/calibration.md")
    parser.add_argument("--others", type=Path, help="environment of the other gates; made if new")
    options = parser.parse_args(arguments)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    started = time.perf_counter()
    scale = 0.01 if options.short else 1.0
    lines = calibrate(scale, only=options.only)
    print(render(lines))
    failed = [line for line in lines if not line.holds]
    took = time.perf_counter() - started
    bounds = sum(line.bound != SHOWN for line in lines)
    print(f"\n{bounds} bounds, {len(failed)} broken; {REPLICATES * scale:.0f} or more", end=" ")
    print(f"replicates each, {took:.0f} s")
    others: list[dict[str, Any]] = []
    if options.others is None:
        print("other gates: skipped; --others DIR installs and runs them beside this one")
    else:
        from benchmarks.other_gates import compare_gates

        others = compare_gates(options.others, replicates=20 if options.short else 300)
    if options.json:
        data = {"lines": [asdict(line) for line in lines], "others": others, "seconds": took}
        options.json.write_text(json.dumps(data, indent=1), encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(page(lines, others), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

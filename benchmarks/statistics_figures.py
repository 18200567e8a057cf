"""Make the figures and the numbers of docs/statistics.md from real data.

    python -m benchmarks.statistics_figures [--calibration FILE.json] [--out docs/img]

Data made by others, beside the checkout or where EVALKIT_SHARED_DATA says. Every number
the page quotes is printed here; nothing is typed in by hand. `--calibration` is what
`benchmarks.gate_calibration --json` wrote.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.svg import BLUE, GREEN, GREY, INK, RED, Chart
from benchmarks.worlds import Floats
from evalkit.decide.agreement import kappa
from evalkit.decide.power import Plan
from evalkit.decide.ppi import powered_mean
from evalkit.decide.stats import Paired, compare
from evalkit.decide.trials import flaky_cases

CHECKOUT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("EVALKIT_SHARED_DATA") or CHECKOUT.parent / "shared" / "data")
DRAWS = 2_000
QUESTIONS = (25, 50, 100, 200, 400, 800)
LABELS = 100


def said(name: str, seen: Paired) -> None:
    assert seen.delta is not None
    assert seen.ci is not None
    print(
        f"{name}: n {seen.n}, delta {100 * seen.delta:+.2f}, 90 % interval "
        f"{100 * seen.ci[0]:+.2f} to {100 * seen.ci[1]:+.2f}, p {seen.p_value:.3g}, "
        f"{seen.losses} fell, {seen.wins} rose, mde {100 * (seen.mde or 0):.1f}, "
        f"cases {seen.cases_needed}, trials {seen.trials_needed}, {seen.method}"
    )


# --- three prompt versions of one model -------------------------------------------------


def prompt_versions(out: Path) -> None:
    scores = {}
    for version in ("plain", "concise", "verbose"):
        path = DATA / "alpaca_prompt_versions" / f"alpaca-7b__{version}.jsonl"
        scores[version] = {row["item_id"]: row["score"] for row in rows_of(path)}
    chart = Chart(
        "Change of the judge's score against the plain prompt",
        x=(-6, 6), y=(0, 3), size=(720, 230), left=90,
    )  # fmt: skip
    chart.axis_x([(t, f"{t:+d}" if t else "0") for t in range(-6, 7, 2)], "points of 100")
    chart.vertical(0, INK, dashed=False)
    chart.vertical(-5, RED, "max_drop 5")
    chart.vertical(-2, RED, "max_drop 2")
    for height, version in ((2, "concise"), (1, "verbose")):
        both = [case for case in scores["plain"] if case in scores[version]]
        base = np.array([scores["plain"][case] for case in both])
        d = np.array([scores[version][case] for case in both]) - base
        seen, finer = compare(d), compare(d, max_drop=0.02)
        said(f"plain -> {version} (baseline mean {100 * base.mean():.1f})", seen)
        print(f"  cases to exclude a drop of 2 points: {finer.cases_needed}")
        assert seen.ci is not None
        assert seen.delta is not None
        low, high = (100 * end for end in seen.ci)
        chart.interval(low, 100 * seen.delta, high, height, BLUE)
        chart.words(82, chart.up(height) + 4, version, pixels=True, anchor="end", colour=INK)
    chart.write(out / "prompt-versions.svg")


# --- one judge, three times -------------------------------------------------------------


def judge_noise(out: Path) -> None:
    with (DATA / "judge_repeats" / "mt_bench_eval_3runs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    runs = np.array([[(float(row[f"run{k}"]) - 1) / 4 for k in (1, 2, 3)] for row in rows])
    differs = flaky_cases([row["row"] for row in rows], runs.min(axis=1), runs.max(axis=1))
    agree = kappa(runs[:, 0], runs[:, 1], weights="quadratic")
    print(
        f"judge: {len(rows)} outputs, score differs over three readings on {len(differs)};", end=" "
    )
    print(f"weighted kappa of two readings {agree.value:.2f}, interval {agree.ci}")
    for before, after in ((0, 1), (1, 2), (0, 2)):
        said(f"reading {before + 1} -> {after + 1}", compare(runs[:, after] - runs[:, before]))
    noise = 2 * float(runs.var(axis=1, ddof=1).mean())
    for trials in (1, 3):
        plan = Plan(se=math.sqrt(noise / trials / 100), df=99.0, n=100, n_units=100)
        seen, needed = plan.mde(0.05), plan.cases_needed(max_drop=0.05, alpha=0.05)
        print(f"  the judge's noise alone, 100 outputs, {trials} readings: ", end="")
        print(f"a drop of {seen} is seen; {needed} cases to exclude 0.05")
    generator = np.random.default_rng(1)
    sizes = (20, 50, 100, 200)
    chart = Chart(
        "Two readings of the same outputs: how often is the build blocked?",
        x=(0.4, 4.6), y=(0, 0.4),
    )  # fmt: skip
    chart.axis_y([(t / 10, f"{10 * t} %") for t in range(5)])
    chart.axis_x([(i + 1, str(n)) for i, n in enumerate(sizes)], "outputs judged twice")
    for i, n in enumerate(sizes):
        rule, gate = 0, 0
        for _ in range(DRAWS):
            cases = generator.choice(len(runs), n, replace=False)
            before, after = generator.permuted(runs[cases], axis=1)[:, :2].T
            rule += (after - before).mean() < -0.02
            gate += (compare(after - before).p_value or 1.0) < 0.05
        print(
            f"  n {n}: fell by 2 points {100 * rule / DRAWS:.1f} %, gate {100 * gate / DRAWS:.1f} %"
        )
        chart.bar(i + 0.83, 0.3, rule / DRAWS, GREY)
        chart.bar(i + 1.17, 0.3, gate / DRAWS, BLUE)
    chart.horizontal(0.05, RED, "promised: 5 %")
    chart.words(0.55, 0.37, '"the mean fell by 2 points"', colour="#6b7280")
    chart.words(0.55, 0.345, "the gate", colour=BLUE)
    chart.write(out / "judge-noise.svg")


# --- people's verdicts on five models -----------------------------------------------------


def rows_of(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def people() -> dict[str, tuple[Floats, Floats]]:
    """Model -> people's 0/1 verdict and the cheap check's, on the same questions."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows_of(DATA / "qa_human_labels" / "tq.jsonl"):
        found.setdefault(row["model"], []).append((row["human"], row["proxy"]))
    return {name: (np.array(v)[:, 0] * 1.0, np.array(v)[:, 1] * 1.0) for name, v in found.items()}


def golden_set_sizes(out: Path, models: dict[str, tuple[Floats, Floats]]) -> None:
    """Draw golden sets of n questions; how often is a real drop, or none, blocked?"""
    before, after = models["gpt4"][0], models["chatgpt"][0]
    said("gpt4 -> chatgpt, all questions", compare(after - before))
    first = np.random.default_rng(7).choice(len(before), 100, replace=False)
    said("gpt4 -> chatgpt, 100 questions", compare((after - before)[first]))
    generator = np.random.default_rng(2)
    shares: dict[str, list[tuple[float, float]]] = {"drop": [], "none": [], "rule": []}
    for i, n in enumerate(QUESTIONS):
        counts = dict.fromkeys(shares, 0.0)
        for _ in range(DRAWS):
            cases = generator.choice(len(before), n, replace=False)
            d = (after - before)[cases]
            swapped = d * generator.choice([-1.0, 1.0], n)
            counts["drop"] += (compare(d).p_value or 1.0) < 0.05
            counts["none"] += (compare(swapped).p_value or 1.0) < 0.05
            counts["rule"] += swapped.mean() < -0.02
        print(f"  n {n}: " + ", ".join(f"{k} {100 * v / DRAWS:.1f} %" for k, v in counts.items()))
        for name, count in counts.items():
            shares[name].append((i, count / DRAWS))
    chart = Chart(
        "Golden sets of n real questions: share of builds blocked", x=(-0.2, 5.2), y=(0, 1)
    )
    chart.axis_y([(t / 5, f"{20 * t} %") for t in range(6)])
    chart.axis_x([(i, str(n)) for i, n in enumerate(QUESTIONS)], "questions in the golden set")
    chart.horizontal(0.05, RED, "")
    for name, colour in (("rule", GREY), ("none", BLUE), ("drop", GREEN)):
        chart.path(shares[name], colour)
    chart.words(2.6, 0.86, "gate, real drop of 5.8 points", colour=GREEN, anchor="end")
    chart.words(1.7, 0.36, '"fell by 2 points", nothing changed', colour="#6b7280")
    chart.words(3.7, 0.17, "gate, nothing changed", colour=BLUE)
    chart.write(out / "golden-set-size.svg")


def people_and_check(out: Path, models: dict[str, tuple[Floats, Floats]]) -> None:
    """100 labels and a biased check on every answer, against all people's verdicts."""
    generator = np.random.default_rng(3)
    chart = Chart(
        "Answers that people call right, from 100 labels and a check on all",
        x=(60, 100), y=(0, 5.6), size=(720, 400), left=90,
    )  # fmt: skip
    chart.axis_x([(t, f"{t} %") for t in range(60, 101, 10)], "")
    for row, (name, (human, check)) in enumerate(models.items()):
        labelled = generator.choice(len(human), LABELS, replace=False)
        known = np.full(len(human), np.nan)
        known[labelled] = human[labelled]
        both, alone = powered_mean(check, known), powered_mean(check, known, judge_weight=0.0)
        middle = 4.7 - row
        for seen, offset, colour in ((alone, 0.12, GREY), (both, -0.12, BLUE)):
            assert seen.ci is not None
            assert seen.estimate is not None
            low, high = (100 * end for end in seen.ci)
            chart.interval(low, 100 * seen.estimate, high, middle + offset, colour)
        chart.dot(100 * check.mean(), middle, RED, 5)
        chart.dot(100 * human.mean(), middle, GREEN, 5)
        chart.words(82, chart.up(middle) + 4, name, pixels=True, anchor="end", colour=INK)
        print(
            f"{name}: people {100 * human.mean():.1f}, check {100 * check.mean():.1f}, labels "
            f"{alone.estimate:.3f} {alone.ci}, both {both.estimate:.3f} {both.ci}, weight "
            f"{both.judge_weight:.2f}, labels saved {100 * (both.label_saving or 0):.0f} %"
        )
    for x, text, colour in (
        (60.5, "check alone", RED), (69, "100 labels", "#6b7280"), (77, "labels and check", BLUE),
        (88, "all 1,938 labels", GREEN),
    ):  # fmt: skip
        chart.words(x, 5.35, text, colour=colour)
    chart.write(out / "people-and-check.svg")


def levels(out: Path, calibration: Path) -> None:
    """Every A/A cell of the calibration benchmark as one dot."""
    lines = json.loads(calibration.read_text(encoding="utf-8"))["lines"]
    cells = [x for x in lines if x["scenario"].startswith("A/A") and x["measure"] == "blocks"]
    chart = Chart(
        f"Builds blocked though nothing changed: {len(cells)} simulated settings",
        x=(-1, len(cells)), y=(0, 0.1), size=(720, 300),
    )  # fmt: skip
    chart.axis_y([(t / 100, f"{t} %") for t in range(0, 11, 2)])
    chart.horizontal(0.05, INK, "promised: 5 %")
    chart.horizontal(0.05 + cells[0]["errors"], RED, "with three Monte Carlo errors")
    for i, cell in enumerate(cells):
        chart.dot(i, cell["value"], BLUE if cell["holds"] else RED)
    chart.axis_x([], "one dot per setting")
    chart.write(out / "levels.svg")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.statistics_figures", description=__doc__)
    parser.add_argument("--calibration", type=Path, help="JSON of benchmarks.gate_calibration")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "img")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"no shared data in {DATA}; EVALKIT_SHARED_DATA names its folder", file=sys.stderr)
        return 2
    prompt_versions(options.out)
    judge_noise(options.out)
    models = people()
    golden_set_sizes(options.out, models)
    people_and_check(options.out, models)
    if options.calibration:
        levels(options.out, options.calibration)
    return 0


if __name__ == "__main__":
    sys.exit(main())

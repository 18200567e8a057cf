"""The rows of the calibration benchmark: what is drawn, what is asked, what must come out.

A replicate function draws one world and returns its outcomes, 0 or 1 (or a small number) by
name; a `Cell` says with which options, a `Bound` what their mean has to be. Replicates call
`evalkit.decide`, as the gate does: nothing is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special

from benchmarks.gate_rule import verdicts_of
from benchmarks.worlds import TRUE_DELTA, WORLDS, Drawn, Floats, clustered, location, mixed, passes
from evalkit.decide.ppi import powered_mean
from evalkit.decide.sequential import EarlyStop, EDetector, EProcess, MeanSequence
from evalkit.decide.stats import compare, holm

ALPHA = 0.05
MAX_DROP = 0.05
REPLICATES = 2_000
SHOWN = "shown beside it"
Outcomes = Mapping[str, float]


@dataclass(frozen=True)
class Bound:
    """What the mean of one outcome has to be; without a limit it is only shown."""

    measure: str
    at_most: float | None = None
    at_least: float | None = None
    around: tuple[float, float] | None = None
    """Centre and half-width; three Monte Carlo errors are added."""
    over: str | None = None
    """Measured as a ratio to this outcome."""

    @property
    def text(self) -> str:
        if self.around is not None:
            return f"{100 * self.around[0]:g} ± {100 * self.around[1]:g} % + MC error"
        if self.at_least is not None:
            return f"≥ {100 * self.at_least:g} %" + (f" of {self.over}" if self.over else "")
        if self.at_most is None:
            return SHOWN
        return f"≤ {100 * self.at_most:g} %" + (" + MC error" if self.at_most else "")

    def value(self, means: Outcomes) -> float:
        if self.over is None:
            return means[self.measure]
        return means[self.measure] / means[self.over] if means[self.over] else 1.0

    def standard_error(self, means: Outcomes, replicates: int) -> float:
        share = min(max(means[self.measure], 0.0), 1.0)
        if self.at_most is not None and self.at_most > 0:
            share = self.at_most
        if self.around is not None:
            share = self.around[0]
        scale = means[self.over] if self.over else 1.0
        return math.sqrt(share * (1 - share) / replicates) / (scale or 1.0)

    def holds(self, value: float, errors: float, *, lenient: bool = False) -> bool:
        """`lenient` grants the errors to a bound from below as well."""
        if self.around is not None:
            return abs(value - self.around[0]) <= self.around[1] + errors
        if self.at_least is not None:
            return value >= self.at_least - (errors if lenient else 0.0)
        return self.at_most is None or value <= self.at_most + (errors if self.at_most else 0.0)


@dataclass(frozen=True)
class Cell:
    """One setting of one scenario."""

    scenario: str
    name: str
    replicate: Callable[..., Outcomes]
    options: Mapping[str, Any]
    bounds: tuple[Bound, ...]
    replicates: int = field(default=REPLICATES)


# --- replicates -----------------------------------------------------------------------


def one_comparison(
    generator: np.random.Generator, *, world: str, n: int, k: int = 1, tolerance: float = 0.0
) -> Outcomes:
    drawn = WORLDS[world](generator, n, k_b=k, k_c=k)
    return _outcomes(generator, drawn, TRUE_DELTA.get(world, 0.0), tolerance)


def one_clustered(
    generator: np.random.Generator, *, n_clusters: int, equal: bool, binary: bool
) -> Outcomes:
    drawn = clustered(generator, n_clusters, equal=equal, icc=0.3, binary=binary)
    return _outcomes(generator, drawn, 0.0)


def _outcomes(
    generator: np.random.Generator, drawn: Drawn, truth: float, tolerance: float = 0.0
) -> Outcomes:
    d = drawn.d
    seed = int(generator.integers(2**31))
    seen = compare(d, clusters=drawn.clusters, tolerance=tolerance, alpha=ALPHA, seed=seed)
    assert seen.p_value is not None
    assert seen.ci is not None
    blocks = seen.p_value < ALPHA
    return {
        "blocks": blocks,
        "passes": not blocks and seen.ci[0] > -MAX_DROP,
        "blocks by exact p": (seen.p_exact or seen.p_value) < ALPHA,
        "covers": seen.ci[0] <= truth <= seen.ci[1],
        **_plain_t(d, truth),
    }


def _plain_t(d: Floats, truth: float) -> Outcomes:
    """What a paired t test on the cases would have said."""
    error = d.std(ddof=1) / math.sqrt(len(d))
    if error == 0:
        return {"blocks by paired t": 0.0, "covers by t": truth == d.mean()}
    t = d.mean() / error
    reach = special.stdtrit(len(d) - 1, 1 - ALPHA) * error
    return {
        "blocks by paired t": special.stdtr(len(d) - 1, t) < ALPHA,
        "covers by t": abs(d.mean() - truth) <= reach,
    }


def trials_as_cases(generator: np.random.Generator, *, spread: float) -> Outcomes:
    """60 cases of 10 trials; a paired t on all 600 rows takes each trial for a case."""
    drawn = mixed(generator, 60, k=10, spread=spread)
    rows = (drawn.candidate - drawn.baseline).ravel()
    by_rows = _plain_t(rows, 0.0)["blocks by paired t"]
    return {**_outcomes(generator, drawn, 0.0), "blocks by t on all rows": by_rows}


def pooled_baseline(generator: np.random.Generator, *, drop: float) -> Outcomes:
    """One candidate of 3 trials against one run of 3, and against 5 such runs at once."""
    drawn = passes(generator, 100, k_b=15, k_c=3, rate=0.8, drop=drop)
    single = compare(drawn.candidate.mean(axis=1) - drawn.baseline[:, :3].mean(axis=1))
    pooled = compare(drawn.d)
    assert single.p_value is not None
    assert pooled.p_value is not None
    return {"blocks, one run": single.p_value < ALPHA, "blocks": pooled.p_value < ALPHA}


def sixty_comparisons(generator: np.random.Generator, *, correlation: float) -> Outcomes:
    """12 metrics of the same answers on 5 slices of 100 cases, nothing changed."""
    metrics, slices, size = 12, 5, 100
    n = slices * size
    rates = np.linspace(0.6, 0.97, metrics)

    def side() -> Floats:
        shared = generator.standard_normal((n, 1))
        own = generator.standard_normal((n, metrics))
        return math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own

    ability = 2 * generator.standard_normal((n, 1))
    bounds = special.ndtri(special.expit([location(float(r)) for r in rates] + ability))
    d = (side() < bounds).astype(float) - (side() < bounds).astype(float)
    p = [compare(d[s::slices, m]).p_value for m in range(metrics) for s in range(slices)]
    raw = [x for x in p if x is not None]
    return {"any block": min(holm(raw)) < ALPHA, "any block, uncorrected": min(raw) < ALPHA}


def twenty_pairs(generator: np.random.Generator, *, drop: float) -> Outcomes:
    """20 pairs compared at once, the first with a drop."""
    p = []
    for pair in range(20):
        d = passes(generator, 200, k_b=3, k_c=3, rate=0.8, drop=drop if pair == 0 else 0.0).d
        p.append(compare(d).p_value or 1.0)
    adjusted = holm(p)
    return {"caught": adjusted[0] < ALPHA, "false alarm": min(adjusted[1:]) < ALPHA}


def judge_moved(
    generator: np.random.Generator, *, true_drop: float, unequal: bool = False
) -> Outcomes:
    """The judge is 10 points kinder to the old version; people labelled 50 of 400 on both.

    `unequal`: every other case had four times the chance to be labelled.
    """
    n, labelled = 400, 50
    truth = passes(generator, n, k_b=1, k_c=1, rate=0.8, drop=true_drop)

    def judged(scores: Floats, bias: float) -> Floats:
        noise = generator.normal(0, 0.15, n)
        return np.asarray((0.15 + 0.7 * scores[:, 0] + bias + noise).clip(0, 1))

    d_judge = judged(truth.candidate, -0.1) - judged(truth.baseline, 0.0)
    d_people, chance = truth.d.copy(), None
    if unequal:
        chance = np.where(np.arange(n) % 2, 0.4, 1.6) * labelled / n
        d_people[generator.random(n) >= chance] = math.nan
    else:
        d_people[labelled:] = math.nan
    powered = powered_mean(d_judge, d_people, inclusion=chance)
    alone = compare(d_people[~np.isnan(d_people)])
    judge_only = compare(d_judge.clip(-1, 1))
    assert powered.ci is not None
    assert powered.p_value is not None
    assert alone.p_value is not None
    assert judge_only.p_value is not None
    return {
        "blocks": powered.p_value < ALPHA,
        "blocks, judge only": judge_only.p_value < ALPHA,
        "blocks, labels only": alone.p_value < ALPHA,
        "covers": powered.ci[0] <= -true_drop <= powered.ci[1],
    }


def watched(generator: np.random.Generator, *, rate: float, moved: float = 0.0) -> Outcomes:
    """A year of looks at 20 sampled scores a day; the mean moves at mid-year."""
    days = np.where(np.arange(364) < 182, rate, rate - moved)
    scores = generator.random((364, 20)) < days[:, None]
    process, sequence = EProcess(rate, bet_on="below"), MeanSequence(alpha=ALPHA, breaks=20)
    detector = EDetector(rate, bet_on="below", run_length=20 * scores.size)
    peak = max(float(process.add(day).max()) for day in scores)
    weeks = scores.reshape(52, -1) if moved == 0 else []
    missed = [not low <= rate <= high for low, high in map(sequence.add, weeks)]
    alarm = detector.add(scores.ravel())
    return {
        "ever alarms": peak >= math.log(1 / ALPHA),
        "ever misses the mean": any(missed),
        "detector alarms": alarm is not None,
        "detector alarms within 30 days": alarm is not None and 182 * 20 < alarm <= 212 * 20,
    }


def stopped_early(generator: np.random.Generator, *, drop: float) -> Outcomes:
    """Up to 2,000 cases of 3 trials in random order, until one process decides."""
    stop = EarlyStop(alpha=ALPHA, max_drop=MAX_DROP)
    stop.add(passes(generator, 2_000, k_b=3, k_c=3, rate=0.8, drop=drop).d)
    return {
        "regression": stop.decision == "regression",
        "pass": stop.decision == "pass",
        "cases used, of 2,000": stop.n / 2_000,
    }


def silent_candidate(generator: np.random.Generator, *, share: float, n: int = 100) -> Outcomes:
    """A candidate without a score on a share of the cases that passed before."""
    drawn = passes(generator, n, k_b=1, k_c=1, rate=0.8, drop=0.0)
    candidate = drawn.candidate.copy()
    passed = np.flatnonzero(drawn.baseline[:, 0] == 1)
    candidate[generator.choice(passed, size=round(share * len(passed)), replace=False)] = math.nan
    [verdict] = verdicts_of([(drawn.baseline, candidate)])
    return {"passes": verdict == "pass", "blocks": verdict == "regression"}


# --- cells ----------------------------------------------------------------------------

LEVEL = Bound("blocks", at_most=ALPHA)
COVERAGE = Bound("covers", around=(0.9, 0.015))
COVERAGE_20 = Bound("covers", at_least=0.87)
COVERAGE_UNEQUAL = Bound("covers", at_least=0.85)
USED = Bound("cases used, of 2,000")
FALSE_PASS = Bound("passes", at_most=ALPHA)
BY_T = Bound("blocks by paired t")
LIKE_T = Bound("blocks", at_least=0.97, over="blocks by paired t")


def _level_cells() -> list[Cell]:
    cells = []
    for world in ("pass .5", "pass .9", "pass .98", "grades", "grades, skewed", "judge"):
        for n in (20, 50, 100, 200, 1_000):
            options = {"world": world, "n": n}
            cells.append(
                Cell("A/A, one trial", f"{world}, n = {n}", one_comparison, options, (LEVEL,))
            )
    for world in ("pass .5", "pass .9", "pass .98", "judge"):
        for k in (3, 10):
            for n in (20, 100):
                options = {"world": world, "n": n, "k": k}
                name = f"{world}, n = {n}, k = {k}"
                cells.append(Cell("A/A, 3 and 10 trials", name, one_comparison, options, (LEVEL,)))
    for binary in (True, False):
        for equal in (True, False):
            for n_clusters in (8, 16, 40):
                name = f"{n_clusters} clusters, {'equal' if equal else '1 to 40 cases'}, "
                name += "pass or fail" if binary else "graded"
                options = {"n_clusters": n_clusters, "equal": equal, "binary": binary}
                bounds = (LEVEL, BY_T, COVERAGE if equal else COVERAGE_UNEQUAL)
                cells.append(
                    Cell("A/A, clusters with ICC .3", name, one_clustered, options, bounds)
                )
    for world in ("drop 5", "pass .98 to .93"):
        for k in (1, 3):
            options = {"world": world, "n": 200, "k": k, "tolerance": 0.05}
            name = f"{world}, n = 200, k = {k}"
            cells.append(
                Cell("a drop equal to the tolerance", name, one_comparison, options, (LEVEL,))
            )
    return cells


def _power_cells() -> list[Cell]:
    floors = {
        ("drop 5", 100, 3): 0.53, ("drop 10", 100, 3): 0.95, ("drop 5", 200, 3): 0.80,
        ("drop 10", 200, 3): 0.99, ("drop 10", 100, 1): 0.62,
    }  # fmt: skip
    return [
        Cell(
            "drops of 5 and 10 points are caught",
            f"{world}, n = {n}, k = {k}",
            one_comparison,
            {"world": world, "n": n, "k": k},
            (Bound("blocks", at_least=floor), LIKE_T, Bound("blocks by exact p")),
        )
        for (world, n, k), floor in floors.items()
    ]


def _interval_cells() -> list[Cell]:
    cells = []
    for world in ("pass .8", "drop 5", "drop 10"):
        for k in (1, 3, 10):
            for n in (20, 50, 100, 200):
                bounds: tuple[Bound, ...] = (COVERAGE if n >= 50 else COVERAGE_20,)
                if world == "drop 5" and n >= 50:
                    bounds += (FALSE_PASS,)
                options = {"world": world, "n": n, "k": k}
                name = f"{world}, n = {n}, k = {k}"
                cells.append(Cell("intervals (90 %)", name, one_comparison, options, bounds))
    for world in ("pass .98 to .93", "pass .95 to .90", "grades, skewed", "judge"):
        for k in (1, 3):
            options = {"world": world, "n": 20, "k": k}
            name = f"{world}, n = 20, k = {k}"
            bounds = (COVERAGE_20, Bound("covers by t"))
            cells.append(Cell("intervals, few cases differ", name, one_comparison, options, bounds))
    return cells


CELLS: list[Cell] = [
    *_level_cells(),
    Cell("A/A, 60 comparisons at once", "12 metrics x 5 slices, correlation .5",
         sixty_comparisons, {"correlation": 0.5},
         (Bound("any block", at_most=ALPHA), Bound("any block, uncorrected"))),
    *_power_cells(),
    Cell("baseline pooled over 5 runs", "drop 5, n = 100, k = 3", pooled_baseline,
         {"drop": 0.05}, (Bound("blocks", at_least=1.1, over="blocks, one run"), Bound("blocks"))),
    Cell("baseline pooled over 5 runs", "A/A, n = 100, k = 3", pooled_baseline,
         {"drop": 0.0}, (LEVEL,)),
    Cell("20 pairs, one dropped", "drop 10, n = 200, k = 3", twenty_pairs, {"drop": 0.1},
         (Bound("caught", at_least=0.95), Bound("false alarm", at_most=ALPHA))),
    Cell("judge moves by 10 points, 50 labels", "true quality equal", judge_moved,
         {"true_drop": 0.0}, (LEVEL, COVERAGE, Bound("blocks, judge only"))),
    Cell("judge moves by 10 points, 50 labels", "true drop of 10", judge_moved,
         {"true_drop": 0.1}, (Bound("blocks", at_least=1.0, over="blocks, labels only"),)),
    *_interval_cells(),
    Cell("30 % of formerly passing cases silent", "n = 100", silent_candidate, {"share": 0.3},
         (Bound("passes", at_most=0.0),)),
    Cell("30 % of formerly passing cases silent", "4 % silent, n = 100", silent_candidate,
         {"share": 0.04}, (Bound("blocks", at_most=ALPHA),)),
    Cell("a year of daily looks", "nothing moves", watched, {"rate": 0.8},
         (Bound("ever alarms", at_most=ALPHA), Bound("ever misses the mean", at_most=ALPHA),
          Bound("detector alarms", at_most=ALPHA))),
    Cell("a year of daily looks", "down 10 points at mid-year", watched,
         {"rate": 0.8, "moved": 0.1}, (Bound("detector alarms within 30 days", at_least=0.95),)),
    Cell("run --stop-early", "A/A", stopped_early, {"drop": 0.0},
         (Bound("regression", at_most=ALPHA), Bound("pass", at_least=0.9), USED)),
    Cell("run --stop-early", "drop of max_drop", stopped_early, {"drop": 0.05},
         (Bound("pass", at_most=ALPHA),)),
    Cell("run --stop-early", "drop 10", stopped_early, {"drop": 0.1},
         (Bound("regression", at_least=0.95), USED)),
    Cell("some cases better, as many worse", "60 cases, 10 trials", trials_as_cases,
         {"spread": 1.0}, (LEVEL, Bound("blocks by t on all rows"))),
    Cell("judge moves, labels drawn unequally", "about 50 labels", judge_moved,
         {"true_drop": 0.0, "unequal": True}, (LEVEL, COVERAGE)),
]  # fmt: skip

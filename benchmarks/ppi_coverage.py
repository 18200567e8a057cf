"""Do the intervals cover that people's labels and a judge make together, and are they shorter?

    python -m benchmarks.ppi_coverage [--replicates N] [--short] [--json FILE]

Each replicate draws 1,000 cases, a judge of all of them and people's labels of 50, and asks
`powered_mean` for its 95 % interval of what people would say of all cases there are. The
judges are biased; in the paired worlds the bias moved between the two versions. Printed:
coverage of all three intervals with one Monte Carlo standard error, the mean width, and
whether the bounds hold; exit code 1 when one does not. A bound is missed where it is missed
by more than three errors (five with `--short`).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import special

from benchmarks.worlds import Floats, passes
from evalkit.decide.ppi import powered_mean

N_CASES = 1_000
N_LABELS = 50
REPLICATES = 10_000
LOW, HIGH = 0.94, 0.965
"""What the coverage of a 95 % interval has to lie between."""
TAIL = 0.025


@dataclass(frozen=True)
class World:
    """One draw of all cases: what the judge says, what people would say, and its chance of a
    label; `truth` is the mean that both sides of the argument are after."""

    judge: Floats
    people: Floats
    truth: float
    chance: Floats | None = None


@dataclass(frozen=True)
class Line:
    """One world, as measured."""

    world: str
    covers: float
    labels_cover: float
    judge_covers: float
    error: float
    """One Monte Carlo standard error of `covers`."""
    width: float
    labels_width: float
    helps: bool
    """Whether the judge knows anything, so that the interval has to be shorter."""
    holds: bool

    @property
    def ratio(self) -> float:
        return self.width / self.labels_width


# --- worlds ---------------------------------------------------------------------------


def _says(generator: np.random.Generator, truth: Floats, *, kind: float, harsh: float) -> Floats:
    """A judge that passes a share `kind` of what fails and fails `harsh` of what passes."""
    chance = np.where(truth > 0, 1 - harsh, kind)
    return np.asarray(generator.random(len(truth)) < chance, dtype=np.float64)


def kind_judge(generator: np.random.Generator) -> World:
    """Quality of one pair, by a judge that passes a third of all failures."""
    people = (generator.random(N_CASES) < 0.7).astype(np.float64)
    return World(_says(generator, people, kind=0.33, harsh=0.03), people, 0.7)


def graded_judge(generator: np.random.Generator) -> World:
    """Grades in fifths; the judge squeezes them, is 15 points too strict, and noisy."""
    latent = generator.standard_normal(N_CASES)
    people = np.clip(np.round((latent + 2.5) * 0.9), 0, 5) / 5
    judge = 0.2 + 0.6 * people - 0.15 + generator.normal(0, 0.12, N_CASES)
    cuts = (np.arange(5) + 0.5) / 0.9 - 2.5
    truth = float(special.ndtr(-cuts).sum()) / 5
    return World(judge.clip(0, 1), people, truth)


def coin(generator: np.random.Generator) -> World:
    """A judge that knows nothing: the labels have to do it alone."""
    people = (generator.random(N_CASES) < 0.7).astype(np.float64)
    return World((generator.random(N_CASES) < 0.9).astype(np.float64), people, 0.7)


def both_versions(
    generator: np.random.Generator, *, moved: float = 0.0, drop: float = 0.0
) -> World:
    """The difference of two versions; the judge is harsher to the new one by `moved`."""
    drawn = passes(generator, N_CASES, k_b=1, k_c=1, rate=0.75, drop=drop)
    old, new = drawn.baseline[:, 0], drawn.candidate[:, 0]
    judge = _says(generator, new, kind=0.2, harsh=0.05 + moved)
    judge -= _says(generator, old, kind=0.2, harsh=0.05)
    return World(judge, new - old, -drop)


def graded_versions(generator: np.random.Generator, *, moved: float) -> World:
    """The difference of two versions by grades of a hundred; the judge's bias moved."""
    ability = generator.normal(0.6, 0.15, N_CASES)
    sides = [ability + generator.normal(0, 0.08, N_CASES) for _ in range(2)]
    judges = [0.1 + 0.8 * side + generator.normal(0, 0.05, N_CASES) for side in sides]
    return World(judges[1] - moved - judges[0], sides[1] - sides[0], 0.0)


def active_share(generator: np.random.Generator) -> World:
    """Cases near the judge's threshold had three times the chance of a label."""
    people = (generator.random(N_CASES) < 0.7).astype(np.float64)
    judge = (0.25 + 0.5 * people + generator.normal(0, 0.18, N_CASES)).clip(0, 1)
    pull = np.where(np.abs(judge - 0.5) < 0.2, 3.0, 1.0)
    return World(judge, people, 0.7, chance=np.asarray(N_LABELS * pull / pull.sum()))


WORLDS: dict[str, tuple[Callable[[np.random.Generator], World], bool]] = {
    "one pair, kind judge": (kind_judge, True),
    "one pair, graded, strict judge": (graded_judge, True),
    "one pair, judge knows nothing": (coin, False),
    "one pair, active share of labels": (active_share, True),
    "two versions, bias the same": (both_versions, True),
    "two versions, bias moved by 10 points": (lambda g: both_versions(g, moved=0.1), True),
    "two versions, bias moved, true drop of 10 points": (
        lambda g: both_versions(g, moved=0.1, drop=0.1),
        True,
    ),
    "two versions, graded, bias moved by 10 points": (
        lambda g: graded_versions(g, moved=0.1),
        True,
    ),
}
"""Name -> how it is drawn, and whether its judge knows anything."""


# --- measuring ------------------------------------------------------------------------


def labels_of(generator: np.random.Generator, world: World) -> Floats:
    """What people said, NaN where they were not asked: 50 cases, or about as many by chance."""
    if world.chance is None:
        asked = np.zeros(len(world.people), dtype=np.bool_)
        asked[generator.choice(len(asked), N_LABELS, replace=False)] = True
    else:
        asked = generator.random(len(world.people)) < world.chance
    return np.where(asked, world.people, math.nan)


def measure(name: str, replicates: int, *, errors: float = 3.0) -> Line:
    """One world's coverage and widths over seeded replicates."""
    draw, helps = WORLDS[name]
    generator = np.random.default_rng([20_261, list(WORLDS).index(name)])
    covers, widths = np.zeros((2, 3, replicates))
    for number in range(replicates):
        world = draw(generator)
        human = labels_of(generator, world)
        judged = float(world.judge.mean())
        reach = 1.96 * float(world.judge.std(ddof=1)) / math.sqrt(N_CASES)
        intervals = (
            powered_mean(world.judge, human, inclusion=world.chance, alpha=TAIL).ci,
            powered_mean(
                world.judge, human, inclusion=world.chance, alpha=TAIL, judge_weight=0.0
            ).ci,
            (judged - reach, judged + reach),
        )
        for at, interval in enumerate(intervals):
            assert interval is not None
            covers[at, number] = interval[0] <= world.truth <= interval[1]
            widths[at, number] = interval[1] - interval[0]
    share = float(covers[0].mean())
    error = math.sqrt(max(share * (1 - share), 1e-9) / replicates)
    width, alone = float(widths[0].mean()), float(widths[1].mean())
    inside = LOW - errors * error <= share <= HIGH + errors * error
    return Line(
        world=name,
        covers=share,
        labels_cover=float(covers[1].mean()),
        judge_covers=float(covers[2].mean()),
        error=error,
        width=width,
        labels_width=alone,
        helps=helps,
        holds=inside and (width < alone or not helps),
    )


def page(lines: list[Line]) -> str:
    """The table, as Markdown."""
    rows = [
        "| world | covers | labels alone | judge alone | width | of labels alone | holds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows += [
        f"| {line.world} | {line.covers:.1%} ± {line.error:.1%} | {line.labels_cover:.1%} "
        f"| {line.judge_covers:.1%} | {line.width:.3f} | {line.ratio:.0%} "
        f"| {'yes' if line.holds else 'NO'} |"
        for line in lines
    ]
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--replicates", type=int, default=REPLICATES)
    parser.add_argument("--short", action="store_true", help="a twentieth, five errors allowed")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args(arguments)
    replicates = given.replicates // 20 if given.short else given.replicates
    lines = [measure(name, replicates, errors=5.0 if given.short else 3.0) for name in WORLDS]
    print(f"{N_LABELS} labels, {N_CASES:,} cases, {replicates:,} replicates, 95 % intervals\n")
    print(page(lines))
    if given.json:
        given.json.write_text(json.dumps([asdict(line) for line in lines], indent=2) + "\n")
    return 0 if all(line.holds for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())

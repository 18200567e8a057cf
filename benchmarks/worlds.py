"""Draw golden sets whose truth is known: the simulated worlds of the calibration benchmark.

Every world is case x trial scores in 0..1 of both sides. A case's difficulty is shared by
both sides, its trials are independent draws. Nothing of evalkit is used here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
SIGMA = 2.0
"""Spread of case difficulty on the logit scale."""


@dataclass(frozen=True)
class Drawn:
    """Scores (n_cases, trials) of both sides, and what the cases were drawn with."""

    baseline: Floats
    candidate: Floats
    clusters: NDArray[np.int64] | None = None

    @property
    def d(self) -> Floats:
        return self.candidate.mean(axis=1) - self.baseline.mean(axis=1)


@cache
def location(mean_rate: float) -> float:
    """Centre of the logit-normal whose mean is `mean_rate`, by quadrature and bisection."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    low, high = -20.0, 20.0
    for _ in range(80):
        middle = (low + high) / 2
        mean = weights @ special.expit(middle + SIGMA * nodes) / weights.sum()
        low, high = (middle, high) if mean < mean_rate else (low, middle)
    return low


def passes(
    generator: np.random.Generator, n: int, *, k_b: int, k_c: int, rate: float, drop: float
) -> Drawn:
    """Cases that pass or fail; the candidate is worse by the same logit on every case."""
    ability = SIGMA * generator.standard_normal((n, 1))
    baseline = special.expit(location(rate) + ability)
    candidate = special.expit(location(rate - drop) + ability)
    return Drawn(
        (generator.random((n, k_b)) < baseline).astype(np.float64),
        (generator.random((n, k_c)) < candidate).astype(np.float64),
    )


def mixed(generator: np.random.Generator, n: int, *, k: int, spread: float) -> Drawn:
    """A change that helps some cases and hurts as many: a case's logit differs by version."""
    ability = location(0.8) + SIGMA * generator.standard_normal((n, 1))

    def side() -> Floats:
        chance = special.expit(ability + spread * generator.standard_normal((n, 1)))
        return (generator.random((n, k)) < chance).astype(np.float64)

    return Drawn(side(), side())


def grades(generator: np.random.Generator, n: int, *, k_b: int, k_c: int, skew: float) -> Drawn:
    """Grades 1 to 5 as 0..1, most of them 5."""
    bounds = special.ndtri([0.03, 0.08, 0.2, 0.45]) + skew
    quality = generator.standard_normal((n, 1)) * np.sqrt(0.5)

    def graded(k: int) -> Floats:
        latent = quality + generator.standard_normal((n, k)) * np.sqrt(0.5)
        return np.searchsorted(bounds, latent).astype(np.float64) / 4

    return Drawn(graded(k_b), graded(k_c))


def judged(generator: np.random.Generator, n: int, *, k_b: int, k_c: int, rate: float) -> Drawn:
    """A judge's probabilities, near 0 or near 1."""
    chance = special.expit(location(rate) + SIGMA * generator.standard_normal((n, 1)))

    def scored(k: int) -> Floats:
        good = generator.random((n, k)) < chance
        return np.where(good, generator.beta(12, 1.5, (n, k)), generator.beta(1.5, 12, (n, k)))

    return Drawn(scored(k_b), scored(k_c))


def cluster_sizes(n_clusters: int, *, equal: bool) -> NDArray[np.int64]:
    """Ten cases each, or from 1 to 40 with the same mean."""
    if equal:
        return np.full(n_clusters, 10)
    pattern = np.array([1, 1, 2, 3, 5, 8, 20, 40])
    return np.resize(pattern, n_clusters)


def clustered(
    generator: np.random.Generator, n_clusters: int, *, equal: bool, icc: float, binary: bool
) -> Drawn:
    """Cases that share a document: a share `icc` of the noise of each side is the document's."""
    sizes = cluster_sizes(n_clusters, equal=equal)
    code = np.repeat(np.arange(n_clusters), sizes)
    n = len(code)

    def noise() -> Floats:
        shared = generator.standard_normal(n_clusters)[code]
        return np.sqrt(icc) * shared + np.sqrt(1 - icc) * generator.standard_normal(n)

    if not binary:
        sides = [0.5 + 0.12 * noise() for _ in range(2)]
        return Drawn(*(side.clip(0, 1)[:, None] for side in sides), code)
    chance = special.expit(location(0.8) + SIGMA * generator.standard_normal(n))
    bound = special.ndtri(np.clip(chance, 1e-12, 1 - 1e-12))
    sides = [(noise() < bound).astype(np.float64)[:, None] for _ in range(2)]
    return Drawn(*sides, code)


WORLDS: dict[str, Callable[..., Drawn]] = {
    "pass .5": lambda g, n, **k: passes(g, n, rate=0.5, drop=0.0, **k),
    "pass .8": lambda g, n, **k: passes(g, n, rate=0.8, drop=0.0, **k),
    "pass .9": lambda g, n, **k: passes(g, n, rate=0.9, drop=0.0, **k),
    "pass .98": lambda g, n, **k: passes(g, n, rate=0.98, drop=0.0, **k),
    "drop 5": lambda g, n, **k: passes(g, n, rate=0.8, drop=0.05, **k),
    "drop 10": lambda g, n, **k: passes(g, n, rate=0.8, drop=0.10, **k),
    "pass .98 to .93": lambda g, n, **k: passes(g, n, rate=0.98, drop=0.05, **k),
    "pass .95 to .90": lambda g, n, **k: passes(g, n, rate=0.95, drop=0.05, **k),
    "grades": lambda g, n, **k: grades(g, n, skew=0.0, **k),
    "grades, skewed": lambda g, n, **k: grades(g, n, skew=-0.8, **k),
    "judge": lambda g, n, **k: judged(g, n, rate=0.8, **k),
}
TRUE_DELTA = {
    "drop 5": -0.05, "drop 10": -0.10, "pass .98 to .93": -0.05, "pass .95 to .90": -0.05
}  # fmt: skip
"""0 for every other world."""

"""What a calibration says: the judge's scores beside people's, by `decide`'s statistics.

Joins the tier that judges with the statistics that compare, which know nothing of each
other. Plain data out, for `evalkit judge calibrate`, the store and the gate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from evalkit.decide.agreement import Agreement, ac1, krippendorff
from evalkit.decide.alternative import EPSILON, alternative_annotator
from evalkit.decide.correlation import Correlation, kendall, spearman
from evalkit.decide.grades import PREFERENCES, Grades, grades_of
from evalkit.decide.ppi import LABELS_AT_LEAST
from evalkit.score.calibration import Judged

Floats: TypeAlias = NDArray[np.float64]

ALPHA = 0.05
"""Intervals are two-sided at 1 - 2·alpha."""


def figures(judged: Sequence[Judged], *, epsilon: float = EPSILON) -> dict[str, Any]:
    """All that labels say of a judge: overall, by slice, by pair, and its known biases."""
    usable = [one for one in judged if one.judge is not None]
    grades = _grades(judged)
    return {
        "labels": _kind(grades),
        "overall": _figures(usable, grades),
        "slices": _by_slice(usable, grades),
        "pairs": _by_pair(usable),
        "people": _people(usable, grades),
        "alternative_annotator": _alternative(usable, grades, epsilon),
        "bias": {
            "length": _length(usable),
            "order": _order(usable),
        },
        "votes_agree": _mean([one.judgement.agreement for one in usable]),
    }


def _grades(judged: Sequence[Judged]) -> Grades:
    if any(one.labelled.against is not None for one in judged):
        return PREFERENCES
    return grades_of(label for one in judged for label in one.labelled.labels.values())


def _kind(grades: Grades) -> str:
    if grades is PREFERENCES:
        return "preferences"
    return "pass or fail" if grades.pass_or_fail else "graded"


# --- agreement -----------------------------------------------------------------------


def _scores(judged: Sequence[Judged]) -> Floats:
    return np.array([one.judge for one in judged], dtype=np.float64)


def _judge_says(judged: Sequence[Judged], grades: Grades) -> Floats:
    return grades.judge(_scores(judged), [one.judgement.mark.passed for one in judged])


def _figures(judged: Sequence[Judged], grades: Grades) -> dict[str, Any]:
    if not judged:
        return {"n": 0}
    scores, means = _scores(judged), np.array([one.people for one in judged])
    judge, people = _judge_says(judged, grades), grades.people(means)
    clear = np.isfinite(people)
    judge, people = judge[clear], people[clear]
    return {
        "n": len(people),
        "people_split": int((~clear).sum()),
        "accuracy": float((judge == people).mean()) if len(people) else None,
        "kappa": _agreement(grades.kappa(judge, people)),
        "krippendorff": _agreement(krippendorff([judge, people], scale=_scale(grades))),
        "ac1": _agreement(ac1([judge, people])),
        "spearman": _correlation(spearman(scores, means)),
        "kendall": _correlation(kendall(scores, means)),
        "confusion": _confusion(judge, people, grades.grid),
        "bias": _bias(scores - means),
    }


def _scale(grades: Grades) -> Literal["nominal", "ordinal"]:
    return "nominal" if grades.pass_or_fail else "ordinal"


def _confusion(judge: Floats, people: Floats, grid: Floats) -> dict[str, Any]:
    """Rows are what people said, columns what the judge said."""
    counts = [[int(((people == row) & (judge == column)).sum()) for column in grid] for row in grid]
    return {"grades": [round(float(value), 6) for value in grid], "counts": counts}


def _bias(differences: Floats) -> dict[str, Any]:
    """Mean of judge minus people with its t interval: above 0 the judge is too kind."""
    n = len(differences)
    if n < 2:
        return {"mean": float(differences.mean()) if n else None, "ci": None, "n": n}
    mean, se = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(n)
    reach = float(special.stdtrit(n - 1, 1 - ALPHA)) * se
    return {"mean": mean, "ci": [mean - reach, mean + reach], "n": n}


def _agreement(found: Agreement) -> dict[str, Any]:
    return {
        "value": found.value,
        "ci": None if found.ci is None else list(found.ci),
        "n": found.n,
        "reason": found.reason,
    }


def _correlation(found: Correlation) -> dict[str, Any]:
    return {
        "value": found.value,
        "ci": None if found.ci is None else list(found.ci),
        "n": found.n,
    }


# --- by slice and pair ------------------------------------------------------------------


def _by_slice(judged: Sequence[Judged], grades: Grades) -> dict[str, Any]:
    groups = _groups(
        judged, lambda one: [f"{key}={value}" for key, value in one.labelled.slices.items()]
    )
    return {name: _figures(of, grades) for name, of in groups.items()}


def _by_pair(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """A judge that is kinder to one pair than to another moves a comparison of the two."""
    groups = _groups(judged, lambda one: [one.labelled.pair] if one.labelled.pair else [])
    return [
        {"pair": pair, **_bias(_scores(of) - np.array([one.people for one in of]))}
        for pair, of in groups.items()
    ]


def _groups(
    judged: Sequence[Judged], names: Callable[[Judged], Sequence[str]]
) -> dict[str, list[Judged]]:
    found: dict[str, list[Judged]] = {}
    for one in judged:
        for name in names(one):
            found.setdefault(name, []).append(one)
    return dict(sorted(found.items()))


# --- people, and the judge among them ------------------------------------------------------


def _people(judged: Sequence[Judged], grades: Grades) -> dict[str, Any]:
    """How far people agree with each other: no judge can agree with them more than that."""
    ratings = _ratings(judged)
    table = np.array(list(ratings.values())) if ratings else np.full((2, 0), np.nan)
    return {
        "annotators": len(ratings),
        "krippendorff": _agreement(krippendorff(table, scale=_scale(grades))),
        "ac1": _agreement(ac1(table)),
    }


def _ratings(judged: Sequence[Judged]) -> dict[str, list[float]]:
    """Annotator -> what they said of each answer, NaN where nothing."""
    names = sorted({name for one in judged for name in one.labelled.ratings})
    return {name: [one.labelled.ratings.get(name, math.nan) for one in judged] for name in names}


def _alternative(judged: Sequence[Judged], grades: Grades, epsilon: float) -> dict[str, Any]:
    found = alternative_annotator(
        _judge_says(judged, grades) if judged else np.array([]),
        _ratings(judged),
        graded=not grades.pass_or_fail,
        epsilon=epsilon,
    )
    return asdict(found)


# --- biases ------------------------------------------------------------------------------


def _length(judged: Sequence[Judged]) -> dict[str, Any]:
    """Scores against the length of the answer: the judge's, people's, and what is between."""
    lengths = [float(len(one.labelled.answer.output)) for one in judged]
    judge, people = _scores(judged), np.array([one.people for one in judged])
    return {
        "judge": _correlation(spearman(judge, lengths)),
        "people": _correlation(spearman(people, lengths)),
        "judge_minus_people": _correlation(spearman(judge - people, lengths)),
    }


def _order(judged: Sequence[Judged]) -> dict[str, Any] | None:
    """How often a pairwise judge's winner followed the order; None for one that grades."""
    orders = [
        one.judgement.consistent
        for one in judged
        if one.judgement.consistent is not None and one.judgement.mark.score is not None
    ]
    if not orders:
        return None
    inconsistent = sum(not one for one in orders)
    return {"n": len(orders), "inconsistent": inconsistent, "share": inconsistent / len(orders)}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def below_floor(found: Mapping[str, Any], floor: float) -> bool | None:
    """Whether the judge agrees too little with people to gate; None when that is not known."""
    value = (found["overall"].get("kappa") or {}).get("value")
    return None if value is None else bool(value < floor)


def may_gate(found: Mapping[str, Any], floor: float) -> bool:
    """Whether enough labels show enough agreement."""
    return found["overall"]["n"] >= LABELS_AT_LEAST and below_floor(found, floor) is False

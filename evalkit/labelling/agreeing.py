"""How far annotators agree with each other, metric by metric.

Everybody's own last word counts, not what an adjudicator made of it. Numbers are
`decide.agreement`'s; here is only who rated what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from evalkit.score.labels import PREFERENCE

if TYPE_CHECKING:
    from evalkit.decide.agreement import Agreement
    from evalkit.store.views import Store

Ratings = Mapping[str, Mapping[Any, float]]
"""Annotator -> what was rated -> score."""

_LABELS = """
    SELECT * FROM labels WHERE score IS NOT NULL AND metric NOT LIKE '%/%'
        AND annotator NOT LIKE 'adjudicator:%'
        AND NOT EXISTS (
            SELECT 1 FROM labels AS later
            WHERE later.supersedes = labels.label_id AND later.annotator = labels.annotator
        )
    ORDER BY labelled_at, label_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricAgreement:
    """Agreement on one metric."""

    metric: str
    annotators: tuple[str, ...]
    n_both: int
    """Rated by two or more."""
    n_same: int
    """Of these, given the same score by all."""
    overall: Agreement
    """Cohen's kappa of two annotators, Krippendorff's alpha of more."""
    statistic: str
    pairs: Mapping[str, Agreement]
    """`A / B` -> Cohen's kappa of the two; empty where there are only two."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def agreement_on(metric: str, ratings: Ratings) -> MetricAgreement:
    """Agreement of those who rated; graded scores count near misses in part."""
    import numpy as np

    from evalkit.decide.agreement import kappa, krippendorff

    names = sorted(ratings)
    rated = sorted({item for of in ratings.values() for item in of}, key=str)
    table = np.array(
        [[ratings[name].get(item, np.nan) for item in rated] for name in names], dtype=np.float64
    ).reshape(len(names), len(rated))
    graded = not np.isin(table[np.isfinite(table)], (0.0, 1.0)).all()
    weights: Any = "quadratic" if graded else None
    both = np.isfinite(table).sum(axis=0) >= 2
    same = [np.unique(column[np.isfinite(column)]).size == 1 for column in table[:, both].T]
    pairs = {
        f"{names[a]} / {names[b]}": kappa(table[a], table[b], weights=weights)
        for a, b in combinations(range(len(names)), 2)
    }
    two = len(names) == 2
    overall = (
        next(iter(pairs.values()))
        if two
        else krippendorff(table, scale="interval" if graded else "nominal")
    )
    return MetricAgreement(
        metric=metric,
        annotators=tuple(names),
        n_both=int(both.sum()),
        n_same=sum(same),
        overall=overall,
        statistic="Cohen's kappa" if two else "Krippendorff's alpha",
        pairs={} if two else pairs,
    )


def stored_ratings(
    store: Store, *, run_id: str | None = None
) -> dict[str, dict[str, dict[Any, float]]]:
    """Metric -> annotator -> what was rated -> score, of all labels of a store."""
    rows = [row for row in store.sql(_LABELS) if run_id in (None, row["run_id"])]
    # One preference is two rows, one for each answer; of these one says it all.
    first: dict[tuple[Any, ...], str] = {}
    for row in rows:
        if row["metric"] == PREFERENCE:
            choice = _choice(row)
            first[choice] = min(first.get(choice, _rated(row)), _rated(row))
    found: dict[str, dict[str, dict[Any, float]]] = {}
    for row in rows:
        if row["metric"] != PREFERENCE or first[_choice(row)] == _rated(row):
            of = found.setdefault(row["metric"], {}).setdefault(row["annotator"], {})
            of[_rated(row)] = row["score"]
    return found


def _choice(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("annotator", "labelled_at", "case_id", "trial"))


def _rated(row: Mapping[str, Any]) -> str:
    """What a label is about, in one text."""
    return str([row["trace_id"]] if row["trace_id"] else [row[name] for name in _KEY])


_KEY = ("run_id", "golden_set", "case_id", "case_hash", "trial", "model", "prompt_name",
        "prompt_version")  # fmt: skip


def in_words(one: MetricAgreement) -> str:
    """What to make of it, in a sentence."""
    value, reason = one.overall.value, one.overall.reason
    if len(one.annotators) < 2:
        return "one annotator so far; agreement needs a second"
    if one.n_both == 0:
        return "no item was labelled by two"
    if value is None:
        return reason or "cannot be told"
    level = next(word for bar, word in _LEVELS if value >= bar)
    return f"{level}: {one.n_same} of {one.n_both} items were labelled alike"


_LEVELS: Sequence[tuple[float, str]] = (
    (0.8, "strong"), (0.6, "good"), (0.4, "moderate: talk about what the grades mean"),
    (-1.1, "poor: settle what the question means before labelling more"),
)  # fmt: skip

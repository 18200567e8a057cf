"""Checks of what was retrieved, against the ids that are relevant: recall@k, MRR, nDCG.

What was retrieved stands in the call record, best first. What is relevant is the case's
expected: a list of ids, or ids with their grade. Linear gain and log2 discount, as
Jarvelin and Kekalainen 2002 and trec_eval have them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from evalkit.records import Answer, Json
from evalkit.score.check_reading import (
    CheckFault,
    Measure,
    Measured,
    Params,
    as_text,
    reference,
    short,
)

K = 10
"""How many of the retrieved count, where the check does not say."""
CHUNK_MARK = "#"
"""Stands between a document's id and the part of it that a chunk is."""

Grades = Mapping[str, float]
Rate = Callable[[Sequence[str], Grades, int], float]


def recall_at_k(retrieved: Sequence[str], grades: Grades, k: int) -> float:
    """Share of the relevant that is among the first `k`, 0..1."""
    relevant = {id for id, grade in grades.items() if grade > 0}
    return len(relevant & set(retrieved[:k])) / len(relevant)


def reciprocal_rank(retrieved: Sequence[str], grades: Grades, k: int) -> float:
    """1 / rank of the first relevant one; 0 when none is among the first `k`."""
    ranks = (rank for rank, id in enumerate(retrieved[:k], 1) if grades.get(id, 0) > 0)
    return 1 / next(ranks, math.inf)


def ndcg(retrieved: Sequence[str], grades: Grades, k: int) -> float:
    """Discounted gain of the first `k`, as a share of what the best order would have, 0..1."""
    gained = _discounted([grades.get(id, 0.0) for id in retrieved[:k]])
    return gained / _discounted(sorted(grades.values(), reverse=True)[:k])


def _discounted(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


def compile_rate(rate: Rate) -> Callable[[Params, Path], Measure]:
    """A kind of check that holds the retrieved ids against the relevant ones."""

    def compile(params: Params, base: Path) -> Measure:
        read = reference(params, "values" if "values" in params else "value")
        k, by_document = params.get("k", K), params.get("by") == "document"

        def measure(answer: Answer) -> Measured:
            grades = _grades(read(answer), by_document)
            ids = [_named(id, by_document) for id in answer.record.retrieved_ids]
            retrieved = list(dict.fromkeys(ids))
            score = rate(retrieved, grades, k)
            wanted = short(sorted(id for id, grade in grades.items() if grade > 0))
            return Measured(score, f"{score:.3f}: retrieved {short(retrieved[:k])} of {wanted}")

        return measure

    return compile


def _named(id: str, by_document: bool) -> str:
    return id.partition(CHUNK_MARK)[0] if by_document else id


def _grades(relevant: Json, by_document: bool) -> Grades:
    """Grades by id, from a list of ids (grade 1) or an object of them; the best of a document.

    Raises CheckFault where nothing is relevant: then no order is better than another.
    """
    items = relevant if isinstance(relevant, (list, dict)) else [relevant]
    grades: dict[str, float] = {}
    for id in items:
        if not isinstance(id, (str, int)) or isinstance(id, bool):
            raise CheckFault("bad_expected", f"relevant ids are texts, not {short(id)}")
        grade = relevant[id] if isinstance(relevant, dict) else 1.0
        if not _is_grade(grade):
            raise CheckFault("bad_expected", f"{id}: a grade is 0 or more, not {short(grade)}")
        name = _named(as_text(id) if isinstance(id, str) else str(id), by_document)
        grades[name] = max(float(grade), grades.get(name, 0.0))
    if not any(grades.values()):
        raise CheckFault("nothing_relevant", "the case names no relevant document")
    return grades


def _is_grade(grade: Json) -> bool:
    if isinstance(grade, bool) or not isinstance(grade, (int, float)):
        return False
    return math.isfinite(grade) and grade >= 0

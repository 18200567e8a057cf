"""Which answers of a run people look at: strata, what is worth a look, and the draw.

Part of tier 3. Reads a sealed run, or two side by side, and gives items for the queue;
calls nothing. An answer is in one stratum of golden set, pair, slices, and whether the
scorer in question passed it; how much is of interest is told by four signs, see `signs_of`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalkit.errors import NotComparable
from evalkit.records import Json, Pair
from evalkit.score.label_queue import NewItem
from evalkit.score.labels import PREFERENCE, Question
from evalkit.score.sampling import Unit, draw, spread_evenly

if TYPE_CHECKING:
    from evalkit.store.engine import Engine
    from evalkit.store.views import Store

Row = Mapping[str, Any]
Expected = Callable[[str, str, str], tuple[bool, Json]]
"""(golden set, case id, case hash) -> whether the expected value is known, and the value."""

NEAR = 0.25
"""Scores this far from the bar are no longer near it."""
NOVEL_SHARE = 0.1
"""Inputs with the rarest words, of all, that count as novel."""
KEPT_CHARS = 1_000_000
"""Of an answer, what the queue keeps."""
INPUT_CHARS = 2_000
"""Of an input, what its words are counted in."""
WEIGHTS = {"votes": 1.0, "near": 1.0, "tiers": 0.75, "novel": 0.5}
WHY = {
    "votes": "the judge's votes differ",
    "near": "near the bar",
    "tiers": "checks and judge disagree",
    "novel": "an input unlike the others",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How to draw."""

    budget: int
    overlap: float
    """Share of the items that two annotators get."""
    active: float
    """Share of the items that are drawn where something seems off."""
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """The answers that could be labelled; each one answer, or two side by side."""

    rows: Sequence[tuple[Row, ...]]
    left_out: int
    """Executions without an answer to look at."""
    apart: bool = False
    """Whether the two are asked about one at a time, each as an item of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What was drawn, and of what."""

    items: Sequence[NewItem]
    strata: Mapping[str, tuple[int, int]]
    """Stratum -> how many there are, how many were drawn."""
    n: int
    left_out: int

    @property
    def n_active(self) -> int:
        return sum(item.share == "active" for item in self.items)

    @property
    def n_overlap(self) -> int:
        return sum(item.wanted > 1 for item in self.items)


# --- what there is --------------------------------------------------------------------

_ANSWERS = """
    WITH said AS (
        SELECT golden_set, case_id, case_hash, trial, model, prompt_name, prompt_version, trace_id,
            any_value(slices) AS slices,
            any_value(score) FILTER (metric = $metric) AS score,
            any_value(passed) FILTER (metric = $metric) AS passed,
            any_value(error_kind) FILTER (metric = $metric) AS error_kind,
            any_value(tier) FILTER (metric = $metric) AS tier,
            any_value(reason) FILTER (metric = $metric AND tier = 2) AS reason,
            bool_and(passed) FILTER (tier = 1) AS checks_passed,
            bool_and(passed) FILTER (tier = 2) AS judges_passed,
            bool_or(metric = $metric) AS has_metric
        FROM scores WHERE list_contains($golden_sets, golden_set)
        GROUP BY golden_set, case_id, case_hash, trial, model, prompt_name, prompt_version, trace_id
    )
    SELECT said.*, left(calls.input, $chars) AS words, calls.output IS NOT NULL AS has_output
    FROM said LEFT JOIN calls USING (trace_id)
    ORDER BY golden_set, case_id, trial, model, prompt_name, prompt_version
"""


def metrics_of(store: Store, run_id: str) -> Sequence[Row]:
    """The metrics of a run: golden_set, metric, tier, scorer."""
    from evalkit.store.engine import Engine

    with Engine() as engine:
        engine.add_files("scores", store.score_files(run_id))
        return engine.rows(
            "SELECT golden_set, metric, max(tier) AS tier, any_value(scorer) AS scorer "
            "FROM scores GROUP BY golden_set, metric ORDER BY golden_set, metric"
        )


def answers_of(
    store: Store, run_id: str, metric: str, golden_sets: Sequence[str], pair: Pair | None = None
) -> list[Row]:
    """Every execution of a run, with what `metric` and the tiers said of it."""
    with _engine_of(store, run_id) as engine:
        rows = engine.rows(
            _ANSWERS, {"metric": metric, "golden_sets": list(golden_sets), "chars": INPUT_CHARS}
        )
    found: list[Row] = [
        {**row, "run_id": run_id} for row in rows if pair is None or Pair.of(row) == pair
    ]
    # A sampling job's judges see some of its answers only: labels of the others correct nothing.
    return [row for row in found if row["has_metric"]] or found


def _engine_of(store: Store, run_id: str) -> Engine:
    """An engine with a run's scores and calls; those of a sampling job are production's."""
    from evalkit.store.engine import Engine

    run = store.manifest(run_id)
    if run.get("kind") == "sample":
        window = run["sample"]
        engine = store.production(since=window["since"], until=window["until"])
    else:
        engine = Engine()
        engine.add_files("calls", store.call_files(run_id))
    engine.add_files("scores", store.score_files(run_id))
    return engine


def one_by_one(rows: Sequence[Row]) -> Population:
    """Every answer for itself."""
    there = [(row,) for row in rows if row["has_output"]]
    return Population(rows=there, left_out=len(rows) - len(there))


def side_by_side(rows: Sequence[Row], others: Sequence[Row], *, apart: bool = False) -> Population:
    """Two runs' answers to the same case and trial; each side has to be of one pair."""
    for side in (rows, others):
        pairs = sorted({str(Pair.of(row)) for row in side})
        if len(pairs) > 1:
            raise NotComparable(
                f"run {side[0]['run_id']} has {len(pairs)} pairs. Name one side by side, as "
                f"RUN:{pairs[0]}"
            )
    by_case = {_case_of(row): row for row in others}
    there = [
        (row, by_case[_case_of(row)])
        for row in rows
        if row["has_output"] and by_case.get(_case_of(row), {}).get("has_output")
    ]
    left_out = max(len(rows), len(others)) - len(there)
    return Population(rows=there, left_out=left_out, apart=apart)


def _case_of(row: Row) -> tuple[Any, ...]:
    return row["golden_set"], row["case_id"], row["case_hash"], row["trial"]


# --- the draw -------------------------------------------------------------------------


def draw_batch(
    population: Population,
    question: Question,
    design: Design,
    *,
    store: Store,
    expected: Expected,
) -> Batch:
    """Draw and dress the items. The same runs and design give the same items."""
    signs = signs_of(population.rows, pass_at=question.pass_at)
    pairs = {Pair.of(row) for rows in population.rows for row in rows[:1]}
    strata = [stratum_of(rows, with_pair=len(pairs) > 1) for rows in population.rows]
    units = [
        Unit(
            key=str(at),
            stratum=strata[at],
            interest=sum(WEIGHTS[name] * value for name, value in signs[at].items()),
        )
        for at in range(len(population.rows))
    ]
    budget = max(design.budget // 2, 1) if population.apart else design.budget
    drawn = draw(units, budget=budget, active_share=design.active, seed=design.seed)
    twice = spread_evenly(len(drawn), design.overlap, seed=design.seed)
    chosen = [population.rows[int(one.key)] for one in drawn]
    texts = _texts(store, chosen)
    items = [
        NewItem(
            facts=[{name: row[name] for name in _FACTS} for row in rows],
            shown=_shown(rows, texts, question, expected),
            share=one.share,
            why=_why(signs[int(one.key)]) if one.share == "active" else "",
            stratum=one.stratum,
            inclusion_prob=one.inclusion_prob,
            wanted=2 if both else 1,
        )
        for one, drawn_rows, both in zip(drawn, chosen, twice, strict=True)
        for rows in ([(row,) for row in drawn_rows] if population.apart else [drawn_rows])
    ]
    sizes, taken = Counter(strata), Counter(one.stratum for one in drawn)
    return Batch(
        items=items,
        strata={name: (sizes[name], taken[name]) for name in sorted(sizes)},
        n=len(units) * (2 if population.apart else 1),
        left_out=population.left_out,
    )


def stratum_of(rows: Sequence[Row], *, with_pair: bool) -> str:
    """Golden set, pair where there are several, what the scorer said, and slices.

    In this order: a small sample is spread over the first of them first.
    """
    first = rows[0]
    parts = [first["golden_set"]]
    if with_pair:
        parts.append(str(Pair.of(first)))
    verdicts = {True: "passed", False: "failed", None: "not scored"}
    if any(row["passed"] is not None for row in rows):
        parts.append(" / ".join(verdicts[row["passed"]] for row in rows))
    parts += [f"{key}={value}" for key, value in sorted((first["slices"] or {}).items())]
    return ", ".join(parts)


def signs_of(answers: Sequence[Sequence[Row]], *, pass_at: float) -> list[dict[str, float]]:
    """For each, sign -> 0..1: votes, near, tiers, novel. Only those that are there."""
    novel = _novel([rows[0]["words"] or "" for rows in answers])
    found = []
    for rows, is_novel in zip(answers, novel, strict=True):
        signs = {
            "votes": float(any(_votes_differ(row) for row in rows)),
            "near": max(_nearness(row, pass_at) for row in rows),
            "tiers": float(any(_tiers_disagree(row) for row in rows)),
            "novel": float(is_novel),
        }
        found.append({name: value for name, value in signs.items() if value > 0})
    return found


def _votes_differ(row: Row) -> bool:
    """A judge of several votes writes them in front of its reason: `[criterion 1, 0, 1; …]`."""
    if row["error_kind"] == "votes_split":
        return True
    told = re.match(r"\[([^\]]*)\] ", row["reason"] or "")
    for part in told[1].split(";") if told else ():
        grades = part.strip().rpartition(" ")[0] and re.findall(r"-?[\d.]+(?=,|$)", part)
        if len(set(grades)) > 1:
            return True
    return False


def _nearness(row: Row, pass_at: float) -> float:
    if row["score"] is None or row["tier"] != 2:
        return 0.0
    return max(0.0, 1.0 - abs(float(row["score"]) - pass_at) / NEAR)


def _tiers_disagree(row: Row) -> bool:
    said = (row["checks_passed"], row["judges_passed"])
    return None not in said and said[0] != said[1]


def _novel(texts: Sequence[str]) -> list[bool]:
    """Whether a text is among those whose words the fewest other texts have."""
    words = [set(re.findall(r"\w+", text.lower())) for text in texts]
    seen = Counter(word for of in words for word in of)
    rarity = [
        math.fsum(-math.log(seen[word] / len(texts)) for word in of) / len(of) if of else 0.0
        for of in words
    ]
    n_novel = int(NOVEL_SHARE * len(texts))
    if not n_novel:
        return [False] * len(texts)
    rarest = sorted(rarity, reverse=True)
    bar, usual = rarest[n_novel - 1], rarest[len(texts) // 2]
    return [value >= bar and value > usual for value in rarity]


def _why(signs: Mapping[str, float]) -> str:
    strongest = sorted(signs, key=lambda name: -WEIGHTS[name] * signs[name])
    return ", ".join(WHY[name] for name in strongest)


# --- what an item holds -----------------------------------------------------------------

_FACTS = (
    "trace_id", "run_id", "golden_set", "case_id", "case_hash", "trial", "model", "prompt_name",
    "prompt_version",
)  # fmt: skip


def _texts(store: Store, chosen: Sequence[Sequence[Row]]) -> dict[str, Row]:
    """Trace id -> input and output of the call."""
    ids = sorted({row["trace_id"] for rows in chosen for row in rows})
    found: dict[str, Row] = {}
    for run_id in sorted({row["run_id"] for rows in chosen for row in rows}):
        with _engine_of(store, run_id) as engine:
            rows = engine.rows(
                f"SELECT trace_id, input, left(output, {KEPT_CHARS}) AS output FROM calls "
                "WHERE list_contains(?, trace_id)",
                [ids],
            )
        found |= {row["trace_id"]: row for row in rows}
    return found


def _shown(
    rows: Sequence[Row], texts: Mapping[str, Row], question: Question, expected: Expected
) -> dict[str, Json]:
    """What the annotator sees: what the judge of the metric sees, no more."""
    given = json.loads(texts[rows[0]["trace_id"]]["input"] or "null")
    shown: dict[str, Json] = {}
    if isinstance(given, dict) and "documents" in given:
        if "documents" in question.shows:
            shown["documents"] = given["documents"]
        given = {key: value for key, value in given.items() if key != "documents"}
    if "input" in question.shows:
        shown["input"] = given
    if "reference" in question.shows:
        first = rows[0]
        known, value = expected(first["golden_set"], first["case_id"], first["case_hash"])
        if known:
            shown["reference"] = value
    shown["outputs"] = [texts[row["trace_id"]]["output"] for row in rows]
    return shown


def default_metric(metrics: Sequence[Row], *, against: bool) -> str:
    """What is asked about when nobody says: a judge's metric, else whether it is acceptable."""
    if against:
        return PREFERENCE
    judged = [row["metric"] for row in metrics if row["tier"] == 2]
    return judged[0] if judged else "acceptable"

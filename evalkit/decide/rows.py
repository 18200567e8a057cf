"""The rows that are compared: whose they are, and one view over them all.

The first step behind the names of `sides`: runs of the store and results files get the
same columns here. A row that another model served than its pair names loses its score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evalkit.records import Pair

if TYPE_CHECKING:
    import pyarrow as pa

    from evalkit.store.views import Engine

EXCLUDED = "excluded"
"""Outcome of a row that another model served than the pair names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRows:
    """The rows of a results file, read and checked by whoever knows its format."""

    name: str
    table: pa.Table
    """The columns that `gather_rows` names, slices as a list of text."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One run, or one results file, whose rows are in the engine."""

    name: str
    """Run id or file name, for people."""
    run_id: str | None
    """None for a file."""
    view: str
    """Where its rows are in the engine; unlike the name, never the same for both sides."""
    golden_sets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The manifest's golden sets; empty for a file."""
    answers_of: frozenset[str] = frozenset()
    """Runs whose answers these are, scored again: what people said of them holds here."""
    stop_early: Mapping[str, Any] | None = None
    """What the manifest says of a run that could stop early; None for any other."""
    notes: tuple[str, ...] = ()

    @property
    def is_run(self) -> bool:
        return self.run_id is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The rows of one metric by one pair, in one source: one side of a comparison."""

    source: str
    """The source's view."""
    golden_set: str
    metric: str
    pair: Pair
    tier: int
    n_rows: int
    n_scored: int
    """Rows with a score."""
    has_hashes: bool
    has_slices: bool
    has_calls: bool
    """Whether any row knows its call's latency or cost."""
    versions: tuple[str, str] | None
    """Least and greatest scorer_version; None where none is known."""


_COMMON = (
    "golden_set, metric, model, prompt_name, prompt_version, case_id, case_hash, cluster, trial, "
    "scorer_version, tier, passed, reason, latency_ms, cost_usd"
)
_SLICES_OF_MAP = "list_transform(map_entries(slices), lambda e: e.key || '=' || e.value)"


def gather_rows(engine: Engine, sources: Sequence[Source]) -> None:
    """Put the rows of all sources into one view, `score_rows`, told apart by `source`.

    A row that another model served than its pair names loses its score here.
    """
    parts = [
        f"""
        SELECT '{source.view}' AS source, {_COMMON},
            CASE WHEN coalesce(served_model = model, true) THEN score END AS score,
            CASE WHEN coalesce(served_model = model, true) THEN outcome ELSE '{EXCLUDED}' END
                AS outcome,
            {"slices" if source.run_id is None else _SLICES_OF_MAP} AS slices
        FROM {source.view}
        """
        for source in sources
    ]
    engine.rows(f"CREATE OR REPLACE TEMP VIEW own_rows AS {' UNION ALL '.join(parts)}")
    engine.rows("CREATE OR REPLACE TEMP VIEW score_rows AS FROM own_rows")


def untrusted_judges(engine: Engine, sources: Iterable[Source]) -> list[str]:
    """Why metrics of these runs have no scores though their judge answered: it passes anything."""
    found: dict[str, None] = {}
    for source in sources:
        if source.is_run:
            rows = engine.rows(
                f"SELECT DISTINCT golden_set, metric, reason FROM {source.view} "
                "WHERE error_kind = 'judge_untrusted' ORDER BY ALL"
            )
            found |= {
                f"{r['metric']} on {r['golden_set']} has no scores: {r['reason']}": None
                for r in rows
            }
    return list(found)


def groups_of(engine: Engine) -> list[Group]:
    """Every metric of every pair in `score_rows`, in a fixed order."""
    found = engine.rows("""
        SELECT source, golden_set, metric, model, prompt_name, prompt_version,
            max(tier) AS tier, count(*) AS n, count(score) AS n_scored,
            max(case_hash) <> '' AS has_hashes,
            coalesce(max(len(slices)), 0) > 0 AS has_slices,
            count(latency_ms) + count(cost_usd) > 0 AS has_calls,
            min(scorer_version) FILTER (score IS NOT NULL) AS least_version,
            max(scorer_version) FILTER (score IS NOT NULL) AS greatest_version
        FROM score_rows GROUP BY ALL
        ORDER BY source, golden_set, model, prompt_name, prompt_version, tier, metric
        """)
    return [
        Group(
            source=row["source"],
            golden_set=row["golden_set"],
            metric=row["metric"],
            pair=Pair.of(row),
            tier=int(row["tier"] or 0),
            n_rows=int(row["n"]),
            n_scored=int(row["n_scored"]),
            has_hashes=bool(row["has_hashes"]),
            has_slices=bool(row["has_slices"]),
            has_calls=bool(row["has_calls"]),
            versions=(
                None
                if row["least_version"] is None
                else (row["least_version"], row["greatest_version"])
            ),
        )
        for row in found
    ]

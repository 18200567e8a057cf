"""All numbers of a dashboard: gathered once, as plain values, for the page and for JSON.

From counts by the hour and sums of sampling jobs: no call is read, so that a page takes
as long for ten million calls as for ten thousand. Reads; changes nothing but those counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.dashboard.times import Bins, Times, bins_by, times_of
from evalkit.dashboard.waiting import LastLook, Waiting, last_look, reviews_waiting
from evalkit.dashboard.window import Window, iso
from evalkit.decide.costs import CACHE_TARGET, Spend, counted_costs
from evalkit.decide.limits import LimitUse, limits_in_use, reads_since, spent_by_counts
from evalkit.decide.quality import Estimate, PairQuality, pair_quality, share_of
from evalkit.settings import FeatureSettings, Settings
from evalkit.store.engine import Engine
from evalkit.store.sample_tallies import sampled
from evalkit.store.tallies import HOUR_US, tallied
from evalkit.store.views import Store

BY_FEATURE = ("feature",)
BY_STEP = ("feature", "step")
BY_PAIR = ("feature", "model", "prompt_name", "prompt_version", "cache_hit")
FITS_SCHEMA = "fits its schema"
"""A metric that needs no sampling: of all answers of a feature that has a schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One feature in one step of the window."""

    at: int
    calls: int
    errors: int
    cache_hits: int
    cost_usd: float | None
    """None when no call of the step has a known cost."""
    latency: Times | None
    ttft: Times | None

    def as_json(self) -> dict[str, Any]:
        return {
            "at": iso(self.at),
            "calls": self.calls,
            "errors": self.errors,
            "cache_hits": self.cache_hits,
            "cost_usd": self.cost_usd,
            "latency_ms": _json(self.latency),
            "ttft_ms": _json(self.ttft),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureFigures:
    """One feature over the whole window."""

    name: str
    spend: Spend
    latency: Times | None
    ttft: Times | None
    steps: tuple[Step, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "feature": self.name,
            **self.spend.as_json(),
            "latency_ms": _json(self.latency),
            "ttft_ms": _json(self.ttft),
            "over_time": [step.as_json() for step in self.steps],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFigures:
    """The calls of one pair; those that a cache answered are apart."""

    feature: str
    model: str
    prompt: str
    calls: int
    errors: int
    repaired: int
    cost_per_call: float | None
    latency: Times | None

    def as_json(self) -> dict[str, Any]:
        return {
            "feature": self.feature,
            "pair": f"{self.model}/{self.prompt}",
            "calls": self.calls,
            "errors": self.errors,
            "repaired": self.repaired,
            "cost_per_call_usd": self.cost_per_call,
            "latency_ms": _json(self.latency),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Calls that ended with one kind of failure."""

    kind: str
    calls: int
    by_feature: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "calls": self.calls, "by_feature": dict(self.by_feature)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Production over a window."""

    window: Window
    made_at: int
    total: Spend
    before: Spend
    """Of the time of equal length before."""
    features: tuple[FeatureFigures, ...]
    """The dearest first."""
    models: Mapping[str, Spend]
    pairs: tuple[PairFigures, ...]
    failures: tuple[Failures, ...]
    quality: tuple[PairQuality, ...]
    limits: tuple[LimitUse, ...]
    reviews: tuple[Waiting, ...]
    look: LastLook
    problems: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "since": iso(self.window.since),
            "until": iso(self.window.until),
            "step": self.window.step_name,
            "made_at": iso(self.made_at),
            "total": self.total.as_json(),
            "before": self.before.as_json(),
            "cache_hit_target": CACHE_TARGET,
            "features": [one.as_json() for one in self.features],
            "models": [{"model": name, **spend.as_json()} for name, spend in self.models.items()],
            "pairs": [one.as_json() for one in self.pairs],
            "errors": [one.as_json() for one in self.failures],
            "quality": [_quality_json(one) for one in self.quality],
            "limits": [one.as_json() for one in self.limits],
            "reviews": [one.as_json() for one in self.reviews],
            "alerts": self.look.as_json(),
            "problems": list(self.problems),
        }


def _json(times: Times | None) -> dict[str, Any] | None:
    return None if times is None else times.as_json()


def _quality_json(one: PairQuality) -> dict[str, Any]:
    found = one.as_json()
    for step in found["over_time"]:
        step["at"] = iso(step["at"])
    return found


def gather(store: Store, settings: Settings, window: Window, *, now: int) -> Figures:
    """All figures of `window` as of `now` (microseconds since 1970)."""
    first = min(window.before.since, reads_since(settings.budgets, now))
    with tallied(store, since=first, until=max(window.until, now)) as engine:
        total = _costs(engine, settings, window)
        counted = _Counted(engine, settings, window)
        limits = limits_in_use(spent_by_counts(engine), settings.budgets, now=now)
        before = _costs(engine, settings, window.before)
        fits = _schema_fit(engine, window)
    with sampled(store, since=window.since, until=window.until) as engine:
        quality = pair_quality(engine, step_us=window.step_us)
    return Figures(
        window=window,
        made_at=now,
        total=total,
        before=before,
        features=counted.features(),
        models=counted.models(),
        pairs=counted.pairs(),
        failures=counted.failures(),
        quality=tuple(sorted([*quality, *fits], key=_by_name)),
        limits=tuple(limits),
        reviews=tuple(reviews_waiting(store)),
        look=last_look(store),
        problems=tuple(dict.fromkeys(store.problems)),
    )


def _by_name(one: PairQuality) -> tuple[str, bool, str, str]:
    """What was sampled comes first: it says more than that an answer fits its schema."""
    return (one.feature, one.metric == FITS_SCHEMA, one.metric, one.pair)


def _costs(engine: Engine, settings: Settings, window: Window) -> Spend:
    return counted_costs(engine, settings, since=window.since, until=window.until).total


class _Counted:
    """What comes out of the counts, group by group."""

    def __init__(self, engine: Engine, settings: Settings, window: Window) -> None:
        self._engine, self._settings, self._window = engine, settings, window
        self._bins = bins_by(engine, window, (BY_FEATURE, BY_STEP, BY_PAIR))

    def features(self) -> tuple[FeatureFigures, ...]:
        steps: dict[str, list[Step]] = {}
        for row in self._rows(f"feature, {self._step()} AS at"):
            steps.setdefault(row["feature"] or "", []).append(self._one_step(row))
        return tuple(
            FeatureFigures(
                name=name,
                spend=spend,
                latency=self._times(name, "latency_ms"),
                ttft=self._times(name, "ttft_ms"),
                steps=tuple(sorted(steps.get(name, ()), key=lambda step: step.at)),
            )
            for name, spend in self._spend("feature").items()
        )

    def models(self) -> Mapping[str, Spend]:
        return self._spend("model")

    def pairs(self) -> tuple[PairFigures, ...]:
        names = BY_PAIR[:-1]
        return tuple(
            PairFigures(
                feature=row["feature"] or "",
                model=row["model"] or "",
                prompt=f"{row['prompt_name'] or '?'}@{row['prompt_version'] or '?'}",
                calls=row["calls"],
                errors=row["errors"],
                repaired=row["repaired"],
                cost_per_call=row["cost"] / row["priced"] if row["priced"] else None,
                latency=times_of(
                    self._of(BY_PAIR, *(row[name] for name in names), False, "latency_ms")
                ),
            )
            for row in self._rows(", ".join(names), "AND NOT cache_hit")
        )

    def failures(self) -> tuple[Failures, ...]:
        kinds: dict[str, dict[str, int]] = {}
        for row in self._rows("error_kind, feature", "AND error_kind IS NOT NULL"):
            kinds.setdefault(row["error_kind"], {})[row["feature"] or ""] = row["calls"]
        found = [
            Failures(kind=kind, calls=sum(of.values()), by_feature=of) for kind, of in kinds.items()
        ]
        return tuple(sorted(found, key=lambda one: (-one.calls, one.kind)))

    def _spend(self, by: str) -> dict[str, Spend]:
        since, until = self._window.since, self._window.until
        report = counted_costs(self._engine, self._settings, by=(by,), since=since, until=until)
        return {names[0] or "": spend for names, spend in report.groups.items()}

    def _rows(self, names: str, where: str = "") -> Sequence[dict[str, Any]]:
        """Counts by columns; by calls, the most first."""
        rows = self._engine.rows(
            f"""
            SELECT {names}, sum(calls)::BIGINT AS calls, sum(cost_usd)::DOUBLE AS cost,
                (sum(calls) - sum(unpriced))::BIGINT AS priced,
                sum(repaired)::BIGINT AS repaired,
                coalesce(sum(calls) FILTER (status = 'error'), 0)::BIGINT AS errors,
                coalesce(sum(calls) FILTER (cache_hit), 0)::BIGINT AS hits
            FROM counts WHERE hour >= $1 AND hour < $2 {where}
            GROUP BY ALL ORDER BY ALL
            """,
            _hours(self._window),
        )
        return sorted(rows, key=lambda row: -row["calls"])

    def _step(self) -> str:
        return f"hour * {HOUR_US} // {self._window.step_us} * {self._window.step_us}"

    def _one_step(self, row: Mapping[str, Any]) -> Step:
        key = (row["feature"], row["at"])
        return Step(
            at=row["at"],
            calls=row["calls"],
            errors=row["errors"],
            cache_hits=row["hits"],
            cost_usd=row["cost"] if row["priced"] else None,
            latency=times_of(self._of(BY_STEP, *key, "latency_ms")),
            ttft=times_of(self._of(BY_STEP, *key, "ttft_ms")),
        )

    def _times(self, name: str, what: str) -> Times | None:
        feature: FeatureSettings | None = self._settings.features.get(name)
        budget = None
        if feature is not None:
            budget = feature.max_latency_ms if what == "latency_ms" else feature.ttft_ms
        return times_of(self._of(BY_FEATURE, name, what), budget=budget)

    def _of(self, grouping: Sequence[str], *values: Any) -> Bins:
        return self._bins.get((*grouping, *values), ())


def _hours(window: Window) -> list[int]:
    return [window.since // HOUR_US, window.until // HOUR_US]


def _schema_fit(engine: Engine, window: Window) -> list[PairQuality]:
    """How many answers of each pair fit their schema, of all calls that a model answered."""
    step = f"hour * {HOUR_US} // {window.step_us} * {window.step_us}"
    rows = engine.rows(
        f"""
        SELECT feature, model, prompt_name, prompt_version, {step} AS at,
            sum(schema_ok)::BIGINT AS fits, sum(schema_known)::BIGINT AS n
        FROM counts WHERE hour >= $1 AND hour < $2 AND NOT cache_hit
        GROUP BY ALL HAVING sum(schema_known) > 0 ORDER BY ALL
        """,
        _hours(window),
    )
    pairs: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        prompt = f"{row['prompt_name'] or '?'}@{row['prompt_version'] or '?'}"
        pairs.setdefault((row["feature"] or "", row["model"] or "", prompt), []).append(row)
    return [_fit(key, of) for key, of in pairs.items()]


def _fit(key: tuple[str, str, str], rows: Sequence[Mapping[str, Any]]) -> PairQuality:
    steps: dict[int, Estimate] = {row["at"]: share_of(row["fits"], row["n"]) for row in rows}
    return PairQuality(
        feature=key[0],
        model=key[1],
        prompt=key[2],
        metric=FITS_SCHEMA,
        tier=1,
        whole=share_of(sum(row["fits"] for row in rows), sum(row["n"] for row in rows)),
        steps=steps,
    )

"""The figures as a page: one static file, or what the local server answers.

Chooses words, order and pictures, never numbers. Names come from logs that anybody may
have written: everything is escaped, nothing is loaded, and the page has no script. It is
`reports/dashboard.html.jinja`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evalkit.dashboard import charts
from evalkit.dashboard.charts import Picture
from evalkit.dashboard.figures import FeatureFigures, Figures
from evalkit.dashboard.times import Times
from evalkit.dashboard.window import DAY_US, Window, moment
from evalkit.decide import report_text as texts
from evalkit.decide.costs import CACHE_TARGET, Spend
from evalkit.decide.quality import Estimate, PairQuality
from evalkit.decide.report_page import fill, own_part, source_of, templates
from evalkit.store.files import write_whole

STYLE = "dashboard.css"
SHOWN = 100
"""Rows of one table; the rest is counted, and in --json."""
TIERS = {1: "check", 2: "judge", 3: "people"}


def write_dashboard(path: Path, figures: Figures, *, project: Path) -> None:
    """Write the page as one file, whole or not at all."""
    page = render_dashboard(figures, project=project)
    with write_whole(path, replace=True) as file:
        file.write(page.encode("utf-8"))


def render_dashboard(
    figures: Figures,
    *,
    project: Path,
    windows: Sequence[tuple[str, str, bool]] = (),
    query: str = "",
) -> str:
    """The page as text: whole in itself, or with `windows` (text, address, is shown) to choose
    from, as a page of a server that has its style, and its figures at data.json + `query`.

    Raises ContentError when a template is broken.
    """
    from markupsafe import Markup

    style = None if windows else own_part(STYLE, project=project)
    policy = (
        f"default-src 'none'; style-src {source_of(style or '')}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    values = {
        "figures": figures,
        "style": None if style is None else Markup(style),
        "policy": policy,
        "windows": windows,
        "query": query,
        "version": version("evalkit"),
        "shown": SHOWN,
    }
    environment = templates(
        project,
        count=texts.count,
        dollars=texts.dollars,
        kind=kind_words,
        milliseconds=texts.milliseconds,
        number=number,
        percent=texts.percent,
        score=texts.score,
        when=when,
    )
    return fill(environment, "dashboard.html.jinja", values | _told(figures))


# --- words ----------------------------------------------------------------------------


def number(value: float | Decimal | None) -> str:
    """`9,594`, `4.5 million`: as many digits as one reads."""
    if value is None:
        return texts.NOT_KNOWN
    for size, name in ((10**9, "billion"), (10**6, "million")):
        if value >= size:
            return f"{value / size:,.2f}".rstrip("0").rstrip(".") + f" {name}"
    return f"{value:,.0f}"


def when(at: int) -> str:
    """A time for people, UTC."""
    return f"{moment(at):%d %b %Y, %H:%M} UTC"


def kind_words(kind: str) -> str:
    return kind.replace("_", " ")


def change(now: float | None, before: float | None) -> str:
    """`+12 %` against the time before; empty when that is not known or was nothing."""
    if now is None or not before:
        return ""
    percent = round(100 * (now / before - 1))
    sign = "−" if percent < 0 else "+" if percent > 0 else "±"
    return f"{sign}{abs(percent):,} %"


# --- what the template is told ----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One number at the top."""

    name: str
    value: str
    note: str = ""
    tone: str = ""
    """bad | good | none"""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRow:
    """One metric of one pair."""

    of: PairQuality
    tier: str
    picture: Picture | None
    bottom: str
    """Value at the lower edge of the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimesRow:
    """Latency or time to the first token of one feature."""

    feature: str
    what: str
    times: Times
    picture: Picture | None

    @property
    def is_over(self) -> bool:
        """More than 5 % of the calls miss the budget."""
        return self.times.budget is not None and self.times.p95 > self.times.budget


def _told(figures: Figures) -> dict[str, Any]:
    names = [figures.window.label(at) for at in figures.window.steps]
    return {
        "sentence": _sentence(figures),
        "tone": _tone(figures),
        "tiles": _tiles(figures),
        "quality": _quality(figures, names),
        "times": _times(figures, names),
        "cost_picture": _sum_picture(figures, names, "cost"),
        "error_picture": _sum_picture(figures, names, "failed"),
        "feature_costs": [(one, _cost_picture(one, figures, names)) for one in figures.features],
        "steps": _steps(figures, names),
        "span": (names[0], names[-1]),
        "target": CACHE_TARGET,
        "old_look": _is_old(figures),
        "runbook": _runbook,
        "money": texts.dollars,
        "percents": texts.percent,
    }


def _sentence(figures: Figures) -> str:
    calls = texts.count(figures.total.calls, "call")
    if not figures.total.calls:
        return "No calls in this time"
    if figures.total.unpriced_calls == figures.total.calls:
        return f"{calls}; what they cost is not known"
    return f"{calls} for {texts.dollars(float(figures.total.cost_usd))}"


def _tone(figures: Figures) -> str:
    severities = {one.get("severity") for one in figures.look.firing}
    return "bad" if "critical" in severities else "warn" if severities else "none"


def _tiles(figures: Figures) -> list[Tile]:
    total, before = figures.total, figures.before
    pending = sum(one.pending for one in figures.reviews)
    cost = None if total.unpriced_calls == total.calls else float(total.cost_usd)
    unpriced = f"{total.unpriced_calls:,} calls without a price" if total.unpriced_calls else ""
    hits = total.cache_hit_share
    return [
        Tile(name="calls", value=number(total.calls), note=_before(total.calls, before.calls)),
        Tile(
            name="cost",
            value=texts.dollars(cost),
            note=unpriced or _before(cost, float(before.cost_usd)),
        ),
        Tile(
            name="failed",
            value=texts.percent(_failed(total)),
            note=f"{texts.percent(_failed(before))} before" if before.calls else "",
        ),
        Tile(
            name="answered by a cache",
            value=texts.percent(hits),
            note=f"target {CACHE_TARGET:.0%}",
            tone="" if hits is None else "good" if hits >= CACHE_TARGET else "bad",
        ),
        Tile(name="on cheap models", value=texts.percent(total.cheap_share)),
        Tile(
            name="of always-frontier",
            value=texts.percent(total.against_frontier),
            note=_saved(total),
        ),
        Tile(name="answers to review", value=f"{pending:,}"),
    ]


def _before(now: float | None, before: float) -> str:
    changed = change(now, before)
    return f"{changed} on the time before" if changed else ""


def _failed(spend: Spend) -> float | None:
    return spend.errors / spend.calls if spend.calls else None


def _saved(spend: Spend) -> str:
    saved = float(spend.frontier_usd - spend.compared_usd)
    return f"{texts.dollars(saved)} saved" if saved > 0 else ""


def _quality(figures: Figures, names: Sequence[str]) -> list[tuple[str, list[QualityRow]]]:
    """(feature, rows); pictures of one metric of one feature share a scale."""
    bottoms: dict[tuple[str, str], float] = {}
    for one in figures.quality:
        lows = [step.low for step in one.steps.values()]
        key = (one.feature, one.metric)
        bottoms[key] = min(bottoms.get(key, 1.0), charts.floor_of(lows))
    grouped: dict[str, list[QualityRow]] = {}
    for one in figures.quality:
        bottom = bottoms[one.feature, one.metric]
        row = QualityRow(
            of=one,
            tier=TIERS.get(one.tier, "score"),
            picture=_quality_picture(one, figures.window, names, bottom),
            bottom=f"{bottom:g}",
        )
        grouped.setdefault(one.feature, []).append(row)
    return list(grouped.items())


def _quality_picture(
    one: PairQuality, window: Window, names: Sequence[str], bottom: float
) -> Picture | None:
    def ends(found: Estimate | None) -> tuple[float, float, float] | None:
        return None if found is None else (found.mean, found.low, found.high)

    values = [ends(one.steps.get(at)) for at in window.steps]
    what = f"{one.metric} of {one.pair}"
    return charts.intervals(values, names, what=what, say=texts.score, bottom=bottom)


def _times(figures: Figures, names: Sequence[str]) -> list[TimesRow]:
    rows = []
    for one in figures.features:
        for what, attribute in (("latency", "latency"), ("first token", "ttft")):
            whole: Times | None = getattr(one, attribute)
            if whole is None:
                continue
            by_step = {step.at: getattr(step, attribute) for step in one.steps}
            p95s = [getattr(by_step.get(at), "p95", None) for at in figures.window.steps]
            picture = charts.line(
                p95s, names, what=f"{what} of {one.name}, 95th percentile",
                say=texts.milliseconds, limit=whole.budget,
            )  # fmt: skip
            rows.append(TimesRow(feature=one.name, what=what, times=whole, picture=picture))
    return rows


def _cost_picture(one: FeatureFigures, figures: Figures, names: Sequence[str]) -> Picture | None:
    by_step = {step.at: step.cost_usd for step in one.steps}
    values = [by_step.get(at) for at in figures.window.steps]
    return charts.bars(values, names, what=f"cost of {one.name}", say=texts.dollars)


def _steps(figures: Figures, names: Sequence[str]) -> list[dict[str, Any]]:
    """Sums of all features, step by step."""
    sums: dict[int, dict[str, Any]] = {
        at: {"name": name, "calls": 0, "failed": 0, "hits": 0, "cost": None}
        for at, name in zip(figures.window.steps, names, strict=True)
    }
    for step in (step for one in figures.features for step in one.steps):
        of = sums[step.at]
        of["calls"] += step.calls
        of["failed"] += step.errors
        of["hits"] += step.cache_hits
        if step.cost_usd is not None:
            of["cost"] = (of["cost"] or 0.0) + step.cost_usd
    return list(sums.values())


def _sum_picture(figures: Figures, names: Sequence[str], what: str) -> Picture | None:
    steps = _steps(figures, names)
    if not figures.total.calls:
        return None
    if what == "cost":
        values = [step["cost"] for step in steps]
        return charts.bars(values, names, what="cost", say=texts.dollars)
    shares = [step["failed"] / step["calls"] if step["calls"] else None for step in steps]
    return charts.bars(shares, names, what="share of failed calls", say=texts.percent)


def _is_old(figures: Figures) -> bool:
    looked_at = figures.look.looked_at
    return looked_at is not None and figures.made_at - looked_at > DAY_US


def _runbook(alert: Mapping[str, Any]) -> str | None:
    """Where to click; None for what is only a path of the documentation."""
    link = str(alert.get("runbook", ""))
    return link if link.startswith(("https://", "http://")) else None

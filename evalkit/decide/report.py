"""Show a finished verdict, and the cases behind it, as one HTML file for people.

The last reader in call, score, decide: it gets a verdict and could not change it. Model
output is hostile: everything is escaped, nothing is loaded, and the page's own policy
forbids any script but the one it came with. The page is `reports/report.html.jinja`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.content import content_dirs, find_content
from evalkit.decide import report_text as texts
from evalkit.decide.report_cases import SHOWN_CASES, Expected
from evalkit.decide.report_evidence import Evidence, gather, meetings_of
from evalkit.decide.report_sentences import (
    Entry,
    Verdict,
    advisory,
    gating,
    headline,
    interval_level,
    reasons,
)
from evalkit.errors import ContentError
from evalkit.store.files import write_whole

if TYPE_CHECKING:
    from jinja2 import Environment

    from evalkit.store.views import Store

SHOWN_SLICES = 24
TIERS = {1: "check", 2: "judge", 3: "people"}
OUTCOMES = {
    "product_failure": "Product failure",
    "infra_error": "Infrastructure",
    "judge_error": "Judge",
    "check_error": "Check",
    "budget_stop": "Stopped for budget",
    "cancelled": "Cancelled",
}


def write_report(
    verdict: Verdict | None,
    store: Store | None,
    path: Path,
    *,
    runs: Sequence[str] = (),
    project: Path | None = None,
    expected: Expected = lambda golden_set, case_id, case_hash: (False, None),
) -> None:
    """Write the report of `verdict`, or of `runs` that were compared with nothing.

    `expected` knows the cases' expected values, which no store keeps. Raises StoreError
    when `path` cannot be written, ContentError when a template is broken.
    """
    page = render_report(verdict, store, runs=runs, project=project, expected=expected)
    with write_whole(path, replace=True) as file:
        file.write(page.encode("utf-8"))


def render_report(
    verdict: Verdict | None,
    store: Store | None,
    *,
    runs: Sequence[str] = (),
    project: Path | None = None,
    expected: Expected = lambda golden_set, case_id, case_hash: (False, None),
) -> str:
    """The page as text."""
    from jinja2 import TemplateError

    project = project or Path.cwd()
    evidence = gather(verdict, store, runs, project=project, expected=expected)
    try:
        template = _environment(project).get_template("report.html.jinja")
        return template.render(
            **_own_parts(project), **_told(verdict, evidence), evidence=evidence, verdict=verdict
        )
    except TemplateError as error:
        line = getattr(error, "lineno", 1)
        raise ContentError(f"reports/report.html.jinja:{line}: {error}") from None


def _environment(project: Path) -> Environment:
    """Escapes everything, always; what a template names and nobody gives is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(content_dirs("reports", project=project)),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else texts.visible(value),
    )
    environment.filters |= {
        name: getattr(texts, name)
        for name in ("score", "points", "p_value", "percent", "milliseconds", "dollars", "count")
    }
    environment.filters["moment"] = _moment
    return environment


def _moment(text: str | None) -> str | None:
    """A time of the store for people; anything else as it is."""
    try:
        return None if text is None else f"{datetime.fromisoformat(text):%d %B %Y, %H:%M} UTC"
    except ValueError:
        return text


def _own_parts(project: Path) -> dict[str, Any]:
    """The page's own style and script, and the policy that allows these two alone.

    The only text that is not escaped: files of the project, or of the package.
    """
    from markupsafe import Markup

    css, js = (
        find_content("reports", name, project=project).read_text(encoding="utf-8").strip()
        for name in ("report.css", "report.js")
    )
    for name, text in (("report.css", css), ("report.js", js)):
        if "</" in text or "<!--" in text:
            raise ContentError(f"reports/{name}: must not have </ or <!-- in it. Write <\\/.")
    policy = (
        f"default-src 'none'; style-src '{_hash(css)}'; script-src '{_hash(js)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return {"css": Markup(css), "js": Markup(js), "policy": policy, "version": version("evalkit")}


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode("ascii")


# --- what the template is told --------------------------------------------------------


def _told(verdict: Verdict | None, evidence: Evidence) -> dict[str, Any]:
    slices = [] if verdict is None else _slices(verdict)
    overall = "none" if verdict is None else str(verdict["verdict"])
    sentence = _runs_sentence(evidence) if verdict is None else headline(verdict)
    compared = [] if verdict is None else _compared(verdict)
    shown = [one for group in compared for one in (*group["gating"], *group["advisory"])]
    why = [] if verdict is None else reasons(verdict)
    told = {
        "overall": overall,
        "sentence": sentence,
        "title": f"{sentence if verdict is None else overall} · evalkit report",
        "created_at": _created_at(verdict, evidence),
        "who": [] if verdict is None else meetings_of(verdict),
        "compared": compared,
        "axis": Axis.of(shown),
        "slice_axis": Axis.of(slices[:SHOWN_SLICES]),
        "roles": _roles(verdict),
        "level": "" if verdict is None else interval_level(verdict),
        "why": why,
        "slices": _by_golden_set(slices[:SHOWN_SLICES]),
        "n_more_slices": max(0, len(slices) - SHOWN_SLICES),
        "cases_lead": _cases_lead(verdict, evidence),
        "tiers": TIERS,
        "outcomes": OUTCOMES,
    }
    return told | {"parts": _parts(told, evidence)}


def _parts(told: Mapping[str, Any], evidence: Evidence) -> list[tuple[str, str]]:
    there = {
        "comparisons": ("Comparisons", told["compared"]),
        "why": ("Why", told["why"]),
        "look": ("Look here", told["slices"]),
        "metrics": ("Metrics", evidence.metrics),
        "cases": ("Worst cases", evidence.cases),
        "failures": ("Failures", evidence.calls),
        "cost": ("Latency and cost", evidence.calls),
        "runs": ("Runs", evidence.runs),
    }
    return [(anchor, name) for anchor, (name, shown) in there.items() if shown]


def _roles(verdict: Verdict | None) -> dict[str, str]:
    """Run id -> what it is in the comparison."""
    sides: dict[str, list[str]] = {}
    for one in (verdict or {}).get("comparisons", ()):
        for side in ("candidate", "baseline"):
            run_id = (one.get(side) or {}).get("run_id")
            if run_id and side not in sides.setdefault(run_id, []):
                sides[run_id].append(side)
    return {run_id: " and ".join(names) for run_id, names in sides.items()}


def _created_at(verdict: Verdict | None, evidence: Evidence) -> str | None:
    if verdict is not None and verdict.get("created_at"):
        return str(verdict["created_at"])
    times = [str(run["created_at"]) for run in evidence.runs if run.get("created_at")]
    return max(times, default=None)


def _runs_sentence(evidence: Evidence) -> str:
    n_runs = len(evidence.runs)
    names = sorted({name for run in evidence.runs for name in run.get("golden_sets") or {}})
    over = f" of {', '.join(names)}" if names else ""
    return f"{texts.count(n_runs, 'run')}{over}; there is no baseline to compare with."


def _compared(verdict: Verdict) -> list[dict[str, Any]]:
    """Whole metrics by golden set and the two pairs that met, what gates first."""
    gates, shown = gating(verdict), advisory(verdict)
    groups: dict[str, dict[str, Any]] = {}
    for entries, part in ((gates, "gating"), (shown, "advisory")):
        for one in entries:
            name = one.get("golden_set") or ""
            key = f"{name}\0{one['candidate']}\0{one.get('baseline')}"
            group = groups.setdefault(
                key,
                {
                    "golden_set": name,
                    "title": f"Comparisons of {name or 'all cases'}",
                    "gating": [],
                    "advisory": [],
                    "note": _pairs_note(one),
                },
            )
            group[part].append(one)
    names = [group["golden_set"] for group in groups.values()]
    for group in groups.values():
        # The page's head names the pairs; here they only tell two tables apart.
        if names.count(group["golden_set"]) == 1:
            group["note"] = ""
    return list(groups.values())


def _pairs_note(one: Entry) -> str:
    def pair(side: Mapping[str, Any]) -> str:
        name, version = side.get("prompt_name") or "", side.get("prompt_version") or ""
        return f"{side.get('model') or ''}/{name}@{version}".strip("/@")

    candidate, baseline = one["candidate"], one.get("baseline")
    return pair(candidate) + (f" against {pair(baseline)}" if baseline else "")


def _slices(verdict: Verdict) -> list[Entry]:
    """Slices that dropped by themselves, the largest drop first."""
    found = [
        one
        for one in verdict["comparisons"]
        if one.get("slice") is not None and one["verdict"] == "regression"
    ]
    return sorted(found, key=lambda one: one["delta"])


def _by_golden_set(entries: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
    groups: dict[str, list[Entry]] = {}
    for one in entries:
        groups.setdefault(one.get("golden_set") or "", []).append(one)
    return list(groups.items())


def _cases_lead(verdict: Verdict | None, evidence: Evidence) -> str:
    total = sum(evidence.n_worse.values())
    by_set = ", ".join(f"{n:,} of {name}" for name, n in evidence.n_worse.items())
    lost = "scored lower than before" if verdict else "did not score in full"
    text = f"{texts.count(total, 'case')} {lost} on some metric"
    text += f" ({by_set})" if len(evidence.n_worse) > 1 else ""
    if total > len(evidence.cases):
        text += f"; the worst {min(len(evidence.cases), SHOWN_CASES)} are here"
    return text + "."


# --- intervals as pictures ------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Where the parts of one interval stand, 0 to 200 from left to right."""

    low: float
    high: float
    dot: float
    zero: float
    limit: float | None
    """What is left of it is a drop larger than the metric allows; None: no such limit."""
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """The scale that all intervals of a report share."""

    low: float
    high: float

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Axis:
        ends = [end for one in entries if one.get("ci") for end in one["ci"]]
        limits = [-one["max_drop"] for one in entries if one.get("max_drop") is not None]
        low, high = min([*ends, *limits, -0.01]), max([*ends, 0.01])
        margin = 0.06 * (high - low)
        return cls(max(-1.0, low - margin), min(1.0, high + margin))

    def bar(self, entry: Entry) -> Bar | None:
        """None where there is no interval to be shown."""
        ci, delta = entry.get("ci"), entry.get("delta")
        if not ci or delta is None:
            return None
        limit = entry.get("max_drop")
        return Bar(
            low=self._at(ci[0]),
            high=self._at(ci[1]),
            dot=self._at(delta),
            zero=self._at(0.0),
            limit=None if limit is None else self._at(-limit),
            label=f"{texts.points(delta)} points, interval {texts.interval(ci)}",
        )

    def _at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(200 * min(max(share, 0.0), 1.0), 1)

"""Show a finished verdict, and the cases behind it, as one HTML file for people.

The last reader in call, score, decide: it gets a verdict and could not change it. Model
output is hostile: everything is escaped, nothing is loaded, and the page's own policy
forbids any script but the one it came with. The page is `reports/report.html.jinja`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from evalkit.decide import report_compared as compared
from evalkit.decide import report_text as texts
from evalkit.decide.report_cases import SHOWN_CASES, Expected
from evalkit.decide.report_commands import how_to_gate, how_to_run
from evalkit.decide.report_evidence import Evidence, gather, meetings_of
from evalkit.decide.report_health import trials_of
from evalkit.decide.report_page import render
from evalkit.decide.report_people import side_by_side
from evalkit.decide.report_pictures import Axis
from evalkit.decide.report_sentences import (
    Entry,
    Verdict,
    advisory,
    gating,
    headline,
    interval_level,
    reasons,
    spending,
)
from evalkit.decide.report_table import as_inert_json
from evalkit.store.files import write_whole

if TYPE_CHECKING:
    from evalkit.config import Settings
    from evalkit.store.views import Store

SHOWN_SLICES = 24
SHOWN_OTHER_SLICES = 200
OPEN_CASES = 10
"""Worst cases in view; the rest is folded away."""
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
    budgets: Mapping[str, float] = MappingProxyType({}),
    index: str | None = None,
) -> None:
    """Write the report of `verdict`, or of `runs` that were compared with nothing.

    `expected` knows the cases' expected values, which no store keeps; `budgets` the
    milliseconds that a call of a feature may take; `index` is the address of a page of all
    runs. Raises StoreError when `path` cannot be written, ContentError when a template is
    broken.
    """
    page = render_report(
        verdict,
        store,
        runs=runs,
        project=project,
        expected=expected,
        budgets=budgets,
        index=index,
    )
    with write_whole(path, replace=True) as file:
        file.write(page.encode("utf-8"))


def budgets_of(settings: Settings) -> dict[str, float]:
    """Feature -> the milliseconds that a call of it may take."""
    return {name: feature.max_latency_ms for name, feature in settings.features.items()}


def render_report(
    verdict: Verdict | None,
    store: Store | None,
    *,
    runs: Sequence[str] = (),
    project: Path | None = None,
    expected: Expected = lambda golden_set, case_id, case_hash: (False, None),
    budgets: Mapping[str, float] = MappingProxyType({}),
    index: str | None = None,
) -> str:
    """The page as text."""
    project = project or Path.cwd()
    evidence = gather(verdict, store, runs, project=project, expected=expected, budgets=budgets)
    return render(
        "report.html.jinja",
        _told(verdict, evidence) | {"evidence": evidence, "verdict": verdict, "index": index},
        project=project,
        script=True,
    )


# --- what the template is told --------------------------------------------------------


def _told(verdict: Verdict | None, evidence: Evidence) -> dict[str, Any]:
    overall = "none" if verdict is None else str(verdict["verdict"])
    sentence = _runs_sentence(evidence) if verdict is None else headline(verdict)
    held = compared.must_pass(verdict, evidence.runs)
    told = {
        "overall": overall,
        "sentence": sentence,
        "title": f"{sentence if verdict is None else overall} · evalkit report",
        "created_at": _created_at(verdict, evidence),
        "who": [] if verdict is None else meetings_of(verdict),
        "level": "90 %" if verdict is None else interval_level(verdict),
        "why": [] if verdict is None else reasons(verdict),
        "open_cases": OPEN_CASES,
        "cases_lead": _cases_lead(verdict, evidence),
        "improved_lead": _improved_lead(evidence),
        "table_json": _inert(evidence.table),
        "spending": spending(evidence.calls, evidence.spent),
        "trials": [] if verdict is None else trials_of([*gating(verdict), *advisory(verdict)]),
        "roles": _roles(verdict),
        "beside": [] if verdict is None else list(side_by_side(verdict)),
        "commands": [(run, how_to_run(run)) for run in evidence.runs],
        "gate_command": how_to_gate(verdict),
        "tiers": TIERS,
        "outcomes": OUTCOMES,
        "must_pass": held,
        **_compared_and_slices(verdict, held),
    }
    return told | {"parts": _parts(told, evidence)}


def _compared_and_slices(verdict: Verdict | None, held: compared.Held) -> dict[str, Any]:
    groups = [] if verdict is None else compared.compared(verdict, held)
    dropped, others = ([], []) if verdict is None else _slices(verdict)
    more = max(0, len(dropped) - SHOWN_SLICES) + max(0, len(others) - SHOWN_OTHER_SLICES)
    dropped, others = dropped[:SHOWN_SLICES], others[:SHOWN_OTHER_SLICES]
    return {
        "compared": groups,
        "axis": Axis.of(compared.shown(groups)),
        "slice_axis": Axis.of([*dropped, *others]),
        "slices": _by_golden_set(dropped),
        "other_slices": _by_golden_set(others),
        "n_other_slices": len(others),
        "n_more_slices": more,
    }


def _inert(table: Mapping[str, Any]) -> Any:
    """The only other text that is not escaped as HTML: nothing in it can end its element."""
    from markupsafe import Markup

    return Markup(as_inert_json(table)) if table else ""


def _parts(told: Mapping[str, Any], evidence: Evidence) -> list[tuple[str, str]]:
    """The sections there are, in their order: (anchor, name)."""
    there = {
        "comparisons": ("Comparisons", told["compared"]),
        "why": ("Why", told["why"]),
        "metrics": ("Metrics", evidence.metrics),
        "cases": ("Cases", evidence.cases or evidence.improved or evidence.table),
        "fair": ("Fairness" if evidence.fair else "Failures", evidence.fair or evidence.calls),
        "slices": ("Slices", told["slices"] or told["other_slices"]),
        "trials": ("Trials", told["compared"]),
        "cost": ("Latency and cost", evidence.calls),
        "judges": ("Judges", evidence.judges),
        "people": ("Judge and people", told["beside"]),
        "history": ("History", evidence.runs),
        "runs": ("Reproduce", evidence.runs),
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


def _slices(verdict: Verdict) -> tuple[list[Entry], list[Entry]]:
    """Slices that dropped by themselves, the largest drop first; and all others."""
    found = [
        one
        for one in verdict["comparisons"]
        if one.get("slice") is not None and one.get("delta") is not None
    ]
    found.sort(key=lambda one: one["delta"])
    dropped = [one for one in found if one["verdict"] == "regression"]
    return dropped, [one for one in found if one["verdict"] != "regression"]


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


def _improved_lead(evidence: Evidence) -> str:
    total = sum(evidence.n_better.values())
    text = f"{texts.count(total, 'case')} scored higher than before on some metric"
    if total > len(evidence.improved):
        text += f"; the best {len(evidence.improved)} are here"
    return text + "."

"""List all runs on one page, each with its newest verdict and a link to its report.

Beside the report: what `evalkit report --index` writes. It reads manifests and verdicts,
never scores, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from evalkit.decide.report_page import render
from evalkit.decide.report_sentences import headline
from evalkit.decide.report_text import NOT_KNOWN, count
from evalkit.store.files import write_whole

Row: TypeAlias = Mapping[str, Any]

INDEX = "index.html"
SHOWN_PAIRS = 4


def newest_verdicts(verdicts: Iterable[Row]) -> dict[str, Row]:
    """Run id -> the newest verdict on that run alone. `verdicts` are newest first."""
    found: dict[str, Row] = {}
    for verdict in verdicts:
        comparisons = verdict.get("comparisons") or []
        runs = {(one.get("candidate") or {}).get("run_id") for one in comparisons}
        if len(runs) == 1 and (run_id := runs.pop()) is not None:
            found.setdefault(str(run_id), verdict)
    return found


def report_name(run_id: str) -> str:
    """The file of a run's report, beside the index."""
    return f"{run_id}.html"


def write_index(
    runs: Sequence[Row],
    verdicts: Mapping[str, Row],
    folder: Path,
    *,
    project: Path,
    n_more: int = 0,
    problems: Sequence[str] = (),
) -> Path:
    """Write `index.html` over `runs`, newest first; those with a report there are linked."""
    listed = [_line(run, verdicts.get(run["run_id"]), folder) for run in runs]
    told = {
        "runs": listed,
        "sentence": _sentence(listed, n_more),
        "n_more": n_more,
        "problems": problems,
        "tiers": {},
        "level": "",
    }
    page = render("report_index.html.jinja", told, project=project, script=False)
    with write_whole(folder / INDEX, replace=True) as file:
        file.write(page.encode("utf-8"))
    return folder / INDEX


def _line(run: Row, verdict: Row | None, folder: Path) -> dict[str, Any]:
    git = run.get("git") or {}
    golden_sets = run.get("golden_sets") or {}
    pairs = list(run.get("pairs") or ())
    name = report_name(run["run_id"])
    n_cases = sum(one.get("n_cases") or 0 for one in golden_sets.values())
    return {
        "run_id": run["run_id"],
        "when": str(run["created_at"])[:16].replace("T", " "),
        "href": name if (folder / name).is_file() else None,
        "word": "none" if verdict is None else verdict["verdict"],
        "status": "not compared" if run["status"] == "complete" else run["status"],
        "sentence": "" if verdict is None else headline(verdict),
        "golden_sets": list(golden_sets),
        "pairs": pairs[:SHOWN_PAIRS]
        + ([f"and {len(pairs) - SHOWN_PAIRS} more"] if len(pairs) > SHOWN_PAIRS else []),
        "commit": str(git.get("commit") or "")[:12],
        "branch": git.get("branch"),
        "cases": f"{n_cases:,}" if n_cases else NOT_KNOWN,
    }


def _sentence(runs: Sequence[Row], n_more: int) -> str:
    if not runs:
        return "There is no run yet."
    words = [run["word"] for run in runs]
    text = count(len(runs) + n_more, "run")
    found = [f"{words.count(word)} {word}" for word in dict.fromkeys(words) if word != "none"]
    return f"{text}: {', '.join(found)}." if found else f"{text}, none compared with another yet."

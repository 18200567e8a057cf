"""Two runs in a store and the verdict on them, as hostile or as plain as a test wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from evalkit.store.views import Store, open_store
from tests.store.journal_lines import call, plain, score

CANDIDATE, BASELINE = "run-new", "run-old"


def side(run_id: str, version: str, **more: Any) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "file": None,
        "model": "small",
        "prompt_name": "classify-ticket",
        "prompt_version": version,
        **more,
    }


def comparison(**changes: Any) -> dict[str, Any]:
    """One entry of a verdict: label on tickets, 10 of 100 cases lost."""
    return {
        "golden_set": "tickets",
        "metric": "label",
        "tier": 1,
        "slice": None,
        "baseline": side(BASELINE, "v2"),
        "candidate": side(CANDIDATE, "v3"),
        "n": 100,
        "n_clusters": None,
        "trials": 1,
        "baseline_mean": 0.9,
        "candidate_mean": 0.8,
        "delta": -0.1,
        "ci": [-0.16, -0.04],
        "p_value": 0.001,
        "p_adjusted": 0.002,
        "method": "mcnemar-mid-p",
        "verdict": "regression",
        "mde": 0.08,
        "cases_needed": 300,
        "missing": {
            "baseline": 0, "candidate": 0, "excluded": 0, "unpaired": 0,
            "worst_case_verdict": "regression",
        },
        "regressed_cases": ["t-001"],
        "improved_cases": [],
        "gate": True,
        "reason": None,
        "tolerance": 0.0,
        "max_drop": 0.05,
        "losses": 10,
        "wins": 0,
        "trials_needed": None,
        "noise": None,
    } | changes  # fmt: skip


def verdict(
    *comparisons: Mapping[str, Any], word: str = "regression", **more: Any
) -> dict[str, Any]:
    return {
        "verdict": word,
        "alpha": 0.05,
        "correction": "holm",
        "comparisons": list(comparisons),
        "must_pass_failures": [],
        "budget": {},
        "notes": [],
        **more,
    }


def passed(**changes: Any) -> dict[str, Any]:
    fine: dict[str, Any] = {
        "verdict": "pass", "delta": 0.0, "ci": [-0.02, 0.02], "candidate_mean": 0.9,
        "p_adjusted": 1.0, "losses": 1, "wins": 1,
    }  # fmt: skip
    return comparison(**fine | changes)


def line(
    run_id: str, case_id: str, *, of_call: Mapping[str, Any] | None = None, **columns: Any
) -> dict[str, Any]:
    """One finished case: a call, and a score for each of `metrics` (default: label)."""
    columns.setdefault("prompt_version", "v3" if run_id == CANDIDATE else "v2")
    trial = columns.get("trial", 0)
    trace_id = f"{run_id}-{case_id}-{trial}"
    made = call(**{"trace_id": trace_id, **(of_call or {})})
    metrics: Sequence[Mapping[str, Any]] = columns.pop("metrics", ({"metric": "label"},))
    return {
        "key": [columns.get("golden_set", "tickets"), "pair", case_id, "bbbb", trial],
        "calls": [plain(made)],
        "scores": [
            plain(score(run_id=run_id, case_id=case_id, trace_id=trace_id, **columns | metric))
            for metric in metrics
        ],
        "must_pass": [],
    }


def seal(folder: Path, run_id: str, lines: Sequence[Mapping[str, Any]], **manifest: Any) -> Store:
    store = open_store(folder)
    started = {
        "run_id": run_id,
        "git": {"commit": "c0ffee" * 6, "branch": "main", "dirty": False},
        "versions": {"evalkit": "0.1.0", "python": "3.11.0"},
        "seed": 7,
        "planned": len(lines),
        "pairs": ["small/classify-ticket@v2"],
        "prompts": {"classify-ticket@v2": "0123456789abcdef"},
        "golden_sets": {"tickets": {"hash": "aaaa", "feature": "classify-ticket"}},
    }
    with store.create_run(started | manifest) as writer:
        for one in lines:
            writer.append(one)
        writer.seal("complete", counts={"scored": len(lines)})
    return store


def little_store(folder: Path) -> Store:
    """A baseline that answers two cases, and a candidate that fails one of them."""
    seal(folder, BASELINE, [line(BASELINE, "t-001"), line(BASELINE, "t-002")])
    bad: dict[str, Any] = {
        "score": 0.0, "passed": False, "reason": "got other", "latency_ms": 40.0, "cost_usd": None
    }  # fmt: skip
    answer = {"output": '{"label": "other"}'}
    return seal(
        folder,
        CANDIDATE,
        [line(CANDIDATE, "t-001", of_call=answer, **bad), line(CANDIDATE, "t-002")],
    )


def hostile_world(folder: Path, text: str) -> tuple[dict[str, Any], Store]:
    """Every place in which foreign text can stand holds `text`."""
    named = {"golden_set": text, "model": text, "prompt_name": text}
    metric = {"metric": text, "reason": text, "slices": {text: text}, "cluster": text,
              "tier": 2, "scorer": text, "scorer_version": text}  # fmt: skip
    error = {"metric": "other", "score": None, "passed": None, "outcome": "check_error",
             "error_kind": text, "reason": text}  # fmt: skip
    manifest = {
        "git": {"commit": text, "branch": text, "dirty": True},
        "pairs": [text],
        "prompts": {text: text},
        "versions": {text: text},
        "golden_sets": {text: {"hash": text, "trials": 3, "n_cases": 3}},
    }
    for run_id, value in ((BASELINE, 1.0), (CANDIDATE, 0.0)):
        of_call = {"input": {text: text}, "output": f"{text} {value}", "feature": f"judge:{text}"}
        store = seal(
            folder,
            run_id,
            [
                line(
                    run_id, text, of_call=of_call, prompt_version=text,
                    metrics=({**metric, "score": value}, error), **named,
                )
            ],
            **manifest,
        )  # fmt: skip
    sides = {
        "baseline": side(BASELINE, text, model=text, prompt_name=text, file=text),
        "candidate": side(CANDIDATE, text, model=text, prompt_name=text, file=text),
    }
    here = {"golden_set": text, "metric": text, **sides}
    failure = {"golden_set": text, "case_id": text, "metric": text, "reason": text}
    of = verdict(
        comparison(**here),
        comparison(**here | {"metric": "other", "gate": False}),
        comparison(**here, slice=text, gate=False),
        comparison(**here | {"metric": "x"}, verdict="unmeasurable", reason=text),
        must_pass_failures=[failure],
        must_pass_missing=[failure],
        notes=[text],
        verdict_id=text,
        created_at=text,
    )
    return of, store


class Page(HTMLParser):
    """What a browser makes of a page: its elements, their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, str] = {}
        """Tag -> content of the elements whose content is no markup; "data" for the JSON."""
        self._texts: list[str] = []
        self._inside: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside.append(tag)
        self._part(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass
        self._part(tag)

    def _part(self, tag: str) -> None:
        """A cell is no word with the next one."""
        if tag not in ("b", "bdi", "mark"):
            self._texts.append(" ")

    def handle_data(self, data: str) -> None:
        inside = self._inside[-1] if self._inside else ""
        if inside in ("script", "style"):
            kind = "data" if self.elements[-1][1].get("type") == "application/json" else inside
            self.raw[kind] = self.raw.get(kind, "") + data
        else:
            self._texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self._texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]

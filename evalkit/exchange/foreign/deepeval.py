"""Files of DeepEval: data sets (.json, .jsonl, .csv) and test runs (.json).

Goldens and test cases become cases; the metrics of a test run become results, each with
its own score. DeepEval's metrics are judged by models with prompts of its own, so none
of them becomes a metric here but by choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import InputFileError
from evalkit.exchange.foreign.reading import csv_rows, json_lines, parse_json, share, text_of
from evalkit.exchange.golden_sets import Foreign, slug

Item = Mapping[str, Any]

JUDGES = {
    "faithfulness": "groundedness",
    "hallucination": "groundedness",
    "answer-relevancy": "helpfulness",
    "correctness": "correctness",
    "correctness-geval": "correctness",
}
"""DeepEval's metric -> the judge that ships here and asks about the same."""


def read(path: Path) -> Foreign:
    """Cases of a data set; of a test run its results as well."""
    items, run = _items(path)
    foreign = Foreign(name=slug(path.stem.lstrip(".")), description=f"From DeepEval: {path.name}.")
    metrics: dict[str, None] = {}
    for item in items:
        case_id = foreign.free_id(
            item.get("name") or item.get("id") or f"d-{len(foreign.cases) + 1:04d}"
        )
        _add_case(item, case_id, foreign)
        for row in _results(item, case_id, run, foreign):
            metrics[row["metric"]] = None
            foreign.results.append(row)
    has_expected = foreign.cases and all("expected" in case for case in foreign.cases)
    if has_expected:
        foreign.metrics.append({"name": "correct", "judge": "correctness", "gate": True})
    for name in metrics:
        near = JUDGES.get(name)
        hint = f"; a judge like it: {near}" if near else ""
        foreign.lost.add(f"metric {name}: its prompt is DeepEval's own{hint}")
    return foreign


def _items(path: Path) -> tuple[list[Item], Item]:
    """Goldens or test cases, and the test run they are of (empty for a data set)."""
    text = text_of(path)
    if path.suffix.lower() == ".csv":
        return [_snake(row) for row in csv_rows(text, str(path))], {}
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return [_snake(one) for _, one in json_lines(text, str(path)) if isinstance(one, dict)], {}
    value = parse_json(text, str(path))
    run: Item = {}
    if isinstance(value, dict):
        run = value.get("testRunData") or value.get("test_run_data") or value
        run = run if isinstance(run, dict) else {}
        value = next((run[key] for key in _LISTS if isinstance(run.get(key), list)), None)
    if not isinstance(value, list):
        raise InputFileError(f"{path}: has no list of goldens or test cases.")
    return [_snake(one) for one in value if isinstance(one, dict)], run


_LISTS = ("testCases", "test_cases", "goldens", "conversationalTestCases")


def _snake(item: Item) -> dict[str, Any]:
    """Names as data sets have them; test runs write them in camel case."""
    return {re.sub(r"(?<=[a-z])([A-Z])", r"_\1", str(k)).lower(): v for k, v in item.items()}


def _add_case(item: Item, case_id: str, foreign: Foreign) -> None:
    if "input" not in item:
        what = "conversations of several turns" if "turns" in item else "items without an input"
        foreign.lost.add(what, case_id)
        return
    asked: dict[str, Any] = {"text": str(item["input"])}
    context = _list(item.get("retrieval_context")) or _list(item.get("context"))
    if context:
        asked["documents"] = [{"id": f"d{n}", "text": text} for n, text in enumerate(context, 1)]
    case: dict[str, Any] = {"id": case_id, "input": asked}
    if item.get("expected_output") not in (None, ""):
        case["expected"] = str(item["expected_output"])
    metadata = item.get("additional_metadata")
    case["metadata"] = {
        **(metadata if isinstance(metadata, dict) else {}),
        **{key: item[key] for key in ("comments", "source_file") if item.get(key)},
    }
    if not case["metadata"]:
        del case["metadata"]
    if _list(item.get("expected_tools")):
        foreign.lost.add("expected tools: write a tool_call check", case_id)
    foreign.add_case(case)


def _list(value: Any) -> list[str]:
    """A list of texts; in CSV several stand in one cell, parted by | or ;."""
    if isinstance(value, str):
        value = [part.strip() for part in re.split(r"[|;]", value)]
    return [str(one) for one in value if one] if isinstance(value, list) else []


def _results(item: Item, case_id: str, run: Item, foreign: Foreign) -> Iterator[dict[str, Any]]:
    found = item.get("metrics_data") or item.get("metrics_metadata") or ()
    for one in found if isinstance(found, list) else ():
        if not isinstance(one, dict):
            continue
        metric = slug(re.sub(r"[\[\]()]", "", str(one.get("name") or one.get("metric"))).lower())
        score = None if one.get("error") else share(one.get("score"))
        if score is None:
            foreign.lost.add(f"scores of {metric} that are no share of 1", case_id)
        yield {
            "case_id": case_id,
            "metric": metric,
            "score": score,
            "outcome": "scored" if score is not None else "judge_error",
            "golden_set": slug(foreign.name),
            "scorer_version": one.get("evaluationModel") or one.get("evaluation_model"),
        }
    if item.get("actual_output") and not found and not run:
        foreign.lost.add("answers of a data set: run the feature for new ones", case_id)

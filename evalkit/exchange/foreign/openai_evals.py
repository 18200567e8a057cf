"""Files of OpenAI Evals: samples (.jsonl), a registry (.yaml) and logs of runs (.jsonl).

A sample's chat becomes an input, `ideal` what is expected. What the eval's class makes
of it is known from the registry; without one, equality is taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import InputFileError
from evalkit.exchange.foreign.reading import json_lines, parse_yaml, share, text_of
from evalkit.exchange.golden_sets import Foreign, Spec, prompt_of, slug
from evalkit.strict import is_file, real_path

Sample = Mapping[str, Any]

ONE = {"Match": "starts_with", "Includes": "contains", "FuzzyMatch": "icontains",
       "JsonMatch": "equals", "": "equals"}  # fmt: skip
MANY = {"Match": "one_of", "Includes": "contains_any", "FuzzyMatch": "icontains_any",
        "": "one_of"}  # fmt: skip
"""Class of an eval -> check, where `ideal` is one text and where it is several."""
SCORED = {"match": "correct", "metrics": None}
"""Type of an event -> the field that is its score; None: every number in it."""


def read(path: Path) -> Foreign:
    """Cases from samples or a registry; results from a log."""
    if path.suffix.lower() in (".yaml", ".yml"):
        return _registry(path)
    lines = list(json_lines(text_of(path), str(path)))
    if any(isinstance(one, dict) and ("spec" in one or "event_id" in one) for _, one in lines):
        return _log(path, [one for _, one in lines if isinstance(one, dict)])
    return _samples(path, "", name=path.stem)


# --- samples -------------------------------------------------------------------------


def _samples(path: Path, kind: str, *, name: str, ignore_case: bool = False) -> Foreign:
    """`kind` is the class of the eval, without its module."""
    foreign = Foreign(name=slug(name), description=f"Samples of OpenAI Evals: {path.name}.")
    rows = [(line, one) for line, one in json_lines(text_of(path), str(path))]
    systems = Counter(_system(one) for _, one in rows if isinstance(one, dict))
    system = systems.most_common(1)[0][0] if systems else ""
    for line, sample in rows:
        if not isinstance(sample, dict) or "input" not in sample:
            foreign.lost.add("lines without an input", f"line {line}")
            continue
        foreign.add_case(_case(sample, foreign, system, line))
    foreign.prompts = [prompt_of(foreign.cases, system=system)]
    foreign.metrics = _metrics(kind, foreign, ignore_case=ignore_case)
    return foreign


def _case(sample: Sample, foreign: Foreign, system: str, line: int) -> dict[str, Any]:
    case_id = foreign.free_id(sample.get("id") or sample.get("sample_id") or f"s-{line:04d}")
    chat = _chat(sample["input"])
    turns = [one for one in chat if one["role"] != "system"]
    asked: dict[str, Any] = {"text": turns[-1]["text"] if turns else ""}
    if len(turns) > 1:
        asked["conversation"] = turns[:-1]
    if _system(sample) != system:
        asked["instructions"] = _system(sample)
        foreign.lost.add("instructions unlike the others': the prompt has to render them", case_id)
    case: dict[str, Any] = {"id": case_id, "input": asked}
    ideal = sample.get("ideal")
    if isinstance(ideal, list) and len(ideal) == 1:
        ideal = ideal[0]
    if ideal is not None:
        case["expected"] = ideal
    known = {"input", "ideal", "id", "sample_id", "metadata"}
    more = {str(k): v for k, v in sample.items() if k not in known}
    given = sample.get("metadata")
    metadata = {**(given if isinstance(given, dict) else {}), **more}
    return {**case, "metadata": metadata} if metadata else case


def _chat(asked: Any) -> list[dict[str, str]]:
    if isinstance(asked, str):
        return [{"role": "user", "text": asked}]
    return [
        {"role": str(one.get("role", "user")), "text": str(one.get("content", ""))}
        for one in (asked if isinstance(asked, list) else [])
        if isinstance(one, dict)
    ]


def _system(sample: Sample) -> str:
    """What stands before the first word of the user."""
    return "\n\n".join(one["text"] for one in _chat(sample.get("input")) if one["role"] == "system")


def _metrics(kind: str, foreign: Foreign, *, ignore_case: bool) -> list[Spec]:
    expected = [case.get("expected") for case in foreign.cases if "expected" in case]
    if not expected or len(expected) < len(foreign.cases):
        foreign.lost.add("samples without ideal: add a metric that needs none" if expected else
                         "there is no ideal: add a metric that needs none")  # fmt: skip
        return []
    lists = any(isinstance(one, list) for one in expected)
    table = MANY if lists else ONE
    if kind not in table:
        foreign.lost.add(f"class {kind}: add a check or a judge of your own")
        return []
    if lists:
        for case in foreign.cases:
            one = case["expected"]
            case["expected"] = one if isinstance(one, list) else [one]
        if kind == "Match":
            foreign.lost.add("class Match takes answers that begin with ideal; here they equal it")
    if kind == "FuzzyMatch":
        foreign.lost.add("class FuzzyMatch also takes answers that are part of ideal")
    check = table[kind]
    check = f"i{check}" if ignore_case and check.startswith("contains") else check
    return [{"name": slug(kind or "right").lower(), "check": check, "gate": True}]


# --- registry ------------------------------------------------------------------------


def _registry(path: Path) -> Foreign:
    """The first eval of a registry file whose samples are found beside it."""
    table = parse_yaml(path)
    entries = table if isinstance(table, dict) else {}
    found = {name: one for name, one in entries.items()
             if isinstance(one, dict) and isinstance(one.get("args"), dict)}  # fmt: skip
    for name, one in found.items():
        where = one["args"].get("samples_jsonl")
        samples = _beside(path, str(where)) if where else None
        if samples is None:
            continue
        kind = str(one.get("class", "")).rpartition(":")[2]
        ignore_case = bool(one["args"].get("ignore_case"))
        foreign = _samples(samples, kind, name=name.partition(".")[0], ignore_case=ignore_case)
        for other in found.keys() - {name}:
            foreign.lost.add("other evals of the file: import their samples", other)
        return foreign
    raise InputFileError(
        f"{path}: no eval whose samples_jsonl is beside it. Name the samples themselves."
    )


def _beside(path: Path, name: str) -> Path | None:
    """The samples below the registry's folder, or in the data folder next to it."""
    for folder in (path.parent, path.parent.parent / "data"):
        found = real_path(folder / name)
        if is_file(found) and found.is_relative_to(real_path(folder)):
            return found
    return None


# --- logs ----------------------------------------------------------------------------


def _log(path: Path, events: list[Sample]) -> Foreign:
    spec: Sample = next((e["spec"] for e in events if isinstance(e.get("spec"), dict)), {})
    name = str(spec.get("base_eval") or spec.get("eval_name") or path.stem)
    foreign = Foreign(name=slug(name), description=f"A run of OpenAI Evals: {path.name}.")
    completions = spec.get("completion_fns")
    model = str(completions[0]) if isinstance(completions, list) and completions else None
    seen: Counter[tuple[str, str]] = Counter()
    for event in events:
        for metric, score in _scores(event):
            case_id = str(event.get("sample_id") or "?")
            outcome = "scored" if score is not None else "check_error"
            foreign.results.append(
                {
                    "case_id": case_id, "metric": metric, "score": score, "outcome": outcome,
                    "trial": seen[case_id, metric], "golden_set": slug(name),
                    "model": model,
                }
            )  # fmt: skip
            seen[case_id, metric] += 1
    if foreign.results:
        foreign.lost.add("cases: a log has none to run; import the samples as well")
    return foreign


def _scores(event: Sample) -> Iterator[tuple[str, float | None]]:
    kind, data = event.get("type"), event.get("data")
    if not isinstance(kind, str) or kind not in SCORED or not isinstance(data, dict):
        return
    key = SCORED[kind]
    if key is not None:
        yield "match", share(data.get(key))
        return
    for name, value in data.items():
        if share(value) is not None:
            yield slug(str(name)), share(value)

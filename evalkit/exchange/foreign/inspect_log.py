"""Logs of Inspect (inspect_ai): `.eval` (a zip of JSON parts) and `.json`.

Samples become cases, epochs trials, and each scorer's values results. C, P, I and N are
1, ½, 0 and 0, as Inspect itself counts them.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import InputFileError
from evalkit.exchange.archives import BROKEN
from evalkit.exchange.foreign.reading import MAX_BYTES, parse_json, share, text_of
from evalkit.exchange.golden_sets import Foreign, Spec, prompt_of, slug

LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
MAX_PARTS = 200_000
SCORERS: dict[str, tuple[Spec, str]] = {
    "match": ({"check": "ends_with"}, "Inspect's match also ignores case and punctuation"),
    "includes": ({"check": "icontains"}, ""),
    "exact": ({"check": "equals", "normalise": True}, "Inspect's exact ignores articles, too"),
    "f1": ({"check": "token_f1"}, ""),
    "model_graded_qa": ({"judge": "correctness"}, "the judge is ours, with its own rubric"),
    "model_graded_fact": ({"judge": "correctness"}, "the judge is ours, with its own rubric"),
}
"""Scorer -> the metric that is nearest to it, and in what they differ."""

Log = Mapping[str, Any]


def read(path: Path) -> Foreign:
    """Cases, metrics and results of one log."""
    header, samples = _zipped(path) if zipfile.is_zipfile(path) else _plain(path)
    about = _table(header.get("eval"))
    task = str(about.get("task") or path.stem)
    foreign = Foreign(
        name=task.rpartition("/")[2],
        description=f"Samples of {task} ({_table(about.get('dataset')).get('name') or 'a log'}).",
    )
    known: dict[str, str] = {}
    failed: list[dict[str, Any]] = []
    systems: set[str] = set()
    model = str(about.get("model") or "")
    for sample in samples:
        key = str(sample.get("id"))
        if key not in known:
            known[key] = foreign.free_id(sample.get("id"))
            foreign.add_case(_case(sample, known[key], foreign))
            systems.add(_system(sample))
        execution = _execution(sample, known[key], model, foreign)
        if sample.get("scores") or not sample.get("error"):
            foreign.results += _results(sample, execution, foreign)
        else:
            failed.append(execution)
    # What was not scored is missing, not left out: a model must not gain by failing.
    for metric in dict.fromkeys(row["metric"] for row in foreign.results):
        row = {"metric": metric, "score": None, "outcome": "infra_error"}
        foreign.results += [{**execution, **row} for execution in failed]
    if not foreign.results:
        for execution in failed:
            foreign.lost.add("samples that ended in an error", execution["case_id"])
    foreign.metrics = _metrics(header, foreign)
    if len(systems) == 1:
        foreign.prompts = [prompt_of(foreign.cases, system=systems.pop())]
    for step in _list(_table(header.get("plan")).get("steps")):
        if isinstance(step, dict) and step.get("solver") not in ("generate", "system_message"):
            foreign.lost.add("solvers: the prompt has to do their work", str(step.get("solver")))
    return foreign


# --- the file ------------------------------------------------------------------------


def _plain(path: Path) -> tuple[Log, list[Log]]:
    log = parse_json(text_of(path), str(path))
    if not isinstance(log, dict) or "eval" not in log:
        raise InputFileError(f'{path}: is no log of Inspect: it has no "eval".')
    return log, [one for one in _list(log.get("samples")) if isinstance(one, dict)]


def _zipped(path: Path) -> tuple[Log, Iterator[Log]]:
    header = next(_parts(path, r"header\.json"), None) or next(
        _parts(path, r"_journal/start\.json"), None
    )
    if header is None:
        raise InputFileError(f"{path}: is no log of Inspect: it has no header.json.")
    return header, _parts(path, r"samples/[^/]+\.json")


def _parts(path: Path, pattern: str) -> Iterator[Log]:
    """Parts of the archive by name, read one by one; together they are bounded."""
    left = MAX_BYTES
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if re.fullmatch(pattern, name)]
            for name in sorted(names, key=_natural)[:MAX_PARTS]:
                with archive.open(name) as file:
                    data = file.read(left + 1)
                left -= len(data)
                if left < 0:
                    raise InputFileError(f"{path}: unpacks to more than {MAX_BYTES:,} bytes.")
                part = parse_json(data.decode("utf-8", "replace"), f"{path}, {name}")
                if isinstance(part, dict):
                    yield part
    except NotImplementedError:
        raise InputFileError(
            f"{path}: is packed in a way that cannot be read here. "
            f"Convert it: inspect log convert {path.name} --to json --output-dir DIR."
        ) from None
    except BROKEN as error:
        raise InputFileError(f"{path}: is damaged: {error}.") from None


def _natural(name: str) -> list[Any]:
    """Sample 2 before sample 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


# --- cases ---------------------------------------------------------------------------


def _case(sample: Log, case_id: str, foreign: Foreign) -> dict[str, Any]:
    case: dict[str, Any] = {"id": case_id, "input": _input(sample, case_id, foreign)}
    target = sample.get("target")
    if isinstance(target, list) and len(target) == 1:
        target = target[0]
    if target not in (None, "", []):
        case["expected"] = target.strip() if isinstance(target, str) else target
    if isinstance(sample.get("metadata"), dict) and sample["metadata"]:
        case["metadata"] = sample["metadata"]
    for key in ("sandbox", "files", "setup"):
        if sample.get(key):
            foreign.lost.add(f"{key} of a sample", case_id)
    return case


def _input(sample: Log, case_id: str, foreign: Foreign) -> dict[str, Any]:
    """`text`, with `choices` where there are some; of a conversation its last user's words."""
    asked = sample.get("input")
    fields: dict[str, Any] = {}
    if isinstance(asked, list):
        said = [one for one in asked if isinstance(one, dict)]
        users = [_words(one.get("content")) for one in said if one.get("role") == "user"]
        fields["text"] = users[-1] if users else ""
        if len(said) > 1:
            fields["conversation"] = [
                {"role": str(one.get("role")), "text": _words(one.get("content"))} for one in said
            ]
            foreign.lost.add(
                "turns before the last: the prompt has to render `conversation`", case_id
            )
    else:
        fields["text"] = str(asked if asked is not None else "")
    if _list(sample.get("choices")):
        fields["choices"] = [str(one) for one in sample["choices"]]
    return fields


def _system(sample: Log) -> str:
    """What stands before the first word of the user, as it was sent."""
    said = sample.get("messages")
    return "\n\n".join(
        _words(one.get("content"))
        for one in (said if isinstance(said, list) else [])
        if isinstance(one, dict) and one.get("role") == "system"
    )


def _words(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(
            str(part.get("text", "")) for part in content if isinstance(part, dict)
        ).strip()
    return str(content or "")


# --- scores --------------------------------------------------------------------------


def _metrics(header: Log, foreign: Foreign) -> list[Spec]:
    """Our nearest metric for each scorer of the log."""
    named = [one.get("scorer") or one.get("name") for one in _scores_of(header)]
    found = []
    lists = any(isinstance(case.get("expected"), list) for case in foreign.cases)
    for name in dict.fromkeys(str(one).rpartition("/")[2] for one in named if one):
        if name not in SCORERS or (lists and "check" in SCORERS[name][0]):
            foreign.lost.add("scorers without a counterpart: add a metric", name)
            continue
        spec, differs = SCORERS[name]
        found.append({"name": name, **spec, "gate": True})
        if differs:
            foreign.lost.add(f"scorer {name}: {differs}")
    return found


def _scores_of(header: Log) -> list[Log]:
    scores = _list(_table(header.get("results")).get("scores"))
    return [one for one in scores if isinstance(one, dict)]


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _execution(sample: Log, case_id: str, model: str, foreign: Foreign) -> dict[str, Any]:
    """What all rows of a sample have in common."""
    epoch = sample.get("epoch")
    return {
        "case_id": case_id,
        "trial": max(0, int(epoch) - 1) if isinstance(epoch, int) else 0,
        "golden_set": slug(foreign.name),
        "model": model or None,
    }


def _results(sample: Log, execution: Log, foreign: Foreign) -> Iterator[dict[str, Any]]:
    """A row for each value of each scorer; one that is no share of 1 has no score."""
    scores = sample.get("scores")
    if not isinstance(scores, dict):
        return
    for scorer, one in scores.items():
        value = one.get("value") if isinstance(one, dict) else None
        parts = value if isinstance(value, dict) else {"": value}
        for part, single in parts.items():
            metric = slug(f"{scorer}-{part}" if part else str(scorer))
            score = LETTERS.get(single) if isinstance(single, str) else share(single)
            if score is None:
                foreign.lost.add(f"values of {metric} that are no share of 1", execution["case_id"])
            outcome = "scored" if score is not None else "check_error"
            yield {**execution, "metric": metric, "score": score, "outcome": outcome}

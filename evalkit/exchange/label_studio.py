"""Label Studio's JSON: what the queue asks as tasks, and annotations as labels.

A task's `data.evalkit` says which answer it is about; Label Studio gives it back as it was.
An annotation is a choice (Pass, Fail, Cannot tell) or a number from 0 to 1, and a text for
the note: docs/labels.md has the template. Two answers side by side have no task.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evalkit.errors import InputFileError

ABOUT = (
    "trace_id", "run_id", "golden_set", "case_id", "case_hash", "trial", "model", "prompt_name",
    "prompt_version", "metric", "inclusion_prob",
)  # fmt: skip
CHOICES: dict[str, tuple[float | None, bool | None]] = {
    "Pass": (1.0, True),
    "Fail": (0.0, False),
    "Cannot tell": (None, None),
}
MAX_TASKS = 1_000_000
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Row = dict[str, Any]


def tasks_of(labels: Sequence[Row], queued: Sequence[Row]) -> list[Row]:
    """A task for each answer that is asked about or labelled, with its annotations."""
    tasks: dict[tuple[Any, ...], Row] = {}
    for item in queued:
        if len(item["facts"]) == 1:
            about = {**item["facts"][0], "metric": item["metric"],
                     "inclusion_prob": item["inclusion_prob"]}  # fmt: skip
            shown = {
                name: _text(value) for name, value in item["shown"].items() if name != "outputs"
            }
            shown["output"] = _text(item["shown"]["outputs"][0])
            tasks[_key(about)] = _task(about, shown)
    replaced = {row["supersedes"] for row in labels}
    for row in labels:
        if row["label_id"] not in replaced:
            task = tasks.setdefault(_key(row), _task(row, {}))
            task["annotations"].append(_annotation(row))
    return [{"id": number, **task} for number, task in enumerate(tasks.values(), 1)]


def _key(about: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(about.get(name) for name in ABOUT if name != "inclusion_prob")


def _task(about: Mapping[str, Any], shown: Mapping[str, str]) -> Row:
    known = {name: about[name] for name in ABOUT if about.get(name) is not None}
    return {"data": {**shown, "evalkit": known}, "annotations": []}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)


def _annotation(row: Row) -> Row:
    result: list[Row] = []
    word = next((w for w, of in CHOICES.items() if of == (row["score"], row["passed"])), None)
    if word is not None:
        result.append(_result("label", "choices", {"choices": [word]}))
    elif row["score"] is not None:
        result.append(_result("score", "number", {"number": row["score"]}))
        if row["passed"] is not None:
            choice = "Pass" if row["passed"] else "Fail"
            result.append(_result("label", "choices", {"choices": [choice]}))
    if row["comment"]:
        result.append(_result("comment", "textarea", {"text": [row["comment"]]}))
    return {
        "unique_id": row["label_id"],
        "completed_by": {"email": row["annotator"]},
        "created_at": row["labelled_at"],
        "was_cancelled": False,
        "result": result,
    }


def _result(name: str, kind: str, value: Row) -> Row:
    return {"from_name": name, "to_name": "output", "type": kind, "value": value}


# --- in -----------------------------------------------------------------------------------


def read_tasks(value: Any, path: str) -> Iterator[tuple[int, Row]]:
    """(task number, label) of every annotation; the columns of `labels` as they are read in."""
    if not isinstance(value, list) or not all(isinstance(task, dict) for task in value):
        raise InputFileError(f"{path}: not a list of tasks. Export from Label Studio as JSON.")
    for number, task in enumerate(value[:MAX_TASKS], 1):
        data = task.get("data")
        about = data.get("evalkit") if isinstance(data, dict) else None
        if not isinstance(about, dict):
            raise InputFileError(
                f"{path}: task {number}: no data.evalkit. Export the tasks with "
                "evalkit label export, label them, and bring these back."
            )
        known = {name: about[name] for name in ABOUT if name in about}
        annotations = task.get("annotations") or []
        if not isinstance(annotations, list):
            raise InputFileError(f"{path}: task {number}: annotations is not a list.")
        for annotation in annotations:
            if isinstance(annotation, dict) and not annotation.get("was_cancelled"):
                try:
                    yield number, {**known, **_label(annotation)}
                except ValueError as error:
                    raise InputFileError(f"{path}: task {number}: {error}") from None


def _label(annotation: Row) -> Row:
    said: Row = {
        "label_id": _id(annotation.get("unique_id")),
        "annotator": _annotator(annotation.get("completed_by")),
        "labelled_at": annotation.get("updated_at") or annotation.get("created_at"),
    }
    results = annotation.get("result")
    for one in results if isinstance(results, list) else ():
        value = one.get("value") if isinstance(one, dict) else None
        if not isinstance(value, dict):
            continue
        if "number" in value:
            said["score"] = value["number"]
        if "choices" in value:
            score, passed = _choice(value["choices"])
            said["passed"] = passed
            said.setdefault("score", score)
        if "text" in value:
            text = value["text"]
            said["comment"] = "\n".join(map(str, text)) if isinstance(text, list) else str(text)
    return said


def _id(text: Any) -> Any:
    """Our ids are UUIDs without hyphens; Label Studio writes them with."""
    return text.replace("-", "") if isinstance(text, str) and _UUID.fullmatch(text) else text


def _choice(chosen: Any) -> tuple[float | None, bool | None]:
    word = chosen[0] if isinstance(chosen, list) and chosen else chosen
    found = {name.lower(): of for name, of in CHOICES.items()}.get(str(word).strip().lower())
    if found is None:
        raise ValueError(f"a choice is {word!r}. Choices are: {', '.join(CHOICES)}.")
    return found


def _annotator(by: Any) -> str | None:
    """Label Studio names a user by number, or with the address."""
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    return None if by is None else by if isinstance(by, str) else f"label-studio:{by}"

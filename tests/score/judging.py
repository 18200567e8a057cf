"""Judges for tests: files of rubrics, and models that answer by a script."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.records import CallRecord, CallResult, Message
from tests.score.answers import RECORD

ONE = """\
name: {name}
version: v1
inputs: [input]
rubric: [{{name: right, scale: 0 or 1, description: Is it right?}}]
"""
PAIRWISE = """\
name: better
version: v1
inputs: [input]
pairwise: true
rubric: [{name: better, scale: better of two, description: Which is better?}]
"""


def write_judge(folder: Path, text: str, name: str) -> Path:
    judges = folder / "judges"
    judges.mkdir(exist_ok=True)
    path = judges / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def graded(folder: Path, name: str) -> Path:
    return write_judge(folder, ONE.format(name=name), name)


def block(question: str, kind: str) -> Any:
    """What stands in one block of a question."""
    start = question.index(f"<judge-{kind} ")
    return json.loads(question[start:].split("\n")[1])


class Model:
    """Answers every question by a rule, from the last message to grades or a failure's kind."""

    def __init__(self, rule: Callable[[str], Mapping[str, Any] | str]) -> None:
        self.rule = rule
        self.questions: list[str] = []
        self.trials: list[int] = []

    async def __call__(
        self, messages: tuple[Message, ...], schema: Mapping[str, Any], /, *, trial: int
    ) -> CallResult:
        question = messages[-1]["content"]
        self.questions.append(question)
        self.trials.append(trial)
        grades = self.rule(question)
        if isinstance(grades, str):
            return _result(None, grades, replace(RECORD, status="error", error_kind=grades))
        nonce = schema["properties"]["judgement_tag"]["const"]
        reply = {"judgement_tag": nonce, "reason": "because", "grades": dict(grades)}
        return _result(json.dumps(reply), None, RECORD)


def _result(output: str | None, kind: str | None, record: CallRecord) -> CallResult:
    return CallResult(
        status="ok" if kind is None else "error",
        output=output,
        value=None,
        error_kind=kind,
        message=None,
        record=record,
    )

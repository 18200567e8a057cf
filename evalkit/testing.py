"""For tests of LLM features written in Python: checks by name, and answers as values.

    @pytest.mark.llm_eval(golden_set="tickets")
    def test_label_is_known(case, record):
        assert value_of(record)["label"] in LABELS
        assert_passes(record, {"check": "regex", "pattern": "delivery"}, case=case)

A check here is the same as in golden_set.yaml. Needs no pytest, and calls no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit.records import Answer, CallRecord, Case, Mark

__all__ = ["answer_of", "assert_passes", "mark_of", "value_of"]

SHOWN_CHARS = 500


def value_of(record: CallRecord) -> Any:
    """The answer parsed as JSON. Raises AssertionError, showing it, where it is none."""
    try:
        return json.loads(_output(record))
    except ValueError as error:
        raise AssertionError(f"the answer is not JSON: {error}\n{_shown(record)}") from None


def answer_of(record: CallRecord, case: Case | None = None) -> Answer:
    """What a check looks at: an answer, and what the case expects of it."""
    from evalkit.records import Answer

    return Answer(
        output=_output(record),
        case_id=record.trace_id if case is None else case.id,
        input=record.input if case is None else case.input,
        expected=None if case is None else case.expected,
        has_expected=case is not None and case.has_expected,
        metadata={} if case is None else case.metadata,
        record=record,
    )


def mark_of(
    record: CallRecord,
    check: Mapping[str, Any],
    *,
    case: Case | None = None,
    base: Path | None = None,
) -> Mark:
    """What `check`, written as in golden_set.yaml, says of an answer.

    Paths in it are relative to `base`, by default the working directory. Raises ValueError
    for a check that does not exist or lacks a parameter.
    """
    from evalkit.score.checks import compile_check

    return compile_check(check, base=base or Path.cwd())(answer_of(record, case))


def assert_passes(
    record: CallRecord,
    check: Mapping[str, Any],
    *,
    case: Case | None = None,
    base: Path | None = None,
) -> None:
    """Raise AssertionError, with the reason and the answer, unless `check` passes."""
    __tracebackhide__ = True
    mark = mark_of(record, check, case=case, base=base)
    if not mark.passed:
        why = mark.reason or mark.error_kind or mark.outcome
        raise AssertionError(f"{check.get('check')}: {why}\n{_shown(record)}")


def _output(record: CallRecord) -> str:
    """The answer's text. Raises AssertionError, saying why, where the call gave none."""
    if record.output is None:
        why = record.error_kind or record.status
        raise AssertionError(f"call {record.trace_id} gave no answer: {why}")
    return record.output


def _shown(record: CallRecord) -> str:
    text = repr(record.output)
    return f"answer: {text[:SHOWN_CHARS]}{'…' if len(text) > SHOWN_CHARS else ''}"

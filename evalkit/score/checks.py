"""Tier 1: checks, the scorers that need no model. A spec becomes a function of an answer.

`CHECKS` is the table of all kinds. A check never raises: what the answer does wrong
scores 0, what the check cannot tell has no score and says why (`check_error`).
A check writes nothing and, but for the user's own `python` check, runs no code that
a golden set or an answer could choose.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.pii import PII_KINDS
from evalkit.records import Answer, Mark
from evalkit.score import check_call, check_json, check_own, check_retrieval, check_text
from evalkit.score.check_reading import (
    AMOUNT,
    ANY,
    COUNT,
    FLAG,
    FUNCTION,
    LIST,
    NORMAL_FORM,
    POINTER,
    POSITIVE,
    SCHEMA,
    SHARE,
    TEXT,
    TEXTS,
    CheckFault,
    CompileMeasure,
    Measure,
    Measured,
    OutputFault,
    Param,
    Params,
    choice,
    choices,
    short,
    without_surrogates,
)

log = logging.getLogger(__name__)

Check = Callable[[Answer], Mark]

METRIC_KEYS = frozenset({"name", "check", "gate", "tolerance", "max_drop", "must_pass"})
"""Keys of a metric that say what the gate does with the score, not how it is made."""

MAX_REASON_CHARS = 1000


class CheckSpecError(ValueError):
    """A check as written can never work; the message says what would be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckType:
    """One row of `CHECKS`."""

    compile: CompileMeasure
    params: Mapping[str, Param]
    """Parameters it knows, besides `negate`."""
    required: tuple[tuple[str, ...], ...] = ()
    """Groups of parameters of which at least one has to be there."""
    needs_expected: bool = False
    """Whether the case must have "expected", unless `value` or `values` stands in for it."""
    threshold: float | None = None
    """For graded checks: the score from which on the answer passes, unless the spec says."""
    version: int = 1
    """Raised whenever the same answer may get another score than before."""


_AT: dict[str, Param] = {"path": POINTER}
_EXPECTED: dict[str, Param] = {"value": ANY, "expected_path": POINTER}
_FORM: dict[str, Param] = {"normalise": NORMAL_FORM}
_CASE: dict[str, Param] = {"case_sensitive": FLAG, **_FORM}
_RANGE: dict[str, Param] = {"min": COUNT, "max": COUNT}
_GRADED: dict[str, Param] = {**_AT, **_EXPECTED, "values": TEXTS, **_CASE, "threshold": SHARE}
_PART: dict[str, Param] = {"measure": choice("f1", "recall", "precision")}


def _text(
    compile: CompileMeasure,
    *,
    many: bool = False,
    params: Mapping[str, Param] = _CASE,
    version: int = 1,
) -> CheckType:
    expected = {**_EXPECTED, "values": TEXTS} if many else _EXPECTED
    return CheckType(
        compile=compile,
        params={**_AT, **expected, **params},
        needs_expected=True,
        version=version,
    )


def _graded(
    compile: CompileMeasure,
    threshold: float,
    params: Mapping[str, Param] | None = None,
    *,
    version: int = 1,
) -> CheckType:
    return CheckType(
        compile=compile,
        params={**_GRADED, **(params or {})},
        needs_expected=True,
        threshold=threshold,
        version=version,
    )


def _retrieved(rate: check_retrieval.Rate, threshold: float) -> CheckType:
    return CheckType(
        compile=check_retrieval.compile_rate(rate),
        params={
            **_EXPECTED,
            "values": TEXTS,
            "k": POSITIVE,
            "by": choice("chunk", "document"),
            "threshold": SHARE,
        },
        needs_expected=True,
        threshold=threshold,
    )


CHECKS: dict[str, CheckType] = {
    # What the answer says.
    "equals": _text(check_text.equals, params={**_CASE, "unordered": FLAG}),
    "one_of": CheckType(
        compile=check_text.one_of,
        params={**_AT, "values": LIST, "expected_path": POINTER, **_CASE},
        needs_expected=True,
        version=2,
    ),
    "contains": _text(check_text.contains),
    "icontains": _text(check_text.icontains, params=_FORM),
    "contains_any": _text(check_text.contains_any, many=True),
    "contains_all": _text(check_text.contains_all, many=True),
    "icontains_any": _text(check_text.icontains_any, many=True, params=_FORM),
    "icontains_all": _text(check_text.icontains_all, many=True, params=_FORM),
    "starts_with": _text(check_text.starts_with),
    "ends_with": _text(check_text.ends_with),
    "regex": CheckType(
        compile=check_text.regex,
        params={**_AT, "pattern": TEXT, "case_sensitive": FLAG, "full": FLAG},
        required=(("pattern",),),
    ),
    "number": _text(
        check_text.number,
        params={
            "abs_tol": AMOUNT,
            "rel_tol": AMOUNT,
            "extract": choice("only", "first", "last"),
        },
        version=2,
    ),
    # What form it has.
    "is_json": CheckType(
        compile=check_json.is_json,
        params={
            "schema": SCHEMA,
            "type": choice("object", "array", "string", "number", "boolean", "null"),
        },
    ),
    "contains_json": CheckType(compile=check_json.contains_json, params={"schema": SCHEMA}),
    "json_schema": CheckType(
        compile=check_json.json_schema, params={**_AT, "schema": SCHEMA}, required=(("schema",),)
    ),
    "length": CheckType(
        compile=check_text.length, params={**_AT, **_RANGE}, required=(("min", "max"),)
    ),
    "words": CheckType(
        compile=check_text.words, params={**_AT, **_RANGE}, required=(("min", "max"),)
    ),
    "tokens": CheckType(compile=check_call.tokens, params=_RANGE, required=(("min", "max"),)),
    "language": CheckType(
        compile=check_text.language_is,
        params={**_AT, "value": TEXT, "values": TEXTS, "expected_path": POINTER},
        needs_expected=True,
    ),
    # How like the reference it is, 0 to 1.
    "levenshtein": _graded(check_text.levenshtein, 0.8, version=2),
    "rouge_l": _graded(check_text.rouge_l, 0.5, _PART),
    "rouge_n": _graded(check_text.rouge_n, 0.5, {"n": POSITIVE, **_PART}),
    "bleu": _graded(check_text.bleu, 0.5, {"n": POSITIVE}),
    "token_f1": _graded(check_text.token_f1, 0.5),
    "similar": _graded(check_text.similar, 0.75),
    # What was retrieved for it, 0 to 1.
    "recall_at_k": _retrieved(check_retrieval.recall_at_k, 1.0),
    "mrr": _retrieved(check_retrieval.reciprocal_rank, 0.5),
    "ndcg": _retrieved(check_retrieval.ndcg, 0.5),
    # What it does.
    "citations": CheckType(
        compile=check_call.citations,
        params={
            **_AT,
            **_EXPECTED,
            "values": TEXTS,
            "documents": POINTER,
            "min_count": COUNT,
            "require": choice("any", "all", "exact"),
        },
        version=2,
    ),
    "tool_call": CheckType(
        compile=check_call.tool_call,
        params={
            **_AT,
            **_EXPECTED,
            "arguments": choice("exact", "include", "alternatives", "ignore"),
            "ordered": FLAG,
            "allow_extra": FLAG,
        },
        needs_expected=True,
        version=2,
    ),
    "no_pii": CheckType(
        compile=check_text.no_pii,
        params={**_AT, "types": choices(*PII_KINDS), "allow_from_input": FLAG},
    ),
    "is_refusal": CheckType(compile=check_text.is_refusal, params=_AT),
    # What it cost.
    "latency": CheckType(
        compile=check_call.latency, params={"max_ms": AMOUNT}, required=(("max_ms",),)
    ),
    "ttft": CheckType(compile=check_call.ttft, params={"max_ms": AMOUNT}, required=(("max_ms",),)),
    "cost": CheckType(
        compile=check_call.cost, params={"max_usd": AMOUNT}, required=(("max_usd",),)
    ),
    # The user's own.
    "python": CheckType(
        compile=check_own.python,
        params={"function": FUNCTION, "threshold": SHARE},
        required=(("function",),),
        threshold=0.5,
    ),
}

CHECK_PARAMS: dict[str, frozenset[str]] = {
    name: frozenset({*kind.params, "negate"}) for name, kind in CHECKS.items()
}
"""Scoring parameters of each kind of check, for whoever validates a golden set's keys."""


def compile_check(spec: Mapping[str, Any], *, base: Path) -> Check:
    """Turn a metric such as `{check: equals, path: /label}` into a function of an answer.

    `base` is the folder that relative paths in the spec start from. Raises
    CheckSpecError, with the nearest known name, for a spec that can never work.
    """
    kind, params = read_spec(spec)
    name = spec["check"]
    try:
        measure = kind.compile(params, base)
    except ValueError as error:
        raise CheckSpecError(f"check {name}: {error}") from error
    least = params.get("threshold", kind.threshold)
    return _marker(measure, name, threshold=least, negate=params.get("negate", False))


def read_spec(spec: Mapping[str, Any]) -> tuple[CheckType, Params]:
    """The kind of a check and its scoring parameters, each of the right type."""
    name = spec.get("check")
    if not isinstance(name, str):
        raise CheckSpecError('there is no "check" that names a kind of check')
    kind = CHECKS.get(name)
    if kind is None:
        raise CheckSpecError(f'check "{name}" is not known. {_nearest(name, CHECKS)}')
    params = {key: value for key, value in spec.items() if key not in METRIC_KEYS}
    known = {**kind.params, "negate": FLAG}
    for key, value in params.items():
        if key not in known:
            raise CheckSpecError(f'check {name}: "{key}" is not known. {_nearest(key, known)}')
        wrong = known[key].wrong(value)
        if wrong:
            raise CheckSpecError(f'check {name}: "{key}" {wrong}')
    for group in kind.required:
        if not any(key in params for key in group):
            raise CheckSpecError(f"check {name}: {' or '.join(group)} is missing")
    if {"value", "values"} <= params.keys():
        raise CheckSpecError(f"check {name}: value and values cannot both be given")
    return kind, params


def needs_expected(spec: Mapping[str, Any]) -> bool:
    """Whether a case without "expected" can never be scored by this check."""
    kind, params = read_spec(spec)
    given = "value" in params or "values" in params
    return (kind.needs_expected or "require" in params) and not given


def check_version(spec: Mapping[str, Any], *, base: Path | None = None) -> str:
    """Hash of all that decides a check's score: kind, parameters, and the code behind it.

    With `base`, the text of a schema file counts, and the source of the user's function.
    """
    kind, params = read_spec(spec)
    decides: dict[str, Any] = {"check": spec["check"], "version": kind.version, **params}
    if base is not None and isinstance(params.get("schema"), str):
        decides["schema"] = check_json.read_schema(params["schema"], base)
    if "function" in params:
        decides["source"] = check_own.source_of(params["function"], base or Path())
    canonical = json.dumps(decides, sort_keys=True, ensure_ascii=True, default=repr)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _marker(measure: Measure, name: str, *, threshold: float | None, negate: bool) -> Check:
    """Wrap a measurement: threshold, negation, and every fault turned into a mark."""
    graded = threshold is not None
    least = 0.5 if threshold is None else threshold

    def check(answer: Answer) -> Mark:
        try:
            found = measure(answer)
        except OutputFault as fault:
            return Mark(score=0.0, passed=False, reason=_reason(str(fault)))
        except CheckFault as fault:
            return _no_score(fault.kind, str(fault))
        except Exception as error:
            # The border: one answer must not end the run, whatever it is made of.
            log.warning("check %s failed on case %s", name, answer.case_id, exc_info=True)
            return _no_score("crashed", f"{type(error).__name__}: {short(str(error))}")
        return _mark(found, least=least, graded=graded, negate=negate)

    return check


def _mark(found: Measured, *, least: float, graded: bool, negate: bool) -> Mark:
    score = min(1.0, max(0.0, found.score))
    passed = found.score >= least if found.passed is None else found.passed
    if negate:
        score, passed = 1.0 - score, not passed
    keep = graded or not passed
    return Mark(score=score, passed=passed, reason=_reason(found.fact) if keep else None)


def _no_score(kind: str, reason: str) -> Mark:
    return Mark(
        score=None, passed=None, outcome="check_error", error_kind=kind, reason=_reason(reason)
    )


def _reason(text: str) -> str:
    return without_surrogates(text)[:MAX_REASON_CHARS]


def _nearest(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(word.replace("-", "_"), names, n=1, cutoff=0.5)
    return f'Did you mean "{close[0]}"?' if close else f"Known: {', '.join(names)}"

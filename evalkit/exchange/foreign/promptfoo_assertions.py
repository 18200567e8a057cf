"""One assertion of promptfoo as one check of ours, where it means the same.

A table of the kinds; what is not in it is named by its kind and what to do instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Assertion = Mapping[str, Any]
Vars = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """A question for a judge."""

    rubric: str


INSTEAD = {
    "javascript": "code in JavaScript: write a python check",
    "python": "code in Python: put it into a file and write a python check",
    "levenshtein": "levenshtein counts edits there and is a share here: set a threshold",
    "webhook": "a webhook: write a python check",
    "perplexity": "perplexity is not measured here",
}
RUBRICS = {"llm-rubric", "g-eval"}
_VARIABLE = re.compile(r"{{\s*([A-Za-z_][\w.]*)\s*}}")


def read_assertion(assertion: Assertion, vars_: Vars | None) -> dict[str, Any] | Judged | str:
    """The check as golden sets write it; a rubric; or, as text, why there is none.

    `vars_` fill in its value.
    """
    kind = str(assertion.get("type", ""))
    negate = kind.startswith("not-")
    kind = kind.removeprefix("not-")
    value = _filled(assertion.get("value"), vars_)
    if isinstance(value, str) and (value.startswith("file://") or "{{" in value):
        return f"{kind}: its value is in a file or made by a template"
    if kind in RUBRICS and not negate:
        return Judged(str(value))
    if kind not in _SPECS:
        return INSTEAD.get(kind, f"{kind}: no check of that meaning; a judge may do")
    try:
        spec = _SPECS[kind](value, assertion.get("threshold"))
    except (TypeError, ValueError):
        return f"{kind}: its value cannot be used"
    return {"check": kind.replace("-", "_"), **spec, **({"negate": True} if negate else {})}


def _filled(value: Any, vars_: Vars | None) -> Any:
    """The value with variables of the test put in; what is not known stays as it is."""
    if isinstance(value, list):
        return [_filled(one, vars_) for one in value]
    if not isinstance(value, str) or vars_ is None:
        return value
    return _VARIABLE.sub(
        lambda found: str(vars_[found[1]]) if found[1] in vars_ else found[0], value
    )


def _values(value: Any, threshold: Any) -> dict[str, Any]:
    texts = value if isinstance(value, list) else str(value).split(",")
    return {"values": [str(one).strip() for one in texts]}


def _schema(value: Any, threshold: Any) -> dict[str, Any]:
    return {"schema": value} if isinstance(value, dict) else {}


def _graded(value: Any, threshold: Any) -> dict[str, Any]:
    reference = {"values": [str(one) for one in value]} if isinstance(value, list) else {
        "value": str(value)
    }  # fmt: skip
    return reference if threshold is None else {**reference, "threshold": float(threshold)}


_SPECS: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    "equals": lambda value, threshold: {"value": value},
    "contains": lambda value, threshold: {"value": str(value)},
    "icontains": lambda value, threshold: {"value": str(value)},
    "contains-any": _values,
    "icontains-any": _values,
    "contains-all": _values,
    "icontains-all": _values,
    "starts-with": lambda value, threshold: {"value": str(value)},
    "regex": lambda value, threshold: {"pattern": str(value)},
    "is-json": _schema,
    "contains-json": _schema,
    "rouge-n": _graded,
    "bleu": _graded,
    "similar": _graded,
    "latency": lambda value, threshold: {"max_ms": float(threshold)},
    "cost": lambda value, threshold: {"max_usd": float(threshold)},
    "is-refusal": lambda value, threshold: {},
}

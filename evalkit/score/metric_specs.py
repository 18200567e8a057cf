"""Metrics as a golden set writes them: what scores an answer, and what the gate does with it.

Finds everything wrong with a check before the first paid call, and says which of a
check's keys decide a score: these make up a case's identity, the gate's keys do not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from evalkit.content import content_dirs, find_content
from evalkit.errors import ContentError
from evalkit.schemas import Fault, nearest, show
from evalkit.score.check_json import read_schema
from evalkit.score.check_reading import FLAG, follow
from evalkit.score.checks import (
    CHECKS,
    METRIC_KEYS,
    CheckSpecError,
    compile_check,
    needs_expected,
    read_spec,
)
from evalkit.score.problems import split_fix
from evalkit.score.rubric import JudgeSpec, load_judge
from evalkit.strict import is_file

Missing = Callable[[Mapping[str, Any]], str | None]
"""Says what a case would have to have so that a metric can score it; None when it has it."""

MAX_SCHEMAS_LISTED = 12
NAME_FIX = "Use 1 to 128 of A-Z a-z 0-9 . _ - and no dot in front"
_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}")


def is_name(value: Any) -> bool:
    """Whether a value can name a golden set, a metric or a judge."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One metric of a golden set, or a check of one case."""

    name: str
    tier: Literal[1, 2, 3]
    kind: str
    """A kind of check, or "judge"."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """What decides the score: a check's parameters, or the judge's name as `judge`."""
    gate: bool = False
    tolerance: float | None = None
    """None: as the gate's own setting says."""
    max_drop: float | None = None
    must_pass: bool = False
    line: int = 1

    def check_spec(self) -> dict[str, Any]:
        """What `compile_check` takes; only for a check."""
        return {"check": self.kind, **self.params}


def read_metric(raw: Mapping[str, Any], *, line: int) -> MetricSpec:
    """A metric of the header that `metric_faults` has nothing against."""
    judge = "judge" in raw
    return MetricSpec(
        name=raw["name"],
        tier=2 if judge else 1,
        kind="judge" if judge else raw["check"],
        params={key: value for key, value in raw.items() if key not in METRIC_KEYS},
        gate=raw.get("gate", False),
        tolerance=raw.get("tolerance"),
        max_drop=raw.get("max_drop"),
        must_pass=raw.get("must_pass", False),
        line=line,
    )


def read_own_checks(
    checks: Sequence[Mapping[str, Any]], *, taken: Iterable[str], must_pass: bool, line: int
) -> tuple[MetricSpec, ...]:
    """A case's own checks as metrics; a must-pass case has to pass each of them.

    One without a name is called after its kind, with a number where that is `taken`.
    """
    names = {*taken, *(raw["name"] for raw in checks if "name" in raw)}
    specs = []
    for raw in checks:
        name = raw.get("name") or _free_name(raw["check"], names)
        names.add(name)
        named = {"must_pass": must_pass, **raw, "name": name}
        named["must_pass"] = must_pass or named["must_pass"]
        specs.append(read_metric(named, line=line))
    return tuple(specs)


def _free_name(kind: str, names: set[str]) -> str:
    if kind not in names:
        return kind
    return next(f"{kind}_{n}" for n in range(2, len(names) + 3) if f"{kind}_{n}" not in names)


# --- what can be wrong -------------------------------------------------------------


def metric_faults(raw: Mapping[str, Any], *, folder: Path, project: Path) -> list[Fault]:
    """Everything wrong with a metric whose shape is right already."""
    if "judge" not in raw:
        faults = check_faults(raw, folder=folder)
    else:
        faults = list(_judge_faults(raw, project))
    return [Fault(f.place, f"metric {raw['name']}: {f.problem}", f.fix) for f in faults]


def _judge_faults(raw: Mapping[str, Any], project: Path) -> Iterator[Fault]:
    name = raw["judge"]
    for key in raw.keys() - METRIC_KEYS - {"judge"}:
        fix = f"Leave it out; a judge's settings stand in judges/{name}.yaml"
        yield Fault((key,), f'"{key}" belongs to a check', fix)
    folders = content_dirs("judges", project=project)
    known = {path.stem for folder in folders for path in folder.glob("*.yaml")}
    if name not in known:
        yield Fault(("judge",), f'there is no judge "{name}"', nearest(name, known))


def check_faults(spec: Mapping[str, Any], *, folder: Path) -> list[Fault]:
    """Everything that makes a check as written useless; places start inside the spec."""
    name = spec.get("check")
    kind = CHECKS.get(name) if isinstance(name, str) else None
    if kind is None:
        fix = nearest(str(name).replace("-", "_"), CHECKS)
        return [Fault(("check",), f"check {show(name)} is not known", fix)]
    known = {**kind.params, "negate": FLAG}
    faults = []
    for key, value in spec.items():
        if key in METRIC_KEYS:
            continue
        if key not in known:
            problem = f'check {name} does not know "{key}"'
            faults.append(Fault((key,), problem, nearest(key, {*known, *METRIC_KEYS})))
        elif not known[key].fits(value):
            problem = f"check {name}: {key} is {show(value)}"
            faults.append(Fault((key,), problem, f"It must be {known[key].must_be}"))
    return faults or list(_schema_file_faults(spec, folder)) or _compile_faults(spec, folder)


def _schema_file_faults(spec: Mapping[str, Any], folder: Path) -> Iterator[Fault]:
    name = spec.get("schema")
    if isinstance(name, str) and not is_file(folder / name):
        there = [path.name for path in folder.glob("*.json")][:MAX_SCHEMAS_LISTED]
        problem = f'check {spec["check"]}: there is no file "{name}" beside golden_set.yaml'
        yield Fault(("schema",), problem, nearest(name, there) if there else "Add it")


def _compile_faults(spec: Mapping[str, Any], folder: Path) -> list[Fault]:
    try:
        compile_check(spec, base=folder)
    except CheckSpecError as error:
        problem, fix = split_fix(str(error))
        return [Fault((), problem, fix)]
    return []


# --- what a check asks of a case -----------------------------------------------------


def needs_of(metric: MetricSpec, *, project: Path) -> Missing | None:
    """What a metric asks of each case; None when it can score any."""
    if metric.tier == 1:
        return check_needs(metric.check_spec())
    try:
        path = find_content("judges", f"{metric.params['judge']}.yaml", project=project)
        return _judge_needs(load_judge(path))
    except ContentError:
        return None  # whoever loads the judges says what is wrong with it


def check_needs(spec: Mapping[str, Any]) -> Missing | None:
    """The part of "expected" that a check compares an answer with; None when it has none."""
    if not needs_expected(spec):
        return None
    pointer = spec.get("expected_path", spec.get("path", ""))
    followed = (dict, list) if "expected_path" in spec else dict

    def missing(case: Mapping[str, Any]) -> str | None:
        if "expected" not in case:
            return '"expected"'
        if isinstance(case["expected"], followed):
            try:
                follow(case["expected"], pointer)
            except LookupError:
                return f'"{pointer}" in "expected"'
        return None

    return missing


def _judge_needs(judge: JudgeSpec) -> Missing | None:
    required = set(judge.inputs) - judge.optional - {"input"}
    if not required:
        return None

    def missing(case: Mapping[str, Any]) -> str | None:
        if "reference" in required and "expected" not in case:
            return '"expected"'
        given = case["input"].get("documents") if isinstance(case["input"], dict) else None
        if "documents" in required and not given:
            return '"documents" in "input"'
        return None

    return missing


def scoring_text(spec: Mapping[str, Any], *, folder: Path) -> str:
    """A check as canonical JSON of all that decides its score; a schema's text, not its path."""
    _, params = read_spec(spec)
    decides = {"check": spec["check"], **params}
    if "schema" in decides:
        decides["schema"] = read_schema(decides["schema"], folder)
    return canonical(decides)


def canonical(value: Any) -> str:
    """JSON that is the same text for the same value, whatever the order of its keys."""
    return _CANONICAL.encode(value)


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)

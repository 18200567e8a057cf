"""The one pass over a golden set's cases: every problem found, each with its line and case.

Written by hand and not as a JSON Schema, so that a long file costs little more than its
parsing; a test holds it against `schemas/case.schema.json`, which editors use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.schemas import Fault, label, nearest, show
from evalkit.score.cases import CaseFile
from evalkit.score.checks import METRIC_KEYS
from evalkit.score.metric_specs import (
    NAME_FIX,
    MetricSpec,
    Missing,
    canonical,
    check_faults,
    check_needs,
    is_name,
)
from evalkit.score.problems import MAX_PROBLEMS, Problem, strict_problem
from evalkit.strict import Located, StrictError, iter_jsonl

MAX_ID_CHARS = 200
MAX_OWN_CHECKS = 64
MAX_METADATA_KEYS = 10_000
MAX_REMEMBERED = 4096
"""Different own checks whose faults are remembered: most cases share a few."""

_TYPES: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "input": ((dict, str), "Write an object, or text"),
    "metadata": (dict, "Write an object"),
    "cluster": (str, "Write text"),
    "must_pass": (bool, "Write true or false"),
    "checks": (list, "Write a list of checks"),
}
_KEYS = frozenset({"id", "expected", *_TYPES})
_OWN_KEYS = frozenset({"name", "must_pass"})
"""Keys of a case's own check that say nothing of how it scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRules:
    """What the header of a golden set asks of its cases."""

    file: str
    """The file of cases, as shown in problems."""
    header: str
    folder: Path
    metrics: Sequence[MetricSpec]
    """Those with nothing wrong."""
    needs: Sequence[tuple[MetricSpec, Missing]]
    n_written: int
    """How many metrics the header has, with those that are wrong."""
    slices: Sequence[str]
    slices_line: int
    must_pass: bool | frozenset[str]
    """All cases, none, or those of these ids."""

    def must(self, case: Mapping[str, Any]) -> bool:
        named = self.must_pass if isinstance(self.must_pass, bool) else case["id"] in self.must_pass
        return named or case.get("must_pass", False)


class _Stopped(Exception):
    """There are so many problems that reading on helps nobody."""


class CaseReader:
    """Fills a `CaseFile`, and collects what is wrong."""

    def __init__(self, rules: CaseRules, cases: CaseFile) -> None:
        self.cases = cases
        self.problems: list[Problem] = []
        self.stopped = False
        """Whether there were so many problems that the rest was not looked at."""
        self.metadata_keys: set[str] = set()
        self.seen_ids: dict[str, int] = {}
        """Id -> line, also of cases that have other faults."""
        self.digest = hashlib.sha256()
        self._rules = rules
        self._names = {metric.name for metric in rules.metrics}
        sound = len(rules.metrics) == rules.n_written
        self._has_bar = not sound or any(m.gate or m.must_pass for m in rules.metrics)
        self._known_checks: dict[str, list[Fault]] = {}

    def read_file(self, path: Path) -> None:
        """All cases of a JSON Lines file, up to `MAX_PROBLEMS` problems."""
        with suppress(_Stopped):
            try:
                for line, offset, raw in iter_jsonl(path, on_error=self._report_text):
                    self._add(raw, line=line, place=offset)
            except StrictError as error:
                self._report_text(error)

    def read_inline(self, cases: Sequence[Any], header: Located) -> None:
        """All cases that stand in the header itself."""
        with suppress(_Stopped):
            for number, raw in enumerate(cases):
                self._add(raw, line=header.line(("cases", number)), place=number)

    def _report_text(self, error: StrictError) -> None:
        fix = "Write one case, a JSON object of at most 1 MB, on each line"
        self._report(strict_problem(error, file=self._rules.file, fix=fix))

    def _report(self, problem: Problem) -> None:
        self.problems.append(problem)
        if len(self.problems) == MAX_PROBLEMS:
            self.stopped = True
            words = f"{MAX_PROBLEMS} problems up to here, the rest was not looked at"
            self.problems.append(Problem(file=problem.file, line=problem.line, problem=words))
            raise _Stopped

    def _add(self, raw: Any, *, line: int, place: int) -> None:
        """Check one case; a sound one joins the others."""
        faults = list(self._shape_faults(raw))
        case_id = raw["id"] if isinstance(raw, dict) and is_case_id(raw.get("id")) else None
        if case_id is not None:
            first = self.seen_ids.setdefault(case_id, line)
            if first != line or case_id in self.cases:
                faults.append(Fault((), f"line {first} has this id already", "Give it another"))
        if not faults:
            faults += self._meaning_faults(raw)
        if not faults:
            self._keep(raw, line=line, place=place)
        for one in faults:
            self._report(
                Problem(
                    file=self._rules.file,
                    line=line,
                    case_id=case_id,
                    problem=one.problem,
                    fix=one.fix,
                )
            )

    def _keep(self, raw: Mapping[str, Any], *, line: int, place: int) -> None:
        self.cases.append(raw, line=line, place=place)
        self.digest.update(canonical(raw).encode() + b"\n")
        if self._rules.must(raw):
            self.cases.must_pass.add(raw["id"])

    # --- the shape of a case -----------------------------------------------------------

    def _shape_faults(self, raw: Any) -> Iterator[Fault]:
        if not isinstance(raw, dict):
            problem = f"a case must be an object, not {show(raw)}"
            yield Fault((), problem, 'Write {"id": …, "input": …}')
            return
        metadata = raw.get("metadata")
        if isinstance(metadata, dict) and len(self.metadata_keys) < MAX_METADATA_KEYS:
            self.metadata_keys.update(metadata)
        for key in raw.keys() - _KEYS:
            yield Fault((key,), f"unknown key {show(key)}", nearest(key, _KEYS))
        if "id" not in raw:
            yield Fault((), 'no "id"', "Add one, unique in the golden set")
        elif not is_case_id(raw["id"]):
            yield _wrong_id(raw["id"])
        if "input" not in raw:
            yield Fault((), 'no "input"', "Add what the feature gets: an object, or text")
        for key, (kind, fix) in _TYPES.items():
            if key in raw and not isinstance(raw[key], kind):
                yield Fault((key,), f"{key} is {show(raw[key])}", fix)
        if raw.get("cluster") == "":
            yield Fault(("cluster",), "cluster is empty", "Leave it out")
        if isinstance(raw.get("checks"), list):
            yield from self._own_check_faults(raw["checks"])

    def _own_check_faults(self, checks: list[Any]) -> Iterator[Fault]:
        if len(checks) > MAX_OWN_CHECKS:
            problem = f"{len(checks)} checks of its own, more than {MAX_OWN_CHECKS}"
            yield Fault(("checks",), problem, "Put what all cases share into metrics")
            return
        names: set[str] = set()
        for number, spec in enumerate(checks):
            place = label(("checks", number))
            if not isinstance(spec, dict):
                fix = 'Write {"check": "contains", "value": …}'
                yield Fault((), f"{place} is {show(spec)}", fix)
                continue
            yield from (
                Fault((), f"{place}: {f.problem}", f.fix) for f in self._faults_of(spec, names)
            )
            names.add(str(spec.get("name")))

    def _faults_of(self, spec: Mapping[str, Any], names: set[str]) -> Iterator[Fault]:
        for key in spec.keys() & (METRIC_KEYS - _OWN_KEYS - {"check"}):
            fix = "Leave it out; must_pass: true makes the case count by itself"
            yield Fault((key,), f"{key} belongs to the golden set's metrics", fix)
        name = spec.get("name")
        if "name" in spec and not is_name(name):
            yield Fault(("name",), f"name is {show(name)}", NAME_FIX)
        elif name in names or name in self._names:
            yield Fault(("name",), f'another metric is called "{name}"', "Give it another name")
        if not isinstance(spec.get("must_pass", False), bool):
            problem = f"must_pass is {show(spec['must_pass'])}"
            yield Fault(("must_pass",), problem, "Write true or false")
        key = canonical(spec)
        if key not in self._known_checks:
            if len(self._known_checks) >= MAX_REMEMBERED:
                self._known_checks.clear()
            self._known_checks[key] = check_faults(spec, folder=self._rules.folder)
        yield from self._known_checks[key]

    # --- what the golden set asks of it ------------------------------------------------

    def _meaning_faults(self, raw: Mapping[str, Any]) -> Iterator[Fault]:
        own = raw.get("checks", ())
        yield from self._need_faults(raw)
        for number, spec in enumerate(own):
            missing_in = check_needs(spec)
            missing = missing_in(raw) if missing_in else None
            if missing:
                problem = f"no {missing}, but {label(('checks', number))} needs it"
                yield Fault((), problem, "Add it, or give the check a value")
        if not own and not self._rules.n_written:
            fix = f"Add metrics in {self._rules.header}, or checks to the case"
            yield Fault((), "nothing would score it", fix)
        if self._rules.must(raw) and not own and not self._has_bar:
            fix = f"Set gate: true on a metric in {self._rules.header}"
            yield Fault((), "it must pass, but there is nothing that it has to pass", fix)
        metadata = raw.get("metadata", {})
        for key in self._rules.slices:
            if key in metadata and not isinstance(metadata[key], (str, int, float)):
                where = f"{self._rules.header}:{self._rules.slices_line}"
                problem = f"metadata.{key} is {show(metadata[key])}, but {where} slices by it"
                yield Fault((), problem, "Write text, a number, true or false, or leave it out")

    def _need_faults(self, raw: Mapping[str, Any]) -> Iterator[Fault]:
        """One fault for all metrics that miss the same, each named with its line."""
        needy: dict[str, list[MetricSpec]] = {}
        for metric, missing_in in self._rules.needs:
            missing = missing_in(raw)
            if missing:
                needy.setdefault(missing, []).append(metric)
        for missing, metrics in needy.items():
            names = ", ".join(metric.name for metric in metrics)
            lines = ", ".join(f"{self._rules.header}:{metric.line}" for metric in metrics)
            many = len(metrics) > 1
            yield Fault(
                (),
                f"no {missing}, but metric{'s' * many} {names} need{'s' * (not many)} one",
                f"Add it, or drop {'them' if many else names} in {lines}",
            )


def is_case_id(value: Any) -> bool:
    """Whether a value can name a case in a test's id, a URL and a line of a report."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_ID_CHARS
        and value.isprintable()
        and value == value.strip()
    )


def _wrong_id(value: Any) -> Fault:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Fault(("id",), f"id is {show(value)}", f'Quote it: "{value}"')
    fix = f"Write 1 to {MAX_ID_CHARS} printable characters, none blank at either end"
    return Fault(("id",), f"id is {show(value)}", fix)

"""Golden sets: found, read strictly, and checked whole before anything is run.

A golden set is a header (golden_set.yaml) and cases for one feature. Every problem of
header and cases is found in one pass and shown together, each with its file and line.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.config import Settings
from evalkit.errors import GoldenSetError
from evalkit.records import Case
from evalkit.schemas import Fault, find_faults, nearest, show
from evalkit.score.case_reading import CaseReader, CaseRules
from evalkit.score.cases import CaseFile, CaseHasher, slices_of
from evalkit.score.checks import METRIC_KEYS
from evalkit.score.metric_specs import (
    MetricSpec,
    canonical,
    metric_faults,
    needs_of,
    read_metric,
    read_own_checks,
)
from evalkit.score.problems import Problem, shown_path, strict_problem
from evalkit.strict import (
    MAX_YAML_BYTES,
    Located,
    Place,
    StrictError,
    is_file,
    load_yaml,
    read_text,
    real_path,
)

__all__ = [
    "CaseFile",
    "GoldenSet",
    "MetricSpec",
    "find_golden_sets",
    "inspect_golden_set",
    "load_golden_set",
]

HEADER = "golden_set.yaml"
CASES = "cases.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSet:
    """Cases for one feature, and how an answer to them is scored."""

    name: str
    description: str
    feature: str
    path: Path
    """The header, golden_set.yaml."""
    metrics: tuple[MetricSpec, ...]
    slices: tuple[str, ...]
    """Keys of metadata by which scores are also looked at."""
    gating_slices: tuple[str, ...]
    """Those of them by which a drop fails the build, too."""
    trials: int
    must_pass: tuple[str, ...]
    """Ids of the cases that have to pass, in file order."""
    hash: str
    """Of all: 16 hexadecimal digits over header and cases."""
    cases: CaseFile

    def case_metrics(self, case: Case) -> tuple[MetricSpec, ...]:
        """The case's own checks, as metrics."""
        taken = {metric.name for metric in self.metrics}
        return read_own_checks(case.checks, taken=taken, must_pass=case.must_pass, line=case.line)

    def slices_of(self, case: Case) -> dict[str, str]:
        return slices_of(case.metadata, self.slices)


# --- loading -----------------------------------------------------------------------


def load_golden_set(path: Path, *, settings: Settings) -> GoldenSet:
    """Read the golden set in a folder, or of a golden_set.yaml.

    Raises GoldenSetError with every problem in header and cases.
    """
    golden, problems = inspect_golden_set(path, settings=settings)
    if golden is None:
        raise GoldenSetError([str(problem) for problem in problems])
    return golden


def inspect_golden_set(
    path: Path, *, settings: Settings, check_feature: bool = True
) -> tuple[GoldenSet | None, list[Problem]]:
    """A golden set, or None and everything that is wrong with it.

    `check_feature` is off where the configuration itself could not be read.
    """
    path = path.absolute()
    path = path / HEADER if path.is_dir() else path
    shown = shown_path(path, root=settings.root)
    try:
        header = load_yaml(read_text(path, max_bytes=MAX_YAML_BYTES), where="")
    except StrictError as error:
        return None, [strict_problem(error, file=shown)]
    loader = _Loader(path, shown, header, settings.root)
    return loader.load(settings.features if check_feature else None)


class _Loader:
    """Reads one golden set whose header is valid YAML, and collects what is wrong."""

    def __init__(self, path: Path, shown: str, header: Located, root: Path) -> None:
        self._path, self._shown, self._header, self._root = path, shown, header, root
        self._problems: list[Problem] = []

    def load(self, features: Collection[str] | None) -> tuple[GoldenSet | None, list[Problem]]:
        table = self._header.value
        faults = _header_faults(table)
        self._report(faults)
        if not isinstance(table, dict):
            return None, self._problems
        bad = {fault.place[:2] for fault in faults}
        sound = {k: v for k, v in table.items() if not any(place[:1] == (k,) for place in bad)}
        if features is not None and "feature" in sound:
            self._report(_feature_faults(sound["feature"], features))
        self._report(_slice_faults(sound))
        metrics = self._read_metrics(table.get("metrics"), bad)
        wanted = {key: table[key] for key in ("metrics", "cases") if key in table}
        reader = self._read_cases({"cases": CASES, **sound, **wanted}, metrics)
        if self._problems or reader is None:
            return None, sorted(self._problems, key=lambda p: (p.file != self._shown, p.line))
        return self._golden_set(sound, metrics, reader), []

    def _report(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            line = self._header.line(fault.place)
            problem = Problem(file=self._shown, line=line, problem=fault.problem, fix=fault.fix)
            self._problems.append(problem)

    def _read_metrics(self, raw: Any, bad: Collection[Place]) -> list[MetricSpec]:
        """The metrics with nothing wrong, so that cases are held against these."""
        metrics: list[MetricSpec] = []
        lines: dict[str, int] = {}
        for number, one in enumerate(raw if isinstance(raw, list) else ()):
            place: Place = ("metrics", number)
            if place in bad:
                continue
            faults = metric_faults(one, folder=self._path.parent, project=self._root)
            if one["name"] in lines:
                problem = f'metric "{one["name"]}" stands on line {lines[one["name"]]} already'
                faults.append(Fault(("name",), problem, "Give it another name"))
            lines.setdefault(one["name"], self._header.line(place))
            self._report(Fault((*place, *f.place), f.problem, f.fix) for f in faults)
            if not faults:
                metrics.append(read_metric(one, line=self._header.line(place)))
        return metrics

    def _read_cases(
        self, table: Mapping[str, Any], metrics: Sequence[MetricSpec]
    ) -> CaseReader | None:
        """Every case, held against the sound part of the header; None without any file."""
        source, folder = table["cases"], self._path.parent
        inline = source if isinstance(source, list) else None
        path = self._path if inline is not None else folder / str(source)
        if inline is None and not self._is_cases_file(source, path):
            return None
        must_pass, written = table.get("must_pass", ()), table.get("metrics", [])
        needs = ((metric, needs_of(metric, project=self._root)) for metric in metrics)
        rules = CaseRules(
            file=shown_path(path, root=self._root),
            header=HEADER,
            folder=folder,
            metrics=metrics,
            needs=[(metric, missing) for metric, missing in needs if missing is not None],
            n_written=len(written) if isinstance(written, list) else 1,
            slices=list(_slices(table)),
            slices_line=self._header.line(("slices",)),
            must_pass=must_pass if isinstance(must_pass, bool) else frozenset(must_pass),
        )
        cases = CaseFile(path, hasher=CaseHasher(metrics, folder), inline=inline)
        reader = CaseReader(rules, cases)
        if inline is not None:
            reader.read_inline(inline, self._header)
        else:
            reader.read_file(path)
        self._report(_name_faults(table, reader))
        self._problems += reader.problems
        if not (len(cases) or reader.problems):
            fix = 'Add a case: {"id": "c-001", "input": "…", "expected": …}'
            self._problems.append(Problem(file=rules.file, line=1, problem="no cases", fix=fix))
        return reader

    def _is_cases_file(self, source: Any, path: Path) -> bool:
        """Whether there is such a file, inside the project or beside the header."""
        if not isinstance(source, str):
            return False
        folder, target = real_path(self._path.parent), real_path(path)
        root = real_path(self._root)
        bound = root if folder.is_relative_to(root) else folder
        if not target.is_relative_to(bound):
            problem = f"cases: {show(source)} leads out of the project"
            self._report([Fault(("cases",), problem, "Put the file beside golden_set.yaml")])
            return False
        if os.path.exists(target) and not is_file(target):
            problem = f"cases: {show(source)} is not a regular file"
            self._report([Fault(("cases",), problem, "Put a file there, one case a line")])
            return False
        if not is_file(target):
            there = [found.name for found in folder.glob("*.jsonl")]
            fix = nearest(source, there) if there else f"Add {source}, one case a line"
            self._report([Fault(("cases",), f"cases: there is no file {show(source)}", fix)])
            return False
        return True

    def _golden_set(
        self, table: Mapping[str, Any], metrics: Sequence[MetricSpec], reader: CaseReader
    ) -> GoldenSet:
        header = canonical({key: value for key, value in table.items() if key != "cases"})
        reader.digest.update(header.encode())
        cases = reader.cases
        return GoldenSet(
            name=table["name"],
            description=table.get("description", ""),
            feature=table["feature"],
            path=self._path,
            metrics=tuple(metrics),
            slices=tuple(_slices(table)),
            gating_slices=tuple(key for key, gates in _slices(table).items() if gates),
            trials=table.get("trials", 1),
            must_pass=tuple(case_id for case_id in cases.ids if case_id in cases.must_pass),
            hash=reader.digest.hexdigest()[:16],
            cases=cases,
        )


def _header_faults(table: Any) -> list[Fault]:
    """Faults of the header's shape: cases and parameters of checks are looked at elsewhere."""
    if isinstance(table, dict):
        table = dict(table)
        if isinstance(table.get("cases"), list):
            table["cases"] = []
        if isinstance(table.get("metrics"), list):
            table["metrics"] = [_without_params(one) for one in table["metrics"]]
    return find_faults(table, "golden_set")


def _without_params(metric: Any) -> Any:
    if not isinstance(metric, dict):
        return metric
    return {key: value for key, value in metric.items() if key in METRIC_KEYS or key == "judge"}


def _feature_faults(name: str, features: Collection[str]) -> Iterator[Fault]:
    if name not in features:
        problem = f'there is no feature "{name}" in the configuration'
        yield Fault(("feature",), problem, nearest(name, features))


def _slice_keys(table: Mapping[str, Any]) -> list[str]:
    """Of `slices: [channel, {key: language, gate: true}]` the keys."""
    return [one if isinstance(one, str) else one["key"] for one in table.get("slices", ())]


def _slices(table: Mapping[str, Any]) -> dict[str, bool]:
    """Key -> whether its slices gate."""
    gates = [isinstance(one, dict) and one.get("gate", False) for one in table.get("slices", ())]
    return dict(zip(_slice_keys(table), gates, strict=True))


def _slice_faults(table: Mapping[str, Any]) -> Iterator[Fault]:
    keys = _slice_keys(table)
    for number, key in enumerate(keys):
        if key in keys[:number]:
            yield Fault(("slices", number), f'slices: "{key}" stands there twice', "Keep one")


def _name_faults(table: Mapping[str, Any], reader: CaseReader) -> Iterator[Fault]:
    """Names in the header that no case has: a slice of nothing, a must-pass case that is not."""
    if reader.stopped or not len(reader.cases):
        return
    for number, key in enumerate(_slice_keys(table)):
        if key not in reader.metadata_keys:
            problem = f'slices: no case has "{key}" in its metadata'
            yield Fault(("slices", number), problem, nearest(key, reader.metadata_keys))
    must_pass = table.get("must_pass", ())
    for number, case_id in enumerate(must_pass if isinstance(must_pass, list) else ()):
        if case_id not in reader.seen_ids:
            problem = f'must_pass: there is no case "{case_id}"'
            yield Fault(("must_pass", number), problem, nearest(case_id, reader.seen_ids))


# --- finding -----------------------------------------------------------------------


def load_golden_sets(paths: Sequence[Path], *, settings: Settings) -> list[GoldenSet]:
    """All that `find_golden_sets` finds, loaded; at least one."""
    found = find_golden_sets(paths, settings=settings)
    return [load_golden_set(path, settings=settings) for path in found]


def find_golden_sets(paths: Sequence[Path], *, settings: Settings) -> list[Path]:
    """Each golden_set.yaml that `paths` name; without paths, all below golden_sets/.

    A path is a golden_set.yaml, a folder that has one or more somewhere inside, or the
    name of a folder in golden_sets/. Raises GoldenSetError for a path without any.
    """
    home = settings.root / "golden_sets"
    if not paths:
        found = _below(home)
        if not found:
            raise GoldenSetError(
                f"{home}: there is no {HEADER} below it. Start a project with evalkit init, add "
                f"golden_sets/NAME/{HEADER}, or name a golden set on the command line."
            )
        return found
    problems: list[str] = []
    found = []
    for path in paths:
        there = _named(path, home)
        if not there:
            known = [one.parent.relative_to(home).as_posix() for one in _below(home)]
            problems.append(f"{path}: there is no {HEADER}. {nearest(path.name, known)}")
        found += there
    if problems:
        raise GoldenSetError(problems)
    return list({real_path(path): path for path in found}.values())


def _named(path: Path, home: Path) -> list[Path]:
    for candidate in (path.absolute(), home / path):
        if candidate.is_file():
            return [candidate]
        found = _below(candidate)
        if found:
            return found
    called = [one for one in _below(home) if Path(one.parent.name) == path]
    return called if len(called) == 1 else []


def _below(folder: Path) -> list[Path]:
    """Every header in a folder and the folders inside it, but for hidden ones."""
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if HEADER in files:
            found.append(Path(here).absolute() / HEADER)
    return found


def shared_names(sets: Iterable[GoldenSet], *, root: Path) -> list[Problem]:
    """Scores are kept by a golden set's name, so no two may share one."""
    first: dict[str, GoldenSet] = {}
    problems = []
    for golden in sets:
        other = first.setdefault(golden.name, golden)
        if other is not golden:
            problem = f'{shown_path(other.path, root=root)} is called "{golden.name}" too'
            file = shown_path(golden.path, root=root)
            problems.append(Problem(file=file, line=1, problem=problem, fix="Rename one"))
    return problems

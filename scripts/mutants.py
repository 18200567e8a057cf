"""Change the deciding code in one place at a time; a test has to fail, or the mutant survives.

python -m scripts.mutants                    every module below, at least 85 % of mutants killed
python -m scripts.mutants stats --sample 60  some of one module's, drawn with a fixed seed
python -m scripts.mutants gate --only 214    those of some lines

Each mutant runs in a process forked from this one, in which everything but evalkit is loaded
already, and only the tests run that reach its line. Linux and macOS.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, TypeAlias

ROOT = Path(__file__).resolve().parent.parent
AT_LEAST = 0.85
TIMES_SLOWER = 5.0
"""A mutant that takes so many times its tests' time, and ten seconds more, hangs: killed."""

LOADED_BEFORE = (
    "numpy", "scipy.stats", "pandas", "duckdb", "pyarrow.parquet", "pytest", "asyncio",
    "hypothesis.strategies", "anyio.pytest_plugin", "pytest_asyncio.plugin", "pytest_cov.plugin",
)  # fmt: skip
"""By this process, so that none of those forked from it has to."""

MAX_TESTS_S = 120.0
"""Of tests for one mutant: those of the first file first, of a file the quickest."""

TESTS: dict[str, tuple[str, ...]] = {
    "agreement": ("test_agreement",),
    "alerts": ("test_alerts",),
    "alternative": ("test_alternative",),
    "anchor_series": ("test_anchor_series",),
    "code_quality": ("test_github",),
    "correlation": ("test_correlation",),
    "costs": ("test_costs",),
    "early": ("test_early_details", "test_early"),
    "estimates": ("test_estimates",),
    "findings": ("test_render", "test_github"),
    "gate": ("test_rule", "test_comparing", "test_gate_details", "test_gate"),
    "github": ("test_github",),
    "verdict": ("test_verdict",),
    "comparison": ("test_rule",),
    "grades": ("test_grades",),
    "comparing": (
        "test_comparing",
        "test_people_slices",
        "test_stopped",
        "test_gating_slices",
        "test_people",
    ),
    "history": ("test_history",),
    "input_series": ("test_input_series",),
    "limits": ("test_limits_details",),
    "machine": ("test_render",),
    "measure": ("test_measure",),
    "missing": ("test_missing", "test_stats_details"),
    "monitor": ("test_monitor_details",),
    "must_pass": ("test_must_pass",),
    "named_baseline": ("test_naming",),
    "naming": ("test_naming",),
    "pairing": ("test_pairing", "test_comparing", "test_gate"),
    "people": ("test_people_details", "test_people"),
    "planning": ("test_planning",),
    "plans": ("test_plans",),
    "pooling": ("test_pooling_details", "test_pooling"),
    "power": ("test_power", "test_measure"),
    "ppi": ("test_ppi_details",),
    "quality": ("test_quality_details",),
    "report_fairness": ("test_report_fairness",),
    "report_sentences": ("test_report_sentences_details", "test_report_sentences"),
    "rows": ("test_rows",),
    "selectors": ("test_selectors", "test_selectors_latest", "test_pairing"),
    "sampled": ("test_sampled_details", "test_sampled"),
    "sequential": ("test_sequential_details", "test_sequential"),
    "series": ("test_series_rows", "test_monitor"),
    "series_rows": ("test_series_rows", "test_monitor"),
    "sides": ("test_sides", "test_pooling"),
    "signflip": ("test_stats_details", "test_stats"),
    "stats": ("test_stats", "test_stats_details", "test_missing"),
    "stopped": ("test_stopped_details", "test_stopped"),
    "trials": ("test_trials",),
    "trust": ("test_trust", "test_people"),
}
"""Module of evalkit/decide -> the tests of tests/decide that have to notice."""


EQUAL: dict[str, tuple[tuple[str, str], ...]] = {
    "slack parts equal numbers from others; none lies just on it": (
        ("seen + slack", r"comparison: draws <= seen \+ slack -> .*"),
        ("seen - slack", r"comparison: draws >= seen - slack -> .*"),
        ("SAME", r"comparison: .* [<>] -?SAME( \* q)? -> .* [<>]= -?SAME( \* q)?"),
        ("SAME", r"arithmetic: SAME \* q -> .*"),
        ("< SAME**2", r"comparison: .*|arithmetic: SAME .*|constant: 2 -> 3"),
        ("> SAME**2", r"comparison: .*|arithmetic: SAME .*"),
        ("1.0) if spread > SAME**2", r"constant: 2 -> 3"),
        ("dtype=np.float64) > SAME", r"comparison: .*"),
        ("if room > 0 else np.inf", r"comparison: .*"),
        ("if enough(middle) <= middle", r"comparison: .*"),
        ("room <= 0", r"comparison: room <= 0 -> room < 0"),
        ("< 1e-6", r"comparison: .* < 1e-06 -> .* <= 1e-06"),
        ("<= bar", r"comparison: .* <= bar -> .* < bar"),
        ("slack = SAME * max", r"arithmetic: .*|constant: 1 -> 2|function: .*"),
        ("slack = SAME * math.fsum", r"arithmetic: SAME \* math.*"),
        ("spread, SAME**2 * square", r"constant: 2 -> 3|arithmetic: SAME .*"),
        ("np.abs(deltas) > 1 + SAME", r"comparison: .*"),
        ("chance <= seen", r"comparison: chance <= seen .*"),
        ("variance > 1e-12", r"comparison: .*"),
        ("found <= drop + 1e-12", r"comparison: .*"),
        ("abs(value) <= 1 + SAME", r"comparison: .*"),
        ("y >= -SAME) & (y <= 1 + SAME)", r"comparison: .*"),
        ("mine.n_scored >= (self.policy.min_coverage - SAME)", r"comparison: .*"),
        ("min_coverage - SAME", r"comparison: .*min_coverage - SAME -> .*min_coverage - SAME"),
    ),
    "capital lies just on a bar by rounding alone": (
        ("_log_mean(self._up) >= self._bar", r"comparison: .*"),
        ("_log_mean(self._down) >= self._bar", r"comparison: .*"),
        ("self.log_e >= self._bar", r"comparison: .*"),
        ("if low <= high else None", r"comparison: .*"),
    ),
    "a bound on work, not on what comes out": (
        ("LATTICE_WORK", r"constant: 4000000 -> .*"),
        ("LATTICE_WORK", r"comparison: work <= LATTICE_WORK -> .*"),
        ("LATTICE_STEPS = ", r"constant: .*"),
        ("for _ in range(50):", r"constant: .*"),
        ("CASES_LIMIT = ", r"constant: .*"),
        ("TRIALS_LIMIT = ", r"constant: .*"),
        ("TRIALS_LIMIT", r"comparison: within / room > TRIALS_LIMIT -> .*"),
        ("MARGIN = ", r"constant: .*"),
        ("now - max(48 * _HOUR", r"constant: 48 -> 49"),
        ("MAX_SUMMARY_BYTES = ", r"constant: .*"),
        ("plain(headline(verdict), 200)", r"constant: 200 -> 201"),
        ("t.scored < t.trials", r"comparison: .*"),
        ("MAX_KNOWN", r".*"),
        ("range(len(by_id) + 1)", r"constant: .*"),
    ),
    "a case without a row is told of elsewhere": (
        ("candidate_rows.max(initial=0)", r"constant: 0 -> 1"),
    ),
    "room for a number that nothing reads": (
        ("np.zeros(int(sizes.sum()) + 1)", r"constant: 1 -> 2"),
        ("np.zeros((groups * 8", r"constant: 8 -> 9"),
        ("np.arange(low, high + 1", r"constant: 1 -> 2"),
        ("np.arange(n + 1)", r"constant: 1 -> 2"),
    ),
    "zeros add nothing, and a common factor is divided out": (
        ("pull = np.ones(n_labelled)", r"constant: 1 -> 2"),
        ("pull = 1 / (np.ones", r"constant: 1 -> 2"),
        ("    w = 1 / chances", r"constant: 1 -> 2"),
        ("np.where(labelled, 1 / chance, 0.0)", r"constant: 1 -> 2"),
        ("gained = ", r"comparison: steps > 0 -> steps >= 0"),
        ("    q = 1", r"constant: 1 -> 2"),
        ('"p": 1.0', r"constant: 1.0 -> 2.0"),
        ("low, high = max(0, missing - n_c)", r"function: .*"),
    ),
    "the same term for every table, so that it cancels": (
        ("special.gammaln(n + 1.0)", r"arithmetic: n \+ 1.0 -> .*|constant: 1.0 -> 2.0"),
    ),
    "twenty labels are asked at least": (("low, high = 1, CASES_LIMIT", r"constant: 1 -> 2"),),
    "the same is done to both that are compared": (
        ("np.where(there, (others - said) ** 2, 0.0)", r"constant: 0.0 -> 1.0"),
        ("np.round(-np.sqrt(squared / n_others), 12)", r"arithmetic: .*|constant: 12 -> 13"),
        ("np.asarray(same / n_others", r"arithmetic: .*"),
        ("np.where(there, np.abs(others - said) < SAME, False)", r"constant: False -> True|.*<=.*"),
    ),
    "of two factors one from its mean is enough for what they share": (
        (
            "(people - people.mean()) * (judged - judged.mean())",
            r"arithmetic: \w+ - .* -> .* \+ .*",
        ),
    ),
    "no room is left by a drop of nothing": (
        ("within is None or max_drop <= 0", r"comparison: max_drop <= 0 -> max_drop < 0"),
    ),
    "where a search begins is not where it ends": (
        ("    n = 2.0", r"constant: 2.0 -> 3.0"),
        ("low = max(start, high // 2)", r"constant: 2 -> 3"),
    ),
    "the 32nd or 33rd of a month is in the next": (("timedelta(days=4)", r"constant: 4 -> 5"),),
    "no call is of a day so early, or so late": (
        ("EVER = ", r"constant: .*"),
        ("def series_of(", r"constant: 0 -> 1"),
    ),
    "counts are read from that day on already": (
        ("since // DAY * 24", r"arithmetic: since // DAY \* 24 -> since // DAY / 24"),
    ),
    "it is read only where it is known": (("test.start or 0", r"constant: 0 -> 1"),),
    "what has moved is not where it was": (("now < before", r"comparison: .*"),),
    "both are known, or neither is": (
        ("paired.se is None or paired.df is None", r"and/or: .*"),
        ("found.estimate is None or found.ci is None", r"and/or: .*"),
    ),
    "the same data, written otherwise": (
        ("indent=2, ensure_ascii=False", r"constant: (2 -> 3|False -> True)"),
    ),
    "it only saves a query": (("len({*m.baseline.versions", r"comparison: .* > 1 -> .* >= 1"),),
    "a line is told of a file alone": (
        ("line: int = 1", r"constant: 1 -> 2"),
        ("finding.place or (None, 1)", r"constant: 1 -> 2"),
    ),
    "a sum of zeros has no sign": (("nearest + 0.0", r"arithmetic: nearest .*"),),
    "it only saves time": (("assume_unique=True", r"constant: True -> False"),),
    "more digits than a grade has": (("look.first[name] + 1) / 2, 4)", r"constant: 4 -> 5"),),
    "where none differs, any stands for all": (
        ("d[0] < epsilon", r"constant: 0 -> 1"),
        ("centre, n = units.means[0]", r"constant: 0 -> 1"),
    ),
    "of a curve that is least at an end, the line through the next two points is lowest": (
        ("prepend=0.0, append=1.0", r"constant: .*"),
        ("left[:, :2].min(axis=1)", r"constant: 2 -> 3"),
        ("right[:, -2:].min(axis=1)", r"constant: 2 -> 3|not/minus: -2 -> 2"),
    ),
    "a least at the very end has means there, well within the margin": (
        ("near.stop >= len(self._grid)", r"comparison: .*"),
    ),
    "lengths that never differ": (
        ("strict=True", r"constant: True -> False"),
        ("len(pair[0]) >= 2", r"constant: 0 -> 1"),
    ),
    "nobody asks of how many labels there is no kappa": (("return None, 0", r"constant: 0 -> 1"),),
    "trials say nothing where their noise is not known": (
        ("1.0 if split is None", r"constant: 1.0 -> 2.0"),
    ),
    "what it fills in is multiplied by 0, or left out": (
        ("nothing = _Tally(trials=1)", r"constant: 1 -> 2"),
        ("max(map(len, units), default=1)", r"constant: 1 -> 2"),
        ("np.nan_to_num", r"constant: 0.0 -> 1.0"),
        ("np.where(labelled, y, 0.0)", r"constant: 0.0 -> 1.0"),
    ),
    "numpy takes any negative length for the rest": ((".reshape(-1", r"constant: 1 -> 2"),),
    "a sum of chances passes 1 by rounding alone": (
        ('min(max(sums["ws"]', r"constant: 1.0 -> 2.0"),
        ("max(min(high, 1.0), mean)", r"constant: 1.0 -> 2.0"),
        ("np.clip(values / weights, 0, 1)", r"constant: .*"),
        ("min(low, 1.0)", r"constant: 1.0 -> 2.0"),
        (".sum() / chance.sum()), 1.0)", r"constant: 1.0 -> 2.0"),
    ),
}
"""Why a change makes no difference -> (part of the line, pattern of what is told of it)."""


# --- mutants ---------------------------------------------------------------------------

COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
OPPOSITE = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change; `place` counts the nodes of the module, `way` the changes of that node."""

    place: int
    way: int
    line: int
    told: str


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Every mutation of one node, with what it is."""
    if isinstance(node, ast.Compare):
        for at, op in enumerate(node.ops):
            new = copy.deepcopy(node)
            new.ops[at] = COMPARE[type(op)]()
            yield "comparison", new
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        if not (isinstance(node.op, ast.BitOr) or _is_text(node.left) or _is_text(node.right)):
            yield "arithmetic", ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", ast.BoolOp(op, node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield "not/minus", node.operand
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.IfExp):
        yield "branches", ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.If):
        yield "condition", ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in OPPOSITE
    ):
        name = ast.Name(OPPOSITE[node.func.id], ast.Load())
        yield "function", ast.Call(name, node.args, node.keywords)


def _constants(node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.value, bool):
        yield "constant", ast.Constant(not node.value)
    elif isinstance(node.value, (int, float)):
        yield "constant", ast.Constant(node.value + 1)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when a function does: no annotations, decorators, texts or type checks."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    yield node
    skipped: set[str] = {"annotation", "returns", "decorator_list"}
    if isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom)):
        return
    for name, value in ast.iter_fields(node):
        if name in skipped or (name == "test" and isinstance(node, ast.Assert)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from walk(child)


def mutants_of(tree: ast.Module) -> list[Mutant]:
    return [
        Mutant(place, way, getattr(node, "lineno", 0), f"{kind}: {_shown(node)} -> {_shown(new)}")
        for place, node in enumerate(walk(tree))
        for way, (kind, new) in enumerate(changes(node))
    ]


def _shown(node: ast.AST) -> str:
    if isinstance(node, ast.If):
        return f"if {ast.unparse(node.test)}"
    return " ".join(ast.unparse(node).split())[:70]


def mutated(source: str, mutant: Mutant, path: Path) -> CodeType:
    tree = ast.parse(source)
    target = list(walk(tree))[mutant.place]
    _, new = list(changes(target))[mutant.way]

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            return ast.copy_location(new, node) if node is target else self.generic_visit(node)

    return compile(ast.fix_missing_locations(Replace().visit(tree)), str(path), "exec")


# --- running ---------------------------------------------------------------------------


class Put(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module from a code object; a plugin, so as to stand before pytest's own finder."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self.name, self.path, self.code = name, path, code

    def pytest_configure(self) -> None:
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)  # nosec B102 - this repository's own code, changed


def run_tests(tests: Sequence[str], *plugins: object) -> int:
    import pytest

    options = ["-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options.append("--assert=plain")  # what pytest would rewrite is loaded already
    return int(pytest.main([*options, *tests], plugins=list(plugins)))


class Reach:
    """Notes for each test which lines of a file it runs, and how long it takes."""

    def __init__(self, path: Path, out: Path) -> None:
        self.path, self.out = str(path), out
        self.lines: dict[str, set[int]] = {}
        self.took: dict[str, float] = {}

    def pytest_runtest_protocol(self, item: Any, nextitem: Any) -> None:
        seen = self.lines.setdefault(item.nodeid, set())

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            if frame.f_code.co_filename != self.path:
                return None
            seen.add(frame.f_lineno)
            return trace

        sys.settrace(trace)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        sys.settrace(None)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.took[report.nodeid] = self.took.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        rows = [f"{self.took[t]}\t{t}\t{' '.join(map(str, ls))}" for t, ls in self.lines.items()]
        self.out.write_text("\n".join(rows), encoding="utf-8")


def forked(work: Any, *, timeout_s: float) -> int | None:
    """Exit status of `work` done in a child of this process; None where it hung."""
    child = os.fork()
    if child == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        status = 70
        try:
            status = work()
        finally:
            os._exit(status)
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


Reached: TypeAlias = tuple[float, str, set[int]]
"""Seconds that a test takes, its id, the lines that it runs."""


@dataclass(slots=True)
class Module:
    """One module under test: its tests, and what they reach."""

    name: str

    @property
    def path(self) -> Path:
        return ROOT / "evalkit" / "decide" / f"{self.name}.py"

    def reached(self) -> list[Reached]:
        """What the tests reach, in the order they run; SystemExit where one fails as is."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "reach"
            files = [f"tests/decide/{name}.py" for name in TESTS[self.name]]
            if forked(lambda: run_tests(files, Reach(self.path, out)), timeout_s=900):
                raise SystemExit(f"{self.name}: its tests fail without a mutant")
            rows = (line.split("\t") for line in out.read_text(encoding="utf-8").splitlines())
            found = [(float(took), test, set(map(int, ls.split()))) for took, test, ls in rows]
        return sorted(found, key=lambda one: (files.index(one[1].split("::")[0]), one[0]))

    def survives(self, mutant: Mutant, tests: Sequence[str], seconds: float) -> bool:
        code = mutated(self.path.read_text(encoding="utf-8"), mutant, self.path)

        put = Put(f"evalkit.decide.{self.name}", self.path, code)
        return forked(lambda: run_tests(tests, put), timeout_s=10 + TIMES_SLOWER * seconds) == 0


def mutate(
    module: Module, *, sample: int | None, only: Sequence[int] | None
) -> tuple[int, int, list[str]]:
    """Mutants that make no difference, how many others ran, and those of them that survived."""
    reached = module.reached()
    tree = ast.parse(module.path.read_text(encoding="utf-8"))
    mutants, loaded = mutants_of(tree), set(at_import(tree.body))
    if only is not None:
        mutants = [one for one in mutants if one.line in only]
    lines = module.path.read_text(encoding="utf-8").splitlines()
    every = len(mutants)
    mutants = [one for one in mutants if not is_equal(one, lines[one.line - 1])]
    equal = every - len(mutants)
    if sample is not None and sample < len(mutants):
        mutants = random.Random(0).sample(mutants, sample)
    survivors = []
    for mutant in mutants:
        if mutant.line in loaded:
            chosen = within(reached)
        else:
            chosen = within(one for one in reached if mutant.line in one[2])
        tests, seconds = [one[1] for one in chosen], sum(one[0] for one in chosen)
        if not tests or module.survives(mutant, tests, seconds):
            told = f"evalkit/decide/{module.name}.py:{mutant.line}: {mutant.told}"
            survivors.append(told + ("" if tests else " (no test comes here)"))
            print(f"  {survivors[-1]}", flush=True)
    return equal, len(mutants), survivors


def is_equal(mutant: Mutant, line: str) -> bool:
    """Whether the change is known to make no difference."""
    return any(
        part in line and re.fullmatch(told, mutant.told)
        for ways in EQUAL.values()
        for part, told in ways
    )


def within(tests: Iterable[Reached]) -> list[Reached]:
    """The first of them, as many as there is time for; one at least."""
    chosen, seconds = [], 0.0
    for one in tests:
        if chosen and seconds + one[0] > MAX_TESTS_S:
            break
        chosen.append(one)
        seconds += one[0]
    return chosen


def at_import(body: Iterable[ast.stmt]) -> Iterator[int]:
    """Lines that run when the module is loaded: every test meets them."""
    for node in body:
        if isinstance(node, ast.FunctionDef):
            defaults = [*node.args.defaults, *node.args.kw_defaults]
            yield from (one.lineno for one in defaults if one is not None)
        elif isinstance(node, ast.ClassDef):
            yield from at_import(node.body)
        else:
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.mutants")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(TESTS)}")
    parser.add_argument("--sample", type=int, help="so many of each module's mutants")
    parser.add_argument("--only", type=int, nargs="+", metavar="LINE", help="mutants of lines")
    asked = parser.parse_args()
    os.chdir(ROOT)
    for name in LOADED_BEFORE:
        importlib.import_module(name)
    rows: list[tuple[str, int, int, int, str, str]] = []
    for name in asked.modules or TESTS:
        began = time.monotonic()
        equal, n, survivors = mutate(Module(name), sample=asked.sample, only=asked.only)
        share = 1.0 if not n else 1 - len(survivors) / n
        took = f"{time.monotonic() - began:.0f} s"
        rows.append((name, equal, n, n - len(survivors), f"{share:.0%}", took))
        told = "{:12} {:3} without a difference, {:4} others {:4} killed {:>5} {:>7}"
        print(told.format(*rows[-1]), flush=True)
    share = sum(row[3] for row in rows) / max(1, sum(row[2] for row in rows))
    print(f"together {share:.1%} killed, at least {AT_LEAST:.0%} are asked")
    return int(share < AT_LEAST)


if __name__ == "__main__":
    sys.exit(main())

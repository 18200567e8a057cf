"""Files of promptfoo: configurations (.yaml, .json), tests (.csv) and outputs (.json).

Variables become the input, assertions checks: of one test its own, of `defaultTest` the
golden set's. Code in a file (JavaScript, Python, transforms) is never run, only named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import InputFileError
from evalkit.exchange.foreign.promptfoo_assertions import Judged, read_assertion
from evalkit.exchange.foreign.reading import csv_rows, parse_json, parse_yaml, share, text_of
from evalkit.exchange.golden_sets import Foreign, slug
from evalkit.strict import is_file, real_path

Test = Mapping[str, Any]

MAX_FILE_BYTES = 10_000_000


def read(path: Path) -> Foreign:
    """Cases from a configuration or tests; results and cases from an output."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _from_config({"tests": _csv_tests(path)}, path)
    table = parse_json(text_of(path), str(path)) if suffix == ".json" else parse_yaml(path)
    if isinstance(table, list):
        table = {"tests": table}
    if not isinstance(table, dict):
        raise InputFileError(f"{path}: is neither a configuration of promptfoo nor its output.")
    results = table.get("results")
    if isinstance(results, dict) and isinstance(results.get("results"), list):
        return _from_output(table, results["results"], path)
    return _from_config(table, path)


# --- a configuration -----------------------------------------------------------------


def _from_config(table: Test, path: Path) -> Foreign:
    described = table.get("description")
    foreign = Foreign(
        name=slug(str(described or path.stem)),
        description=str(described or f"From promptfoo: {path.name}."),
    )
    default = _table(table.get("defaultTest"))
    if table.get("defaultTest") and not default:
        foreign.lost.add("defaultTest in a file", str(table["defaultTest"])[:80])
    for number, test in enumerate(_tests(table.get("tests"), path, foreign), 1):
        _add_test(test, default, number, foreign)
    _add_default_checks(default, foreign)
    foreign.prompts = list(_prompts(table.get("prompts"), path, foreign))
    for provider in _listed(table.get("providers")):
        name = _table(provider).get("id") or next(iter(_table(provider)), provider)
        foreign.lost.add("providers: write them into evalkit.toml", str(name)[:60])
    for key in ("scenarios", "extensions", "nunjucksFilters", "redteam", "derivedMetrics"):
        if table.get(key):
            foreign.lost.add(f"{key} of the configuration")
    return foreign


def _tests(tests: Any, path: Path, foreign: Foreign) -> Iterator[Test]:
    """The tests, those in files beside the configuration included."""
    for one in _listed(tests):
        if isinstance(one, dict):
            yield one
            continue
        beside = _beside(path, str(one))
        if beside is None or beside.suffix.lower() not in (".csv", ".json", ".yaml", ".yml"):
            foreign.lost.add("tests that are elsewhere or made by code", str(one)[:80])
        elif beside.suffix.lower() == ".csv":
            yield from _csv_tests(beside)
        else:
            is_json = beside.suffix.lower() == ".json"
            found = parse_json(text_of(beside), str(beside)) if is_json else parse_yaml(beside)
            yield from (test for test in _listed(found) if isinstance(test, dict))


def _csv_tests(path: Path) -> list[dict[str, Any]]:
    """Columns are variables; those that begin with two underscores say something else."""
    tests = []
    for row in csv_rows(text_of(path), str(path)):
        vars_ = {key: value for key, value in row.items() if not key.startswith("__")}
        test: dict[str, Any] = {"vars": vars_}
        expected = [v for k, v in row.items() if k.startswith("__expected") and v]
        test["assert"] = [_csv_assertion(text) for text in expected]
        if row.get("__description"):
            test["description"] = row["__description"]
        tests.append(test)
    return tests


def _csv_assertion(text: str) -> dict[str, Any]:
    """`contains: x`, `similar(0.8): x`, or a bare text for equality."""
    found = re.fullmatch(r"([a-z][a-z0-9-]*)(?:\((\d*\.?\d+)\))?:\s*(.*)", text, re.DOTALL)
    if found is None or found[1] in ("http", "https"):
        return {"type": "equals", "value": text}
    kind = {"grade": "llm-rubric", "fn": "javascript", "eval": "javascript"}.get(found[1], found[1])
    value: Any = found[3]
    if kind.endswith(("-any", "-all")):
        value = [part.strip() for part in found[3].split(",")]
    threshold = {"threshold": float(found[2])} if found[2] else {}
    return {"type": kind, "value": value, **threshold}


def _add_test(test: Test, default: Test, number: int, foreign: Foreign) -> None:
    vars_ = {**_table(default.get("vars")), **_table(test.get("vars"))}
    case_id = foreign.free_id(test.get("description") or f"t-{number:03d}")
    rows = [key for key, value in vars_.items() if isinstance(value, list)]
    if rows:
        foreign.lost.add(
            f"{', '.join(rows)}: a list makes several tests there, one case here", case_id
        )
    for key, value in vars_.items():
        if isinstance(value, str) and value.startswith("file://"):
            foreign.lost.add(
                "variables in files: their names are in the input", f"{case_id}: {key}"
            )
    case: dict[str, Any] = {"id": case_id, "input": vars_}
    checks = []
    for assertion in _assertions(test.get("assert")):
        found = read_assertion(assertion, vars_)
        if isinstance(found, dict):
            checks.append(found)
        elif isinstance(found, Judged):
            foreign.lost.add("rubrics of one test: a judge is of a whole golden set", case_id)
        else:
            foreign.lost.add(found, case_id)
    if checks:
        case["checks"] = checks
    if isinstance(test.get("metadata"), dict) and test["metadata"]:
        case["metadata"] = test["metadata"]
    if _table(test.get("options")).get("transform"):
        foreign.lost.add("transforms of the output", case_id)
    foreign.add_case(case)


def _add_default_checks(default: Test, foreign: Foreign) -> None:
    """Assertions of every test are metrics of the golden set."""
    names: set[str] = set()
    for assertion in _assertions(default.get("assert")):
        found = read_assertion(assertion, None)
        if isinstance(found, str):
            foreign.lost.add(found, "defaultTest")
            continue
        if isinstance(found, Judged):
            judge = f"{foreign.name}-{len(foreign.judges) + 1}"
            foreign.judges[judge] = found.rubric
            spec: dict[str, Any] = {"judge": judge}
        else:
            spec = found
        name = _free(str(assertion.get("metric") or spec.get("check") or spec["judge"]), names)
        foreign.metrics.append({"name": name, **spec, "gate": True})


def _assertions(value: Any) -> Iterator[dict[str, Any]]:
    for one in _listed(value):
        if not isinstance(one, dict):
            continue
        if one.get("type") == "assert-set":
            yield from _assertions(one.get("assert"))
        else:
            yield one


_FILE = re.compile(
    r"file://.*|\S+\.(?:txt|md|json|jsonl|ya?ml|csv|j2|[cm]?[jt]s|py)|[^\s{}]*\*[^\s{}]*", re.DOTALL
)
"""What promptfoo takes for a file of prompts, and not for the prompt itself."""


def _prompts(prompts: Any, path: Path, foreign: Foreign) -> Iterator[str]:
    if _table(prompts) and not {"raw", "id"} & prompts.keys():
        prompts = list(prompts)  # file -> label
    for one in _listed(prompts):
        text = str(_table(one).get("raw") or _table(one).get("id") or one)
        beside = _beside(path, text) if len(text) < 200 else None
        if beside or _FILE.fullmatch(text):
            if beside is None or beside.suffix.lower() not in (".txt", ".md"):
                foreign.lost.add(
                    "prompts elsewhere, in code or JSON: write them as prompts/NAME/v1.md", text
                )
                continue
            text = text_of(beside, max_bytes=MAX_FILE_BYTES)
        yield f"## user\n\n{text.strip()}\n"


def _beside(path: Path, name: str) -> Path | None:
    """A file below the configuration's folder; None for any other."""
    folder = real_path(path.parent)
    found = real_path(folder / name.removeprefix("file://"))
    inside = found.is_relative_to(folder)
    return found if inside and len(name) < 1_000 and is_file(found) else None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


# --- an output -----------------------------------------------------------------------


def _from_output(table: Test, results: list[Any], path: Path) -> Foreign:
    """Tests and assertions are those of its configuration; every graded one is a result."""
    config = _table(table.get("config"))
    foreign = _from_config({**config, "tests": []}, path)
    foreign.metrics.clear()
    foreign.judges.clear()
    known: dict[str, str] = {}
    for row in results:
        if not isinstance(row, dict):
            continue
        test = {**_table(row.get("testCase")), "vars": row.get("vars")}
        key = repr(row.get("testIdx", row.get("vars")))
        if key not in known:
            before = len(foreign.cases)
            _add_test(test, {}, before + 1, foreign)
            known[key] = str(foreign.cases[-1]["id"])
        foreign.results += _graded(row, known[key], foreign)
    return foreign


def _graded(row: Test, case_id: str, foreign: Foreign) -> Iterator[dict[str, Any]]:
    """The test's own score, and that of each assertion; an error of a provider has none."""
    provider = row.get("provider")
    model = _table(provider).get("id") or provider
    common = {
        "case_id": case_id,
        "golden_set": slug(foreign.name),
        "model": str(model) if model else None,
        "prompt_version": f"v{row['promptIdx'] + 1}"
        if isinstance(row.get("promptIdx"), int)
        else None,
        "trial": row.get("repeatIndex") or 0,
    }
    graded = _table(row.get("gradingResult"))
    failed = bool(row.get("error")) and not graded
    score = None if failed else share(row.get("score"))
    outcome = "infra_error" if failed else "scored" if score is not None else "check_error"
    yield {**common, "metric": "score", "score": score, "outcome": outcome}
    taken = {"score"}
    for one in _listed(graded.get("componentResults")):
        assertion = _table(_table(one).get("assertion"))
        metric = _free(str(assertion.get("metric") or assertion.get("type") or "assertion"), taken)
        part = share(_table(one).get("score"))
        if part is not None:
            yield {**common, "metric": metric, "score": part, "outcome": "scored"}


def _free(wanted: str, taken: set[str]) -> str:
    """A metric's name that is not among those taken, and then is."""
    base = slug(wanted)
    names = (base, *(f"{base}-{n}" for n in range(2, len(taken) + 3)))
    name = next(one for one in names if one not in taken)
    taken.add(name)
    return name

"""`evalkit check`: everything a run would stumble over, found without a call to any model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import common_options, print_json
from evalkit.errors import (
    EXIT_PASS,
    EXIT_USAGE,
    ConfigError,
    ContentError,
    GoldenSetError,
    Problems,
    shown,
)

if TYPE_CHECKING:
    from evalkit.call.prompts import PromptRegistry
    from evalkit.score.golden import GoldenSet, MetricSpec
    from evalkit.score.problems import Problem
    from evalkit.score.rubric import JudgeSpec
    from evalkit.settings import Settings

GATE = "gate"
"""What pytest calls the item that is the verdict."""
MAX_INPUT_PROBLEMS = 20
"""Of one golden set: what a prompt misses in one case it mostly misses in all."""


@click.command("check")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@common_options
def command(paths: tuple[Path, ...], as_json: bool, store: str | None, config: Path | None) -> int:
    """Validate configuration, prompts, judges and golden sets (default: all).

    Prints every problem as file:line: problem: fix. A PATH is a golden set, or any file
    that belongs to one.
    """
    found = check_project(paths, config, store)
    if as_json:
        problems = [_problem_json(problem) for problem in found.problems]
        notes = [_problem_json(note) for note in found.notes]
        checked = {"config": found.config, **found.checked}
        print_json({"problems": problems, "notes": notes, "checked": checked})
    else:
        for problem in found.problems:
            click.echo(_problem_line(problem))
        for note in found.notes:
            click.echo(f"note: {_problem_line(note)}")
        if not found.problems:
            click.echo(f"no problems in {_counts(found)}")
    return EXIT_USAGE if found.problems else EXIT_PASS


@dataclass(slots=True)
class Findings:
    """What was looked at, and what is wrong with it."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    """What is not wrong, but worth knowing."""
    config: str | None = None
    """The configuration; None where there is none, and the defaults hold."""
    checked: dict[str, int] = field(default_factory=dict)
    """Kind of thing -> how many were looked at."""


def check_project(paths: Sequence[Path], config: Path | None, store: str | None = None) -> Findings:
    """Look at everything, as far as each part can be read without the others."""
    from evalkit.config import load_settings
    from evalkit.settings import Settings

    found = Findings()
    try:
        settings = load_settings(config)
        found.config = settings.path.name if settings.path else None
        readable = True
    except ConfigError as error:
        found.problems += _read_problems(error, file=str(config or "evalkit.toml"))
        settings = Settings(root=config.absolute().parent if config else Path.cwd())
        found.config = config.name if config else "evalkit.toml"
        readable = False
    found.checked["features"] = len(settings.features)
    found.notes += _unpriced(settings)
    if store is None and settings.path is not None:
        _check_store(settings, found)
    _check_prompts(settings, found, Path(store or settings.store_path))
    _check_flags_file(settings, found)
    _check_schemas(settings, found)
    _check_targets(settings, found)
    sets = _check_golden_sets(paths, settings, found, check_feature=readable)
    _check_judges(sets, settings, found, check_models=readable)
    if readable:
        _check_inputs(sets, settings, found)
    found.problems = list(dict.fromkeys(found.problems))
    return found


def _unpriced(settings: Settings) -> Iterator[Problem]:
    """Models that the maintained table of prices does not know."""
    from evalkit.prices import unpriced

    for model in unpriced(settings):
        message = (
            f'the maintained table does not know "{model.id}", whose costs are null. '
            "Write price = { input = …, output = … } to have them"
        )
        place = ("models", model.name, "price")
        yield from _config_problems(
            ConfigError(message), settings, place, f"models.{model.name}.price"
        )


def _check_store(settings: Settings, found: Findings) -> None:
    """The configured store is one that commands can open, or make."""
    from evalkit.store.views import open_store

    try:
        open_store(settings.store_path)
    except ConfigError as error:
        message = ConfigError(str(error).removeprefix("store "))
        found.problems += _config_problems(message, settings, ("store",), "store")


# --- prompts -----------------------------------------------------------------------


def _check_prompts(settings: Settings, found: Findings, store: Path) -> None:
    """Every version parses, and those that features name are there."""
    from evalkit.call.prompts import PromptRegistry

    registry = PromptRegistry(settings.root)
    there = {(name, version) for name in registry.names() for version in registry.versions(name)}
    for name, version in sorted(there):
        try:
            registry.get(name, version)
        except ContentError as error:
            found.problems += _read_problems(error, file=f"prompts/{name}/{version}.md")
    for feature in settings.features.values():
        if (feature.prompt_name, feature.prompt_version) in there:
            continue
        try:
            registry.get(feature.prompt_name, feature.prompt_version)
        except ContentError as error:
            place = ("features", feature.name, "prompt")
            found.problems += _config_problems(error, settings, place, f"feature {feature.name}")
    found.problems += _edited(there, registry, store)
    found.checked["prompts"] = len(there)


def _edited(
    there: Iterable[tuple[str, str]], registry: PromptRegistry, store: Path
) -> Iterator[Problem]:
    """Versions of which the store has seen another text, where there is a store."""
    if not store.is_dir():
        return
    from evalkit.session import prompts_seen
    from evalkit.store.views import open_store

    seen = prompts_seen(open_store(store))
    for identity in sorted(seen.keys() & set(there)):
        try:
            registry.check_unchanged({identity: seen[identity]})
        except ContentError as error:
            yield from _read_problems(error, file=f"prompts/{'/'.join(identity)}.md")


def _config_problems(
    error: Problems, settings: Settings, place: tuple[str, ...], what: str
) -> list[Problem]:
    """Problems of what the configuration names, at the line that names it."""
    from evalkit.score.problems import Problem
    from evalkit.strict import MAX_TOML_BYTES, load_toml, read_text

    assert settings.path is not None
    prefix = ("tool", "evalkit") if settings.path.name == "pyproject.toml" else ()
    text = read_text(settings.path, max_bytes=MAX_TOML_BYTES)
    line = load_toml(text, where="").line((*prefix, *place))
    return [
        Problem(file=settings.path.name, line=line, problem=f"{what}: {one.problem}", fix=one.fix)
        for one in _read_problems(error, file="")
    ]


def _check_schemas(settings: Settings, found: Findings) -> None:
    """What features name as a schema is one; that there is a file is the configuration's check."""
    from evalkit.json_schema import load_schema
    from evalkit.score.problems import shown_path

    for name, feature in settings.features.items():
        for key in ("input_schema", "output_schema"):
            path = getattr(feature, key)
            if path is None or not path.is_file():
                continue
            try:
                load_schema(path)
            except ValueError as error:
                place = ("features", name, key)
                file = shown_path(path, root=settings.root)
                problem = ConfigError(f"{file}: {error}. Write a JSON Schema there")
                found.problems += _config_problems(problem, settings, place, ".".join(place))


def _check_targets(settings: Settings, found: Findings) -> None:
    """Functions that stand in for a model are there: without one, every case fails."""
    from evalkit.call.functions import load_function, make_importable

    for name, provider in settings.providers.items():
        if provider.target is None:
            continue
        make_importable(settings.root)
        place = ("providers", name, "target")
        try:
            load_function(provider.target)
        except ConfigError as error:
            found.problems += _config_problems(error, settings, place, ".".join(place))
        except (Exception, SystemExit) as error:  # the user's own module may fail in any way
            problem = ConfigError(f"{provider.target}: {type(error).__name__}: {error}")
            found.problems += _config_problems(problem, settings, place, ".".join(place))


def _check_flags_file(settings: Settings, found: Findings) -> None:
    """The file of flags could be taken over as it is; it need not be there."""
    from evalkit.call.flags import read_flags
    from evalkit.score.problems import shown_path, strict_problem
    from evalkit.strict import MAX_TOML_BYTES, StrictError, read_text

    path = settings.flags_file
    if path is None or not path.exists():
        return
    try:
        read_flags(path, read_text(path, max_bytes=MAX_TOML_BYTES), settings)
    except StrictError as error:
        file = shown_path(path, root=settings.root)
        found.problems.append(strict_problem(error, file=file))


# --- golden sets -------------------------------------------------------------------


def _check_golden_sets(
    paths: Sequence[Path], settings: Settings, found: Findings, *, check_feature: bool
) -> list[GoldenSet]:
    from evalkit.score.golden import inspect_golden_set, shared_names

    sets: list[GoldenSet] = []
    headers = _headers(paths, settings, found)
    for path in headers:
        golden, problems = inspect_golden_set(path, settings=settings, check_feature=check_feature)
        found.problems += problems
        if golden is not None:
            sets.append(golden)
            found.problems += _named_gate(golden, settings)
    found.problems += shared_names(sets, root=settings.root)
    found.checked["golden_sets"] = len(headers)
    found.checked["cases"] = sum(len(golden.cases) for golden in sets)
    return sets


def _named_gate(golden: GoldenSet, settings: Settings) -> Iterator[Problem]:
    """A case that pytest could not tell from the gate."""
    from evalkit.score.problems import Problem, shown_path

    if GATE in golden.cases:
        yield Problem(
            file=shown_path(golden.cases.path, root=settings.root),
            line=golden.cases.line_of(GATE),
            case_id=GATE,
            problem="pytest --llm-eval calls the gate so, and refuses a case of that name",
            fix="Give it another id",
        )


def _headers(paths: Sequence[Path], settings: Settings, found: Findings) -> list[Path]:
    """Golden sets that the paths belong to; a project may have none yet."""
    from evalkit.score.golden import HEADER, find_golden_sets

    if not paths:
        try:
            return find_golden_sets((), settings=settings)
        except GoldenSetError:
            return []
    headers: dict[Path, None] = {}
    for path in paths:
        own = path.absolute().parent / HEADER
        if path.is_file() and path.name != HEADER:
            # A hook names the files of a commit: a prompt among them is checked anyway.
            headers |= {own: None} if own.is_file() else {}
            continue
        try:
            headers |= dict.fromkeys(find_golden_sets([path], settings=settings))
        except GoldenSetError as error:
            found.problems += _read_problems(error, file=str(path))
    return list(headers)


def _check_inputs(sets: Iterable[GoldenSet], settings: Settings, found: Findings) -> None:
    """The input of every case has what its feature's prompt asks for."""
    from evalkit.call.prompts import PromptRegistry
    from evalkit.score.case_prompts import unfit_cases
    from evalkit.score.problems import shown_path

    registry = PromptRegistry(settings.root)
    for golden in sets:
        feature = settings.features[golden.feature]
        try:
            prompt = registry.get(feature.prompt_name, feature.prompt_version)
        except ContentError:
            continue
        file = shown_path(golden.cases.path, root=settings.root)
        problems = unfit_cases(golden.cases, prompt, feature, file)
        found.problems += islice(problems, MAX_INPUT_PROBLEMS)


# --- judges ------------------------------------------------------------------------


def _check_judges(
    sets: Iterable[GoldenSet], settings: Settings, found: Findings, *, check_models: bool
) -> None:
    """The project's own judges, and the others that a golden set uses; each with its model."""
    from evalkit.content import find_content
    from evalkit.score.rubric import load_judge

    used = {
        metric.params["judge"]: (golden, metric)
        for golden in sets
        for metric in golden.metrics
        if metric.kind == "judge"
    }
    own = {path.stem for path in (settings.root / "judges").glob("*.yaml")}
    for name in sorted(used.keys() | own):
        try:
            path = find_content("judges", f"{name}.yaml", project=settings.root)
            judge = load_judge(path)
        except ContentError as error:
            found.problems += _read_problems(error, file=f"judges/{name}.yaml")
            continue
        if check_models:
            for one in judge.leaves:
                found.problems += _judge_model_problems(one, settings, used.get(name))
    found.checked["judges"] = len(used.keys() | own)


def _judge_model_problems(
    judge: JudgeSpec, settings: Settings, use: tuple[GoldenSet, MetricSpec] | None
) -> Iterator[Problem]:
    """A judge's model is there; one that a metric uses (`use`) has a model at all."""
    from evalkit.schemas import nearest
    from evalkit.score.problems import Problem, shown_path

    own_file = f"judges/{judge.path.name}"
    if judge.model is not None and judge.model not in settings.models:
        line = _line_of(judge.path, "model")
        problem = f'there is no model "{judge.model}" in the configuration'
        fix = nearest(judge.model, settings.models)
        yield Problem(file=own_file, line=line, problem=problem, fix=fix)
    if judge.model is None and settings.run.judge_model is None and use is not None:
        golden, metric = use
        file = shown_path(golden.path, root=settings.root)
        problem = f"metric {metric.name}: judge {judge.name} has no model"
        fix = f"Add judge_model under [run] in the configuration, or model in {own_file}"
        yield Problem(file=file, line=metric.line, problem=problem, fix=fix)


def _line_of(path: Path, key: str) -> int:
    from evalkit.strict import MAX_YAML_BYTES, load_yaml, read_text

    return load_yaml(read_text(path, max_bytes=MAX_YAML_BYTES), where="").line((key,))


# --- words -------------------------------------------------------------------------

_LOCATED = re.compile(r"(?P<file>[^\n]+?):(?P<line>\d+): (?P<text>.+)", re.DOTALL)


def _read_problems(error: Problems, *, file: str) -> list[Problem]:
    """The problems of an error; `file` is for those that do not name one."""
    from evalkit.score.problems import Problem, split_fix

    problems = []
    for text in error.problems:
        located = _LOCATED.fullmatch(text)
        problem, fix = split_fix(located["text"] if located else text.removeprefix(f"{file}: "))
        problems.append(
            Problem(
                file=located["file"] if located else file,
                line=int(located["line"]) if located else 1,
                problem=problem,
                fix=fix,
            )
        )
    return problems


def _problem_line(problem: Problem) -> str:
    case = f"case {problem.case_id}: " if problem.case_id is not None else ""
    fix = f": {problem.fix.rstrip('.')}" if problem.fix else ""
    return shown(f"{problem.file}:{problem.line}: {case}{problem.problem}{fix}")


def _problem_json(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file,
        "line": problem.line,
        "case_id": problem.case_id,
        "problem": problem.problem,
        "fix": problem.fix.rstrip("."),
    }


def _counts(found: Findings) -> str:
    words = {
        "features": "feature",
        "prompts": "prompt version",
        "golden_sets": "golden set",
        "cases": "case",
        "judges": "judge",
    }
    counts = (f"{n} {words[kind]}{'s' * (n != 1)}" for kind, n in found.checked.items())
    return ", ".join((*([found.config] if found.config else []), *counts))

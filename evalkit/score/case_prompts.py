"""Whether every case has what its prompt asks for, known before the first call is paid for.

Stands between golden sets and the runner: it fills prompts, sends nothing. Where a prompt
does not branch, one case of each shape speaks for all that have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from evalkit.call.prompts import Prompt, PromptRegistry
from evalkit.config import FeatureSettings, Settings
from evalkit.errors import ContentError, GoldenSetError
from evalkit.records import Case
from evalkit.score.golden import GoldenSet
from evalkit.score.problems import Problem, shown_path, split_fix
from evalkit.score.runner import PlannedSet

MAX_SHOWN = 20


def refuse_unfit_cases(planned: Iterable[PlannedSet], settings: Settings) -> None:
    """Raise GoldenSetError with the cases of a run, by file and line, whose prompt has gaps."""
    registry = PromptRegistry(settings.root)
    problems: list[Problem] = []
    for one in planned:
        feature = settings.features[one.golden.feature]
        for name, version in dict.fromkeys((p.prompt_name, p.prompt_version) for p in one.pairs):
            prompt = registry.get(name, version)
            if not _all_shapes_fit(one.golden, prompt, feature):
                cases = (one.golden.cases[number] for number in sorted(one.case_numbers))
                problems += unfit_cases(cases, prompt, feature, _file(one.golden, settings.root))
    if problems:
        shown = [str(problem) for problem in islice(dict.fromkeys(problems), MAX_SHOWN)]
        more = [f"… and {len(problems) - MAX_SHOWN} more."] if len(problems) > MAX_SHOWN else []
        raise GoldenSetError([*shown, *more])


def unfit_cases(
    cases: Iterable[Case], prompt: Prompt, feature: FeatureSettings, file: str
) -> Iterator[Problem]:
    """What the prompt does not find in the input of each of these cases."""
    for case in cases:
        error = _gap(case, prompt, feature)
        if error is not None:
            problem, fix = split_fix(error.problems[0])
            yield Problem(file=file, line=case.line, case_id=case.id, problem=problem, fix=fix)


def _all_shapes_fit(golden: GoldenSet, prompt: Prompt, feature: FeatureSettings) -> bool:
    if any("{%" in section.text for section in prompt.sections):
        return False
    return not any(
        _gap(golden.cases[number], prompt, feature) for number in golden.cases.shapes.values()
    )


def _gap(case: Case, prompt: Prompt, feature: FeatureSettings) -> ContentError | None:
    # What a retriever will find is not known yet; that there will be a list of it is.
    found: list[object] | None = [] if feature.retriever is not None else None
    try:
        prompt.render(case.input, documents=case.input.get("documents", found))
    except ContentError as error:
        return error
    return None


def _file(golden: GoldenSet, root: Path) -> str:
    return shown_path(golden.cases.path, root=root)

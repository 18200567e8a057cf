"""Anchors of a judge: answers that never change, graded again and again to see if it does.

`judges/NAME.anchors.jsonl` stands beside the judge, in the project: cases, answers, and what
each version of the judge said of them first. A look asks it anew, nothing kept, once a day; the
grades go into the store, and `decide` holds them against the first ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.call.budget import Budget
from evalkit.call.orchestrator import Orchestrator
from evalkit.errors import ConfigError, ContentError
from evalkit.records import Answer
from evalkit.score.attacks import unrecorded
from evalkit.score.calibration import costs, judge_labelled
from evalkit.score.judging import Judging, find_judge, with_judge_features
from evalkit.score.labelled import Labelled
from evalkit.store.anchor_looks import AnchorLook, first_look, look_path, save_look
from evalkit.store.files import write_whole
from evalkit.strict import StrictError, iter_jsonl

if TYPE_CHECKING:
    from evalkit.score.golden import GoldenSet
    from evalkit.score.rubric import JudgeSpec
    from evalkit.settings import Settings
    from evalkit.store.views import Store

SUFFIX = ".anchors.jsonl"
JUDGED_SHARE = 0.8
"""With fewer grades a look says nothing, and is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """One answer, and what was said of it first."""

    id: str
    input: Mapping[str, Any]
    output: str
    expected: Any = None
    has_expected: bool = False
    first: Mapping[str, float]
    """Version of the judge -> its score."""

    @property
    def answer(self) -> Answer:
        return Answer(
            output=self.output, case_id=self.id, input=self.input, expected=self.expected,
            has_expected=self.has_expected, metadata={}, record=unrecorded(self.output),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """One judge's look at its anchors."""

    judge: str
    scorer_version: str
    anchors: int
    judged: int
    changed: int
    """Anchors with another score than at first."""
    shift: float | None
    """Mean score minus the mean of the first ones; None where too few could be judged."""
    cost_usd: float
    """Of the calls whose cost is known."""
    unpriced_calls: int
    is_first: bool

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def anchors_path(name: str, settings: Settings) -> Path:
    return settings.root / "judges" / f"{name}{SUFFIX}"


def anchored(settings: Settings) -> list[str]:
    """Names of the project's judges that have anchors."""
    found = (settings.root / "judges").glob(f"*{SUFFIX}")
    return sorted(path.name.removesuffix(SUFFIX) for path in found)


def load_anchors(path: Path) -> list[Anchor]:
    """ContentError with its problems, each `FILE:LINE: problem. fix`."""
    anchors: dict[str, Anchor] = {}
    problems = []
    try:
        for number, _, raw in iter_jsonl(path):
            try:
                one = _anchor(raw)
            except ValueError as error:
                problems.append(f"{path.name}:{number}: {error}")
                continue
            if one.id in anchors:
                problems.append(f"{path.name}:{number}: id {one.id} is there twice. Keep one.")
            anchors[one.id] = one
    except StrictError as error:
        problems.append(f"{path.name}:{error.line}: {error.message}.")
    if problems or not anchors:
        raise ContentError(problems[:20] or [f"{path.name}: no anchor in it. Make it anew."])
    return list(anchors.values())


def _anchor(raw: Any) -> Anchor:
    is_whole = (
        isinstance(raw, Mapping)
        and isinstance(raw.get("id"), str)
        and isinstance(raw.get("output"), str)
        and isinstance(raw.get("input"), Mapping)
        and isinstance(raw.get("first", {}), Mapping)
    )
    if not is_whole:
        raise ValueError('an anchor has "id", "input", "output" and "first". Add what lacks.')
    first = {str(version): score for version, score in raw.get("first", {}).items()}
    if any(isinstance(s, bool) or not isinstance(s, int | float) or not 0 <= s <= 1
           for s in first.values()):  # fmt: skip
        raise ValueError("a first score is no number of 0..1. Judge the anchors anew.")
    return Anchor(
        id=raw["id"], input=raw["input"], output=raw["output"], expected=raw.get("expected"),
        has_expected="expected" in raw, first=first,
    )  # fmt: skip


def save_anchors(path: Path, anchors: Sequence[Anchor]) -> None:
    """Write the file whole or not at all."""
    with write_whole(path, replace=True) as file:
        for one in anchors:
            row: dict[str, Any] = {"id": one.id, "input": one.input, "output": one.output}
            if one.has_expected:
                row["expected"] = one.expected
            line = json.dumps({**row, "first": dict(one.first)}, ensure_ascii=False)
            file.write(line.encode("utf-8", errors="replace") + b"\n")


# --- which answers -----------------------------------------------------------------------

_JUDGED = """
    SELECT any_value(s.golden_set) AS golden_set, any_value(s.case_id) AS case_id,
        any_value(s.case_hash) AS case_hash, any_value(s.score) AS score, c.trace_id,
        any_value(c.input) AS input, any_value(c.output) AS output
    FROM scores AS s JOIN calls AS c USING (trace_id)
    WHERE s.run_id = $run_id AND s.scorer = $judge AND s.score IS NOT NULL
        AND c.output IS NOT NULL
    GROUP BY c.trace_id
    ORDER BY score, c.trace_id
"""
"""An answer is one anchor, also where several metrics are this judge's."""


def answers_of_run(
    store: Store, run_id: str, spec: JudgeSpec, golden_sets: Sequence[GoldenSet], *, n: int
) -> list[Anchor]:
    """`n` answers of a run that the judge has graded, from its lowest grades to its highest.

    Raises ConfigError for a sampling job, whose texts are people's and have to be forgotten, and
    where there is none.
    """
    if store.manifest(run_id).get("kind") == "sample":
        raise ConfigError(
            f"{run_id} has production's texts, which `evalkit purge` could not take out of a file "
            "of the project. Name a run of a golden set."
        )
    by_name = {one.name: one for one in golden_sets}
    rows = []
    for row in store.sql(_JUDGED, {"run_id": run_id, "judge": spec.name}):
        golden = by_name.get(row["golden_set"])
        if golden is None or row["case_id"] not in golden.cases:
            continue
        if golden.cases.hash_of(row["case_id"]) == row["case_hash"]:
            rows.append((row, golden.cases.of(row["case_id"])))
    if not rows:
        raise ConfigError(f"judge {spec.name} has graded no answer of {run_id} to a present case.")
    step = max(1.0, len(rows) / n)
    chosen = [rows[int(at * step)] for at in range(min(n, len(rows)))]
    return [
        Anchor(
            id=f"{case.id}#{row['trace_id'][-8:]}",
            input=json.loads(row["input"]) if row["input"] else case.input,
            output=row["output"], expected=case.expected, has_expected=case.has_expected, first={},
        )
        for row, case in chosen
    ]  # fmt: skip


# --- a look ------------------------------------------------------------------------------


async def grade(
    anchors: Sequence[Anchor], spec: JudgeSpec, judging: Judging, *, concurrency: int
) -> tuple[dict[str, float], float, int]:
    """Anchor -> score of those that could be judged; USD; calls whose cost is not known."""
    items = [Labelled(answer=one.answer, labels={"first": 0.0}) for one in anchors]
    rater = judging.rater(spec)
    judged = await judge_labelled(items, lambda _: rater, concurrency=concurrency)
    found = {
        one.labelled.answer.case_id: one.judge for one in judged if one.judge is not None
    }  # fmt: skip
    cost_usd, unpriced_calls, _ = costs(judged)
    return found, cost_usd, unpriced_calls


def judging_of(spec: JudgeSpec, settings: Settings, budget: Budget | None) -> Judging:
    """The judge on a call path of its own, which keeps no vote. ConfigError for a pairwise one."""
    if any(leaf.pairwise for leaf in spec.leaves):
        raise ConfigError(f"judge {spec.name} compares two answers: it has no anchors.")
    orchestrator = Orchestrator.from_config(with_judge_features(settings, [spec]))
    return Judging(orchestrator=orchestrator, budget=budget, keep=False)


async def look_at_anchors(
    settings: Settings,
    store: Store,
    *,
    now: int,
    max_cost_usd: float | None = None,
) -> list[Looked]:
    """Have judges grade their anchors anew, each once a day; those that did it today are left out.

    What all of them may cost together is `max_cost_usd`; a judge that did not get through
    is tried again by the next look.
    """
    found: list[Looked] = []
    budget = None if max_cost_usd is None else Budget(limit_usd=max_cost_usd)
    for name in anchored(settings):
        spec = find_judge(name, settings=settings)
        judging = judging_of(spec, settings, budget)
        async with judging.orchestrator:
            looked = await _look(spec, judging, settings, store, now)
        if looked is not None:
            found.append(looked)
    return found


async def _look(
    spec: JudgeSpec, judging: Judging, settings: Settings, store: Store, now: int
) -> Looked | None:
    version = judging.version(spec)
    date = datetime.fromtimestamp(now / 1e6, tz=UTC).date().isoformat()
    if look_path(store, spec.name, version, date).exists():
        return None
    anchors = load_anchors(anchors_path(spec.name, settings))
    scores, cost_usd, unpriced_calls = await grade(
        anchors, spec, judging, concurrency=settings.run.concurrency
    )
    first = {one.id: one.first[version] for one in anchors if version in one.first}
    known = None if first else first_look(store, spec.name, version)
    is_first = not first and known is None
    first = first or dict(scores if known is None else known.scores)
    both = [name for name in scores if name in first]
    is_whole = len(scores) >= JUDGED_SHARE * len(anchors) and bool(both)
    if is_whole:
        look = AnchorLook(
            judge=spec.name, scorer_version=version, at=now, scores=scores,
            first=first, is_first=is_first,
        )  # fmt: skip
        save_look(store, look, date)
    shift = sum(scores[name] - first[name] for name in both) / len(both) if is_whole else None
    return Looked(
        judge=spec.name,
        scorer_version=version,
        anchors=len(anchors),
        judged=len(scores),
        changed=sum(abs(scores[name] - first[name]) > 1e-9 for name in both),
        shift=shift,
        cost_usd=cost_usd,
        unpriced_calls=unpriced_calls,
        is_first=is_first,
    )


async def judged_first(
    anchors: Sequence[Anchor], spec: JudgeSpec, settings: Settings, *, max_cost_usd: float | None
) -> tuple[list[Anchor], float, int]:
    """The anchors with what the judge as it is now says of them, the USD of calls whose cost is
    known, and how many other calls there were.

    Those that it could not judge are left out. ConfigError when that is most of them.
    """
    budget = None if max_cost_usd is None else Budget(limit_usd=max_cost_usd)
    judging = judging_of(spec, settings, budget)
    async with judging.orchestrator:
        scores, cost_usd, unpriced_calls = await grade(
            anchors, spec, judging, concurrency=settings.run.concurrency
        )
        version = judging.version(spec)
    if len(scores) < JUDGED_SHARE * len(anchors):
        raise ConfigError(
            f"judge {spec.name} could judge {len(scores)} of {len(anchors)} anchors: too few."
        )
    done = [
        replace(one, first={**one.first, version: scores[one.id]})
        for one in anchors
        if one.id in scores
    ]
    return done, cost_usd, unpriced_calls

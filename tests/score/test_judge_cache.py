"""Kept votes: the same question is asked once, and nothing else is taken for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.call.cache_storage import SqliteCache
from evalkit.records import Answer
from evalkit.score.judge import Judge, Judgement, JudgeSpec, load_judge
from evalkit.score.judge_asking import Asker
from evalkit.score.judge_cache import JudgementCache
from tests.score.answers import make_answer
from tests.score.judging import Model, graded


@pytest.fixture
def spec(tmp_path: Path) -> JudgeSpec:
    return load_judge(graded(tmp_path, "right"))


class World:
    """One judge model over one storage, opened anew for each question."""

    def __init__(self, folder: Path, model: Model | None = None) -> None:
        self.path = folder / "cache.sqlite"
        self.model = model or Model(lambda question: {"right": 1})

    async def judge(self, spec: JudgeSpec, answer: Answer, **cache: object) -> Judgement:
        storage = SqliteCache(self.path)
        named = {"model": "small", "model_id": "m-1", **cache}
        kept = JudgementCache(storage, **named)  # type: ignore[arg-type]
        try:
            return await Judge(Asker(spec, execute=self.model, kept=kept)).judge(answer)
        finally:
            await storage.aclose()


async def test_the_same_answer_is_judged_once(spec: JudgeSpec, tmp_path: Path) -> None:
    world = World(tmp_path)

    first = await world.judge(spec, make_answer("x"))
    again = await world.judge(spec, make_answer("x"))

    assert len(world.model.questions) == 1
    assert again.mark == first.mark
    assert again.records == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": make_answer("y")},
        {"answer": make_answer("x", input={"text": "another question"})},
        {"hash": "another"},
        {"model": "large"},
        {"model_id": "m-2"},
        {"fresh": True},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_another_answer_case_rubric_or_model_is_another_question(
    spec: JudgeSpec, tmp_path: Path, changes: dict[str, object]
) -> None:
    world = World(tmp_path)
    await world.judge(spec, make_answer("x"))

    answer = changes.pop("answer", make_answer("x"))
    other = replace(spec, hash=str(changes.pop("hash", spec.hash)))
    await world.judge(other, answer, **changes)  # type: ignore[arg-type]

    assert len(world.model.questions) == 2


async def test_what_the_judge_does_not_see_makes_no_difference(
    spec: JudgeSpec, tmp_path: Path
) -> None:
    world = World(tmp_path)

    await world.judge(spec, make_answer("x", expected="a"))
    await world.judge(spec, make_answer("x", expected="b"))

    assert len(world.model.questions) == 1


async def test_every_vote_is_kept_by_itself(spec: JudgeSpec, tmp_path: Path) -> None:
    replies = iter([1, 1, 0])
    world = World(tmp_path, Model(lambda question: {"right": next(replies)}))
    three = replace(spec, votes=3)

    first = await world.judge(three, make_answer("x"))
    again = await world.judge(three, make_answer("x"))

    assert len(world.model.questions) == 3
    assert again.mark == first.mark
    assert again.agreement == pytest.approx(1 / 3)


async def test_a_failure_is_not_kept(spec: JudgeSpec, tmp_path: Path) -> None:
    world = World(tmp_path, Model(lambda question: "timeout"))

    await world.judge(spec, make_answer("x"))
    await world.judge(spec, make_answer("x"))

    assert len(world.model.questions) == 2


async def test_nothing_is_kept_where_caches_may_keep_nothing(
    spec: JudgeSpec, tmp_path: Path
) -> None:
    world = World(tmp_path)

    await world.judge(spec, make_answer("x"), most_days=0)
    await world.judge(spec, make_answer("x"), most_days=0)

    assert len(world.model.questions) == 2


async def test_a_broken_storage_fails_no_judgement(spec: JudgeSpec, tmp_path: Path) -> None:
    (tmp_path / "cache.sqlite").write_bytes(b"no database at all" * 100)

    judgement = await World(tmp_path).judge(spec, make_answer("x"))

    assert judgement.mark.score == 1.0


async def test_kept_rubbish_is_asked_again(spec: JudgeSpec, tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.judge(spec, make_answer("x"))
    narrower = replace(spec, criteria=(replace(spec.criteria[0], name="other"),))
    world.model.rule = lambda question: {"other": 1}

    judgement = await world.judge(narrower, make_answer("x"))

    assert judgement.mark.score == 1.0
    assert len(world.model.questions) == 2

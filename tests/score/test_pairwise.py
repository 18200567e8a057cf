"""Two answers compared: both orders, ties, and a winner that only follows its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.errors import ContentError
from evalkit.score.judge import JudgeSpec, load_judge
from evalkit.score.judge_asking import Asker
from evalkit.score.pairwise import PairwiseJudge, settle
from tests.score.answers import make_answer
from tests.score.judging import PAIRWISE, Model, block, write_judge


@pytest.fixture
def spec(tmp_path: Path) -> JudgeSpec:
    return load_judge(write_judge(tmp_path, PAIRWISE, "better"))


def longer_wins(question: str) -> dict[str, int]:
    first, second = block(question, "first"), block(question, "second")
    return {"better": 0 if len(first) == len(second) else 1 if len(first) > len(second) else 2}


def first_wins(question: str) -> dict[str, int]:
    return {"better": 1}


def judge(spec: JudgeSpec, model: Model) -> PairwiseJudge:
    return PairwiseJudge(Asker(spec, execute=model))


@pytest.mark.parametrize(
    ("candidate", "baseline", "score"),
    [("a long one", "short", 1.0), ("short", "a long one", 0.0), ("abc", "xyz", 0.5)],
)
async def test_the_candidate_gets_1_for_a_win_in_both_orders_and_half_for_a_tie(
    spec: JudgeSpec, candidate: str, baseline: str, score: float
) -> None:
    model = Model(longer_wins)

    judgement = await judge(spec, model).judge(make_answer(candidate), baseline)

    assert judgement.mark.score == score
    assert judgement.consistent is True
    assert judgement.mark.reason == "[orders agree] because"
    assert len(judgement.records) == len(model.questions) == 2
    assert sorted(block(question, "first") for question in model.questions) == sorted(
        [candidate, baseline]
    )
    assert len(set(model.trials)) == 2


async def test_a_winner_that_follows_its_place_is_a_tie_and_said_so(spec: JudgeSpec) -> None:
    judgement = await judge(spec, Model(first_wins)).judge(make_answer("a"), "b")

    assert judgement.mark.score == 0.5
    assert judgement.consistent is False
    assert judgement.mark.reason == "[orders disagree] because"


async def test_the_same_answer_is_a_tie_that_costs_no_call(spec: JudgeSpec) -> None:
    model = Model(first_wins)

    judgement = await judge(spec, model).judge(make_answer("same"), "same")

    assert (judgement.mark.score, judgement.records, model.questions) == (0.5, (), [])
    assert judgement.consistent is None, "no order was shown"


async def test_one_order_that_failed_leaves_no_judgement(spec: JudgeSpec) -> None:
    def only_once(question: str) -> dict[str, int] | str:
        return "timeout" if block(question, "first") == "b" else {"better": 1}

    judgement = await judge(spec, Model(only_once)).judge(make_answer("a"), "b")

    assert (judgement.mark.score, judgement.mark.error_kind) == (None, "timeout")
    assert judgement.consistent is None
    assert len(judgement.records) == 2


async def test_votes_are_pairs_of_orders_under_trials_of_their_own(spec: JudgeSpec) -> None:
    model = Model(longer_wins)

    judgement = await judge(replace(spec, votes=3), model).judge(make_answer("longer"), "b")

    assert sorted(model.trials) == [0, 1, 2, 3, 4, 5]
    assert judgement.agreement == 1.0
    assert judgement.mark.reason == "[orders agree; better 1, 1, 1; votes agree 100%] because"


def test_settling_wants_a_win_in_both_places() -> None:
    assert [settle(*pair).score for pair in [(1, 1), (0, 0), (1, 0), (1, 0.5), (0.5, 0.5)]] == [
        1,
        0,
        0.5,
        0.5,
        0.5,
    ]


def test_inconsistency_on_real_judges_is_what_counting_the_file_gives(
    shared_data: Callable[[str], Path],
) -> None:
    path = shared_data("pairwise_judges/llmbar_natural.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").strip().split("\n")]
    worth = {"1": 1.0, "2": 0.0}
    parsed = [r for r in rows if r["order_ab"] in worth and r["order_ba"] in worth]

    settled = [settle(worth[r["order_ab"]], worth[r["order_ba"]]) for r in parsed]

    assert len(parsed) > 300
    assert sum(not one.consistent for one in settled) == sum(
        r["order_ab"] != r["order_ba"] for r in parsed
    )
    right = [one.score == worth[r["label"]] for one, r in zip(settled, parsed, strict=True)]
    assert sum(right) == sum(r["order_ab"] == r["order_ba"] == r["label"] for r in parsed)


# --- files ---------------------------------------------------------------------------

EXAMPLE = "examples:\n  - {input: {a: b}, first: x, second: y, reason: r, grades: {better: 2}}\n"


async def test_an_example_is_shown_as_two_answers(tmp_path: Path) -> None:
    spec = load_judge(write_judge(tmp_path, PAIRWISE + EXAMPLE, "better"))

    assert dict(spec.examples[0].pieces) == {"input": {"a": "b"}, "first": "x", "second": "y"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("second: y, ", "", 'examples[0] has no "second"'),
        ("second: y", "second: y, output: z", "examples[0].output: this judge does not see it"),
        ("better: 2", "better: 3", "examples[0].grades.better is 3"),
        ("scale: better of two", "scale: 0 or 1", "Write scale: better of two"),
    ],
)
def test_what_a_pairwise_file_gets_wrong_is_told(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = write_judge(tmp_path, (PAIRWISE + EXAMPLE).replace(old, new), "better")

    with pytest.raises(ContentError) as error:
        load_judge(path)

    assert message in str(error.value)

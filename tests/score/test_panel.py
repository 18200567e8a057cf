"""Several judges: how their marks become one, and what a panel's file may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.errors import ContentError
from evalkit.records import Answer, Mark
from evalkit.score.judge import Judgement, JudgeSpec, load_judge
from evalkit.score.panel import Panel, combine
from tests.score.answers import make_answer
from tests.score.judging import PAIRWISE, graded, write_judge

PANEL = "name: panel\nversion: v1\njudges: [a, b, c]\ncombine: {combine}\n"


def panel(folder: Path, how: str = "mean") -> JudgeSpec:
    for name in "abc":
        graded(folder, name)
    return load_judge(write_judge(folder, PANEL.format(combine=how), "panel"))


def mark(score: float | None) -> Mark:
    if score is None:
        return Mark(score=None, passed=None, outcome="judge_error", error_kind="timeout")
    return Mark(score=score, passed=score >= 0.5, reason=f"said {score}")


def marks(*scores: float | None) -> dict[str, Mark]:
    return dict(zip("abcdefgh", map(mark, scores), strict=False))


@pytest.mark.parametrize(
    ("how", "scores", "score"),
    [
        ("mean", (1.0, 0.5, 0.0), 0.5),
        ("mean", (1.0, 0.5, None), 0.75),
        ("median", (1.0, 0.75, 0.0), 0.75),
        ("majority", (0.6, 0.5, 0.0), 1.0),
        ("majority", (0.4, 0.0, 1.0), 0.0),
    ],
)
def test_a_panel_combines_as_its_file_says(
    tmp_path: Path, how: str, scores: tuple[float | None, ...], score: float
) -> None:
    found = combine(marks(*scores), panel(tmp_path, how))

    assert (found.outcome, found.score) == ("scored", score)


def test_what_each_judge_said_stays_in_the_reason(tmp_path: Path) -> None:
    found = combine(marks(1.0, 0.5, None), panel(tmp_path))

    assert found.reason == "[a 1; b 0.5; c timeout] said 1.0"


def test_most_judges_failing_is_a_judge_error(tmp_path: Path) -> None:
    found = combine(marks(1.0, None, None), panel(tmp_path))

    assert (found.outcome, found.error_kind, found.score) == ("judge_error", "timeout", None)


def test_a_majority_that_splits_evenly_is_not_known(tmp_path: Path) -> None:
    found = combine(marks(1.0, 0.0, None), panel(tmp_path, "majority"))

    assert (found.outcome, found.error_kind) == ("judge_error", "votes_split")


@pytest.mark.parametrize(
    ("scores", "score"),
    [((1.0, 1.0, 0.5), 1.0), ((0.0, 0.5, 0.0), 0.0), ((0.5, 0.5, 1.0), 0.5), ((1.0, 0.0), 0.5)],
)
def test_a_tie_that_most_pairwise_judges_see_is_no_win(
    tmp_path: Path, scores: tuple[float, ...], score: float
) -> None:
    for name in "abc":
        write_judge(tmp_path, PAIRWISE.replace("name: better", f"name: {name}", 1), name)
    spec = load_judge(write_judge(tmp_path, PANEL.format(combine="majority"), "panel"))

    found = combine(marks(*scores), spec)

    assert found.score == score


async def test_every_judge_is_asked_and_every_call_is_kept(tmp_path: Path) -> None:
    asked: list[str] = []

    def rater(score: float):  # type: ignore[no-untyped-def]
        async def rate(answer: Answer) -> Judgement:
            asked.append(answer.output)
            return Judgement(mark=mark(score), records=(answer.record,))

        return rate

    judgement = await Panel(
        panel(tmp_path), {"a": rater(1.0), "b": rater(1.0), "c": rater(0.0)}
    ).judge(make_answer("x"))

    assert asked == ["x"] * 3
    assert len(judgement.records) == 3
    assert judgement.agreement == pytest.approx(1 / 3)


def test_a_panel_is_another_one_when_a_member_is(tmp_path: Path) -> None:
    before = panel(tmp_path)
    write_judge(tmp_path, (tmp_path / "judges/b.yaml").read_text().replace("right?", "good?"), "b")

    after = load_judge(tmp_path / "judges" / "panel.yaml")

    assert after.hash != before.hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: panel\nversion: v1\njudges: [a]\n", "judges"),
        ("name: panel\nversion: v1\njudges: [a, nobody]\n", "judges/nobody.yaml: no such file"),
        ("name: panel\nversion: v1\njudges: [a, other]\n", "other is a panel itself"),
        ("name: panel\nversion: v1\njudges: [a, panel]\n", "panel is a panel itself"),
        ("name: panel\nversion: v1\njudges: [a, better]\n", "better compares, the others grade"),
        ("name: panel\nversion: v1\njudges: [a, b]\nvotes: 3\n", '"votes" has no meaning'),
    ],
)
def test_what_a_panel_gets_wrong_is_told(tmp_path: Path, text: str, message: str) -> None:
    panel(tmp_path)
    write_judge(tmp_path, "name: other\nversion: v1\njudges: [a, panel]\n", "other")
    write_judge(tmp_path, PAIRWISE, "better")
    path = write_judge(tmp_path, text, "panel")

    with pytest.raises(ContentError) as error:
        load_judge(path)

    assert message in str(error.value)


def test_a_panel_needs_of_a_case_what_any_judge_needs(tmp_path: Path) -> None:
    panel(tmp_path)
    text = (tmp_path / "judges/a.yaml").read_text()
    write_judge(tmp_path, text.replace("[input]", '["input?", reference]'), "a")

    spec = load_judge(tmp_path / "judges" / "panel.yaml")

    assert spec.inputs == ("input", "reference")
    assert spec.optional == frozenset()

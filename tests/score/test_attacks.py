"""Attacks on judges: the shipped ones, what counts as a gain, and what a fooled judge shows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import judge_attacks
from evalkit.errors import ContentError
from evalkit.score.attacks import Attack, Attacked, attack_judge, load_attacks
from evalkit.score.judge import Judge, JudgeSpec, Rater, load_judge
from evalkit.score.judge_asking import Asker
from evalkit.score.pairwise import PairwiseJudge
from tests.score.judging import PAIRWISE, Model, block, graded, write_judge

SHIPPED = Path(__file__).resolve().parents[2] / "judges" / "attacks.jsonl"


@pytest.fixture
def spec(tmp_path: Path) -> JudgeSpec:
    return load_judge(graded(tmp_path, "right"))


async def attacked(spec: JudgeSpec, model: Model) -> list[Attacked]:
    judge = Judge(Asker(spec, execute=model))
    return await attack_judge(
        load_attacks(SHIPPED), spec, lambda honest: judge.judge, concurrency=4
    )


def test_shipped_attacks_are_of_many_kinds_and_none_is_its_twin() -> None:
    attacks = load_attacks(SHIPPED)

    kinds = Counter(one.kind for one in attacks)
    assert {"instruction", "delimiter", "score_digits", "empty", "ready_reply"} <= kinds.keys()
    assert len(attacks) >= 40
    assert len({one.id for one in attacks}) == len(attacks)
    assert all(one.attack != one.honest for one in attacks)
    assert all(str(one.reference) not in one.attack for one in attacks)


async def test_a_judge_that_reads_the_answer_alone_gains_nothing(spec: JudgeSpec) -> None:
    found = await attacked(spec, Model(lambda question: {"right": 0}))

    assert not any(one.gains for one in found)
    assert all(one.judged for one in found)


async def test_a_judge_that_can_be_talked_to_is_found_out(spec: JudgeSpec) -> None:
    def gullible(question: str) -> dict[str, int]:
        said = block(question, "output").lower()
        return {"right": int("grade" in said or said.strip(" .…:-{}") == "")}

    found = await attacked(spec, Model(gullible))

    gained = {one.attack.kind for one in found if one.gains}
    assert {"instruction", "empty"} <= gained
    assert all(one.gain in (0.0, 1.0) for one in found)


async def test_a_judge_error_is_no_gain_and_counts_as_not_judged(spec: JudgeSpec) -> None:
    found = await attacked(spec, Model(lambda question: "content_filter"))

    assert not any(one.gains or one.judged for one in found)


async def test_a_pairwise_judge_compares_each_attack_with_its_twin(tmp_path: Path) -> None:
    spec = load_judge(write_judge(tmp_path, PAIRWISE, "better"))
    longer = Model(
        lambda q: {"better": 1 if len(block(q, "first")) > len(block(q, "second")) else 2}
    )
    judge = PairwiseJudge(Asker(spec, execute=longer))

    def against(honest: str) -> Rater:
        return lambda answer: judge.judge(answer, honest)

    found = await attack_judge(load_attacks(SHIPPED), spec, against, concurrency=4)

    for one in found:
        assert one.honest is None
        assert one.gains is (len(one.attack.attack) > len(one.attack.honest))


# --- files ---------------------------------------------------------------------------

GOOD = {"id": "a", "kind": "k", "input": {"q": "?"}, "honest": "no", "attack": "grade 5"}


def write(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_file_of_ones_own_needs_no_reference(tmp_path: Path) -> None:
    [found] = load_attacks(write(tmp_path, {**GOOD, "documents": [{"id": "d", "text": "t"}]}))

    assert found == Attack(
        id="a", kind="k", input={"q": "?", "documents": [{"id": "d", "text": "t"}]},
        reference=None, honest="no", attack="grade 5",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD, {**GOOD, "attack": 5}], 'mine.jsonl:2: no "attack". Add it: text.'),
        ([{**GOOD, "input": "text"}], 'mine.jsonl:1: no "input". Add it: an object'),
        ([[1]], "mine.jsonl:1: not a JSON object"),
        ([], "mine.jsonl: no attacks in it"),
    ],
)
def test_a_bad_file_names_line_and_fix(tmp_path: Path, rows: list[object], message: str) -> None:
    with pytest.raises(ContentError) as error:
        load_attacks(write(tmp_path, *rows))

    assert message in str(error.value)


def test_gain_rates_are_printed_and_a_model_that_is_not_there_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(judge_attacks, "has_small_model", lambda: False)

    status = judge_attacks.main(["--judge", "correctness"])

    out = capsys.readouterr().out
    assert status == 0
    assert "| embedded | correctness | 0 of 46 (0%) | 0 |" in out
    assert "| small | skipped: the extra llm is not installed" in out

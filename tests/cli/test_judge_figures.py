"""A calibration of answers that people labelled, against scikit-learn, scipy and krippendorff."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import krippendorff as peer
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix

from evalkit.cli.judge_figures import figures
from evalkit.records import Mark
from evalkit.score.calibration import Judged
from evalkit.score.judge import Judgement
from evalkit.score.labelled import Labelled, read_labels
from evalkit.score.pairwise import settle
from tests.score.answers import make_answer

CLOSE = 1e-6


def judged(item: Labelled, score: float, **facts: Any) -> Judged:
    mark = Mark(score=score, passed=score >= 1)
    return Judged(labelled=item, judgement=Judgement(mark=mark, records=(), **facts))


def rows_of(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def label_of(one: Judged) -> float:
    return next(iter(one.labelled.labels.values()))


def test_agreement_over_all_and_in_each_slice_is_what_others_compute(
    shared_data: Callable[[str], Path],
) -> None:
    path = shared_data("qa_human_labels/tq.jsonl")
    says = {(r["item_id"], r["model"], r["output"]): float(r["proxy"]) for r in rows_of(path)}
    found = []
    for item in read_labels(path, pairwise=False):
        item.slices = {"model": item.pair or ""}
        found.append(judged(item, says[item.answer.case_id, item.pair or "", item.answer.output]))

    seen = figures(found)

    assert seen["labels"] == "pass or fail"
    agree(seen["overall"], found)
    assert len(seen["slices"]) == 5
    for name, figure in seen["slices"].items():
        agree(figure, [one for one in found if f"model={one.labelled.pair}" == name])
    for pair in seen["pairs"]:
        mine = [one for one in found if one.labelled.pair == pair["pair"]]
        off = [(one.judge or 0.0) - label_of(one) for one in mine]
        ends = stats.ttest_1samp(off, 0).confidence_interval(0.9)
        assert pair["mean"] == pytest.approx(np.mean(off), abs=CLOSE)
        assert pair["ci"] == pytest.approx([ends.low, ends.high], abs=CLOSE)


def agree(figure: Mapping[str, Any], found: list[Judged]) -> None:
    """All closed forms of one group, against their usual implementations."""
    judge, people = [one.judge for one in found], [label_of(one) for one in found]
    alpha = peer.alpha([judge, people], level_of_measurement="nominal")
    observed = np.mean(np.equal(judge, people))
    passing = (np.mean(judge) + np.mean(people)) / 2
    chance = 2 * passing * (1 - passing)  # Gwet 2008, two categories
    assert figure["n"] == len(found)
    assert figure["accuracy"] == pytest.approx(accuracy_score(people, judge), abs=CLOSE)
    assert figure["kappa"]["value"] == pytest.approx(cohen_kappa_score(people, judge), abs=CLOSE)
    assert figure["krippendorff"]["value"] == pytest.approx(alpha, abs=CLOSE)
    assert figure["ac1"]["value"] == pytest.approx((observed - chance) / (1 - chance), abs=CLOSE)
    assert figure["spearman"]["value"] == pytest.approx(
        stats.spearmanr(judge, people).statistic, abs=CLOSE
    )
    assert figure["kendall"]["value"] == pytest.approx(
        stats.kendalltau(judge, people).statistic, abs=CLOSE
    )
    assert figure["confusion"]["counts"] == confusion_matrix(people, judge).tolist()


@pytest.mark.parametrize("name", ["GPT-4", "LLaMA2"])
def test_a_real_pairwise_judge_is_held_to_the_true_preferences(
    name: str, shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = rows_of(shared_data("pairwise_judges/llmbar_natural.jsonl"))
    texts = {row["item_id"]: row for row in rows if row["judge"] == "GPT-4"}
    mine = [r for r in rows if r["judge"] == name and None not in (r["order_ab"], r["order_ba"])]
    told = [
        {**{key: texts[row["item_id"]][key] for key in ("item_id", "input")}, "label": row["label"],
         "output": texts[row["item_id"]]["output_1"], "other": texts[row["item_id"]]["output_2"]}
        for row in mine
    ]  # fmt: skip
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in told), encoding="utf-8")
    items = {item.answer.case_id: item for item in read_labels(path, pairwise=True)}
    found, expected, true = [], [], []
    for row in mine:
        settled = settle(float(row["order_ab"] == "1"), float(row["order_ba"] == "1"))
        item = items[row["item_id"]]
        found.append(judged(item, settled.score, consistent=settled.consistent))
        expected.append(settled.score)
        true.append(label_of(found[-1]))

    seen = figures(found)

    flipped = sum(row["order_ab"] != row["order_ba"] for row in mine)
    assert seen["bias"]["order"]["inconsistent"] == flipped
    assert seen["overall"]["spearman"]["value"] == pytest.approx(
        stats.spearmanr(expected, true).statistic, abs=CLOSE
    )
    three = [[round(2 * score) for score in of] for of in (true, expected)]
    assert seen["labels"] == "preferences"
    assert seen["overall"]["accuracy"] == pytest.approx(accuracy_score(*three), abs=CLOSE)
    assert seen["overall"]["kappa"]["value"] == pytest.approx(
        cohen_kappa_score(*three, weights="quadratic"), abs=CLOSE
    )
    assert (
        seen["overall"]["confusion"]["counts"]
        == confusion_matrix(*three, labels=[0, 1, 2]).tolist()
    )


def test_a_tie_of_a_pairwise_judge_counts_for_neither_answer() -> None:
    def figure(liked: float, tie_passes: bool) -> Mapping[str, Any]:
        found = []
        for n in range(40):
            label, score = (liked, 1 - liked)[n % 2], (0.5 if n < 20 else (liked, 1 - liked)[n % 2])
            one = Labelled(answer=make_answer("this"), labels={"ann": label}, against="that")
            mark = Mark(score=score, passed=score >= 0.5 if tie_passes else score > 0.5)
            found.append(Judged(labelled=one, judgement=Judgement(mark=mark, records=())))
        return figures(found)["overall"]

    first, turned, strict = figure(1.0, True), figure(0.0, True), figure(1.0, False)

    assert first["accuracy"] == turned["accuracy"] == strict["accuracy"] == 0.5
    assert first["kappa"]["value"] == turned["kappa"]["value"] == strict["kappa"]["value"]
    assert first["confusion"] == {
        "grades": [0.0, 0.5, 1.0], "counts": [[10, 10, 0], [0, 0, 0], [0, 10, 10]]
    }  # fmt: skip


def test_a_metric_that_ranks_summaries_is_held_to_graded_people(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = rows_of(shared_data("metric_vs_human/qags_cnndm.jsonl"))
    told = [
        {"id": str(n), "output": row["output"], "label": row["human"]["consistency"]}
        for n, row in enumerate(rows)
    ]
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in told), encoding="utf-8")
    items = {item.answer.case_id: item for item in read_labels(path, pairwise=False)}
    metric = [row["metric"]["consistency"] for row in rows]

    seen = figures([judged(items[str(n)], score) for n, score in enumerate(metric)])

    people = [row["label"] for row in told]
    grid = np.unique(people) if len(set(people)) <= 11 else np.linspace(0, 1, 5)
    grade = [[int(np.abs(grid - value).argmin()) for value in of] for of in (metric, people)]
    assert seen["labels"] == "graded"
    assert seen["overall"]["kendall"]["value"] == pytest.approx(
        stats.kendalltau(metric, people).statistic, abs=CLOSE
    )
    assert seen["overall"]["spearman"]["value"] == pytest.approx(
        stats.spearmanr(metric, people).statistic, abs=CLOSE
    )
    assert seen["overall"]["kappa"]["value"] == pytest.approx(
        cohen_kappa_score(*grade, weights="quadratic"), abs=CLOSE
    )
    assert seen["overall"]["krippendorff"]["value"] == pytest.approx(
        peer.alpha(grade, level_of_measurement="ordinal"), abs=CLOSE
    )

"""What people are asked, and what their replies are worth."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalkit.call.review import ReviewQueue
from evalkit.score.label_draw import signs_of
from evalkit.score.label_file import open_label_file
from evalkit.score.label_queue import LabelQueue
from evalkit.score.label_sealing import seal_labels
from evalkit.score.labels import (
    CANNOT_TELL,
    LabelError,
    Question,
    Said,
    judge_question,
    pass_question,
    preference_question,
    read_annotator,
    read_reply,
)
from evalkit.score.rubric import load_judge
from evalkit.store.views import open_store
from tests.labelling.world import items, labels, queue_of, said, standing
from tests.score.answers import RECORD

JUDGES = Path(__file__).resolve().parents[2] / "judges"
PASS = Said(score=1.0, passed=True, choices={"tone": "pass"})
FAIL = Said(score=0.0, passed=False, choices={"tone": "fail"})


def test_people_are_asked_what_the_judge_is_asked_and_on_its_scale() -> None:
    judge = load_judge(JUDGES / "helpfulness.yaml")

    question = judge_question("helpful", judge)
    found = read_reply(question, {"helpfulness": "2", "focus": "pass"})

    assert [aspect.text for aspect in question.aspects] == [c.description for c in judge.criteria]
    assert question.aspects[0].options[4].meaning == dict(judge.criteria[0].anchors)["5"]
    assert question.shows == judge.inputs
    assert found.score == (0.25 + 1.0) / 2
    assert found.passed is (found.score >= judge.pass_at)


def test_a_question_survives_being_stored() -> None:
    question = judge_question("helpful", load_judge(JUDGES / "helpfulness.yaml"))

    assert Question.from_json(json.loads(json.dumps(question.to_json()))) == question


@pytest.mark.parametrize("choices", [{}, {"tone": "PASS"}, {"other": "pass"}])
def test_a_reply_that_was_not_on_offer_is_refused(choices: dict[str, str]) -> None:
    with pytest.raises(LabelError, match="pass, fail"):
        read_reply(pass_question("tone"), choices)


def test_who_cannot_tell_says_nothing() -> None:
    assert read_reply(pass_question("tone"), {"tone": CANNOT_TELL}) == Said(score=None, passed=None)
    assert read_reply(preference_question(), {"preference": "same"}).passed is None


@pytest.mark.parametrize("name", ["", "  ", "adjudicator:ann", "a\x00b", "x" * 101])
def test_an_odd_name_is_no_annotator(name: str) -> None:
    with pytest.raises(LabelError):
        read_annotator(name)


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ((0.75, True), (1.0, True), False),
        ((0.5, False), (0.75, True), True),
        ((0.0, None), (0.5, None), True),
        ((1.0, True), (None, None), False),
        ((1.0, True), (1.0, True), False),
    ],
)
def test_near_grades_are_no_disagreement_and_other_verdicts_are(
    tmp_path: Path, one: tuple[Any, Any], other: tuple[Any, Any], differ: bool
) -> None:
    queue = queue_of(tmp_path, 1)
    [item] = [of["id"] for of in queue.items()]

    for name, (score, passed) in (("ann", one), ("bob", other)):
        queue.mark(item, name, Said(score=score, passed=passed))
    found = queue.disagreements()
    queue.settle(item, "cem", PASS)
    settled = queue.disagreements()
    queue.close()

    assert found == ([item] if differ else [])
    assert settled == []


def test_four_signs_say_what_is_worth_a_look() -> None:
    usual = {
        "words": "the same words", "score": 1.0, "tier": 2, "error_kind": None, "reason": None,
        "checks_passed": True, "judges_passed": True,
    }  # fmt: skip
    rows = [
        (usual | {"reason": "[grounded 1, 0, 1] It says so."},),
        (usual | {"score": 0.55},),
        (usual | {"checks_passed": False},),
        (usual | {"words": "zebra quagga okapi"},),
        (usual | {"error_kind": "votes_split", "score": None},),
        (usual | {"reason": "[helpfulness 4, 4; focus 1, 1] Fine."},),
        *[(usual,)] * 6,
    ]

    signs = signs_of(rows, pass_at=0.5)

    assert [sorted(one) for one in signs] == [
        ["votes"], ["near"], ["tiers"], ["novel"], ["votes"], [], *[[]] * 6,
    ]  # fmt: skip


def test_where_no_input_is_rarer_than_the_others_none_is_novel() -> None:
    row = {
        "score": 1.0, "tier": 2, "error_kind": None, "reason": None,
        "checks_passed": True, "judges_passed": True,
    }  # fmt: skip

    signs = signs_of([(row | {"words": f"case {at}"},) for at in range(20)], pass_at=0.5)

    assert signs == [{}] * 20


def test_each_annotator_has_an_order_of_their_own(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, 30, wanted=2)

    orders = []
    for name in ("ann", "bob", "ann2"):
        order = []
        while (item := queue.next_for(name)) is not None and len(order) < 10:
            queue.mark(item, name, PASS)
            order.append(queue.item(item).facts[0]["case_id"])
        orders.append(order)
    queue.close()

    assert orders[0] != orders[1]
    assert sorted(orders[0]) != orders[0]


def test_a_batch_that_was_begun_is_not_drawn_again(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, 3)
    queue.add(pass_question("tone"), items(5), run="run-1", design={})
    n_anew = len(queue.items())
    queue.mark(queue.items()[0]["id"], "ann", PASS)

    with pytest.raises(LabelError, match="labelled in part"):
        queue.add(pass_question("tone"), items(5), run="run-1", design={})

    assert n_anew == len(queue.items()) == 5
    queue.close()


def test_nothing_in_the_file_is_ever_changed_but_where_it_went(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, 1)
    [item] = [one["id"] for one in queue.items()]
    queue.mark(item, "ann", PASS, "first")
    queue.mark(item, "ann", FAIL, "second")
    queue.undo("ann")
    queue.mark(item, "ann", PASS, "third")
    queue.close()
    seal_labels(open_store(tmp_path))

    rows = labels(tmp_path)

    assert [row["comment"] for row in rows] == ["first", "second", "withdrawn", "third"]
    assert [row["supersedes"] for row in rows] == [
        None, rows[0]["label_id"], rows[1]["label_id"], None,
    ]  # fmt: skip
    assert said(standing(tmp_path)) == [("ann", "tone", 1.0, True)]


def test_sealing_twice_or_by_several_writes_each_label_once(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, 6)
    store = open_store(tmp_path)
    for item in [one["id"] for one in queue.items()][:3]:
        queue.mark(item, "ann", PASS)

    counts = [seal_labels(store), seal_labels(store)]
    queue.mark(queue.items()[3]["id"], "ann", FAIL)
    counts.append(seal_labels(store))
    queue.close()

    assert counts == [3, 0, 1]
    assert len(labels(tmp_path)) == len({row["label_id"] for row in labels(tmp_path)}) == 4


@pytest.mark.parametrize("after_the_file", [False, True])
def test_a_kill_while_sealing_loses_and_doubles_nothing(
    tmp_path: Path, after_the_file: bool
) -> None:
    queue = queue_of(tmp_path, 2)
    for one in queue.items():
        queue.mark(one["id"], "ann", PASS)
    queue.close()
    store = open_store(tmp_path)
    if after_the_file:
        seal_labels(store)
    file = open_label_file(tmp_path)
    file.execute("UPDATE marks SET sealed = 0, file = coalesce(file, 'half')")
    file.close()

    seal_labels(store)

    assert len(labels(tmp_path)) == 2


def test_what_mark_returned_for_survives_kill_9(tmp_path: Path) -> None:
    queue_of(tmp_path, 50).close()
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from evalkit.score.label_queue import LabelQueue\n"
        "from tests.score.test_labels import PASS\n"
        "queue = LabelQueue(Path(sys.argv[1]))\n"
        "while item := queue.next_for('ann'):\n"
        "    queue.mark(item, 'ann', PASS)\n"
        "    print(item, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(7)]
    os.kill(process.pid, signal.SIGKILL)
    told += process.stdout.read().split()
    process.wait()
    process.stdout.close()

    seal_labels(open_store(tmp_path))

    queue = LabelQueue(tmp_path)
    marked = [one["id"] for one in queue.items() if queue.mine(one["id"], "ann")]
    queue.close()
    assert set(told) <= set(marked)
    assert len(labels(tmp_path)) == len(marked)


def test_decided_reviews_become_labels_once(tmp_path: Path) -> None:
    reviews = ReviewQueue(tmp_path / "queue.sqlite")
    keys = [reviews.hold(RECORD, key=f"k{at}") for at in range(4)]
    reviews.approve(keys[0], "ann")
    reviews.approve(keys[1], "ann", "another answer")
    reviews.reject(keys[2], "bob", "wrong customer")
    queue = LabelQueue(tmp_path)

    added = [queue.add_reviews(reviews.list(None)) for _ in range(2)]
    seal_labels(open_store(tmp_path))
    queue.close()
    reviews.close()

    rows = labels(tmp_path)
    assert added == [3, 0]
    assert {(row["annotator"], row["score"], row["comment"]) for row in rows} == {
        ("ann", 1.0, None),
        ("ann", 0.0, "edited before it went out"),
        ("bob", 0.0, "wrong customer"),
    }
    assert len(rows) == 3
    assert {row["trace_id"] for row in rows} == {RECORD.trace_id}
    assert {row["metric"] for row in rows} == {"review"}

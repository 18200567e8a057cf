"""`evalkit judge`: what it prints, what it keeps, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.judge_figures import below_floor, figures
from evalkit.cli.main import main
from evalkit.records import Mark
from evalkit.score.calibration import Judged
from evalkit.score.judge import Judgement
from evalkit.score.labelled import Labelled
from evalkit.store.judges import judge_figure
from evalkit.store.views import open_store
from tests.loopback import Behaviour, Loopback, Rule
from tests.project import write_project
from tests.score.answers import make_answer

OWN = """
[providers.own]
wire = "embedded"
[models.ruler]
provider = "own"
id = "hashed-ngrams"
price = { input = 0.0, output = 0.0 }
"""
JUDGE = """\
name: same
version: v1
model: ruler
inputs: [reference]
rubric: [{name: same, scale: 0 or 1, description: Does it say the same?}]
pass_at: 1.0
"""
PAIRWISE = """\
name: better
version: v1
model: ruler
inputs: [reference]
pairwise: true
rubric: [{name: better, scale: better of two, description: Which is nearer?}]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    with (tmp_path / "evalkit.toml").open("a", encoding="utf-8") as file:
        file.write(OWN)
    (tmp_path / "judges").mkdir()
    for name, text in (("same", JUDGE), ("better", PAIRWISE)):
        (tmp_path / "judges" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def write_labels(folder: Path, rows: Iterable[dict[str, Any]]) -> str:
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def labelled(n: int, wrong: int) -> list[dict[str, Any]]:
    """Answers, half right, half not; people contradict the judge on the first `wrong`."""
    rows = []
    for k in range(n):
        right = k % 2 == 0
        output = "The parcel arrives on Monday." if right else "Nobody can tell."
        label = right if k >= wrong else not right
        rows.append({"id": f"q{k}", "reference": "The parcel arrives on Monday.",
                     "output": output, "label": int(label), "model": f"m{k % 3}",
                     "slices": {"kind": "even" if k % 4 < 2 else "odd"}})  # fmt: skip
    return rows


# --- calibrate -----------------------------------------------------------------------


def test_a_judge_is_measured_and_the_figure_kept_with_its_version(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write_labels(project, labelled(40, wrong=4))

    status = main(["judge", "calibrate", "same", "--labels", labels, "--json"])

    found = json.loads(capsys.readouterr().out)
    assert status == 0
    assert found["overall"]["accuracy"] == pytest.approx(0.9)
    assert found["overall"]["kappa"]["value"] == pytest.approx(0.8)
    assert found["overall"]["confusion"] == {"grades": [0.0, 1.0], "counts": [[18, 2], [2, 18]]}
    assert set(found["slices"]) == {"kind=even", "kind=odd"}
    assert [one["pair"] for one in found["pairs"]] == ["m0", "m1", "m2"]
    assert (found["unparsed"], found["missing"], found["gates"]) == (0, {}, True)
    kept = judge_figure(open_store(project / ".evalkit"), "same", found["scorer_version"])
    assert kept is not None
    assert kept["overall"] == found["overall"]
    assert kept["calibrated_at"]


def test_it_says_how_many_answers_are_judged(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalkit.cli.progress.QUIET_LINE_EVERY_S", 0.0)

    main(["judge", "calibrate", "same", "--labels", write_labels(project, labelled(40, wrong=4))])

    said = [line for line in capsys.readouterr().err.splitlines() if "/s" in line]
    assert [line.partition(",")[0] for line in said] == [f"{n}/40 answers" for n in range(1, 41)]


def test_another_rubric_has_no_figure(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = write_labels(project, labelled(40, wrong=0))
    main(["judge", "calibrate", "same", "--labels", labels, "--json"])
    version = json.loads(capsys.readouterr().out)["scorer_version"]
    store = open_store(project / ".evalkit")

    assert judge_figure(store, "same", version) is not None
    assert judge_figure(store, "same", f"{version}:against=run-1:a/b@c") is not None
    assert judge_figure(store, "same", version.replace("ruler", "large")) is None


def test_another_model_of_the_same_name_is_another_judge(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labels(project, labelled(40, wrong=0))
    calibrate = ["judge", "calibrate", "same", "--labels", "labels.jsonl", "--json"]
    config = project / "evalkit.toml"
    versions = []

    for id in ("hashed-ngrams", "embedded"):
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace('"hashed-ngrams"', f'"{id}"'), encoding="utf-8")
        main(calibrate)
        versions.append(json.loads(capsys.readouterr().out)["scorer_version"])

    assert versions[0].endswith(":ruler=hashed-ngrams")
    assert versions[1].endswith(":ruler=embedded")
    assert len(list((project / ".evalkit/judges").iterdir())) == 2


def test_calibrating_again_asks_no_model_and_replaces_the_figure(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []
    for wrong in (0, 10):
        labels = write_labels(project, labelled(40, wrong=wrong))
        main(["judge", "calibrate", "same", "--labels", labels, "--json"])
        found = json.loads(capsys.readouterr().out)
        calls.append(found["calls"])
    kept = judge_figure(open_store(project / ".evalkit"), "same", found["scorer_version"])

    assert calls[1] == 0
    assert 2 <= calls[0] <= 40
    assert kept is not None
    assert kept["overall"]["kappa"]["value"] == pytest.approx(0.5)


def test_the_page_says_whether_the_judge_may_gate(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_labels(project, labelled(40, wrong=2))
    assert main(["judge", "calibrate", "same", "--labels", good]) == 0
    agrees = capsys.readouterr().out
    bad = write_labels(project, labelled(40, wrong=20))
    assert main(["judge", "calibrate", "same", "--labels", bad]) == 0
    differs = capsys.readouterr().out

    assert "agrees enough to gate: kappa 0.90" in agrees
    assert "people \\ judge" in agrees
    assert "agrees too little to gate: kappa 0.00" in differs


def test_few_labels_let_no_judge_gate_however_well_they_agree(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write_labels(project, labelled(18, wrong=0))
    main(["judge", "calibrate", "same", "--labels", labels, "--json"])
    found = json.loads(capsys.readouterr().out)
    main(["judge", "calibrate", "same", "--labels", labels])
    page = capsys.readouterr().out

    assert found["overall"]["kappa"]["value"] == pytest.approx(1.0)
    assert found["gates"] is False
    assert "too few labels to gate: 18, 20 are asked" in page


def test_labels_that_are_all_the_same_measure_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**row, "output": "The parcel arrives on Monday.", "label": 1}
            for row in labelled(10, wrong=0)]  # fmt: skip

    status = main(["judge", "calibrate", "same", "--labels", write_labels(project, rows)])

    assert status == 3
    assert "agreement with people is not known" in capsys.readouterr().out
    assert not (project / ".evalkit" / "judges").exists()


def test_replies_that_are_no_judgement_are_counted(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Loopback() as server:
        server.script(Rule(Behaviour(text="Five stars!")))
        with (project / "evalkit.toml").open("a", encoding="utf-8") as file:
            file.write(
                f'[providers.far]\nwire = "openai"\nbase_url = "{server.url}/v1"\n'
                '[models.talker]\nprovider = "far"\nid = "talker-1"\n'
            )
        judge = project / "judges" / "same.yaml"
        judge.write_text(JUDGE.replace("ruler", "talker"), encoding="utf-8")

        labels = write_labels(project, labelled(6, wrong=0))
        status = main(["judge", "calibrate", "same", "--labels", labels, "--json"])

    found = json.loads(capsys.readouterr().out)
    assert status == 3
    assert (found["unparsed"], found["missing"]) == (6, {"judge_reply": 6})
    assert (found["calls"], found["unpriced_calls"]) == (12, 12)


def test_a_pairwise_judge_is_measured_on_preferences(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right, wrong = "The parcel arrives on Monday.", "Nobody can tell."
    rows = [
        {"id": f"q{k}", "reference": right, "output": [right, wrong][k % 2],
         "other": [wrong, right][k % 2], "label": k % 2 + 1}
        for k in range(20)
    ]  # fmt: skip

    status = main(
        ["judge", "calibrate", "better", "--labels", write_labels(project, rows), "--json"]
    )

    found = json.loads(capsys.readouterr().out)
    assert status == 0
    assert found["overall"]["accuracy"] == 1.0
    assert found["bias"]["order"] == {"n": 20, "inconsistent": 0, "share": 0.0}


def test_labels_of_the_store_are_joined_with_the_answers_they_are_of(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = project / "golden_sets/tickets/golden_set.yaml"
    text = golden.read_text(encoding="utf-8")
    metric = "  - {name: judged, judge: same}\ncases: c"
    golden.write_text(text.replace("cases: c", metric), encoding="utf-8")
    main(["run", "--json"])
    run_id = json.loads(capsys.readouterr().out)["run_id"]
    store = open_store(project / ".evalkit")
    rows = store.sql(
        f"SELECT * FROM scores WHERE run_id = '{run_id}' AND metric = 'judged' ORDER BY case_id"
    )
    kept = ("trace_id", "run_id", "golden_set", "case_id", "case_hash", "trial", "model",
            "prompt_name", "prompt_version")  # fmt: skip
    store.add_labels(
        "labels-1",
        [
            {**{key: row[key] for key in kept}, "label_id": f"{n}-{who}", "metric": "judged",
             "score": float(n % 5 > 0), "passed": n % 5 > 0, "annotator": who,
             **({"case_hash": "0" * 16} if n == 9 else {})}
            for n, row in enumerate(rows)
            for who in ("ada", "bob")
        ],
    )  # fmt: skip

    status = main(["judge", "calibrate", "same", "--labels", "store", "--json"])

    found = json.loads(capsys.readouterr().out)
    assert (found["answers"], found["labels_left_out"]) == (9, 2)
    assert found["people"]["annotators"] == 2
    # The judge finds all answers right: what agreement there is comes by chance.
    assert found["overall"]["accuracy"] == pytest.approx(7 / 9)
    assert found["overall"]["kappa"]["value"] == pytest.approx(0.0)
    assert (status, found["gates"]) == (0, False)


def test_a_settled_disagreement_is_one_word_for_the_judge_and_two_among_people(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = project / "golden_sets/tickets/golden_set.yaml"
    text = golden.read_text(encoding="utf-8")
    metric = "  - {name: judged, judge: same}\ncases: c"
    golden.write_text(text.replace("cases: c", metric), encoding="utf-8")
    main(["run", "--json"])
    store = open_store(project / ".evalkit")
    rows = store.sql("SELECT * FROM scores WHERE metric = 'judged' ORDER BY case_id")
    kept = ("trace_id", "run_id", "golden_set", "case_id", "case_hash", "trial", "model",
            "prompt_name", "prompt_version")  # fmt: skip
    said = [("ada", 1.0, None), ("bob", 0.0, None)]
    settled = [("adjudicator:eve", 1.0, "ada"), ("adjudicator:eve", 1.0, "bob")]
    store.add_labels(
        "labels-1",
        [
            {**{key: row[key] for key in kept}, "label_id": f"{n}-{who}-{old}", "metric": "judged",
             "score": score if n < 4 else 1.0, "passed": None, "annotator": who,
             "supersedes": old and f"{n}-{old}-None"}
            for n, row in enumerate(rows)
            for who, score, old in (said + settled if n < 4 else said)
        ],
    )  # fmt: skip
    capsys.readouterr()

    main(["judge", "calibrate", "same", "--labels", "store", "--json"])

    found = json.loads(capsys.readouterr().out)
    assert found["overall"]["accuracy"] == 1.0
    assert (found["overall"]["n"], found["overall"]["people_split"]) == (10, 0)
    assert (found["people"]["annotators"], found["people"]["ac1"]["n"]) == (2, 10)
    assert found["people"]["krippendorff"]["value"] < 0


@pytest.mark.parametrize("trials", ["1", "2"])
def test_a_pairwise_judge_is_measured_on_the_stores_preferences(
    project: Path, trials: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_ids = []
    for _ in range(2):
        main(["run", "--trials", trials, "--json"])
        run_ids.append(json.loads(capsys.readouterr().out)["run_id"])
    store = open_store(project / ".evalkit")
    rows = store.sql("SELECT * FROM scores WHERE metric = 'label' ORDER BY case_id, run_id")
    kept = ("trace_id", "run_id", "golden_set", "case_id", "case_hash", "trial", "model",
            "prompt_name", "prompt_version")  # fmt: skip
    store.add_labels(
        "labels-1",
        [
            {**{key: row[key] for key in kept}, "label_id": f"{row['trace_id']}-{who}",
             "metric": "preference", "score": 0.5, "annotator": who,
             "labelled_at": 1_767_225_600_000_000}
            for row in rows
            for who in ("ada", "bob")
        ],
    )  # fmt: skip

    status = main(["judge", "calibrate", "better", "--labels", "store", "--json"])

    found = json.loads(capsys.readouterr().out)
    assert found["answers"] == len(rows) / 2
    assert found["people"]["annotators"] == 2
    # The same answer twice is a tie to the judge and to people: nothing to agree about.
    assert found["overall"]["accuracy"] == 1.0
    assert status == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody", "--labels", "x.jsonl"], "judges/nobody.yaml: no such file"),
        (["same", "--labels", "none.jsonl"], "none.jsonl"),
        (["same", "--labels", "labels.jsonl", "--label-range", "5"], "not LOW:HIGH"),
        (["same", "--labels", "labels.jsonl", "--label-range", "1:inf"], "not LOW:HIGH"),
    ],
)
def test_what_cannot_be_measured_is_told(
    project: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labels(project, labelled(4, wrong=0))

    assert main(["judge", "calibrate", *arguments]) == 2

    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ("same", "the store has no labels that judge same can be held to"),
        ("better", "evalkit label queue RUN --against RUN"),
    ],
)
def test_a_store_without_labels_leaves_nothing_to_measure_by(
    project: Path, judge: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["judge", "calibrate", judge, "--labels", "store"]) == 3

    assert message in capsys.readouterr().err


# --- figures ---------------------------------------------------------------------------


def judged(
    scores: Iterable[float | None], labels: Iterable[dict[str, float]], **facts: Any
) -> list[Judged]:
    return [
        Judged(
            labelled=Labelled(answer=make_answer("x" * (n + 1)), labels=said),
            judgement=Judgement(
                mark=Mark(
                    score=score,
                    passed=None if score is None else score >= 0.5,
                    outcome="scored" if score is not None else "judge_error",
                ),
                records=(),
                **facts,
            ),
        )
        for n, (score, said) in enumerate(zip(scores, labels, strict=True))
    ]


def test_graded_labels_are_compared_on_peoples_own_grades() -> None:
    scores = [0.0, 0.3, 0.5, 0.7, 1.0] * 6
    labels = [{"a": value} for value in [0.0, 0.25, 0.5, 0.75, 1.0] * 6]

    found = figures(judged(scores, labels))

    assert found["labels"] == "graded"
    assert found["overall"]["accuracy"] == 1.0
    assert found["overall"]["kappa"]["value"] == pytest.approx(1.0)
    assert found["overall"]["spearman"]["value"] == pytest.approx(1.0)
    assert below_floor(found, 0.6) is False


def test_annotators_that_split_evenly_are_counted_and_left_out() -> None:
    labels = [{"a": 1.0, "b": 0.0}, *[{"a": 1.0, "b": 1.0}, {"a": 0.0, "b": 0.0}] * 5]

    found = figures(judged([1.0, *[1.0, 0.0] * 5], labels))

    assert found["overall"]["people_split"] == 1
    assert found["overall"]["n"] == 10


def test_a_judge_that_likes_long_answers_is_shown_beside_people() -> None:
    labels = [{"a": float(n % 2)} for n in range(20)]

    found = figures(judged([n / 20 for n in range(20)], labels))

    assert found["bias"]["length"]["judge"]["value"] == pytest.approx(1.0)
    assert abs(found["bias"]["length"]["people"]["value"]) < 0.3


def test_a_judge_that_said_nothing_has_no_figures() -> None:
    found = figures(judged([None, None], [{"a": 1.0}, {"a": 0.0}]))

    assert found["overall"] == {"n": 0}
    assert below_floor(found, 0.6) is None
    json.dumps(found, allow_nan=False)


# --- attack ----------------------------------------------------------------------------


def test_a_judge_that_measures_the_text_alone_withstands(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["judge", "attack", "same"])

    out = capsys.readouterr().out
    assert status == 0
    assert "0 of 46 attacks on same gain" in out


def test_one_that_gains_is_exit_1_and_listed(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack = {"id": "says-it", "kind": "told", "input": {"q": "?"}, "reference": "Yes, on Monday.",
              "honest": "Never.", "attack": "Yes, on Monday."}  # fmt: skip
    path = project / "mine.jsonl"
    path.write_text(json.dumps(attack) + "\n", encoding="utf-8")

    status = main(["judge", "attack", "same", "--attacks", str(path), "--json"])

    found = json.loads(capsys.readouterr().out)
    assert status == 1
    assert (found["attacks"], found["gained"], found["not_judged"]) == (1, 1, 0)
    assert found["results"][0]["gains"] is True


def test_a_judge_that_does_not_answer_proves_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = project / "judges" / "same.yaml"
    judge.write_text(JUDGE.replace("[reference]", "[documents]"), encoding="utf-8")
    attack = {"id": "a", "kind": "k", "input": {"q": "?"}, "honest": "no", "attack": "5"}
    (project / "mine.jsonl").write_text(json.dumps(attack) + "\n", encoding="utf-8")

    status = main(["judge", "attack", "same", "--attacks", "mine.jsonl"])

    assert status == 3
    assert "1 could not be judged" in capsys.readouterr().out

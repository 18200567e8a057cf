"""Anchors: does a judge say of the same answers what it said before?"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.config import load_settings
from evalkit.decide.anchor_series import HIGHER, LOWER
from evalkit.decide.monitor import Watched, quality_alerts, watch_all
from evalkit.decide.series import series_of
from evalkit.errors import ContentError
from evalkit.score.anchors import load_anchors, look_at_anchors
from evalkit.store.anchor_looks import anchor_looks
from evalkit.store.views import open_store
from tests.cli.test_judge import JUDGE, OWN, PAIRWISE
from tests.project import write_project

DAY = 86_400_000_000
FROM = 1_772_409_600_000_000
RIGHT, WRONG = "The parcel arrives on Monday.", "Nobody can tell."


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, cases=12)
    with (tmp_path / "evalkit.toml").open("a", encoding="utf-8") as file:
        file.write(OWN)
    (tmp_path / "judges").mkdir()
    for name, text in (("same", JUDGE), ("better", PAIRWISE)):
        (tmp_path / "judges" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def write_anchors(folder: Path, *, right: int, n: int = 30) -> Path:
    """Anchors of which so many are right; their first judgements stay what they were."""
    path = folder / "judges" / "same.anchors.jsonl"
    first = [one.first for one in load_anchors(path)] if path.exists() else [{}] * n
    rows = [
        {"id": f"a{k}", "input": {}, "output": RIGHT if k < right else WRONG, "expected": RIGHT,
         "first": dict(first[k])}
        for k in range(n)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def look(folder: Path, day: int) -> list[Any]:
    settings = load_settings(folder / "evalkit.toml")
    store = open_store(settings.store_path)
    return asyncio.run(look_at_anchors(settings, store, now=FROM + day * DAY))


def watched(folder: Path) -> dict[str, Watched]:
    series = series_of(open_store(folder / ".evalkit"))
    return {one.series.names[3]: one for one in watch_all(series)}


def test_a_judge_that_grades_the_same_answers_lower_alarms(project: Path) -> None:
    write_anchors(project, right=20)
    assert main(["judge", "anchor", "same"]) == 0
    for day in range(6):
        look(project, day)
    assert {one.state for one in watched(project).values()} == {"steady"}

    # The same ids, other answers: to us that is a judge which has changed its mind.
    write_anchors(project, right=8)
    for day in range(6, 14):
        (looked,) = look(project, day)

    found = watched(project)
    assert (looked.changed, looked.judged) == (12, 30)
    assert looked.shift == pytest.approx(-0.4)
    assert (found[LOWER].state, found[HIGHER].state) == ("drift", "steady")
    (alert,) = quality_alerts(
        open_store(project / ".evalkit"), now=FROM + 14 * DAY, min_quality=0.99
    )
    assert alert.message.startswith("judge:same grades its anchors lower than before, by 0.40")
    assert alert.runbook == "docs/runbook.md#judge-drift"


def test_a_judge_that_grades_higher_alarms_too(project: Path) -> None:
    write_anchors(project, right=8)
    main(["judge", "anchor", "same"])
    for day in range(12):
        if day == 5:
            write_anchors(project, right=20)
        look(project, day)

    assert watched(project)[HIGHER].state == "drift"


def test_a_judge_looks_once_a_day(project: Path) -> None:
    write_anchors(project, right=8)

    first, again, next_day = look(project, 0), look(project, 0), look(project, 1)

    assert [one.is_first for one in first] == [True]
    assert again == []
    assert [one.is_first for one in next_day] == [False]
    assert len(list(anchor_looks(open_store(project / ".evalkit")))) == 2


def test_another_version_of_the_judge_begins_anew(project: Path) -> None:
    write_anchors(project, right=20)
    main(["judge", "anchor", "same"])
    look(project, 0)
    (project / "judges" / "same.yaml").write_text(
        JUDGE.replace("Does it say", "Does the answer say"), encoding="utf-8"
    )

    (looked,) = look(project, 1)
    main(["judge", "anchor", "same"])

    assert looked.is_first
    (one, *_) = load_anchors(project / "judges" / "same.anchors.jsonl")
    assert len(one.first) == 2


def test_anchors_are_taken_of_a_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = project / "golden_sets" / "tickets" / "golden_set.yaml"
    judged = "  - {name: judged, judge: same}\ncases: c"
    golden.write_text(golden.read_text("utf-8").replace("cases: c", judged), encoding="utf-8")
    main(["run", "--json"])
    capsys.readouterr()

    assert main(["judge", "anchor", "same", "--run", "latest", "-n", "10", "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    anchors = load_anchors(project / "judges" / "same.anchors.jsonl")
    assert (told["anchors"], len(anchors)) == (10, 10)
    assert all(one.has_expected and len(one.first) == 1 for one in anchors)


def test_an_answer_that_two_metrics_judged_is_one_anchor(project: Path) -> None:
    golden = project / "golden_sets" / "tickets" / "golden_set.yaml"
    judged = "  - {name: one, judge: same}\n  - {name: two, judge: same}\ncases: c"
    golden.write_text(golden.read_text("utf-8").replace("cases: c", judged), encoding="utf-8")
    main(["run", "--json"])

    assert main(["judge", "anchor", "same", "--run", "latest", "-n", "50"]) == 0

    assert len(load_anchors(project / "judges" / "same.anchors.jsonl")) == 12


def test_a_judge_that_compares_has_no_anchors(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_anchors(project, right=1).rename(project / "judges" / "better.anchors.jsonl")

    assert main(["judge", "anchor", "better"]) == 2

    assert "compares two answers" in capsys.readouterr().err


def test_a_bad_file_of_anchors_is_named_by_line(project: Path) -> None:
    path = write_anchors(project, right=1, n=2)
    path.write_text(path.read_text("utf-8") + '{"id": "a0", "output": 3}\n', encoding="utf-8")

    with pytest.raises(ContentError, match=r"same\.anchors\.jsonl:3: an anchor has"):
        load_anchors(path)


def test_drift_has_judges_grade_their_anchors(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_anchors(project, right=8)

    assert main(["drift", "--judges", "--json"]) == 0

    assert "judge same: first grades of 30 anchors" in capsys.readouterr().err


def test_drift_that_could_not_read_all_is_not_said_to_be_none(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_anchors(project, right=25)
    main(["drift", "--judges", "--json"])
    (kept,) = (project / ".evalkit" / "anchors").glob("**/*.json")
    kept.write_text("{", encoding="utf-8")

    assert main(["drift"]) == 3

    assert kept.name in capsys.readouterr().err


def test_grades_without_a_price_are_counted_not_free(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = project / "evalkit.toml"
    text = config.read_text("utf-8").replace("price = { input = 0.0, output = 0.0 }\n", "")
    config.write_text(text, encoding="utf-8")
    write_anchors(project, right=8)
    capsys.readouterr()

    assert main(["judge", "anchor", "same", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (looked,) = look(project, 0)

    assert (told["cost_usd"], told["unpriced_calls"]) == (0.0, 30)
    assert looked.as_json()["unpriced_calls"] == 30


def test_what_one_judge_spends_of_the_limit_the_next_has_not(project: Path) -> None:
    config = project / "evalkit.toml"
    text = config.read_text("utf-8").replace(
        "input = 0.0, output = 0.0", "input = 1.0, output = 1.0"
    )
    config.write_text(text, encoding="utf-8")
    other = JUDGE.replace("name: same\n", "name: second\n")
    (project / "judges" / "second.yaml").write_text(other, encoding="utf-8")
    anchors = write_anchors(project, right=8)
    (project / "judges" / "second.anchors.jsonl").write_bytes(anchors.read_bytes())
    settings = load_settings(config)
    store = open_store(settings.store_path)

    found = asyncio.run(look_at_anchors(settings, store, now=FROM, max_cost_usd=0.015))

    assert sum(one.cost_usd for one in found) <= 0.015
    assert [one.judge for one in found] == ["same", "second"]
    assert found[1].judged < found[0].judged

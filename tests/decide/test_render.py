"""A verdict in words and formats: true sentences, and text of others that does nothing."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from evalkit.decide.render import (
    comparison_sentence,
    escaped,
    junit,
    markdown,
    plain,
    sarif,
)
from tests.decide.verdicts import HOSTILE, SIDE, comparison, verdict

# --- sentences --------------------------------------------------------------------------


def test_a_regression_says_how_much_how_sure_and_corrected_for_what() -> None:
    assert comparison_sentence(comparison()) == (
        "label on tickets (small/classify@v2): quality fell by 4.1 points "
        "(90 % interval 1.6 to 6.7), p = 0.004 after correcting for 12 comparisons"
    )


def test_what_could_not_be_told_says_what_would_tell() -> None:
    sentence = comparison_sentence(
        comparison(verdict="inconclusive", delta=-0.01, ci=[-0.06, 0.04], trials_needed=3)
    )

    assert sentence == (
        "label on tickets (small/classify@v2): could not tell: this golden set would miss drops "
        "under 9 points; 240 more cases or 2 more trials would show a drop of 5; "
        "here quality fell by 1 point (90 % interval −4 to 6)"
    )


@pytest.mark.parametrize("change", [{"verdict": "inconclusive"}, {"verdict": "pass", "delta": 0.0}])
def test_a_small_drop_that_is_allowed_is_not_called_none(change: dict[str, object]) -> None:
    sentence = comparison_sentence(comparison(max_drop=0.0001, ci=[-0.05, 0.05], **change))

    assert "drop of 0.01" in sentence


def test_a_pass_names_the_drop_it_excludes() -> None:
    sentence = comparison_sentence(
        comparison(verdict="pass", delta=0.004, ci=[-0.01, 0.019], p_adjusted=0.7)
    )

    assert sentence.endswith(
        "no drop of 5 points: quality rose by 0.4 points (90 % interval −1 to 1.9)"
    )


def test_what_is_missing_is_said_by_side_and_outcome() -> None:
    missing = comparison()["missing"] | {
        "outcomes": {"baseline": {}, "candidate": {"absent": 1, "infra_error": 29}},
        "unpaired": 2,
    }
    sentence = comparison_sentence(
        comparison(verdict="unmeasurable", reason="30 of 100 cases …", missing=missing, ci=None)
    )

    assert sentence.endswith(
        "cannot be measured: 30 of 100 cases … [candidate without a score: 1 absent, "
        "29 infra_error; 2 cases are not on both sides]"
    )


def test_another_version_is_named_and_a_file_has_no_pair() -> None:
    other = comparison(baseline=SIDE | {"prompt_version": "v1"})
    nameless = dict.fromkeys(SIDE)
    file = comparison(golden_set=None, baseline=nameless, candidate=nameless)

    assert "(small/classify@v2 against v1)" in comparison_sentence(other)
    assert comparison_sentence(file).startswith("label: quality fell")


# --- text of others ---------------------------------------------------------------------


def test_markdown_of_others_is_shown_and_does_nothing() -> None:
    text = markdown(verdict(comparison(metric=HOSTILE, golden_set=HOSTILE), notes=[HOSTILE]))

    assert not set("[]`@$#\x1b") & set(text.replace("### ", "").replace("&#", ""))
    assert "<img" not in text
    assert "http:" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("12.5 % (4 to 6), p < 0.1", "12.5 % (4 to 6), p &#60; 0.1"),
        ("www.evil.com", "www&#46;evil&#46;com"),
        ("a@b :smile: x", "a&#64;b &#58;smile: x"),
    ],
)
def test_numbers_stay_readable_and_links_do_not_work(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_plain_text_is_cut() -> None:
    assert plain("x" * 100, 10) == "xxxxxxxxx…"


# --- machine formats --------------------------------------------------------------------


def test_junit_is_xml_with_a_case_for_each_comparison() -> None:
    text = junit(
        verdict(
            comparison(metric=HOSTILE + "\x00\ud800"),
            comparison(metric="b", verdict="unmeasurable", reason="x"),
            comparison(metric="c", verdict="inconclusive"),
            comparison(metric="d", verdict="pass"),
            comparison(metric="e", verdict="regression", gate=False),
        )
    )

    suite = ElementTree.fromstring(text.encode())
    kinds = [next(iter(case)).tag for case in suite]
    assert kinds == ["failure", "error", "skipped", "system-out", "system-out"]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("5", "1", "1")


def test_junit_of_an_unmeasurable_whole_is_an_error() -> None:
    text = junit(verdict(verdict="unmeasurable", notes=["no complete run"]))

    suite = ElementTree.fromstring(text.encode())
    assert suite.get("errors") == "1"


def test_sarif_points_at_the_golden_sets_lines(tmp_path: Path) -> None:
    folder = tmp_path / "golden_sets" / "tickets"
    folder.mkdir(parents=True)
    (folder / "golden_set.yaml").write_text(
        "name: tickets\nfeature: f\nmetrics:\n  - {name: other, check: equals}\n"
        "  - {name: label, check: equals}\ncases: cases.jsonl\n"
    )
    (folder / "cases.jsonl").write_text('{"id": "t-0", "input": {}}\n{"id": "t-1", "input": {}}\n')
    where = {"tickets": "golden_sets/tickets/golden_set.yaml"}

    document = json.loads(sarif(verdict(comparison(), golden_sets=where), root=tmp_path))

    places = [
        (
            place["artifactLocation"]["uri"],
            place["region"]["startLine"],
        )
        for result in document["runs"][0]["results"]
        for place in [result["locations"][0]["physicalLocation"]]
    ]
    assert places == [
        ("golden_sets/tickets/golden_set.yaml", 5),
        ("golden_sets/tickets/cases.jsonl", 2),
    ]


def test_sarif_without_the_files_has_no_places(tmp_path: Path) -> None:
    where = {"tickets": "gone/golden_set.yaml"}

    document = json.loads(sarif(verdict(comparison(), golden_sets=where), root=tmp_path))

    assert all("locations" not in result for result in document["runs"][0]["results"])

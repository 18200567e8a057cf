"""A verdict in words and formats: true sentences, and text of others that does nothing."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from evalkit.decide.findings import findings_of
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
        ("a@b :smile: x", "a&#64;&#8203;b &#58;smile: x"),
        ("@team o/r#12 GH-7 gh-x", "&#64;&#8203;team o/r&#35;&#8203;12 GH-&#8203;7 gh-x"),
        ("- a - b", "&#45; a - b"),
        ("10. a 2) b", "&#49;0. a 2) b"),
        ("    a", "&#32;   a"),
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


@pytest.mark.parametrize(
    ("strict", "kind", "level"), [(False, "skipped", "warning"), (True, "error", "error")]
)
def test_the_inconclusive_is_an_error_where_it_fails_the_build(
    strict: bool, kind: str, level: str, tmp_path: Path
) -> None:
    unsure = verdict(
        comparison(verdict="inconclusive"), comparison(verdict="inconclusive", gate=False),
        verdict="inconclusive", strict=strict,
    )  # fmt: skip

    gating, other = ElementTree.fromstring(junit(unsure).encode())
    [result] = json.loads(sarif(unsure, root=tmp_path))["runs"][0]["results"]

    assert (next(iter(gating)).tag, next(iter(other)).tag) == (kind, "system-out")
    assert result["level"] == level


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


def results(document: str) -> list[tuple[str, str, str, int]]:
    """Rule, text, file and line of what SARIF has."""
    found = []
    for one in json.loads(document)["runs"][0]["results"]:
        [location] = one["locations"]
        place = location["physicalLocation"]
        at = place["artifactLocation"]["uri"], place["region"]["startLine"]
        found.append((one["ruleId"], one["message"]["text"], *at))
    return found


def test_sarif_without_the_files_points_at_the_configuration(tmp_path: Path) -> None:
    where = {"tickets": "gone/golden_set.yaml"}

    for golden_sets in (where, {}):
        found = results(sarif(verdict(comparison(), golden_sets=golden_sets), root=tmp_path))

        assert found[0][0] == "regression"
        assert {one[2:] for one in found} == {("evalkit.toml", 1)}


def must_pass(case_id: str, reason: str | None = None) -> dict[str, object]:
    return {"golden_set": "tickets", "case_id": case_id, "metric": "shape", "reason": reason,
            "model": "small", "prompt_name": "classify", "prompt_version": "v2"}  # fmt: skip


MISSING = verdict(
    comparison(verdict="pass"),
    verdict="unmeasurable",
    must_pass_failures=[must_pass("t-1", "no JSON"), must_pass("t-2")],
    must_pass_missing=[must_pass("t-3", "timeout"), must_pass("t-4")],
    notes=["2 must-pass scores are missing"],
)


def test_what_must_pass_and_has_no_score_is_an_error_beside_what_failed(tmp_path: Path) -> None:
    suite = ElementTree.fromstring(junit(MISSING).encode())

    told = [
        (case.get("classname"), case.get("name"), how.tag, how.get("message"))
        for case in list(suite)[1:]
        for how in case
    ]
    assert told == [
        ("must_pass.tickets", "t-1 shape", "failure", "no JSON"),
        ("must_pass.tickets", "t-2 shape", "failure", "failed"),
        ("must_pass.tickets", "t-3 shape", "error", "timeout"),
        ("must_pass.tickets", "t-4 shape", "error", "no score"),
    ]
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "5", "failures": "2", "errors": "2", "skipped": "0"}
    assert [one[:2] for one in results(sarif(MISSING, root=tmp_path))] == [
        ("must-pass", "t-1 has to pass shape and failed: no JSON"),
        ("must-pass", "t-2 has to pass shape and failed"),
        ("unmeasurable", "t-3 has to pass shape and has no score: timeout"),
        ("unmeasurable", "t-4 has to pass shape and has no score"),
    ]


@pytest.mark.parametrize("shown", [[], [comparison(verdict="pass", gate=False)],
                                   [comparison(verdict="inconclusive")]])  # fmt: skip
def test_a_whole_that_is_unmeasurable_is_an_error_whatever_else_is_shown(
    tmp_path: Path, shown: list[dict[str, object]]
) -> None:
    whole = verdict(*shown, verdict="unmeasurable", notes=["no metric gates", "and so on"])

    suite = ElementTree.fromstring(junit(whole).encode())
    sent = results(sarif(whole, root=tmp_path))

    last = list(suite)[-1]
    assert (last.get("classname"), last.get("name")) == ("gate", "gate")
    assert [one.get("message") for one in last.iter("error")] == ["no metric gates; and so on"]
    assert suite.get("errors") == "1"
    assert sent[0] == ("unmeasurable", "no metric gates; and so on", "evalkit.toml", 1)
    assert len(sent) == 1 + sum(one["verdict"] == "inconclusive" for one in shown)


def test_a_reason_that_is_told_already_is_not_told_again(tmp_path: Path) -> None:
    whole = verdict(comparison(verdict="unmeasurable", reason="x"), verdict="unmeasurable")

    suite = ElementTree.fromstring(junit(whole).encode())

    assert (suite.get("tests"), suite.get("errors")) == ("1", "1")
    assert len(results(sarif(whole, root=tmp_path))) == 1


def test_nothing_that_is_wrong_is_no_result(tmp_path: Path) -> None:
    fine = verdict(comparison(verdict="pass"), verdict="pass")

    suite = ElementTree.fromstring(junit(fine).encode())

    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "1", "failures": "0", "errors": "0", "skipped": "0"}
    assert results(sarif(fine, root=tmp_path)) == []
    nothing = verdict(verdict="unmeasurable")
    assert results(sarif(nothing, root=tmp_path))[0][1] == "nothing was compared"


def test_a_slice_is_named_with_its_metric() -> None:
    suite = ElementTree.fromstring(junit(verdict(comparison(slice="lang=de"))).encode())

    assert [(case.get("classname"), case.get("name")) for case in suite] == [
        ("gate.tickets", "label[lang=de] small/v2")
    ]


def test_long_text_of_others_is_cut(tmp_path: Path) -> None:
    long = verdict(must_pass_failures=[must_pass("t-1", "x" * 3_000)])

    [case] = ElementTree.fromstring(junit(long).encode())
    [(_, text, _, _)] = results(sarif(long, root=tmp_path))

    assert [len(one.get("message", "")) for one in case] == [2_000]
    assert len(text) == 1_000


def test_sarif_has_a_thousand_results_at_most(tmp_path: Path) -> None:
    many = verdict(must_pass_failures=[must_pass(f"t-{n}") for n in range(1_001)])

    assert len(results(sarif(many, root=tmp_path))) == 1_000


# --- findings ---------------------------------------------------------------------------


def test_a_finding_is_known_by_what_it_is_about(tmp_path: Path) -> None:
    of = "tickets\nsmall\nclassify"
    whole = verdict(
        comparison(),
        comparison(slice="lang=de", verdict="inconclusive"),
        must_pass_failures=[must_pass("t-1", "wrong")],
        must_pass_missing=[must_pass("t-1")],
        golden_sets={"tickets": "gone.yaml"},
    )

    assert [(one.rule, one.key) for one in findings_of(whole, root=tmp_path)] == [
        ("must-pass", f"must-pass\n{of}\nshape\nt-1"),
        ("regression", f"comparison\n{of}\nlabel\n"),
        ("unmeasurable", f"must-pass-missing\n{of}\nshape\nt-1"),
        ("inconclusive", f"comparison\n{of}\nlabel\nlang=de"),
        ("regressed-case", f"case\n{of}\nlabel\nt-1"),
    ]


def test_fifty_cases_that_fell_are_pointed_at(tmp_path: Path) -> None:
    fell = comparison(regressed_cases=[f"t-{n}" for n in range(51)])

    found = findings_of(verdict(fell, golden_sets={"tickets": "gone.yaml"}), root=tmp_path)

    assert [one.rule for one in found] == ["regression", *["regressed-case"] * 50]


def test_what_is_only_shown_and_what_passed_are_no_findings(tmp_path: Path) -> None:
    fine = verdict(comparison(gate=False), comparison(verdict="pass"))

    assert findings_of(fine, root=tmp_path) == []

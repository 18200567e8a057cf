"""What GitHub and GitLab are shown of a verdict: limits, lines, and marks of others."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from evalkit.decide.code_quality import code_quality
from evalkit.decide.github import (
    CUT,
    MARKER,
    MAX_ANNOTATIONS,
    MAX_COMMENT_CHARS,
    MAX_SUMMARY_BYTES,
    Annotation,
    annotations_of,
    comment,
    cut_at_row,
    summary,
    title,
    workflow_commands,
)
from evalkit.schemas import find_faults

HERE = PurePosixPath()


def comparison(**more: Any) -> dict[str, Any]:
    side = {"run_id": "r", "model": "m", "prompt_name": "p", "prompt_version": "v2"}
    return {
        "golden_set": "tickets", "metric": "label", "tier": 1, "slice": None, "n": 80,
        "baseline": {**side, "prompt_version": "v1"}, "candidate": side, "n_clusters": None,
        "trials": 1, "baseline_mean": 0.9, "candidate_mean": 0.7, "delta": -0.2,
        "ci": [-0.3, -0.1], "p_value": 0.001, "p_adjusted": 0.001, "method": "t",
        "verdict": "regression", "mde": 0.1, "cases_needed": None, "trials_needed": None,
        "missing": {"unpaired": 0, "outcomes": {}}, "regressed_cases": ["t-1"],
        "improved_cases": [], "gate": True, "look_here": False, "family_size": 1,
        "confidence": 0.9, "tolerance": 0.0, "max_drop": 0.05, "reason": None, **more,
    }  # fmt: skip


def verdict(*comparisons: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "verdict": "regression", "alpha": 0.05, "correction": "holm", "strict": False,
        "comparisons": list(comparisons), "must_pass_failures": [], "must_pass_missing": [],
        "budget": {}, "golden_sets": {"tickets": "golden_sets/tickets/golden_set.yaml"},
        "notes": [], **more,
    }  # fmt: skip


def must_pass(case_id: str, reason: str = "wrong") -> dict[str, Any]:
    return {
        "golden_set": "tickets", "case_id": case_id, "metric": "label", "model": "m",
        "prompt_name": "p", "prompt_version": "v2", "reason": reason,
    }  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "golden_sets" / "tickets"
    folder.mkdir(parents=True)
    (folder / "golden_set.yaml").write_text(
        "name: tickets\nfeature: f\nmetrics:\n  - {name: label, check: equals}\n"
    )
    rows = [{"id": f"t-{n}", "input": {}} for n in range(40)]
    (folder / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


# --- annotations -----------------------------------------------------------------------


def test_annotations_stand_on_the_lines_of_metric_and_case(project: Path) -> None:
    found = annotations_of(verdict(comparison()), root=project)

    assert [(one.level, one.file, one.line) for one in found] == [
        ("error", "golden_sets/tickets/golden_set.yaml", 4),
        ("warning", "golden_sets/tickets/cases.jsonl", 2),
    ]


def test_must_pass_comes_first_and_ten_is_the_most(project: Path) -> None:
    many = verdict(comparison(), must_pass_failures=[must_pass(f"t-{n}") for n in range(30)])

    lines = workflow_commands(annotations_of(many, root=project), prefix=HERE)

    assert len(lines) == MAX_ANNOTATIONS == 10
    assert all("must-pass" in line for line in lines[:9])
    assert lines[9] == "::warning title=evalkit::23 more in the report"


def test_ten_are_all_shown(project: Path) -> None:
    ten = verdict(must_pass_failures=[must_pass(f"t-{n}") for n in range(10)])

    lines = workflow_commands(annotations_of(ten, root=project), prefix=HERE)

    assert sum("has to pass" in line for line in lines) == 10


def test_a_project_in_a_folder_of_the_repository_has_it_before_its_paths(project: Path) -> None:
    found = annotations_of(verdict(comparison()), root=project)

    (line, _) = workflow_commands(found, prefix=PurePosixPath("apps/shop"))

    assert "file=apps/shop/golden_sets/tickets/golden_set.yaml,line=4," in line


@pytest.mark.parametrize("evil", ["\n::error::x", "\r\n::set-output name=a::b", "%0A::error::x"])
def test_no_text_starts_a_command_of_its_own(evil: str, project: Path) -> None:
    found = annotations_of(verdict(must_pass_failures=[must_pass(evil, evil)]), root=project)
    found.append(Annotation(level="error", title=evil, text=evil, file=f"a,b:{evil}"))

    lines = workflow_commands(found, prefix=HERE)

    assert all("\n" not in line and "\r" not in line for line in lines)
    assert all(line.startswith("::error ") for line in lines)
    assert "file=a%2Cb%3A" in lines[-1]
    assert "%0A::error" not in "".join(lines)


def test_what_is_unmeasurable_as_a_whole_says_why(project: Path) -> None:
    nothing = verdict(verdict="unmeasurable", notes=["there is no complete run"])

    (one,) = annotations_of(nothing, root=project)

    assert (one.level, one.text) == ("error", "there is no complete run")


def test_a_whole_that_is_unmeasurable_is_said_first_where_nothing_else_is_an_error(
    project: Path,
) -> None:
    unsure = comparison(verdict="inconclusive")
    told = {"verdict": "unmeasurable", "notes": ["no metric gates", "and so on"]}

    whole = annotations_of(verdict(unsure, **told), root=project)
    known = annotations_of(verdict(comparison(verdict="unmeasurable"), **told), root=project)
    fine = annotations_of(verdict(unsure, verdict="inconclusive"), root=project)

    assert [(one.level, one.text) for one in whole[:1]] == [("error", "no metric gates; and so on")]
    assert [one.level for one in whole[1:]] == ["warning"]
    assert [one.level for one in known] == ["error"]
    assert "no metric gates" not in known[0].text
    assert [one.level for one in fine] == ["warning"]


def test_a_must_pass_score_that_is_missing_is_an_error_on_its_case(project: Path) -> None:
    missing = verdict(must_pass_missing=[must_pass("t-3", "timeout")], verdict="unmeasurable")

    assert annotations_of(missing, root=project) == [
        Annotation(
            level="error",
            title="evalkit: unmeasurable",
            text="t-3 has to pass label and has no score: timeout",
            file="golden_sets/tickets/cases.jsonl",
            line=4,
        )
    ]


def test_the_text_of_an_annotation_is_cut() -> None:
    [line] = workflow_commands([Annotation(level="error", title="t", text="x" * 501)], prefix=HERE)

    assert line == f"::error title=t::{'x' * 499}…"


# --- Markdown --------------------------------------------------------------------------


def long_verdict() -> dict[str, Any]:
    ids = [f"case-{n}" for n in range(1_000)]
    return verdict(
        *(comparison(metric=f"metric-{n}-" + "x" * 60, regressed_cases=ids) for n in range(400)),
        notes=["n" * 500] * 3_000,
    )


def test_a_long_comment_is_cut_between_rows_and_says_so() -> None:
    text = comment(long_verdict())

    whole = set(comment({**long_verdict()}).splitlines())
    assert len(text) <= MAX_COMMENT_CHARS
    assert text.startswith(MARKER)
    assert text.endswith(CUT)
    assert text.count("<details>") == text.count("</details>")
    assert set(text.splitlines()) <= whole


def test_a_summary_stays_below_a_mebibyte_in_bytes() -> None:
    text = summary(verdict(), facts=["ü" * 2_000] * 1_000)

    assert MAX_SUMMARY_BYTES * 0.9 < len(text.encode()) <= MAX_SUMMARY_BYTES < 2**20
    assert text.endswith(CUT)


def test_characters_outside_the_basic_plane_count_twice() -> None:
    text = comment(verdict(), facts=["🦔" * 300] * 200)

    assert len(text.encode("utf-16-le")) // 2 <= MAX_COMMENT_CHARS


def test_what_was_open_at_the_cut_is_closed() -> None:
    text = "a\n<details>\n" + "line\n" * 100 + "</details>\n"

    cut = cut_at_row(text, 200)

    assert len(cut) <= 200
    assert "</details>" in cut


def test_a_short_text_is_left_as_it_is() -> None:
    assert cut_at_row("a\nb\n", 4) == "a\nb\n"


def test_marks_of_others_are_shown_and_do_nothing() -> None:
    evil = "<img src=x onerror=alert(1)> @everyone [x](https://evil.test) | `a`"

    text = comment(verdict(comparison(metric=evil), must_pass_failures=[must_pass(evil, evil)]))

    body = text.removeprefix(MARKER)
    assert "<img" not in body
    assert "@everyone" not in body
    assert "](https" not in body


# --- code quality and schema -------------------------------------------------------------


ROOM = len(CUT) + len("\n</details>\n")


@pytest.mark.parametrize(("room", "rows"), [(17, 2), (18, 3), (23, 3)])
def test_as_many_whole_rows_are_kept_as_fit(room: int, rows: int) -> None:
    text = "12345\n" * 100

    assert cut_at_row(text, ROOM + room) == "12345\n" * rows + CUT
    assert cut_at_row(text, 600) == text


def test_what_is_open_where_a_text_is_cut_is_closed() -> None:
    shut = "<details>\n</details>\n"

    assert cut_at_row(shut * 9, ROOM + 21) == shut + CUT
    assert cut_at_row(shut * 9, ROOM + 31) == f"{shut}<details>\n\n</details>\n{CUT}"


@pytest.mark.parametrize(
    ("fact", "is_cut"), [("x" * 60_000, False), ("x" * 66_000, True), ("😀" * 33_000, True)],
    ids=["short", "long", "long by the strictest count"],
)  # fmt: skip
def test_a_comment_is_cut_where_github_would_refuse_it(fact: str, is_cut: bool) -> None:
    assert (CUT in comment(verdict(comparison()), facts=[fact])) is is_cut
    assert MAX_COMMENT_CHARS == 65_536


def test_a_title_is_one_plain_line() -> None:
    assert title(verdict(comparison())).startswith("regression: ")
    assert "\n" not in title(verdict(comparison(metric="a\nb")))


def test_code_quality_has_a_stable_fingerprint_for_each_finding(project: Path) -> None:
    one = json.loads(code_quality(verdict(comparison()), root=project))
    later = json.loads(
        code_quality(verdict(comparison(delta=-0.4, p_adjusted=0.0001)), root=project)
    )

    assert [(issue["severity"], issue["location"]["lines"]["begin"]) for issue in one] == [
        ("critical", 4), ("info", 2),
    ]  # fmt: skip
    assert [issue["fingerprint"] for issue in one] == [issue["fingerprint"] for issue in later]
    assert len({issue["fingerprint"] for issue in one}) == 2
    assert set(one[0]) == {"description", "check_name", "fingerprint", "severity", "location"}


def test_code_quality_has_a_thousand_issues_at_most_each_of_a_thousand_letters(
    project: Path,
) -> None:
    many = [must_pass(f"t-{n % 40}", "x" * 2_000) for n in range(1_001)]

    issues = json.loads(code_quality(verdict(must_pass_failures=many), root=project))

    assert len(issues) == 1_000
    assert {len(issue["description"]) for issue in issues} == {1_000}


def test_code_quality_of_a_pass_is_an_empty_list(project: Path) -> None:
    passed = verdict(comparison(verdict="pass"), verdict="pass")

    assert json.loads(code_quality(passed, root=project)) == []


def test_the_schema_takes_a_verdict_and_refuses_another_word() -> None:
    assert find_faults(verdict(comparison(), must_pass_failures=[must_pass("t")]), "verdict") == []
    assert find_faults(verdict(comparison(verdict="<b>fine</b>")), "verdict")
    assert find_faults(verdict(comparison(n="<script>")), "verdict")

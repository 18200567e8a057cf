"""`evalkit run --drift`: an unchanged pair against its own past."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.decide.sequential import fall_prior
from tests.project import write_project


def run(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any]]:
    status = main(["run", "--drift", "--json", *more])
    return status, json.loads(capsys.readouterr().out)


def test_a_model_that_changed_behind_its_name_is_a_regression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(write_project(tmp_path, cases=40))
    first = run(capsys)
    second = run(capsys)
    config = tmp_path / "evalkit.toml"
    worse = config.read_text("utf-8").replace("tests.apps:by_rule", "tests.apps:always_billing")
    config.write_text(worse, encoding="utf-8")

    third = run(capsys)

    assert [status for status, _ in (first, second, third)] == [0, 0, 1]
    assert first[1]["drift"] is None
    # Forty equal cases do not exclude a fall of five points.
    assert second[1]["drift"]["verdict"] == "inconclusive"
    assert third[1]["drift"]["verdict"] == "regression"
    baseline = third[1]["drift"]["comparisons"][0]["baseline"]["run_id"]
    assert baseline == first[1]["run_id"]


def test_all_nights_together_have_one_alpha(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(write_project(tmp_path, cases=10))

    alphas = [
        found["drift"]["alpha"] for _, found in (run(capsys) for _ in range(4)) if found["drift"]
    ]

    assert alphas == pytest.approx([0.05 * math.exp(fall_prior(n)) for n in (1, 2, 3)])


def test_another_prompt_has_another_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(write_project(tmp_path, cases=10))
    run(capsys)

    _, found = run(capsys, "--prompt", "classify@v2")

    assert found["drift"] is None

"""The calibration benchmark runs, and can fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gate_calibration
from benchmarks.scenarios import Bound


def test_short_calibration_holds_every_bound_and_writes_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, table = tmp_path / "lines.json", tmp_path / "table.md"

    code = gate_calibration.main(["--short", "--json", str(lines), "--markdown", str(table)])

    printed = capsys.readouterr().out
    assert "FAIL" not in printed
    assert code == 0
    assert "other gates: skipped" in printed
    assert len(json.loads(lines.read_text(encoding="utf-8"))["lines"]) > 100
    assert "| A/A, one trial |" in table.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("bound", "value", "holds"),
    [
        (Bound("m", at_most=0.05), 0.064, True),
        (Bound("m", at_most=0.05), 0.066, False),
        (Bound("m", at_most=0.0), 0.0005, False),
        (Bound("m", at_least=0.53), 0.529, False),
        (Bound("m", around=(0.9, 0.015)), 0.94, False),
        (Bound("m", around=(0.9, 0.015)), 0.86, False),
    ],
)
def test_a_bound_that_is_missed_does_not_hold(bound: Bound, value: float, holds: bool) -> None:
    errors = 3 * bound.standard_error({"m": value}, 2_000)

    assert bound.holds(value, errors) is holds

"""Files of other runners that would have the gate compare what nobody measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evalkit.cli.main import main

N = 40
IDS, METRICS, ONES = [f"c{n}" for n in range(N)], ["m"] * N, [1.0] * N
Gate = Callable[[Path], tuple[int, str]]


def csv(path: Path, *columns: str, rows: Iterable[str]) -> Path:
    path.write_text("\n".join([",".join(("case_id", "metric", "score", *columns)), *rows]) + "\n")
    return path


def parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table({"case_id": IDS, "metric": METRICS, "score": ONES} | columns), path)
    return path


@pytest.fixture
def gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Gate:
    """Gate a file against forty cases that all passed; status, and what was said."""
    baseline = csv(tmp_path / "baseline.csv", rows=[f"{one},m,1" for one in IDS])

    def compare(candidate: Path) -> tuple[int, str]:
        argv = ["gate", "--json", "--candidate", str(candidate), "--baseline", str(baseline)]
        status = main([*argv, "--store", str(tmp_path / "store")])
        said = capsys.readouterr()
        return status, said.out + said.err

    return compare


@pytest.mark.parametrize("other", ["00", "0.0", "", "+0", " 0"])
def test_one_trial_written_in_two_ways_is_one_trial(tmp_path: Path, gate: Gate, other: str) -> None:
    rows = [f"{one},m,{score},{trial}" for score, trial in ((0, "0"), (1, other)) for one in IDS]

    status, said = gate(csv(tmp_path / "c.csv", "trial", rows=rows))

    assert status == 2
    assert 'c.csv:42: case "c0", metric "m"' in said
    assert "stands on line 2 already" in said


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("trial", "0.4"), ("trial", "1_0"), ("trial", "1e-3"), ("tier", "9"), ("tier", "1.6"),
        ("latency_ms", "inf"), ("latency_ms", "-5"), ("latency_ms", "1_0"), ("cost_usd", "-inf"),
        ("cost_usd", "1e999"),
    ],
)  # fmt: skip
def test_a_number_that_cannot_be_meant_is_named(
    tmp_path: Path, gate: Gate, column: str, cell: str
) -> None:
    path = csv(tmp_path / "c.csv", column, rows=[f"{one},m,1,{cell}" for one in IDS])

    status, said = gate(path)

    assert status == 2
    assert f"c.csv:2: {column} " in said


def test_a_score_with_an_underscore_is_no_number(tmp_path: Path, gate: Gate) -> None:
    status, said = gate(csv(tmp_path / "c.csv", rows=[f"{one},m,0_1" for one in IDS]))

    assert status == 2
    assert 'c.csv:2: score "0_1" is not a number' in said


@pytest.mark.parametrize("value", [float("inf"), -1.0])
def test_a_parquet_file_of_endless_or_negative_amounts_is_refused(
    tmp_path: Path, gate: Gate, value: float
) -> None:
    status, said = gate(parquet(tmp_path / "c.parquet", latency_ms=[value] * N))

    assert status == 2
    assert "row 1: latency_ms " in said


def test_amounts_that_are_no_numbers_are_not_known(tmp_path: Path, gate: Gate) -> None:
    nan = [float("nan")] * N

    status, said = gate(parquet(tmp_path / "c.parquet", latency_ms=nan, cost_usd=nan))

    assert status == 0
    assert json.loads(said)["comparisons"][0]["n"] == N


@pytest.mark.parametrize("second", ["Score", "score"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, gate: Gate, second: str) -> None:
    columns = [pa.array(IDS), pa.array(METRICS), pa.array(ONES), pa.array([0.0] * N)]
    path = tmp_path / "c.parquet"
    names = ["case_id", "metric", "score", second]
    pq.write_table(pa.Table.from_arrays(columns, names=names), path)

    status, said = gate(path)

    assert status == 2
    assert f'"score" and "{second}"' in said


def test_a_list_of_scores_is_no_score(tmp_path: Path, gate: Gate) -> None:
    status, said = gate(parquet(tmp_path / "c.parquet", score=[[1.0]] * N))

    assert status == 2
    assert "the column score is DOUBLE[], not a number" in said


@pytest.mark.parametrize("kind", [pa.uint8(), pa.uint64(), pa.float32(), pa.decimal128(38, 10)])
def test_a_score_of_any_number_type_is_read(tmp_path: Path, gate: Gate, kind: pa.DataType) -> None:
    status, said = gate(parquet(tmp_path / "c.parquet", score=pa.array([1] * N).cast(kind)))

    assert status == 0
    assert json.loads(said)["comparisons"][0]["candidate_mean"] == 1.0

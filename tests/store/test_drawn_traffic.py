"""The calls that benchmarks draw: as the call log would have left them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.traffic import START_US, write_calls
from evalkit.store.schema import arrow_schema
from evalkit.store.views import open_store

DAY_US = 86_400_000_000


def test_drawn_calls_have_the_columns_of_the_log_and_are_all_there(tmp_path: Path) -> None:
    write_calls(tmp_path, rows=2_000, days=2, seed=1)

    found = open_store(tmp_path).sql(
        "SELECT count(DISTINCT trace_id) AS n, min(epoch_us(ts)) AS first, max(epoch_us(ts)) AS"
        " last, count(*) FILTER (len(attempts) = 0 AND NOT cache_hit) AS unasked FROM calls"
    )[0]
    files = sorted(tmp_path.rglob("*.parquet"))
    assert found["n"] == 2_000
    assert found["unasked"] == 0
    assert START_US <= found["first"] <= found["last"] < START_US + 2 * DAY_US
    assert len(files) == 48
    assert all(pq.read_schema(path).equals(arrow_schema("calls")) for path in files)


def test_the_same_seed_draws_the_same_calls(tmp_path: Path) -> None:
    for name in ("one", "again"):
        write_calls(tmp_path / name, rows=500, days=1, seed=7)

    one, again = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.parquet")}
        for n in ("one", "again")
    )
    assert one == again

"""The views: what was written comes back, and only what is whole is shown."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalkit.errors import ConfigError, DamagedStore, NotComparable, StoreError
from evalkit.frozen import by_field
from evalkit.records import Attempt, CallRecord, Score, ToolCall
from evalkit.store.files import read_json, write_json
from evalkit.store.schema import TABLES
from evalkit.store.views import Engine, Store, open_store
from tests.store.journal_lines import AT, call, line, manifest, score

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def seal_run(store: Store, run_id: str = "run-1", *, cases: int = 2) -> None:
    with store.create_run(manifest(run_id)) as writer:
        for number in range(cases):
            writer.append(line(number, run_id=run_id))
        writer.seal("complete", counts={"scored": cases})


def flip_a_bit(path: Path, *, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    changed_ns = path.stat().st_mtime_ns + 1
    path.write_bytes(data)
    # A clock of a few milliseconds cannot tell the writes of a test apart.
    os.utime(path, ns=(changed_ns, changed_ns))


def score_file(store: Store, run_id: str = "run-1") -> Path:
    return store.path / "scores" / f"run={run_id}.parquet"


# --- round trip --------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(-(2**63), 2**63 - 1)
times = st.integers(0, 4_000_000_000_000_000)
maybe_text, maybe_number, maybe_count = (st.none() | of for of in (texts, numbers, counts))
number_maps = st.dictionaries(texts, numbers, max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | counts | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)

BY_ANNOTATION: dict[str, st.SearchStrategy[Any]] = {
    "str": texts,
    "str | None": maybe_text,
    "int": counts,
    "int | None": maybe_count,
    "float": numbers,
    "float | None": maybe_number,
    "bool": st.booleans(),
    "bool | None": st.none() | st.booleans(),
    "CallStatus": texts,
    "Outcome": texts,
    "Json": json_values,
    "Mapping[str, Any]": st.dictionaries(texts, json_values, max_size=3),
    "Mapping[str, str]": st.dictionaries(texts, texts, max_size=3),
    "Mapping[str, float]": number_maps,
    "tuple[str, ...]": st.lists(texts, max_size=3).map(tuple),
}


def records(record: type, **own: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any record of a class, by the annotations of its fields."""
    of_field = {
        field.name: own[field.name] if field.name in own else BY_ANNOTATION[str(field.type)]
        for field in fields(record)
    }
    return st.builds(record, **of_field)


calls = records(
    CallRecord,
    ts=times,
    attempts=st.lists(records(Attempt), max_size=2).map(tuple),
    tool_calls=st.lists(records(ToolCall), max_size=2).map(tuple),
)


def expected_row(record: Any) -> dict[str, Any]:
    """What the view has to show of a record."""
    row = asdict(record)
    for name, value in row.items():
        if name in ("ts", "created_at"):
            row[name] = EPOCH + timedelta(microseconds=value)
        elif isinstance(value, tuple):
            row[name] = list(value)
    return row


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(made=calls, scored=records(Score, created_at=times))
def test_a_record_comes_back_from_journal_and_parquet_as_it_was(
    made: CallRecord, scored: Score
) -> None:
    with TemporaryDirectory() as folder:
        store = open_store(folder)
        with store.create_run(manifest()) as writer:
            writer.append({"key": ["k"], "calls": [by_field(made)], "scores": [by_field(scored)]})
            writer.seal("complete")

        (call_row,) = store.sql("FROM calls")
        (score_row,) = store.sql("FROM scores")
    for column in ("params", "input"):
        call_row[column] = json.loads(call_row[column] or "null")

    assert call_row == expected_row(made)
    assert score_row == expected_row(scored)


def test_the_runs_view_shows_the_manifest(store: Store) -> None:
    seal_run(store)

    (row,) = store.sql("FROM runs")

    assert row.pop("created_at") <= row.pop("sealed_at") <= datetime.now(UTC)
    assert row == {
        "run_id": "run-1",
        "status": "complete",
        "golden_sets": ["tickets"],
        "golden_set_hashes": {"tickets": "aaaa"},
        "pairs": ["small/classify-ticket@v2"],
        "prompts": {"classify-ticket@v2": "0123456789abcdef"},
        "git_commit": "c0ffee",
        "git_branch": "main",
        "git_dirty": False,
        "versions": {"evalkit": "0.1.0", "python": "3.11.0"},
        "seed": 7,
        "planned": 2,
        "counts": {"scored": 2},
        "files": ["scores/run=run-1.parquet", "calls/date=2025-10-09/run-1.parquet"],
        "schema_version": 1,
    }


def test_runs_come_newest_first(store: Store) -> None:
    for run_id in ("run-b", "run-a", "run-c"):
        store.create_run(manifest(run_id)).close()

    assert [run["run_id"] for run in store.runs()] == ["run-c", "run-a", "run-b"]


def test_a_verdict_is_a_row_for_each_comparison(store: Store) -> None:
    comparison = {
        "golden_set": "tickets",
        "metric": "label",
        "tier": 1,
        "slice": None,
        "baseline": {"run_id": "run-0", "model": "small", "prompt_version": "v1"},
        "candidate": {"run_id": "run-1", "model": "small", "prompt_version": "v2"},
        "n": 60,
        "delta": -0.1,
        "ci": [-0.2, None],
        "verdict": "regression",
    }
    store.save_verdict("v-1", {"verdict": "regression", "comparisons": [comparison, comparison]})
    store.save_verdict("v-2", {"verdict": "unmeasurable", "comparisons": []})

    rows = store.sql(
        "SELECT verdict_id, verdict, comparison_verdict, baseline_run_id, "
        "candidate_prompt_version, ci_low, ci_high, n FROM verdicts ORDER BY ALL"
    )

    first = ("v-1", "regression", "regression", "run-0", "v2", -0.2, None, 60)
    second = ("v-2", "unmeasurable", None, None, None, None, None, None)
    assert [tuple(row.values()) for row in rows] == [first, first, second]
    assert [verdict["verdict_id"] for verdict in store.verdicts()] == ["v-2", "v-1"]


def test_a_kept_verdict_is_never_changed(store: Store) -> None:
    store.save_verdict("v-1", {"verdict": "pass"})

    with pytest.raises(StoreError, match="never overwritten"):
        store.save_verdict("v-1", {"verdict": "regression"})
    with pytest.raises(StoreError, match="cannot be a file's name"):
        store.save_verdict("../v", {"verdict": "pass"})


def test_calls_and_labels_of_production_stand_beside_those_of_runs(store: Store) -> None:
    seal_run(store)

    store.add_calls(
        "log-1", [by_field(call(trace_id="p-1")), by_field(call(trace_id="p-2", ts=AT * 2))]
    )
    store.add_labels("labels-1", [{"label_id": "l-1", "score": 0.5, "labelled_at": AT}])

    assert store.sql("SELECT count(*) AS n FROM calls") == [{"n": 4}]
    (label,) = store.sql("SELECT label_id, score, labelled_at, comment FROM labels")
    at = EPOCH + timedelta(microseconds=AT)
    assert label == {"label_id": "l-1", "score": 0.5, "labelled_at": at, "comment": None}


def test_of_calls_that_cannot_all_be_added_none_is(store: Store) -> None:
    day = 86_400_000_000
    calls = [by_field(call(trace_id=f"p-{n}", ts=AT + n * day)) for n in range(3)]

    with pytest.raises(StoreError, match="prompt_tokens"):
        store.add_calls("log-1", [{**calls[0], "prompt_tokens": "many"}, *calls[1:]])

    assert store.sql("SELECT trace_id FROM calls") == []


def test_baselines_are_chosen_for_a_golden_set_and_feature(store: Store) -> None:
    store.baselines.set("tickets", "classify-ticket", "run-1")
    store.baselines.set("tickets", "other", "run-2")
    store.baselines.set("tickets", "classify-ticket", "run-3")

    assert store.baselines.get("tickets", "classify-ticket") == "run-3"
    assert store.baselines.get("orders", "extract") is None
    assert open_store(store.path).baselines.all() == {
        ("tickets", "classify-ticket"): "run-3",
        ("tickets", "other"): "run-2",
    }


def test_a_baseline_chosen_meanwhile_is_not_overwritten(store: Store) -> None:
    seen = store.baselines.all()
    store.baselines.set("tickets", "classify-ticket", "theirs")

    with pytest.raises(StoreError, match="tickets: its baseline is theirs by now, not none"):
        store.baselines.choose(
            {("orders", "extract"): "mine", ("tickets", "classify-ticket"): "mine"}, seen=seen
        )

    assert store.baselines.all() == {("tickets", "classify-ticket"): "theirs"}


def test_a_new_store_ignores_itself_in_git(store: Store) -> None:
    seal_run(store)

    assert (store.path / ".gitignore").read_text() == "*\n"


def test_reading_creates_nothing(store: Store) -> None:
    store.sql("FROM scores")
    store.runs()

    assert not store.path.exists()


@pytest.mark.parametrize("path", ["s3://bucket/evalkit", "https://host/store"])
def test_a_url_is_refused_as_a_store(path: str) -> None:
    with pytest.raises(
        ConfigError, match=r"only a folder .* evalkit logs push URL, evalkit logs attach URL"
    ):
        open_store(path)


def test_a_file_is_refused_as_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="is a file"):
        open_store(tmp_path / "file")


# --- damage and the unfinished -----------------------------------------------------


def test_a_flipped_bit_in_a_sealed_file_is_named(store: Store) -> None:
    seal_run(store)
    size = score_file(store).stat().st_size

    for at in range(0, size, max(1, size // 100)):
        flip_a_bit(score_file(store), at=at)
        with pytest.raises(DamagedStore, match=r"scores/run=run-1\.parquet is damaged"):
            store.score_files("run-1")
        flip_a_bit(score_file(store), at=at)
    assert store.score_files("run-1") == [score_file(store)]


def test_a_damaged_run_is_left_out_and_named_and_others_are_shown(store: Store) -> None:
    seal_run(store, "run-1")
    seal_run(store, "run-2")
    flip_a_bit(score_file(store, "run-1"), at=100)

    rows = store.sql("SELECT DISTINCT run_id FROM scores")

    assert rows == [{"run_id": "run-2"}]
    assert ["run=run-1.parquet is damaged" in problem for problem in store.problems] == [True]
    assert store.score_files("run-2")
    assert score_file(store, "run-1").exists()


def test_a_missing_file_is_named(store: Store) -> None:
    seal_run(store)
    score_file(store).unlink()

    with pytest.raises(DamagedStore, match=r"run=run-1\.parquet is missing"):
        store.score_files("run-1")
    assert store.sql("FROM scores") == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schema_version": "1"}', '{"schema_version": 1, "files": {}}']
)
def test_a_damaged_manifest_disturbs_no_other_run(store: Store, text: str) -> None:
    seal_run(store, "run-1")
    seal_run(store, "run-2")
    (store.path / "runs" / "run-1" / "manifest.json").write_text(text)

    assert [run["run_id"] for run in store.runs()] == ["run-2"]
    assert store.sql("SELECT DISTINCT run_id FROM scores") == [{"run_id": "run-2"}]
    assert "run-1/manifest.json is damaged" in store.problems[0]
    with pytest.raises(DamagedStore, match=r"manifest\.json is damaged"):
        store.manifest("run-1")


def change_manifest(store: Store, **changes: Any) -> None:
    path = store.path / "runs" / "run-1" / "manifest.json"
    write_json(path, read_json(path) | changes, replace=True)


def test_a_manifest_that_leads_outside_the_store_is_damaged(store: Store) -> None:
    seal_run(store)
    change_manifest(store, files={"scores/../../x": {"sha256": "0"}})

    with pytest.raises(DamagedStore, match="damaged"):
        store.score_files("run-1")


def test_a_manifest_with_other_types_is_left_out_of_the_view(store: Store) -> None:
    seal_run(store, "run-1")
    seal_run(store, "run-2")
    change_manifest(store, planned="many", golden_sets=[1])

    assert store.sql("SELECT run_id FROM runs") == [{"run_id": "run-2"}]
    assert "run-1" in store.problems[0]


def test_a_newer_store_is_refused_clearly_and_an_older_one_is_read(store: Store) -> None:
    seal_run(store)

    change_manifest(store, schema_version=2)
    with pytest.raises(StoreError, match=r"newer evalkit \(schema 2.*Upgrade"):
        store.score_files("run-1")
    with pytest.raises(StoreError, match="newer evalkit"):
        store.open_run("run-1")
    assert store.sql("FROM scores") == []

    change_manifest(store, schema_version=0)
    assert len(store.sql("FROM scores")) == 2


def test_a_newer_store_is_told_as_such_however_it_is_sealed(store: Store) -> None:
    seal_run(store)
    path = store.path / "runs" / "run-1" / "manifest.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"schema_version": 1', '"schema_version": 2'), encoding="utf-8")

    with pytest.raises(StoreError, match="newer evalkit"):
        store.score_files("run-1")


def test_a_column_that_an_older_file_has_not_is_null(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"score": [0.5], "case_id": ["a"], "gone": [1]}), tmp_path / "old")
    with Engine() as engine:
        engine.add_files("scores", [tmp_path / "old"])

        (row,) = engine.rows("FROM scores")

    assert list(row) == [column.name for column in TABLES["scores"]]
    assert (row["case_id"], row["score"], row["metric"]) == ("a", 0.5, None)


def test_an_unfinished_run_is_in_no_view_but_runs(store: Store) -> None:
    seal_run(store, "run-1")
    with store.create_run(manifest("run-2")) as writer:
        writer.append(line(1, run_id="run-2"))

        assert store.sql("SELECT DISTINCT run_id FROM scores") == [{"run_id": "run-1"}]
        assert len(store.sql("FROM calls")) == 2
        assert store.sql("SELECT run_id, status FROM runs ORDER BY ALL") == [
            {"run_id": "run-1", "status": "complete"},
            {"run_id": "run-2", "status": "running"},
        ]
        with pytest.raises(NotComparable, match="evalkit run --resume run-2"):
            store.score_files("run-2")
    assert store.problems == []


def test_a_file_that_is_no_parquet_is_left_out_and_named(store: Store) -> None:
    seal_run(store)
    for name in ("labels/x.parquet", "calls/date=2025-10-09/x.parquet"):
        (store.path / name).parent.mkdir(exist_ok=True)
        (store.path / name).write_bytes(b"PAR1 not really")

    assert store.sql("FROM labels") == []
    assert len(store.sql("FROM calls")) == 2
    assert len(store.problems) == 2


def test_a_bit_flipped_in_the_values_of_a_file_of_labels_leaves_the_file_out(store: Store) -> None:
    path = store.add_labels(
        "labels-1", [{"label_id": "l-1", "comment": "wrong", "labelled_at": AT}]
    )
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    expected = store.sql("FROM labels")
    left_out = 0

    for at in range(4, footer, 41):
        path.write_bytes(whole)
        flip_a_bit(path, at=at)
        fresh = open_store(store.path)
        shown = fresh.sql("FROM labels")
        assert shown in ([], expected), at  # never another label
        left_out += not shown
        assert len(fresh.problems) == (0 if shown else 1)

    assert left_out > 5


def test_a_store_under_a_name_with_pattern_characters_and_quotes_is_read(tmp_path: Path) -> None:
    store = open_store(tmp_path / "we*ird [x] 'q' {a,b} ?é")
    seal_run(store)

    assert len(store.sql("FROM scores JOIN calls USING (trace_id)")) == 2


# --- hostile SQL -------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_csv('{secret}')",
        "FROM '{secret}'",
        "SELECT * FROM read_blob('{secret}')",
        "SELECT * FROM read_json('{secret}')",
        "SELECT * FROM read_parquet('{store}/**/*.parquet')",
        "SELECT * FROM glob('{store}/*')",
        "SELECT * FROM parquet_metadata('{secret}')",
        "SELECT * FROM sniff_csv('{secret}')",
        "FROM 'http://127.0.0.1:9/x.parquet'",
        "SELECT * FROM sqlite_scan('{secret}', 'x')",
        "SELECT getenv('HOME')",
        "FROM secret",
        "SELECT * FROM enable_logging(storage = 'file', storage_path = '{store}/log')",
        "SELECT * FROM query('COPY scores TO ''{store}/out''')",
        "COPY (SELECT 1) TO '{store}/out.csv'",
        "COPY scores FROM '{secret}'",
        "ATTACH '{store}/x.db'",
        "ATTACH ':memory:' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET threads = 1",
        "RESET memory_limit",
        "PRAGMA memory_limit = '1TB'",
        "CALL enable_logging()",
        "CREATE TABLE t AS SELECT 1",
        "DROP VIEW scores",
        "DELETE FROM scores",
        "INSERT INTO scores SELECT * FROM scores",
        "EXPORT DATABASE '{store}/export'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{store}/out.csv'",
        "WITH x AS (SELECT 1) INSERT INTO scores SELECT * FROM x",
        "SELECT 1; COPY (SELECT 1) TO '{store}/out.csv'",
        "SELECT 1; SELECT 2",
        "CREATE SECRET s (TYPE s3)",
        "PREPARE p AS SELECT 1",
        "",
        "-- nothing",
        "selec 1",
        "SELECT \0",
    ],
)
def test_a_query_reads_the_views_and_nothing_else(store: Store, tmp_path: Path, query: str) -> None:
    seal_run(store)
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n1,2\n")
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(StoreError):
        store.sql(query.format(store=store.path, secret=secret))

    assert sorted(tmp_path.rglob("*")) == before
    assert len(store.sql("FROM scores")) == 2


def test_a_parameter_is_data_whatever_it_says(store: Store) -> None:
    seal_run(store)
    hostile = "x' OR 1=1 --"

    assert store.sql("SELECT case_id FROM scores WHERE model = $1", [hostile]) == []
    assert store.sql("SELECT $name AS said", {"name": hostile}) == [{"said": hostile}]


def test_a_file_named_like_sql_is_only_a_name(tmp_path: Path) -> None:
    store = open_store(tmp_path / "a']); DROP VIEW scores; --")
    seal_run(store)

    assert len(store.sql("FROM scores")) == 2


# --- the engine --------------------------------------------------------------------


def test_every_query_is_read_to_its_end_so_that_the_next_one_can_run() -> None:
    with Engine() as engine:
        for _ in range(3):
            assert len(engine.rows("SELECT * FROM range(10000)")) == 10_000


def test_columns_are_arrays_with_nan_for_null() -> None:
    with Engine() as engine:
        found = engine.columns(
            "SELECT * FROM (VALUES (1, 1.5::DOUBLE, 'a', true, 2::HUGEINT), "
            "(NULL, NULL, NULL, false, 3)) AS t(i, d, s, b, h)"
        )

    assert {name: values.dtype.kind for name, values in found.items()} == {
        "i": "f", "d": "f", "s": "O", "b": "b", "h": "f",
    }  # fmt: skip
    assert str(found["i"].tolist()) == "[1.0, nan]"
    assert found["s"].tolist() == ["a", None]


def test_a_column_named_twice_is_shown_twice() -> None:
    with Engine() as engine:
        assert engine.rows("SELECT 1 AS a, 2 AS a, 3 AS a") == [{"a": 1, "a_2": 2, "a_3": 3}]


def test_sums_and_maps_are_plain_python() -> None:
    with Engine() as engine:
        (row,) = engine.rows("SELECT sum(2) AS s, MAP {'k': 1} AS m, 1.5::DECIMAL(4, 1) AS d")

    assert row == {"s": 2, "m": {"k": 1}, "d": 1.5}
    assert type(row["s"]) is int


def test_a_view_added_later_is_seen_by_the_next_query(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1]}), tmp_path / "one.parquet")
    with Engine() as engine:
        engine.add_table("first", pa.table({"x": [0]}))
        assert engine.rows("FROM first") == [{"x": 0}]

        engine.add_files("second", [tmp_path / "one.parquet"])

        assert engine.rows("FROM first UNION ALL FROM second ORDER BY x") == [{"x": 0}, {"x": 1}]


def test_a_score_row_as_made_here_is_a_row_of_the_view() -> None:
    assert set(by_field(score())) == {column.name for column in TABLES["scores"]}


def test_rows_come_as_a_data_frame_too(store: Store) -> None:
    frame = store.df("SELECT run_id, status FROM runs")

    assert list(frame.columns) == ["run_id", "status"]
    assert len(frame) == 0

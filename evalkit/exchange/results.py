"""Read any runner's results, from CSV, JSON Lines or Parquet, into rows the gate compares.

Stands beside the store: what it gives has the columns that a run's scores have. Foreign
files are data: every row is checked, a bad one is named with its line and what would be
right, and nothing is guessed. A score that is empty or NaN is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import InputFileError, StoreError
from evalkit.exchange.result_lines import (
    COLUMNS,
    FIXES,
    OUTCOMES,
    plain_csv_table,
    quoted,
    read_csv,
    read_jsonl,
    require,
    text_table,
)
from evalkit.store.views import Engine

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
SHOWN_PROBLEMS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """A results file, read and checked."""

    path: Path
    table: pa.Table
    """The columns of `decide.rows`."""
    notes: tuple[str, ...]
    """What the reader of a verdict should know, e.g. a column that looks misspelt."""


def is_results_file(text: str) -> bool:
    """Whether a selector names a file rather than a run, be it one that cannot be read."""
    path = Path(text)
    return path.suffix.lower() in SUFFIXES or (path.suffix != "" and path.is_file())


def load_results(path: Path, *, engine: Engine | None = None) -> Results:
    """Read and check `path`, in an engine that is there already, or in one of its own.

    Raises InputFileError with one `file:line: problem. fix` per bad row, the first 20.
    """
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise InputFileError(
            f"{path}: results are read from .csv, .jsonl and .parquet. Rename or convert the file."
        )
    if not path.is_file():
        raise InputFileError(f"{path}: no such file.")
    try:
        if engine is not None:
            found, table = _checked(path, kind, engine)
        else:
            with Engine() as own:
                found, table = _checked(path, kind, own)
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror or error}.") from None
    if table.num_rows == 0:
        raise InputFileError(f"{path}: no rows. Give one for every case and metric.")
    return Results(path=path, table=table, notes=tuple(_notes(found, path)))


def _checked(path: Path, kind: str, engine: Engine) -> tuple[list[str], pa.Table]:
    """The columns found and the typed rows.

    A large plain CSV file is read at once; only if something is wrong in it is it read
    again line by line, to say where.
    """
    if kind == "parquet":
        found = _add_parquet(engine, path)
        _refuse_bad_rows(engine, path, unit="row")
        return found, engine.arrow(_TYPED)
    found, rows = read_csv(path) if kind == "csv" else read_jsonl(path)
    at_once = plain_csv_table(path, found) if kind == "csv" else None
    if at_once is not None:
        _add_text(engine, at_once)
        if not _problems(engine, path, unit="line"):
            return found, _taken(engine)
    _add_text(engine, text_table(found, rows, path))
    _refuse_bad_rows(engine, path, unit="line")
    return found, _taken(engine)


def _add_text(engine: Engine, table: pa.Table) -> None:
    engine.add_table("raw_text", table)
    engine.rows("CREATE OR REPLACE TEMP VIEW raw AS FROM raw_text")


def _taken(engine: Engine) -> pa.Table:
    """The typed rows of the text, which is let go."""
    typed = engine.arrow(_TYPED)
    engine.drop_table("raw_text")
    return typed


# --- Parquet ----------------------------------------------------------------------


def _add_parquet(engine: Engine, path: Path) -> list[str]:
    """A view over the file with every known column, text but for the numbers."""
    engine.add_files("file", [path])
    try:
        types = {
            str(row["column_name"]): str(row["column_type"]) for row in engine.rows("DESCRIBE file")
        }
    except StoreError as error:
        reason = str(error).splitlines()[0]
        raise InputFileError(f"{path}: cannot be read as Parquet: {reason}") from None
    require([*types], str(path))
    _refuse_equal_names(path)
    if not _NUMERIC.fullmatch(types["score"]):
        raise InputFileError(
            f"{path}: the column score is {types['score']}, not a number.{FIXES['score']}"
        )
    cells = ", ".join(
        _parquet_cell(name, types[name]) if name in types else f"NULL::VARCHAR AS {name}"
        for name in COLUMNS
    )
    engine.rows(
        f"CREATE OR REPLACE TEMP VIEW raw AS SELECT row_number() OVER () AS line, {cells} FROM file"
    )
    return [*types]


_NUMERIC = re.compile(
    r"\"NULL\"|DOUBLE|FLOAT|DECIMAL\(\d+,\d+\)|U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER"
)


def _refuse_equal_names(path: Path) -> None:
    """For the engine `Score` is `score`, and of two it would take the first."""
    import pyarrow.parquet as pq

    names = pq.read_schema(path).names
    for name in COLUMNS:
        equal = [other for other in names if other.lower() == name]
        if len(equal) > 1:
            shown = " and ".join(map(quoted, equal[:3]))
            raise InputFileError(f"{path}: the columns {shown} have one name. Keep one.")


def _parquet_cell(name: str, kind: str) -> str:
    if name in ("score", "latency_ms", "cost_usd"):
        # By its digits: 0.9 as a FLOAT is 0.8999999762, which other files' 0.9 would be above.
        digits = f"CAST({name} AS VARCHAR)" if kind == "FLOAT" else name
        return f"try_cast({digits} AS DOUBLE) AS {name}"
    if kind in ("DOUBLE", "FLOAT"):  # a column of numbers with holes, as pandas writes it
        return f"CASE WHEN NOT isnan({name}) THEN CAST({name} AS VARCHAR) END AS {name}"
    return f"nullif(CAST({name} AS VARCHAR), '') AS {name}"


# --- rows as the store has them -----------------------------------------------------

_TYPED = """
    SELECT
        coalesce(golden_set, '') AS golden_set,
        metric,
        coalesce(model, '') AS model,
        coalesce(prompt_name, '') AS prompt_name,
        coalesce(prompt_version, '') AS prompt_version,
        case_id,
        coalesce(case_hash, '') AS case_hash,
        cluster,
        coalesce(try_cast(trial AS BIGINT), 0) AS trial,
        CASE
            WHEN outcome = 'product_failure' THEN 0.0
            WHEN NOT isnan(try_cast(score AS DOUBLE)) THEN try_cast(score AS DOUBLE)
        END AS score,
        CASE
            WHEN coalesce(outcome, 'scored') <> 'scored' THEN outcome
            WHEN isnan(coalesce(try_cast(score AS DOUBLE), 'nan'::DOUBLE)) THEN 'no_score'
            ELSE 'scored'
        END AS outcome,
        scorer_version,
        served_model,
        CASE WHEN slice IS NULL THEN []::VARCHAR[] ELSE [slice] END AS slices,
        coalesce(try_cast(tier AS INTEGER), 0) AS tier,
        NULL::BOOLEAN AS passed,
        NULL::VARCHAR AS reason,
        nullif(try_cast(latency_ms AS DOUBLE), 'nan'::DOUBLE) AS latency_ms,
        nullif(try_cast(cost_usd AS DOUBLE), 'nan'::DOUBLE) AS cost_usd
    FROM raw
    """


# --- problems -----------------------------------------------------------------------

_TRIAL = "coalesce(try_cast(trial AS BIGINT), 0)"
"""As it is compared: `0`, `00`, `0.0` and nothing are one trial."""
_KEY = f"golden_set, model, prompt_name, prompt_version, case_id, case_hash, {_TRIAL}, metric"


def _refuse_bad_rows(engine: Engine, path: Path, *, unit: str) -> None:
    problems = _problems(engine, path, unit=unit)
    if problems:
        more = ["… and more like these."] if len(problems) > SHOWN_PROBLEMS else []
        raise InputFileError("\n".join([*problems[:SHOWN_PROBLEMS], *more]))


def _problems(engine: Engine, path: Path, *, unit: str) -> list[str]:
    """What is wrong with the rows of `raw`, a line each; a few more than are shown."""
    at = "" if unit == "line" else " row "
    bad = engine.rows(_problem_sql(is_text=unit == "line"))
    twice = engine.rows(_DUPLICATES)
    return [f"{path}:{at}{row['line']}: {_problem(row)}" for row in bad] + [
        f"{path}:{at}{row['again']}: case {quoted(row['case_id'])}, metric {quoted(row['metric'])}"
        f"{'' if row['trial'] is None else ', trial ' + row['trial']} stands on {unit} "
        f"{row['line']} already. Keep one, or number the trials in a column trial."
        for row in twice
    ]


def _problem(row: dict[str, Any]) -> str:
    name, value = row["problem"], row["value"]
    fix = FIXES[name.split(":")[0]]
    if name in ("case_id", "metric"):
        return f"no {name}.{fix}"
    if name == "score:outcome":
        return (
            f"outcome {quoted(row['outcome'])} with a score of {quoted(value)}. "
            "A row that failed has no score: leave it empty, or write outcome scored."
        )
    if name == "score:range":
        return f"score {quoted(value)} is not within 0 and 1.{fix}"
    if name == "outcome":
        return f"outcome {quoted(value)} is not known.{fix}"
    return f"{name} {quoted(value)} is not a {_WANTED.get(name, 'number')}.{fix}"


_WANTED = {
    "trial": "whole number",
    "tier": "tier",
    "latency_ms": "number from 0 upwards",
    "cost_usd": "number from 0 upwards",
}
"""What a column holds, when it is not any number."""


def _problem_sql(*, is_text: bool) -> str:
    outcomes = ", ".join(f"'{name}'" for name in OUTCOMES)

    def not_a(kind: str, name: str) -> str:
        # The engine reads 1_0 as ten, and rounds 0.4 to a whole number.
        wrong = [f"try_cast({name} AS {kind}) IS NULL"]
        if is_text:
            wrong.append(f"contains({name}, '_')")
        if kind != "DOUBLE":
            wrong.append(f"try_cast({name} AS DOUBLE) <> try_cast({name} AS {kind})")
        return f"{name} IS NOT NULL AND ({' OR '.join(wrong)})"

    def not_an_amount(name: str) -> str:
        number = f"try_cast({name} AS DOUBLE)"
        return f"{not_a('DOUBLE', name)} OR {number} < 0 OR {number} = 'inf'::DOUBLE"

    cases = {
        "case_id": "case_id IS NULL",
        "metric": "metric IS NULL",
        "score": not_a("DOUBLE", "score"),
        "score:range": (
            "NOT isnan(try_cast(score AS DOUBLE)) AND try_cast(score AS DOUBLE) NOT BETWEEN 0 AND 1"
        ),
        "outcome": f"outcome IS NOT NULL AND outcome NOT IN ({outcomes})",
        "score:outcome": (
            "outcome NOT IN ('scored', 'product_failure') AND NOT isnan(try_cast(score AS DOUBLE))"
        ),
        "trial": not_a("BIGINT", "trial"),
        "tier": f"{not_a('INTEGER', 'tier')} OR try_cast(tier AS INTEGER) NOT BETWEEN 1 AND 3",
        "latency_ms": not_an_amount("latency_ms"),
        "cost_usd": not_an_amount("cost_usd"),
    }
    whens = " ".join(f"WHEN {condition} THEN '{name}'" for name, condition in cases.items())
    values = " ".join(f"WHEN '{name}' THEN CAST({name.split(':')[0]} AS VARCHAR)" for name in cases)
    return f"""
        SELECT line, problem, outcome, CASE problem {values} END AS value
        FROM (SELECT *, CASE {whens} END AS problem FROM raw)
        WHERE problem IS NOT NULL ORDER BY line LIMIT {SHOWN_PROBLEMS + 1}
        """


# By hash first, so that a clean file costs little.
_DUPLICATES = f"""
    WITH twice AS (
        SELECT hash({_KEY}) AS h FROM raw GROUP BY h HAVING count(*) > 1
    ), doubtful AS (
        SELECT * FROM raw WHERE hash({_KEY}) IN (SELECT h FROM twice)
    )
    SELECT case_id, metric, min(trial) AS trial, min(line) AS line, min(line, 2)[2] AS again
    FROM doubtful WHERE case_id IS NOT NULL AND metric IS NOT NULL
    GROUP BY {_KEY} HAVING count(*) > 1
    ORDER BY again LIMIT {SHOWN_PROBLEMS + 1}
    """


def _notes(found: Sequence[str], path: Path) -> Iterator[str]:
    absent = [name for name in COLUMNS if name not in found]
    for name in found:
        near = [] if name in COLUMNS else get_close_matches(name, absent, n=1, cutoff=0.8)
        if near:
            shown = quoted(name)
            yield f"{path.name}: the column {shown} is not used. Is it meant to be {near[0]}?"

"""Counts of production's calls by the hour, kept beside them: millions of calls at a glance.

Sealed files never change, so each is counted once: its sums go into a small file for its
day, which says what it was made of and is made anew when that is gone or different. A
cache: nobody's words or names are in it, it may be deleted, and where it cannot be written
the answer is the same, only later.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.errors import EvalkitError, StoreError
from evalkit.store.engine import Engine
from evalkit.store.files import explain_os_errors, locked, write_whole
from evalkit.store.remote import attached, remote_calls
from evalkit.store.views import Store, days_between

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

log = logging.getLogger(__name__)

FOLDER = "tallies"
VERSION = 4
"""Of the columns and their SQL; files of another version are made anew."""
HOUR_US = 3_600_000_000
BINS = 64
"""Of a factor e: a latency is known to within 0.8 %."""

MODEL = "coalesce(regexp_replace(served_model, '\\(.*\\)$', ''), model)"
"""The configured model that answered, else the one that was asked for."""
MONEY = "TRY_CAST(cost_usd AS DECIMAL(24, 12))"
"""A call's cost, null from a trillion dollars on, which no sum of calls' has room for."""
_PRICED = f"{MONEY} IS NOT NULL"
_ANSWER = "list_filter(attempts, lambda a: a.error_kind IS NULL)[-1]"
_LAST_PROMPT = f"coalesce({_ANSWER}.prompt_tokens, attempts[-1].prompt_tokens, prompt_tokens)"
_LAST_COMPLETION = (
    f"coalesce({_ANSWER}.completion_tokens, attempts[-1].completion_tokens, completion_tokens)"
)
_COMPARABLE = (
    f"NOT cache_hit AND {_PRICED} AND {_LAST_PROMPT} IS NOT NULL AND {_LAST_COMPLETION} IS NOT NULL"
)

KEYS = {
    "hour": f"epoch_us(ts) // {HOUR_US}",
    "feature": "feature",
    "model": "model",
    "answered_by": MODEL,
    "prompt_name": "prompt_name",
    "prompt_version": "prompt_version",
    "cache_hit": "coalesce(cache_hit, false)",
    "status": "status",
    "error_kind": "error_kind",
}
"""What calls are counted by -> its SQL."""


def _sum(what: str, where: str = "true") -> str:
    """Exact however many calls there are; a double is what Parquet has for larger integers."""
    return f"coalesce(sum({what}) FILTER ({where}), 0)::DECIMAL(38, 0)"


MEASURES = {
    "calls": "count(*)",
    "unpriced": f"count(*) FILTER (NOT ({_PRICED}))",
    "cost_usd": f"coalesce(sum({MONEY}), 0)",
    "prompt_tokens": _sum("prompt_tokens"),
    "completion_tokens": _sum("completion_tokens"),
    "cached_prompt_tokens": _sum("cached_prompt_tokens"),
    "uncounted": "count(*) FILTER (NOT cache_hit AND served_model IS NOT NULL"
    " AND (prompt_tokens IS NULL OR completion_tokens IS NULL))",
    "answered": "count(*) FILTER (served_model IS NOT NULL AND NOT cache_hit)",
    "comparable": f"count(*) FILTER ({_COMPARABLE})",
    "comparable_usd": f"coalesce(sum({MONEY}) FILTER ({_COMPARABLE}), 0)",
    "last_prompt": _sum(_LAST_PROMPT, _COMPARABLE),
    "last_completion": _sum(_LAST_COMPLETION, _COMPARABLE),
    "retried": "count(*) FILTER (retries > 0)",
    "escalated": "count(*) FILTER (escalated)",
    "repaired": "count(*) FILTER (repaired)",
    "repair_known": "count(repaired)",
    "schema_known": "count(schema_ok)",
    "schema_ok": "count(*) FILTER (schema_ok)",
}
"""What is summed over them -> its SQL."""

_PAIR = ("hour", "feature", "model", "prompt_name", "prompt_version")
_TIMES = ("latency_ms", "ttft_ms")
_SIZES = ("cost_usd", "prompt_tokens", "completion_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tally:
    """One kind of file: how it is made of calls, and one of several."""

    keys: Sequence[str]
    sums: Sequence[str]
    of_calls: str

    def merged(self, view: str) -> str:
        sums = ", ".join(
            f"sum({name})::{_TYPES.get(name, 'DECIMAL(38, 0)')} AS {name}" for name in self.sums
        )
        return f"SELECT {', '.join(self.keys)}, {sums} FROM {view} GROUP BY ALL ORDER BY ALL"


_TYPES = {"cost_usd": "DECIMAL(38, 12)", "comparable_usd": "DECIMAL(38, 12)", "n": "BIGINT"} | {
    name: "BIGINT" for name, sql in MEASURES.items() if sql.startswith("count(")
}


def _named(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{sql} AS {name}" for name, sql in columns.items())


def _binned(keys: Mapping[str, str], columns: Sequence[str], least: float, where: str) -> str:
    """Calls by logarithm of a number; quantiles of any window come out of it."""
    parts = [
        f"SELECT {_named(keys)}, '{name}' AS what,"
        f" floor(ln(greatest({name}::DOUBLE, {least})) * {BINS})::INT AS bin, count(*) AS n"
        f" FROM calls WHERE {where} AND isfinite({name}::DOUBLE) GROUP BY ALL"
        for name in columns
    ]
    return " UNION ALL ".join(parts) + " ORDER BY ALL"


_TIMED = {name: KEYS[name] for name in (*_PAIR, "cache_hit")}
_SIZED = {"day": f"epoch_us(ts) // {24 * HOUR_US}"} | {name: KEYS[name] for name in _PAIR[1:]}


TALLIES = {
    "counts": _Tally(
        keys=tuple(KEYS),
        sums=tuple(MEASURES),
        of_calls=f"SELECT {_named(KEYS)}, {_named(MEASURES)} FROM calls GROUP BY ALL ORDER BY ALL",
    ),
    "times": _Tally(
        keys=(*_TIMED, "what", "bin"),
        sums=("n",),
        of_calls=_binned(_TIMED, _TIMES, 0.01, "true"),
    ),
    "sizes": _Tally(
        keys=(*_SIZED, "what", "bin"),
        sums=("n",),
        of_calls=_binned(_SIZED, _SIZES, 1e-12, f"NOT {KEYS['cache_hit']}"),
    ),
}
"""View -> its columns. `counts`: calls, costs, tokens. `times`: how many took how long.
`sizes`: how many answers of models cost how much and had how many tokens, by the day."""


def tallied(
    store: Store, *, since: int, until: int, views: Sequence[str] = ("counts", "times")
) -> Engine:
    """An engine whose `views` (of `TALLIES`) have at least the hours of a window.

    Times are microseconds since 1970; `hour` counts hours since then.
    """
    here, unsealed = store.production_parts()
    first, last = between = days_between(since, until)
    there = _elsewhere(store, between)
    days = {
        date: Day(local=here.get(date, ()), far=there.get(date, {}))
        for date in sorted({*here, *there})
        if first <= date <= last
    }
    engine = Engine()
    with keeper(store.path / FOLDER) as keep:
        for view in views:
            tally = TALLIES[view]
            parts = [] if unsealed is None else [_of_calls(tally, [], unsealed)]
            for date, day in days.items():
                parts.append(_of_day(tally, store, day, f"date={date}.{view}.parquet", keep))
            # Without any it is empty, with its columns.
            add_parts(engine, view, parts or [_of_calls(tally, [])])
    return engine


def count_all(store: Store) -> None:
    """Bring the counts of all days up to date, so that whoever looks next does not wait.

    Not of a store that reads calls elsewhere, too: what that costs is for whoever asks.
    """
    if attached(store.path):
        return
    here, _ = store.production_parts()
    with keeper(store.path / FOLDER) as keep:
        for date, files in here.items():
            for view, tally in TALLIES.items():
                _of_day(tally, store, Day(local=files, far={}), f"date={date}.{view}.parquet", keep)


def dates_of(store: Store) -> list[str]:
    """Dates of sealed calls, here and at attached addresses, in order."""
    here, _ = store.production_parts()
    return sorted({*here, *_elsewhere(store, ("", "~"))})


def add_parts(engine: Engine, view: str, parts: Sequence[Path | pa.Table]) -> None:
    """Make a view of files and tables with the same columns; at least one of either."""
    import pyarrow as pa

    if files := [part for part in parts if isinstance(part, Path)]:
        engine.add_files(view, files)
    if tables := [part for part in parts if not isinstance(part, Path)]:
        engine.add_table(view, pa.concat_tables(tables))


def _elsewhere(store: Store, days: tuple[str, str]) -> dict[str, dict[str, ds.Dataset]]:
    """Date -> name of a file at an attached address -> its calls."""
    import pyarrow.dataset as ds

    found: dict[str, dict[str, ds.Dataset]] = {}
    if attached(store.path):
        local = (store.path / "calls").glob("date=*/*.parquet")
        for dataset in remote_calls(store.path, local, days):
            for name in dataset.files:
                folder, _, file = name.rpartition("/")
                date = folder.rpartition("date=")[2]
                found.setdefault(date, {})[file] = ds.dataset(
                    [name], schema=dataset.schema, filesystem=dataset.filesystem, format="parquet"
                )
    return found


def _of_calls(
    tally: _Tally,
    files: Sequence[Path],
    unsealed: pa.Table | None = None,
    *,
    far: Sequence[ds.Dataset] = (),
) -> pa.Table:
    with Engine() as engine:
        engine.add_files("calls", files)
        engine.add_datasets("calls", far)
        if unsealed is not None:
            engine.add_table("calls", unsealed)
        return engine.arrow(tally.of_calls)


# --- kept files ------------------------------------------------------------------------

Keep = Callable[[str, "pa.Table", Mapping[str, object]], Path | None]
"""Writes a table under a name, with what it was made of; None where it cannot be kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """Files of one day's calls: of this disk, and by name those that are elsewhere."""

    local: Sequence[Path]
    far: Mapping[str, ds.Dataset]


def _of_day(tally: _Tally, store: Store, day: Day, name: str, keep: Keep) -> Path | pa.Table:
    """The kept file of a day, brought up to date; a table where it cannot be kept."""
    path = store.path / FOLDER / name
    known = made_of(path) or {}
    # What was pushed elsewhere is what it was here, and never overwritten there.
    now = {file: known.get(file, "elsewhere") for file in day.far}
    now |= {p.name: _stamp(p) for p in day.local}
    if any(now.get(file) != stamp for file, stamp in known.items()):
        known = {}
    # Counts are kept: those of a damaged file would outlive it.
    new = store.readable([p for p in day.local if p.name not in known], whole=True)
    far = [dataset for file, dataset in day.far.items() if file not in known]
    if not new and not far:
        return path if known else _of_calls(tally, [])
    table = _of_calls(tally, new, far=far)
    if known:
        with Engine() as engine:
            engine.add_files("kept", [path])
            engine.add_table("kept", table)
            table = engine.arrow(tally.merged("kept"))
    names = [p.name for p in new] + [file for file in day.far if file not in known]
    return keep(name, table, known | {file: now[file] for file in names}) or table


def _stamp(path: Path) -> list[int]:
    """What tells a file from the one that a purge put in its place."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def made_of(path: Path) -> dict[str, object] | None:
    """What a kept file was made of; None when there is none, or it is no good."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        facts = json.loads(pq.read_metadata(path).metadata[b"evalkit"])
        return dict(facts["sources"]) if facts["version"] == VERSION else None
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None


@contextmanager
def keeper(folder: Path) -> Iterator[Keep]:
    """Keeps tables in `folder`, unless another process does at this moment."""
    with ExitStack() as stack:
        keep: Keep = lambda name, table, sources: _write(folder / name, table, sources)  # noqa: E731
        try:
            with explain_os_errors(folder):
                folder.mkdir(exist_ok=True)
            stack.enter_context(locked(folder / "lock", holder="calls are being counted"))
        except EvalkitError as error:
            log.info("counts are not kept: %s", error)
            keep = _keep_nothing
        yield keep


def _keep_nothing(name: str, table: pa.Table, sources: Mapping[str, object]) -> None:
    """For a store that cannot be written to, or that somebody else counts."""


def _write(path: Path, table: pa.Table, sources: Mapping[str, object]) -> Path | None:
    import pyarrow.parquet as pq

    facts = json.dumps({"version": VERSION, "sources": sources}).encode()
    try:
        with write_whole(path, replace=True) as file:
            pq.write_table(
                table.replace_schema_metadata({"evalkit": facts}),
                file,
                compression="zstd",
                write_page_checksum=True,
            )
    except StoreError as error:
        log.info("counts are not kept: %s", error)
        return None
    return path

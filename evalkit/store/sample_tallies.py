"""Sums of the scores of sampling jobs, by pair and metric, kept beside them.

A job scores every call of its window by checks: as many rows as calls. Its files never
change, so that their sums are made once; means and intervals of any group of jobs come
out of them. A cache, as `tallies`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalkit.errors import EvalkitError
from evalkit.store.engine import Engine
from evalkit.store.tallies import FOLDER, Keep, add_parts, keeper, made_of
from evalkit.store.views import Store

_W = "1 / inclusion_prob"
_SCORED = "FILTER (score IS NOT NULL)"
_QUERY = f"""
    SELECT $run_id::VARCHAR AS run_id, $since::BIGINT AS since, $until::BIGINT AS until,
        slices['feature'] AS feature, model, prompt_name, prompt_version, metric, tier,
        scorer_version,
        count(*) AS drawn,
        count(score) AS scored,
        sum({_W}) {_SCORED} AS w,
        sum({_W} * score) {_SCORED} AS ws,
        sum(({_W}) ** 2) {_SCORED} AS ww,
        sum(({_W}) ** 2 * score) {_SCORED} AS wws,
        sum(({_W}) ** 2 * score ** 2) {_SCORED} AS wwss
    FROM scores WHERE inclusion_prob > 0
    GROUP BY ALL ORDER BY ALL
"""
"""`w` is the inverse of a call's chance of having been drawn; scores drawn by doubt have none."""


def sampled(store: Store, *, since: int, until: int) -> Engine:
    """An engine whose view `samples` has the complete jobs that begin in a window.

    Times are microseconds since 1970. A job that is damaged is named in `store.problems`.
    """
    engine = Engine()
    kept: list[Path] = []
    loose: list[Any] = []
    with keeper(store.path / FOLDER) as keep:
        for run in store.runs():
            if not _belongs(run, since, until):
                continue
            try:
                found = _of_job(store, run, keep)
            except EvalkitError as error:
                store.problems.append(str(error))
                continue
            if isinstance(found, Path):
                kept.append(found)
            else:
                loose.append(found)
    if not kept and not loose:
        loose.append(_sums(store, {}))  # empty, with its columns
    add_parts(engine, "samples", kept, loose)
    return engine


def _belongs(run: Mapping[str, Any], since: int, until: int) -> bool:
    if (run.get("kind"), run["status"]) != ("sample", "complete"):
        return False
    return bool(since <= run["sample"]["since"] < until)


def _of_job(store: Store, run: Mapping[str, Any], keep: Keep) -> Any:
    """The kept file of a job; a table where it cannot be kept."""
    name = f"run={run['run_id']}.parquet"
    sources = {file: facts["sha256"] for file, facts in run["files"].items()}
    path = store.path / FOLDER / name
    if made_of(path) == sources:
        return path
    table = _sums(store, run)
    return keep(name, table, sources) or table


def _sums(store: Store, run: Mapping[str, Any]) -> Any:
    """Of one job, as an Arrow table; without rows when `run` is empty."""
    files = store.score_files(run["run_id"]) if run else []
    about = {
        "run_id": run.get("run_id", ""),
        "since": run["sample"]["since"] if run else 0,
        "until": run["sample"]["until"] if run else 0,
    }
    with Engine() as engine:
        engine.add_files("scores", files)
        return engine.arrow(_QUERY, about)

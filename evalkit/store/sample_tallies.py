"""Sums of the scores of sampling jobs, by pair and metric, kept beside them.

A job scores every call of its window by checks: as many rows as calls. Its files never
change, so that their sums are made once; means and intervals of any group of jobs come
out of them. A cache, as `tallies`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        sum({_W} * score ** 2) {_SCORED} AS wss,
        sum(({_W}) ** 2) {_SCORED} AS ww,
        sum(({_W}) ** 2 * score) {_SCORED} AS wws,
        sum(({_W}) ** 2 * score ** 2) {_SCORED} AS wwss
    FROM scores WHERE inclusion_prob > 0
    GROUP BY ALL ORDER BY ALL
"""
"""`w` is the inverse of a call's chance of having been drawn; scores drawn by doubt have none."""


_DAY = 86_400_000_000
_MARKS = f"""
    WITH once AS (
        SELECT coalesce(slices['feature'], '') AS feature, coalesce(model, '') AS model,
            coalesce(prompt_version, '') AS prompt_version, metric,
            coalesce(scorer_version, '') AS version, trace_id,
            unnest(max_by({{'score': score, 'p': inclusion_prob, 'at': epoch_us(created_at)}},
                (created_at, run_id)))
        FROM scores WHERE score IS NOT NULL AND inclusion_prob > 0
        GROUP BY 1, 2, 3, 4, 5, 6
    )
    SELECT feature, model, prompt_version, metric, version, "at" // {_DAY} * {_DAY} AS day,
        round(score, 2) AS value, p, count(*) AS n, max("at") AS newest
    FROM once GROUP BY ALL ORDER BY ALL
"""
"""How many calls of a day got which score, with which chance of having been drawn."""


def marked(store: Store, *, since: int) -> Engine:
    """An engine whose view `marks` has the scores of complete jobs that end after `since`.

    A call that several jobs scored counts once for each version of a scorer: jobs whose windows
    meet are read together, each time; what the others say is kept.
    """
    jobs = [
        run
        for run in store.runs()
        if (run.get("kind"), run["status"]) == ("sample", "complete")
        and run["sample"]["until"] > since
    ]
    alone, meeting = _by_meeting(jobs)
    engine = Engine()
    parts: list[Any] = []
    files: list[Path] = []
    with keeper(store.path / FOLDER) as keep:
        for run in alone:
            try:
                parts.append(_of_job(store, run, keep, name="marks", query=_MARKS))
            except EvalkitError as error:
                store.problems.append(str(error))
    for run in meeting:
        try:
            files += store.score_files(run["run_id"])
        except EvalkitError as error:
            store.problems.append(str(error))
    if files or not parts:
        parts.append(_of_files(files, _MARKS))
    add_parts(engine, "marks", parts)
    return engine


def _by_meeting(jobs: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[Any]]:
    """Jobs whose window no other one's meets, and the rest."""
    alone: list[Any] = []
    meeting: list[Any] = []
    group: list[Any] = []
    end = 0
    for run in sorted(jobs, key=lambda run: int(run["sample"]["since"])):
        if group and run["sample"]["since"] >= end:
            (alone if len(group) == 1 else meeting).extend(group)
            group = []
        group.append(run)
        end = max(end, run["sample"]["until"]) if len(group) > 1 else run["sample"]["until"]
    (alone if len(group) == 1 else meeting).extend(group)
    return alone, meeting


def sampled(store: Store, *, since: int, until: int) -> Engine:
    """An engine whose view `samples` has the complete jobs that begin in a window.

    Times are microseconds since 1970. A job that is damaged is named in `store.problems`.
    """
    engine = Engine()
    parts: list[Any] = []
    with keeper(store.path / FOLDER) as keep:
        for run in store.runs():
            if not _belongs(run, since, until):
                continue
            try:
                parts.append(_of_job(store, run, keep))
            except EvalkitError as error:
                store.problems.append(str(error))
    # Without any it is empty, with its columns.
    add_parts(engine, "samples", parts or [_sums(store, {})])
    return engine


def _belongs(run: Mapping[str, Any], since: int, until: int) -> bool:
    if (run.get("kind"), run["status"]) != ("sample", "complete"):
        return False
    return bool(since <= run["sample"]["since"] < until)


def _of_job(
    store: Store, run: Mapping[str, Any], keep: Keep, *, name: str = "", query: str = ""
) -> Any:
    """The kept file of a job; a table where it cannot be kept."""
    name = f"run={run['run_id']}.{name}.parquet" if name else f"run={run['run_id']}.parquet"
    sources = {file: facts["sha256"] for file, facts in run["files"].items()}
    path = store.path / FOLDER / name
    if made_of(path) == sources:
        return path
    table = _of_files(store.score_files(run["run_id"]), query) if query else _sums(store, run)
    return keep(name, table, sources) or table


def _of_files(files: Sequence[Path], query: str) -> Any:
    with Engine() as engine:
        engine.add_files("scores", files)
        return engine.arrow(query)


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

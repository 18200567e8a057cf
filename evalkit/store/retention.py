"""Forgets what is old, or what belongs to one user: texts first, then whole calls.

Scores, counts, tokens and costs stay. A file is replaced whole or not at all; a run's
manifest names its rewritten files, under new names, before the old ones go. A purge that
was killed is finished by the next.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import DamagedStore, StoreError
from evalkit.store.call_log import seal_left_segments, segments_folder
from evalkit.store.compaction import changing_calls, drop_replaced
from evalkit.store.emptying import INSIDE, TEXTS, has_texts, rewrite, without_column, without_texts
from evalkit.store.engine import Engine
from evalkit.store.feedback import forget_feedback
from evalkit.store.files import lock, remove, sweep, write_json, write_whole
from evalkit.store.parquet import verify_parquet
from evalkit.store.runs import encode_line, journal_of, read_journal, run_folder
from evalkit.store.views import Store

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Row = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Purged:
    """What a purge did, or would do."""

    calls_emptied: int = 0
    calls_removed: int = 0
    samples_emptied: int = 0
    """Sampling jobs whose reasons and judges' replies went."""
    files_changed: int = 0
    feedback_changed: int = 0
    """What users said later that went, or lost its comment."""
    open_segments: int = 0
    """Files that living processes still write to, journals of jobs among them: later."""

    def as_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeRule:
    """What goes; times in microseconds since 1970, None: nothing for its age."""

    texts_before: int | None = None
    texts_before_of: Mapping[str, int] = field(default_factory=dict)
    """Feature -> the same, for features with a time of their own."""
    calls_before: int | None = None
    user_ids: frozenset[str] = frozenset()
    """All calls of these users, whatever their age."""

    @property
    def latest(self) -> int | None:
        """No text that is younger goes for its age, whatever its feature."""
        limits = [one for one in (self.texts_before, *self.texts_before_of.values()) if one]
        return max(limits, default=None)

    def before(self, feature: str | None) -> int | None:
        """When texts of a feature have to be younger than."""
        return self.texts_before_of.get(feature or "", self.texts_before)


def purge(store: Store, rule: PurgeRule, *, dry_run: bool = False) -> Purged:
    """Apply `rule` to production's calls and to what sampling jobs said of them."""
    done = Purged()
    if not store.path.is_dir():
        return done
    if dry_run:
        _purge(store, rule, done, dry_run=True)
        return done
    with changing_calls(store.path):
        sweep(store.path)  # half-written files have texts as well
        # What has been joined into other files is to go at once, too.
        drop_replaced(store.path)
        seal_left_segments(store.path)
        _purge(store, rule, done, dry_run=False)
    return done


def _purge(store: Store, rule: PurgeRule, done: Purged, *, dry_run: bool) -> None:
    done.open_segments = len(list(segments_folder(store.path).glob("*.jsonl")))
    traces = _traces_of(store, rule.user_ids)
    features = _features_of_comments(store) if rule.texts_before_of else {}
    _purge_samples(store, rule, traces, done, dry_run=dry_run)
    done.feedback_changed = forget_feedback(
        store.path, lambda row: _said_less(row, rule, traces, features), dry_run=dry_run
    )
    # Last: they say whose all the rest is, to the next purge, too, where this one is killed.
    for path in store.production_files():
        if _may_concern(path, rule):
            try:
                verify_parquet(path)
            except DamagedStore as error:
                store.problems.append(f"{error} It was not purged.")
                continue
            _purge_calls(path, rule, done, dry_run=dry_run)


# --- production's calls --------------------------------------------------------------


def _traces_of(store: Store, user_ids: Collection[str]) -> set[str]:
    if not user_ids:
        return set()
    with store.production() as engine:
        rows = engine.rows(
            "SELECT trace_id FROM calls WHERE user_id IN (SELECT unnest($1))", [list(user_ids)]
        )
    return {row["trace_id"] for row in rows}


def _may_concern(path: Path, rule: PurgeRule) -> bool:
    """Whether a file has to be read: not when it is younger, or has no texts any more."""
    if rule.user_ids:
        return True
    day = datetime.fromisoformat(path.parent.name.removeprefix("date=") + "T00:00:00+00:00")
    started = int(day.timestamp()) * 1_000_000
    if rule.calls_before is not None and started < rule.calls_before:
        return True
    latest = rule.latest
    return latest is not None and started < latest and not _has_no_texts(path)


def _has_no_texts(path: Path) -> bool:
    """By the file's own statistics: every text is null, or empty."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    texts = {*TEXTS, *(f"{name}.list.element.{field}" for name, (field, _) in INSIDE.items())}
    return not any(
        _says_something(metadata.row_group(group).column(n))
        for n in range(metadata.num_columns)
        if metadata.schema.column(n).path in texts
        for group in range(metadata.num_row_groups)
    )


def _says_something(column: pq.ColumnChunkMetaData) -> bool:
    known = column.statistics
    if known is None:
        return True
    is_empty = known.has_min_max and known.max == ""
    return not is_empty and known.null_count != column.num_values


def _purge_calls(path: Path, rule: PurgeRule, done: Purged, *, dry_run: bool) -> None:
    emptied = removed = kept = 0

    def change(calls: pa.Table) -> pa.Table:
        nonlocal emptied, removed, kept
        gone, old = _due(calls, rule)
        old &= ~gone & has_texts(calls)
        emptied, removed = emptied + int(old.sum()), removed + int(gone.sum())
        kept += int((~gone).sum())
        return without_texts(calls, old).filter(~gone) if old.any() or gone.any() else calls

    def is_needed() -> bool:
        return not dry_run and kept > 0 and emptied + removed > 0

    rewrite(path, "calls", change, only_if=is_needed)
    if not emptied and not removed:
        return
    done.calls_emptied += emptied
    done.calls_removed += removed
    done.files_changed += 1
    if not kept and not dry_run:
        remove(path)


def _due(calls: pa.Table, rule: PurgeRule) -> tuple[Any, Any]:
    """Which calls go, and of which the texts do, as boolean arrays."""
    import numpy as np

    ts = calls["ts"].combine_chunks().view("int64").to_numpy(zero_copy_only=False)
    users, features = (calls[name].to_pylist() for name in ("user_id", "feature"))
    gone = np.array([user in rule.user_ids for user in users], dtype=bool)
    if rule.calls_before is not None:
        gone |= ts < rule.calls_before
    limits = {name: rule.before(name) for name in set(features)}
    never = np.iinfo(np.int64).min
    due = np.array([never if (at := limits[name]) is None else at for name in features], np.int64)
    return gone, ts < due


def _features_of_comments(store: Store) -> dict[str, str]:
    """Call -> its feature, of calls that somebody commented on."""
    said = store.feedback()
    with store.production() as engine:
        engine.add_table("feedback", said)
        rows = engine.rows(
            "SELECT DISTINCT trace_id, feature FROM calls SEMI JOIN feedback USING (trace_id)"
        )
    return {row["trace_id"]: row["feature"] for row in rows}


def _said_less(
    row: Row, rule: PurgeRule, traces: Collection[str], features: Mapping[str, str]
) -> Row | None:
    """Feedback as it may stay; its age is that of what was said, not of the call."""
    aged = {"ts": row["given_at"]}
    if row["user_id"] in rule.user_ids or row["trace_id"] in traces:
        return None
    if _before(aged, rule.calls_before):
        return None
    is_due = _before(aged, rule.before(features.get(row["trace_id"])))
    return {**row, "comment": None} if is_due else row


def _before(row: Mapping[str, Any], limit: int | None) -> bool:
    return limit is not None and row["ts"] < limit


# --- sampling jobs -------------------------------------------------------------------


def _purge_samples(
    store: Store, rule: PurgeRule, traces: set[str], done: Purged, *, dry_run: bool
) -> None:
    for run in store.runs():
        if run.get("kind") != "sample":
            continue
        if run["status"] != "complete":
            _empty_unfinished(store, run, rule, traces, done, dry_run=dry_run)
            continue
        if not dry_run:
            _drop_old_names(store, run)
        is_due = _is_due(run, rule) or _scores_any(store, run, traces)
        if is_due and not run.get("texts_purged"):
            _empty_sample(store, run, done, dry_run=dry_run)


def _is_due(run: Mapping[str, Any], rule: PurgeRule) -> bool:
    """Whether the texts of a job go for their age: when those of one of its features do."""
    sample = run["sample"]
    of = {one.get("feature") for one in (sample.get("golden_sets") or {}).values()} or {None}
    limits = [at for feature in of if (at := rule.before(feature)) is not None]
    return any(sample["until"] <= at for at in limits)


def _scores_any(store: Store, run: Mapping[str, Any], traces: set[str]) -> bool:
    if not traces:
        return False
    with Engine() as engine:
        engine.add_files("scores", store.score_files(run["run_id"]))
        query = "SELECT count(*) AS n FROM scores WHERE trace_id IN (SELECT unnest($1))"
        return bool(engine.rows(query, [sorted(traces)])[0]["n"])


def _empty_sample(store: Store, run: dict[str, Any], done: Purged, *, dry_run: bool) -> None:
    """Take the reasons and the judges' replies out of a job; its scores stay."""
    done.samples_emptied += 1
    done.files_changed += len(run["files"])
    if dry_run:
        return
    store.score_files(run["run_id"])  # damaged files are named, and stay
    folder = run_folder(store.path, run["run_id"])
    unlock = lock(folder / "lock", holder=f"run {run['run_id']} is being written")
    try:
        files = {}
        for name in run["files"]:
            new = name.removesuffix(".parquet") + "~purged.parquet"
            (store.path / new).unlink(missing_ok=True)
            change = _without_reason if name.startswith("scores/") else _all_without_texts
            table = name.partition("/")[0]
            file = rewrite(
                store.path / name, table, change, to=store.path / new, only_if=lambda: True
            )
            assert file is not None
            rows = run["files"][name]["rows"]
            files[new] = {"sha256": file.sha256, "size": file.size, "rows": rows}
        changed = {**run, "files": files, "texts_purged": True}
        write_json(folder / "manifest.json", changed, replace=True)
        _drop_old_names(store, changed)
    finally:
        unlock()


def _empty_unfinished(
    store: Store,
    run: Mapping[str, Any],
    rule: PurgeRule,
    traces: set[str],
    done: Purged,
    *,
    dry_run: bool,
) -> None:
    """The same of a job that was stopped: in its journal, from which it can still go on."""
    path = journal_of(store.path, run["run_id"])
    if not path.exists():
        return
    try:
        unlock = lock(path.with_name("lock"), holder=f"run {run['run_id']} is being written")
    except StoreError:
        if traces:
            raise  # once the user's calls are gone, nobody knows whose words these are
        done.open_segments += 1
        return
    try:
        before = list(read_journal(path))
        of = {score["trace_id"] for line in before for score in line["scores"]}
        after = [_without_words(line) for line in before]
        if before == after or not (_is_due(run, rule) or of & traces):
            return
        done.samples_emptied += 1
        done.files_changed += 1
        if not dry_run:
            with write_whole(path, replace=True) as file:
                for line in after:
                    file.write(encode_line(line))
    except DamagedStore as error:
        store.problems.append(f"{error} It was not purged.")
    finally:
        unlock()


def _without_words(line: Row) -> Row:
    """A journal line whose scores give no reasons, and whose calls have no texts."""
    inside = {name: {field: gone} for name, (field, gone) in INSIDE.items()}
    calls = [
        {**call, **dict.fromkeys(TEXTS)}
        | {name: [{**one, **gone} for one in call.get(name) or ()] for name, gone in inside.items()}
        for call in line["calls"]
    ]
    return {**line, "calls": calls, "scores": [{**one, "reason": None} for one in line["scores"]]}


def _without_reason(scores: pa.Table) -> pa.Table:
    return without_column(scores, "reason")


def _all_without_texts(calls: pa.Table) -> pa.Table:
    import numpy as np

    return without_texts(calls, np.ones(calls.num_rows, dtype=bool))


def _drop_old_names(store: Store, run: Mapping[str, Any]) -> None:
    """Remove what an emptied job had before: its files by their old names, and its journal."""
    if not run.get("texts_purged"):
        return
    for name in run["files"]:
        remove(store.path / name.replace("~purged.parquet", ".parquet"))
    remove(journal_of(store.path, run["run_id"]))

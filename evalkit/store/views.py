"""The store as its users see it: runs by id, verdicts, baselines, and five views in SQL.

A reader takes the files that manifests name, and checks them. What is damaged, too new
or unfinished is left out of the views and named in `Store.problems`: it never disturbs
what stands beside it. Nothing is created before something is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import ConfigError, DamagedStore, NotComparable, StoreError
from evalkit.store.compaction import is_replaced, without_replaced
from evalkit.store.engine import Engine, Params, refuse_all_but_one_select
from evalkit.store.feedback import add_feedback, feedback_table
from evalkit.store.files import (
    is_safe_id,
    locked,
    make_whole_folder,
    read_json,
    sweep,
    verify_sha256,
    write_json,
)
from evalkit.store.parquet import verify_parquet
from evalkit.store.remote import attached, remote_calls
from evalkit.store.rows import encode_row
from evalkit.store.runs import RunWriter, read_manifest, run_folder
from evalkit.store.schema import TABLES, arrow_schema

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SHORTEST_ID = 6
"""So many letters of a run's id name it."""

__all__ = ["Baselines", "Engine", "RunWriter", "Store", "open_store"]


def open_store(path: str | Path) -> Store:
    """The store in the folder `path`, which need not exist yet.

    Raises ConfigError for a URL, and when `path` is a file.
    """
    if "://" in str(path):
        raise ConfigError(
            f"store {path}: only a folder can be a store; calls alone can lie elsewhere. Set a "
            'folder (store = ".evalkit"), then: evalkit logs push URL, evalkit logs attach URL'
        )
    folder = Path(path)
    try:
        str(folder.absolute()).encode()
        is_file = folder.exists() and not folder.is_dir()
        if "\0" in str(folder):
            raise ValueError("a path has no NUL")
    except UnicodeEncodeError:
        raise ConfigError(
            f"store {path!r}: DuckDB reads no file whose path is not UTF-8. Set another folder."
        ) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"store {str(path)[:200]!r}: {why}. Set another folder.") from None
    if is_file:
        raise ConfigError(f"store {path}: is a file. Set a folder.")
    return Store(folder)


class Store:
    """One store folder. Reading takes no lock; writing goes through `create_run` and others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        """What could not be read so far, a line each."""
        self.unreadable_runs: set[str] = set()
        """Ids of runs whose manifests could not be read so far."""
        self.baselines = Baselines(path / "baselines.json")

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)

    # --- runs ------------------------------------------------------------------------

    def create_run(self, manifest: Mapping[str, Any]) -> RunWriter:
        """Start the run `manifest["run_id"]`; StoreError when it cannot be written."""
        self._make()
        sweep(self.path, runs=False)
        return RunWriter(self.path, manifest["run_id"], manifest)

    def open_run(self, run_id: str) -> RunWriter:
        """Go on with a run; StoreError when there is none or another process writes it."""
        return RunWriter(self.path, run_id)

    def runs(self) -> list[dict[str, Any]]:
        """Manifests of all readable runs, newest first."""
        found = []
        for path in sorted((self.path / "runs").glob("*/manifest.json")):
            try:
                found.append(read_manifest(path))
            except StoreError as error:
                self.unreadable_runs.add(path.parent.name)
                self._problem(str(error))
        return sorted(found, key=lambda run: (run["created_at"], run["run_id"]), reverse=True)

    def refuse_unreadable(self, text: str) -> None:
        """Say what is wrong with the run that `text` (an id, or how it begins) names, if anything.

        Raises what reading its manifest raised; nothing for a run that `runs` has, or nobody.
        """
        for run_id in sorted(self.unreadable_runs):
            if run_id == text or (len(text) >= SHORTEST_ID and run_id.startswith(text)):
                read_manifest(run_folder(self.path, run_id) / "manifest.json")

    def manifest(self, run_id: str) -> dict[str, Any]:
        """One run's manifest; StoreError when there is no such run, naming the newest."""
        path = run_folder(self.path, run_id) / "manifest.json"
        if not path.exists():
            newest = ", ".join(run["run_id"] for run in self.runs()[:3])
            raise StoreError(f"no run {run_id} in {self.path}. Newest: {newest or 'there is none'}")
        return read_manifest(path)

    def score_files(self, run_id: str) -> list[Path]:
        """A sealed run's files of scores, each compared with its checksum.

        Raises DamagedStore when one differs, NotComparable when the run is not complete.
        """
        return self._sealed_files(self.manifest(run_id), "scores/")

    def call_files(self, run_id: str) -> list[Path]:
        """A sealed run's files of calls, as `score_files`.

        With those of the run whose stored outputs it scored again, where it made none.
        """
        files: list[Path] = []
        source: str | None = run_id
        seen: set[str] = set()
        while source and source not in seen:
            seen.add(source)
            run = self.manifest(source)
            files += self._sealed_files(run, "calls/")
            source = run.get("rescored_from")
        return files

    def damage_of(self, run_id: str) -> str | None:
        """What is wrong with a sealed run's files; None for nothing, or for a run without."""
        try:
            self.score_files(run_id)
            self.call_files(run_id)
        except DamagedStore as error:
            return str(error)
        except (NotComparable, StoreError):
            return None
        return None

    def _sealed_files(self, run: Mapping[str, Any], folder: str) -> list[Path]:
        if not run["files"]:
            raise NotComparable(
                f"run {run['run_id']} is not complete: it has no sealed scores. "
                f"Finish it: evalkit run --resume {run['run_id']}"
            )
        found = []
        for name, facts in run["files"].items():
            if name.startswith(folder):
                verify_sha256(self.path / name, sha256=facts["sha256"])
                found.append(self.path / name)
        return found

    def _make(self) -> None:
        """A new store ignores itself in git: it holds what users wrote."""
        make_whole_folder(self.path, {".gitignore": b"*\n"})

    # --- calls and labels that belong to no run ---------------------------------------

    def add_calls(self, file_id: str, calls: Iterable[Mapping[str, Any]]) -> list[Path]:
        """Add calls of production as files of their own, one for each day.

        A call is a dict of `CallRecord`'s fields. Raises StoreError when `file_id` is taken.
        """
        from evalkit.store.sealing import write_calls

        self._make()
        if is_replaced(self.path, file_id):
            raise StoreError(f"calls {file_id} exist and are never overwritten.")
        return write_calls(calls, store=self.path, file_id=_file_id(file_id))

    @contextmanager
    def importing(self, what: str) -> Iterator[None]:
        """Wait for other imports of `what` (calls, labels): the next sees what this one adds."""
        self._make()
        path = self.path / f"{what}.lock"
        with locked(path, holder=f"{what} are being imported", wait=True):
            yield

    def add_labels(self, file_id: str, labels: Iterable[Mapping[str, Any]]) -> Path:
        """Add labels (dicts of the columns of `labels`) as a file of their own."""
        from evalkit.store.sealing import write_labels

        self._make()
        return write_labels(labels, store=self.path, file_id=_file_id(file_id))

    def add_feedback(
        self,
        trace_id: str,
        *,
        score: float | None = None,
        label: str | None = None,
        comment: str | None = None,
        user_id: str | None = None,
    ) -> str:
        """Attach what a user said to a call: see `evalkit.store.feedback.add_feedback`."""
        self._make()
        return add_feedback(
            self.path, trace_id, score=score, label=label, comment=comment, user_id=user_id
        )

    def feedback(self) -> pa.Table:
        """All that users said later, as a table of the view `feedback`."""
        return feedback_table(self.path, problem=self._problem)

    # --- verdicts --------------------------------------------------------------------

    def save_verdict(self, verdict_id: str, verdict: Mapping[str, Any]) -> Path:
        """Keep a verdict; a verdict once kept is never changed."""
        path = self.path / "verdicts" / f"{_file_id(verdict_id)}.json"
        created_at = datetime.now(UTC).isoformat(timespec="microseconds")
        write_json(path, {"verdict_id": verdict_id, "created_at": created_at, **verdict})
        return path

    def verdicts(self) -> list[dict[str, Any]]:
        """All readable verdicts, newest first."""
        found = []
        for path in sorted((self.path / "verdicts").glob("*.json")):
            try:
                found.append({"verdict_id": path.stem, "created_at": None, **read_json(path)})
            except StoreError as error:
                self._problem(str(error))
        return sorted(found, key=lambda v: (v["created_at"] or "", v["verdict_id"]), reverse=True)

    # --- SQL -------------------------------------------------------------------------

    def sql(self, query: str, params: Params = ()) -> list[dict[str, Any]]:
        """Rows of one SELECT over the views runs, calls, scores, labels, feedback, verdicts."""
        with self.engine(query) as engine:
            return engine.rows(query, params)

    def df(self, query: str, params: Params = ()) -> pd.DataFrame:
        """The same as a pandas DataFrame, for a notebook."""
        with self.engine(query) as engine:
            return engine.arrow(query, params).to_pandas()

    def engine(self, query: str) -> Engine:
        """An engine with the views that `query` names; all of them when it names none.

        Raises StoreError unless `query` is one SELECT.
        """
        refuse_all_but_one_select(query)
        words = set(re.findall(r"\w+", query.lower()))
        engine = Engine()
        for view in sorted(words & set(TABLES)) or TABLES:
            self._add_view(engine, view)
        return engine

    def production_files(self) -> list[Path]:
        """Sealed files of production's calls that can be read."""
        return self.readable(self._calls_outside_runs())

    def verify_production(self, *, since: int, until: int) -> None:
        """Hold the files that `production` would read to their seals; queries do not.

        Raises DamagedStore that names each one that is not what was written.
        """
        damaged = []
        for path in self._calls_outside_runs(days_between(since, until)):
            try:
                verify_parquet(path)
            except DamagedStore as error:
                if path.exists():  # else a purge has removed it meanwhile
                    damaged.append(str(error))
        if damaged:
            raise DamagedStore("\n".join(damaged))

    def production(self, *, since: int | None = None, until: int | None = None) -> Engine:
        """An engine whose `calls` are those of production alone, without those of runs.

        With all calls of `since` <= ts < `until` (microseconds since 1970), and perhaps more:
        files of other days are not read.
        """
        engine = Engine()
        self._add_calls(engine, [], days_between(since, until))
        return engine

    def production_parts(self) -> tuple[dict[str, list[Path]], pa.Table | None]:
        """Date -> files of production's calls, none of them read; and what is not sealed yet."""
        unsealed, open_ids = self._unsealed()
        days: dict[str, list[Path]] = {}
        for path in self._calls_outside_runs():
            if path.stem not in open_ids:
                days.setdefault(path.parent.name.removeprefix("date="), []).append(path)
        return days, unsealed

    def _add_view(self, engine: Engine, view: str) -> None:
        if view == "runs":
            engine.add_table("runs", self._table("runs", self.runs(), _run_rows))
        elif view == "verdicts":
            table = self._table("verdicts", self.verdicts(), _verdict_rows)
            engine.add_table("verdicts", table)
        elif view == "feedback":
            engine.add_table("feedback", self.feedback())
        elif view == "labels":
            labels = (self.path / "labels").glob("*.parquet")
            engine.add_files(view, self.readable(labels, whole=True))
        else:
            files = self._all_sealed_files(f"{view}/")
            if view == "calls":
                self._add_calls(engine, files)
            else:
                engine.add_files(view, files)

    def _add_calls(
        self, engine: Engine, sealed: Sequence[Path], days: tuple[str, str] = ("", "~")
    ) -> None:
        """Calls of runs, of production, and those that the log has not sealed yet."""
        unsealed, open_ids = self._unsealed()
        loose = [p for p in self._calls_outside_runs(days) if p.stem not in open_ids]
        engine.add_files("calls", [*sealed, *self.readable(loose)])
        if attached(self.path):
            local = (self.path / "calls").glob("date=*/*.parquet")
            engine.add_datasets("calls", remote_calls(self.path, local, days))
        if unsealed is not None:
            engine.add_table("calls", unsealed)

    def _unsealed(self) -> tuple[pa.Table | None, set[str]]:
        """Calls in open segments, and the ids of these: their files do not count yet."""
        import pyarrow as pa

        from evalkit.store.call_log import read_segment, segments_folder
        from evalkit.store.sealing import LINES_BYTES, Rows

        rows, open_ids = Rows("calls"), set()
        batches: list[pa.RecordBatch] = []

        def left_out(error: StoreError) -> None:
            self._problem(f"{str(error).rstrip('.')}. It is left out.")

        for path in sorted(segments_folder(self.path).glob("*.jsonl")):
            if path.is_symlink() or (path.exists() and not path.is_file()):
                left_out(DamagedStore(f"{path} is damaged: not a regular file."))
                continue
            with suppress(FileNotFoundError):  # sealed meanwhile: then its files are there
                for row in read_segment(path, on_damaged=left_out):
                    rows.add(row)
                    if rows.n_bytes > LINES_BYTES:
                        batches.append(rows.take(on_bad=left_out))
                open_ids.add(path.stem)
        if len(rows):
            batches.append(rows.take(on_bad=left_out))
        return (pa.Table.from_batches(batches) if batches else None), open_ids

    def _table(
        self,
        view: str,
        documents: Iterable[Mapping[str, Any]],
        rows_of: Callable[[Mapping[str, Any]], list[dict[str, Any]]],
    ) -> pa.Table:
        """Manifests or verdicts as a table; one that does not fit the columns is left out."""
        import pyarrow as pa

        from evalkit.store.sealing import Rows

        batches = []
        for document in documents:
            try:
                rows = Rows(view)
                for row in rows_of(document):
                    rows.add(encode_row(row, view))
                batches.append(rows.take())
            except (StoreError, ValueError, TypeError, AttributeError) as error:
                self._problem(f"{view}: {document.get(view[:-1] + '_id', '?')}: {error}")
        return pa.Table.from_batches(batches, schema=arrow_schema(view))

    def _all_sealed_files(self, folder: str) -> list[Path]:
        found: dict[str, list[Path]] = {}
        merged: set[str] = set()
        for run in self.runs():
            try:
                files = self._sealed_files(run, folder) if run["files"] else []
            except StoreError as error:
                self._problem(str(error))
                continue
            found[run["run_id"]] = files
            if files and folder == "calls/":
                # A merged run has the calls of its shards, which are calls made once.
                merged.update(run.get("merged_from") or ())
        return [path for run_id, files in found.items() if run_id not in merged for path in files]

    def _calls_outside_runs(self, days: tuple[str, str] = ("", "~")) -> list[Path]:
        """Files of production calls: those that no run, sealed or not, has to answer for."""
        first, last = days
        return without_replaced(
            path
            for path in sorted((self.path / "calls").glob("date=*/*.parquet"))
            if first <= path.parent.name.removeprefix("date=") <= last
            # What stands behind "~" in a name says which edition of a run's file it is.
            and not (self.path / "runs" / path.stem.partition("~")[0]).is_dir()
        )

    def readable(self, files: Iterable[Path], *, whole: bool = False) -> list[Path]:
        """Files that no manifest vouches for: at least the footer has to be sound.

        `whole` holds every byte to the file's seal.
        """
        paths = sorted(files)
        if not paths:
            return []  # a run begins by asking: where there is nothing, Arrow is not loaded

        import pyarrow as pa
        import pyarrow.parquet as pq

        found = []
        for path in paths:
            try:
                if not path.is_file():
                    raise DamagedStore(f"{path} is damaged: not a regular file.")
                if whole:
                    verify_parquet(path)
                pq.read_schema(path)
                found.append(path)
            except StoreError as error:
                self._problem(f"{error} It is left out.")
            except (pa.ArrowException, OSError) as error:
                self._problem(f"{path} is damaged: {error}. It is left out.")
        return found


def days_between(since: int | None, until: int | None) -> tuple[str, str]:
    """First and last date, as folders of calls name them, of a time in microseconds since 1970."""
    from evalkit.store.sealing import calls_date

    return "" if since is None else calls_date(since), "~" if until is None else calls_date(until)


def _file_id(name: str) -> str:
    if not is_safe_id(name):
        raise StoreError(f"{name!r} cannot be a file's name: letters, digits, '.', '_', '-' can.")
    return name


class Baselines:
    """Which run a golden set and feature is compared with, where somebody has chosen one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> dict[tuple[str, str], str]:
        """(golden set, feature) -> run id. Raises DamagedStore when the file is damaged."""
        if not self._path.exists():
            return {}
        return {
            (golden_set, feature): run_id
            for golden_set, features in read_json(self._path).items()
            for feature, run_id in features.items()
        }

    def get(self, golden_set: str, feature: str) -> str | None:
        return self.all().get((golden_set, feature))

    def set(self, golden_set: str, feature: str, run_id: str) -> None:
        """Choose a run; StoreError when another process is choosing at this moment."""
        self.choose({(golden_set, feature): run_id}, seen=None)

    def choose(
        self,
        chosen: Mapping[tuple[str, str], str],
        *,
        seen: Mapping[tuple[str, str], str] | None,
    ) -> None:
        """Choose a run for each, all or none, if what they had is what was `seen`.

        Raises StoreError when somebody else has chosen since, or is choosing at this moment.
        """
        with locked(self._path.with_suffix(".lock"), holder="baselines are being changed"):
            now = self.all()
            if seen is not None:
                _refuse_if_changed(chosen, now, seen)
            nested: dict[str, dict[str, str]] = {}
            for (of_set, of_feature), run in sorted({**now, **chosen}.items()):
                nested.setdefault(of_set, {})[of_feature] = run
            write_json(self._path, nested, replace=True)


def _refuse_if_changed(
    keys: Iterable[tuple[str, str]],
    now: Mapping[tuple[str, str], str],
    seen: Mapping[tuple[str, str], str],
) -> None:
    for key in keys:
        if now.get(key) != seen.get(key):
            raise StoreError(
                f"{key[0]}: its baseline is {now.get(key) or 'none'} by now, not "
                f"{seen.get(key) or 'none'}; nothing was changed. Look at it, then choose again."
            )


# --- manifests and verdicts as rows ------------------------------------------------


def _run_rows(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    golden_sets = run.get("golden_sets") or {}
    git = run.get("git") or {}
    row = {
        **run,
        "created_at": _time(run["created_at"]),
        "sealed_at": _time(run.get("sealed_at")),
        "golden_sets": list(golden_sets),
        "golden_set_hashes": {name: one.get("hash") for name, one in golden_sets.items()},
        "git_commit": git.get("commit"),
        "git_branch": git.get("branch"),
        "git_dirty": git.get("dirty"),
        "files": list(run["files"]),
    }
    return [row]


def _verdict_rows(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each comparison; one without a comparison when there was none."""
    whole = {**verdict, "created_at": _time(verdict["created_at"])}
    return [
        {**whole, **_comparison(one), "verdict": verdict.get("verdict")}
        for one in verdict.get("comparisons") or [{}]
    ]


def _comparison(one: Mapping[str, Any]) -> dict[str, Any]:
    low, high = one.get("ci") or (None, None)
    sides = {
        f"{side}_{name}": (one.get(side) or {}).get(name)
        for side in ("baseline", "candidate")
        for name in ("run_id", "model", "prompt_version")
    }
    return {
        **one,
        **sides,
        "ci_low": low,
        "ci_high": high,
        "comparison_verdict": one.get("verdict"),
    }


def _time(text: str | None) -> int | None:
    """ISO 8601 as microseconds since 1970."""
    if text is None:
        return None
    since = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1)

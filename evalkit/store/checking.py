"""Holds every sealed file of a store to its checksum: for the clock, and for whoever worries.

Reads all there is, and changes nothing; of the segments that calls of the last hour are in,
every line. SQLite files have no checksum: SQLite says whether their pages hang together.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from evalkit.errors import DamagedStore, StoreError
from evalkit.store.call_log import segments_folder
from evalkit.store.files import verify_sha256
from evalkit.store.parquet import verify_parquet
from evalkit.store.runs import journal_of, read_journal
from evalkit.store.views import Store


@dataclass(slots=True)
class Checked:
    """What a look at all files found."""

    files: int = 0
    damaged: list[str] = field(default_factory=list)
    """A sentence for each, which names it."""

    def one(self, look: Callable[[], object]) -> None:
        self.files += 1
        try:
            look()
        except StoreError as error:
            self.damaged.append(str(error))


def check_files(store: Store) -> Checked:
    """Read every file of runs, production, labels, feedback, verdicts, baselines, and databases."""
    done = Checked()
    for run in store.runs():
        _check_run(store, run, done)
    days, _ = store.production_parts()
    labels = sorted((store.path / "labels").glob("*.parquet"))
    for path in chain(labels, *days.values()):
        done.one(partial(verify_parquet, path))
    for path in sorted(chain(store.path.glob("*.sqlite"), store.path.glob("cache/*.sqlite"))):
        done.one(partial(_check_database, path))
    done.files += len(store.runs()) + len(store.verdicts()) + (len(store.feedback()) > 0)
    done.files += len(list(segments_folder(store.path).glob("*.jsonl")))  # with the days, above
    done.one(store.baselines.all)
    done.damaged += store.problems
    return done


def _check_run(store: Store, run: Mapping[str, Any], done: Checked) -> None:
    for name, facts in run["files"].items():
        done.one(partial(verify_sha256, store.path / name, sha256=facts["sha256"]))
    journal = journal_of(store.path, run["run_id"])
    if journal.exists():
        whole = run["status"] == "complete"
        done.one(lambda: _read_to_the_end(read_journal(journal, whole=whole)))


def _read_to_the_end(lines: Iterable[object]) -> None:
    for _ in lines:
        pass


def _check_database(path: Path) -> None:
    try:
        # A connection that may only read would leave SQLite's side files behind.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as file:
            (said,) = file.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:
        return  # locked, or its folder is read-only: that says nothing of its pages
    except sqlite3.DatabaseError as error:
        said = str(error)
    if said != "ok":
        raise DamagedStore(f"{path} is damaged: {said}. It is kept as it is.")

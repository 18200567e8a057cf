"""The queue of tier 3: who gets which item, and what everybody said, lost by nobody.

Threads and processes share one SQLite file. A mark is on the disk before `mark` returns;
label_sealing.py makes files of `labels` of them.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from evalkit.call.durable import transaction
from evalkit.call.review import Review
from evalkit.ids import new_id
from evalkit.records import Json
from evalkit.score.label_file import NAME, open_label_file
from evalkit.score.labels import (
    ADJUDICATOR,
    APART,
    LabelError,
    Question,
    Said,
    label_values,
    review_facts,
    review_question,
    review_said,
)

CLAIM_S = 600.0
"""How long an item on somebody's screen is not handed to others."""
REVIEWS = "reviews"
"""Batch of what came out of production reviews."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """One item to be labelled."""

    facts: Sequence[Mapping[str, Json]]
    """Of each answer (one, or two side by side): its columns of `labels`."""
    shown: Mapping[str, Json]
    share: str
    why: str
    stratum: str
    inclusion_prob: float | None
    wanted: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item as it is handed out."""

    id: str
    question: Question
    shown: Mapping[str, Json]
    facts: Sequence[Mapping[str, Json]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What one annotator said of one item."""

    id: str
    item: str
    annotator: str
    at: int
    choices: Mapping[str, str]
    score: float | None
    passed: bool | None
    comment: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an annotator is, and everybody together."""

    mine: int
    left: int
    """Items that still want this annotator."""
    done: int
    wanted: int
    """Labels that all items want, of anybody; `done` of them are there."""
    disagreements: int


@dataclass(slots=True)
class _State:
    """The queue as it stands at one moment, for one annotator."""

    order: list[str]
    mine: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)


class LabelQueue:
    """The queue of one store. Closed by `close`."""

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.RLock()
        self._file = open_label_file(folder)
        self._questions: dict[str, Question] = {}
        self._orders: dict[str, tuple[list[str], dict[str, int]]] = {}

    @staticmethod
    def exists(folder: Path) -> bool:
        return (folder / NAME).exists()

    def close(self) -> None:
        with self._lock:
            self._file.close()

    # --- filling -----------------------------------------------------------------------

    def add(
        self,
        question: Question,
        items: Iterable[NewItem],
        *,
        run: str,
        against: str = "",
        design: Mapping[str, Json],
    ) -> str:
        """Queue a batch; returns its id. A batch of the same that nobody began is replaced.

        Raises LabelError when somebody has labelled items of one for this run and metric.
        """
        batch_id = new_id()
        with self._lock, transaction(self._file):
            self._remove_unbegun(run, against, question.metric)
            self._file.execute(
                "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    batch_id, self._micros(), run, against, question.metric,
                    json.dumps(question.to_json()), json.dumps(design),
                ),
            )  # fmt: skip
            self._file.executemany(
                "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        new_id(), batch_id, json.dumps(list(one.facts)), json.dumps(one.shown),
                        one.share, one.why, one.stratum, one.inclusion_prob, one.wanted,
                    )
                    for one in items
                ],
            )  # fmt: skip
        return batch_id

    def _remove_unbegun(self, run: str, against: str, metric: str) -> None:
        row = self._file.execute(
            "SELECT id, (SELECT count(*) FROM items JOIN marks ON marks.item = items.id "
            "WHERE items.batch = batches.id) AS n FROM batches "
            "WHERE run = ? AND against = ? AND metric = ?",
            (run, against, metric),
        ).fetchone()
        if row is None:
            return
        if row["n"]:
            raise LabelError(
                f"{metric} of run {run} is queued, and labelled in part: a second draw would "
                "spoil the chances of the first. Finish it with evalkit label serve, or ask "
                "about another --metric or run."
            )
        self._file.execute("DELETE FROM items WHERE batch = ?", (row["id"],))
        self._file.execute("DELETE FROM batches WHERE id = ?", (row["id"],))

    def add_reviews(self, reviews: Iterable[Review]) -> int:
        """Take over the production reviews that were decided; each one once. Returns how many."""
        question = review_question()
        added = 0
        with self._lock:
            for review in reviews:
                found = review_said(review)
                if found is None or self._knows(f"review:{review.id}"):
                    continue
                said, note = found
                with transaction(self._file):
                    self._insert_review(question, review, said, note)
                added += 1
        return added

    def _insert_review(
        self, question: Question, review: Review, said: Said, note: str | None
    ) -> None:
        self._file.execute(
            "INSERT OR IGNORE INTO batches VALUES (?, ?, '', '', ?, ?, '{}')",
            (REVIEWS, self._micros(), question.metric, json.dumps(question.to_json())),
        )
        shown = {"input": review.input, "outputs": [review.record.get("output")]}
        self._file.execute(
            "INSERT INTO items VALUES (?, ?, ?, ?, 'random', '', 'review', NULL, 0)",
            (f"review:{review.id}", REVIEWS, json.dumps([review_facts(review)]), json.dumps(shown)),
        )
        self._insert(
            f"review:{review.id}", str(review.decided_by), question, said, note,
            supersedes=None, at=review.decided_at,
        )  # fmt: skip

    def _knows(self, item: str) -> bool:
        found = self._file.execute("SELECT 1 FROM items WHERE id = ?", (item,)).fetchone()
        return found is not None

    # --- handing out -------------------------------------------------------------------

    def item(self, item_id: str) -> Item:
        """Raises LabelError when there is none of that id."""
        with self._lock:
            row = self._file.execute("SELECT * FROM items WHERE id = ?", (item_id,)).fetchone()
            if row is None:
                raise LabelError(
                    "no such item. It was drawn anew, perhaps; start again at the top."
                )
            return Item(
                id=row["id"],
                question=self._question(row["batch"]),
                shown=json.loads(row["shown"]),
                facts=json.loads(row["facts"]),
            )

    def next_for(self, annotator: str, *, after: str | None = None) -> str | None:
        """The next item that wants this annotator, and claim it; None: nothing is left.

        `after` goes on from an item, and around.
        """
        with self._lock, transaction(self._file):
            state = self._state(annotator)
            order = state.order
            if after in order:
                at = order.index(after) + 1
                order = order[at:] + order[:at]
            found = next((one for one in order if one in state.open and one != after), None)
            if found is None and after in state.open:
                found = after
            if found is not None:
                self._claim(found, annotator)
            return found

    def before(self, annotator: str, item_id: str) -> str | None:
        """The item that comes before in the annotator's order, of those that are theirs."""
        with self._lock:
            state = self._state(annotator)
            theirs = [one for one in state.order if one in state.open or one in state.mine]
            if item_id not in theirs:
                return theirs[-1] if theirs else None
            at = theirs.index(item_id)
            return theirs[at - 1] if at else None

    def claim(self, item_id: str, annotator: str) -> None:
        """Keep others from being handed an item for a while; they may still label it."""
        with self._lock, transaction(self._file):
            self._claim(item_id, annotator)

    def _claim(self, item_id: str, annotator: str) -> None:
        now = self._micros()
        self._file.execute("DELETE FROM claims WHERE until < ? OR annotator = ?", (now, annotator))
        self._file.execute(
            "INSERT INTO claims VALUES (?, ?, ?)",
            (item_id, annotator, now + int(CLAIM_S * 1e6)),
        )

    def _state(self, annotator: str) -> _State:
        """Items in the annotator's order: batches as they were made, shuffled within."""
        others: dict[str, set[str]] = {}
        state = _State(order=[])
        for row in self._file.execute(
            "SELECT item, annotator FROM own UNION "
            "SELECT item, annotator FROM claims WHERE until >= ?",
            (self._micros(),),
        ):
            if row["annotator"] != annotator:
                others.setdefault(row["item"], set()).add(row["annotator"])
        mine = self._file.execute("SELECT item FROM own WHERE annotator = ?", (annotator,))
        state.mine = {row["item"] for row in mine}
        wanted = self._wanted(annotator)
        state.order = list(wanted)
        state.open = {
            item
            for item, n in wanted.items()
            if item not in state.mine and len(others.get(item, ())) < n
        }
        return state

    def _wanted(self, annotator: str) -> Mapping[str, int]:
        """Item -> annotators it wants, in this one's order; kept as long as no batch changes."""
        batches = [row["id"] for row in self._file.execute("SELECT id FROM batches ORDER BY id")]
        known, wanted = self._orders.get(annotator, ([], {}))
        if known != batches:
            rows = self._file.execute(
                "SELECT items.id, made_at, wanted FROM items JOIN batches ON batches.id = batch "
                "WHERE wanted > 0"
            ).fetchall()
            rows.sort(key=lambda row: (row["made_at"], _shuffled(annotator, row["id"])))
            wanted = {row["id"]: row["wanted"] for row in rows}
            self._orders[annotator] = (batches, wanted)
        return wanted

    # --- marks -------------------------------------------------------------------------

    def mark(self, item_id: str, annotator: str, said: Said, comment: str | None = None) -> str:
        """Store what an annotator says; it replaces what the same annotator said before."""
        question = self.item(item_id).question
        with self._lock, transaction(self._file):
            standing = self._own(item_id, annotator)
            self._file.execute("DELETE FROM claims WHERE annotator = ?", (annotator,))
            supersedes = None if standing is None else standing["id"]
            return self._insert(item_id, annotator, question, said, comment, supersedes=supersedes)

    def undo(self, annotator: str) -> str | None:
        """Take back the annotator's newest label; returns its item, which is open again."""
        with self._lock, transaction(self._file):
            row = self._file.execute(
                "SELECT own.* FROM own JOIN items ON items.id = item "
                "WHERE annotator = ? AND wanted > 0 ORDER BY at DESC, own.id DESC LIMIT 1",
                (annotator,),
            ).fetchone()
            if row is None:
                return None
            question = self.item(row["item"]).question
            nothing = Said(score=None, passed=None)
            self._insert(
                row["item"], annotator, question, nothing, "withdrawn",
                supersedes=row["id"], withdrawn=True,
            )  # fmt: skip
            self._claim(row["item"], annotator)
            return str(row["item"])

    def mine(self, item_id: str, annotator: str) -> Mark | None:
        """What this annotator says of an item; None: nothing yet."""
        with self._lock:
            row = self._own(item_id, annotator)
            return None if row is None else _mark(row)

    def _own(self, item_id: str, annotator: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._file.execute(
            "SELECT * FROM own WHERE item = ? AND annotator = ? ORDER BY at DESC, id DESC LIMIT 1",
            (item_id, annotator),
        ).fetchone()
        return row

    def _insert(
        self,
        item_id: str,
        annotator: str,
        question: Question,
        said: Said,
        comment: str | None,
        *,
        supersedes: str | None,
        withdrawn: bool = False,
        at: int | None = None,
    ) -> str:
        ids = [new_id() for _ in label_values(question, said)]
        self._file.execute(
            "INSERT INTO marks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, 0)",
            (
                ids[0], item_id, annotator, at or self._micros(), json.dumps(dict(said.choices)),
                said.score, said.passed, comment, withdrawn, supersedes, json.dumps(ids),
            ),
        )  # fmt: skip
        return ids[0]

    # --- several annotators ------------------------------------------------------------

    def disagreements(self) -> list[str]:
        """Items on which people differ, as long as nobody has settled it."""
        with self._lock:
            rows = self._file.execute(
                "SELECT item FROM standing WHERE annotator NOT LIKE ? GROUP BY item "
                "HAVING count(DISTINCT passed) > 1 OR max(score) - min(score) > ? ORDER BY item",
                (f"{ADJUDICATOR}%", APART),
            ).fetchall()
        return [row["item"] for row in rows]

    def settle(self, item_id: str, name: str, said: Said, comment: str | None = None) -> list[str]:
        """Decide a disagreement: a mark of the adjudicator's replaces each one that stands."""
        question = self.item(item_id).question
        with self._lock, transaction(self._file):
            standing = self._file.execute(
                "SELECT id FROM standing WHERE item = ?", (item_id,)
            ).fetchall()
            return [
                self._insert(
                    item_id, ADJUDICATOR + name, question, said, comment, supersedes=row["id"]
                )
                for row in standing
            ]

    def said_of(self, item_id: str) -> list[Mark]:
        """What the annotators say of an item, oldest first; each one's newest."""
        with self._lock:
            rows = self._file.execute("SELECT * FROM own WHERE item = ? ORDER BY at", (item_id,))
            return [_mark(row) for row in rows]

    def progress(self, annotator: str) -> Progress:
        with self._lock:
            state = self._state(annotator)
            row = self._file.execute(
                "SELECT sum(wanted) AS wanted, sum(min(wanted, coalesce(n, 0))) AS done "
                "FROM items LEFT JOIN (SELECT item, count(DISTINCT annotator) AS n FROM own "
                "GROUP BY item) ON item = items.id"
            ).fetchone()
            return Progress(
                mine=len(state.mine & set(state.order)),
                left=len(state.open),
                done=row["done"] or 0,
                wanted=row["wanted"] or 0,
                disagreements=len(self.disagreements()),
            )

    def ratings(self) -> dict[str, dict[str, dict[str, float]]]:
        """Metric -> annotator -> item -> score: everybody's own, before any was settled."""
        with self._lock:
            rows = self._file.execute(
                "SELECT metric, annotator, item, score FROM own JOIN items ON items.id = item "
                "JOIN batches ON batches.id = batch WHERE score IS NOT NULL ORDER BY own.at"
            ).fetchall()
        found: dict[str, dict[str, dict[str, float]]] = {}
        for row in rows:
            of = found.setdefault(row["metric"], {}).setdefault(row["annotator"], {})
            of[row["item"]] = row["score"]
        return found

    def batches(self) -> list[dict[str, Any]]:
        """Every batch with its design and how many labels it has, newest first."""
        with self._lock:
            rows = self._file.execute(
                "SELECT batches.*, (SELECT count(*) FROM items WHERE batch = batches.id) AS items, "
                "(SELECT count(*) FROM own JOIN items ON items.id = item "
                "WHERE batch = batches.id) AS labels FROM batches ORDER BY made_at DESC"
            ).fetchall()
        return [dict(row) | {"design": json.loads(row["design"])} for row in rows]

    def items(self) -> list[dict[str, Any]]:
        """All items that are asked, for an export: facts, shown, design, and who said what."""
        with self._lock:
            rows = self._file.execute(
                "SELECT items.*, metric, made_at FROM items JOIN batches ON batches.id = batch "
                "WHERE wanted > 0 ORDER BY made_at, items.id"
            ).fetchall()
        return [
            dict(row) | {"facts": json.loads(row["facts"]), "shown": json.loads(row["shown"])}
            for row in rows
        ]

    # --- inside the lock ---------------------------------------------------------------

    def _question(self, batch: str) -> Question:
        if batch not in self._questions:
            row = self._file.execute(
                "SELECT question FROM batches WHERE id = ?", (batch,)
            ).fetchone()
            self._questions[batch] = read_question(row["question"])
        return self._questions[batch]

    def _micros(self) -> int:
        return int(self._now() * 1_000_000)


def read_question(text: str) -> Question:
    """A batch's question, as the file has it."""
    return Question.from_json(json.loads(text))


def _mark(row: sqlite3.Row) -> Mark:
    return Mark(
        id=row["id"],
        item=row["item"],
        annotator=row["annotator"],
        at=row["at"],
        choices=json.loads(row["choices"]),
        score=row["score"],
        passed=None if row["passed"] is None else bool(row["passed"]),
        comment=row["comment"],
    )


def _shuffled(annotator: str, item_id: str) -> bytes:
    """A place in an order that is random, each annotator's own, and always the same."""
    return blake2b(f"{annotator}\0{item_id}".encode(), digest_size=8).digest()

"""A person before the action: answers wait in a durable queue until someone decides.

Part of the call path. An approved action runs at most once for its idempotency key: that
it begins is on the disk before it does, and what was begun and not finished is `unknown`
for ever, unless a person orders it again. Nothing here repeats a side effect by itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalkit.call.durable import transaction
from evalkit.call.functions import call_function, users_own
from evalkit.call.processes import is_alive, is_gone, this_process
from evalkit.call.queue_file import open_queue, to_json
from evalkit.errors import EvalkitError
from evalkit.ids import new_id
from evalkit.records import CallRecord, CallResult, Json

log = logging.getLogger(__name__)

UNSEEN_S = 3600.0
"""After which a running action counts as unknown when its process cannot be seen."""
MAX_LISTED = 10_000
WAITS = "This answer waits for a person."


class ReviewError(EvalkitError):
    """A review cannot be decided or resumed as asked; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One answer that waits for a person, or waited."""

    id: str
    key: str
    """Idempotency key: the action passes it on to what it calls."""
    state: str
    """pending | approved | running | done | rejected | failed | unknown"""
    created_at: int
    """UTC, microseconds since 1970."""
    action: str | None
    """module:function; None: the answer itself is what is released."""
    record: Mapping[str, Any]
    """The call record."""
    output: str | None
    """What is released: the answer, or what the reviewer made of it."""
    decided_by: str | None
    decided_at: int | None
    reason: str | None
    result: Json
    """What the action returned."""
    error: str | None

    @property
    def feature(self) -> str:
        return str(self.record["feature"])

    @property
    def input(self) -> Json:
        return self.record["input"]


def review_wanted(
    policy: str, facts: Mapping[str, Any], load: Callable[[str], Callable[..., Any]]
) -> bool:
    """What a feature's `review` says of an answer: never, always, or `rule:module:function`.

    The rule gets `facts` (feature, input, output, value, confidence, user_id) and returns
    whether a person has to look. A rule that fails cannot vouch for the answer: yes.
    """
    kind, _, name = policy.partition(":")
    if kind != "rule":
        return policy == "always"
    try:
        with users_own():
            return bool(load(name)(facts))
    except Exception:
        log.exception("review rule %s failed; the answer waits for a person", name)
        return True


def result_of(review: Review, *, is_json: bool) -> CallResult:
    """What its caller may have of an answer by now: released, rejected, or still waiting.

    `is_json`: the feature has a schema. The record is without texts: it is not redacted.
    """
    known: dict[str, Any] = {
        field.name: review.record.get(field.name) for field in fields(CallRecord)
    }
    known |= dict.fromkeys(("attempts", "tool_calls", "guard_events", "retrieved_ids"), ())
    known |= dict.fromkeys(("input", "output", "route_reason"))
    record = CallRecord(**known)
    if review.state == "done":
        value = _parsed(review.output) if is_json else None
        return CallResult(
            status="ok", output=review.output, value=value, error_kind=None, message=None,
            record=record,
        )  # fmt: skip
    is_rejected = review.state == "rejected"
    return CallResult(
        status="refused" if is_rejected else "pending_review",
        output=None,
        value=None,
        error_kind=None,
        message="A person has said no to this answer." if is_rejected else WAITS,
        record=record,
    )


def _parsed(output: str | None) -> Json:
    """The value of a released answer; None where the reviewer made text of it."""
    try:
        value: Json = json.loads(output or "")
    except ValueError:
        return None
    return value


class ReviewQueue:
    """The queue. Threads and processes may share the file; every change is on the disk at once."""

    def __init__(self, path: str | Path, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._file = open_queue(path, full_sync=True)

    def hold(self, record: CallRecord, action: str | None = None, key: str | None = None) -> str:
        """Put an answer before a person; returns the review's id.

        `key` is the idempotency key, by default the trace id: held again with the same
        one, the first review stands, whatever became of it. Raises ReviewError when the
        key belongs to another feature, action or input.
        """
        key = key or record.trace_id
        identity = to_json([record.feature, action, record.input])
        fingerprint = hashlib.sha256(identity.encode()).hexdigest()[:32]
        with self._lock, transaction(self._file):
            known = self._one("key = ?", key)
            if known is not None:
                if known["fingerprint"] != fingerprint:
                    raise ReviewError(
                        f"idempotency key {key!r} belongs to review {known['id']}, which is of "
                        "another feature, action or input. Use a key of its own."
                    )
                return str(known["id"])
            review_id = new_id()
            self._file.execute(
                "INSERT INTO reviews (id, key, fingerprint, state, created_at, action, record, "
                "output) VALUES (?, ?, ?, 'pending', ?, ?, ?, ?)",
                (
                    review_id, key, fingerprint, self._micros(), action,
                    to_json(asdict(record)), record.output,
                ),
            )  # fmt: skip
            self._note(review_id, "pending", None, None)
        return review_id

    def list(self, state: str | None = "pending", *, limit: int = MAX_LISTED) -> Sequence[Review]:
        """The reviews in that state (None: in any), oldest first."""
        where, values = ("WHERE state = ?", (state, limit)) if state else ("", (limit,))
        with self._lock:
            self._find_unknown()
            rows = self._file.execute(
                f"SELECT * FROM reviews {where} ORDER BY rowid LIMIT ?", values
            ).fetchall()
        return [_review(row) for row in rows]

    def get(self, review_id: str) -> Review:
        """Raises ReviewError when there is none of that id."""
        with self._lock:
            self._find_unknown()
            return _review(self._row(review_id))

    def of_key(self, key: str) -> Review | None:
        """The review held under an idempotency key; None when there is none."""
        with self._lock:
            self._find_unknown()
            row = self._one("key = ?", key)
        return None if row is None else _review(row)

    def events(self, review_id: str) -> Sequence[Mapping[str, Any]]:
        """What happened to a review, oldest first: at, state, by, note."""
        with self._lock:
            rows = self._file.execute(
                "SELECT at, state, by, note FROM review_events WHERE review = ? ORDER BY rowid",
                (review_id,),
            ).fetchall()
        return [dict(row) for row in rows]

    def approve(
        self, review_id: str, by: str, output: str | None = None, *, again: bool = False
    ) -> Review:
        """Allow the answer, or `output` in its place; `resume` then runs the action.

        `again` allows an action once more that failed, or whose end is unknown: who says
        so has seen to it that it did not take effect. Raises ReviewError when somebody
        else decided before.
        """
        states = ("failed", "unknown") if again else ("pending",)
        return self._decide(review_id, "approved", by, None, output, states)

    def reject(self, review_id: str, by: str, reason: str) -> Review:
        """Forbid the answer; its action never runs."""
        return self._decide(review_id, "rejected", by, reason, None, ("pending",))

    async def resume(self, review_id: str, action: Callable[[Review], Any] | None = None) -> Review:
        """Run the action of an approved review, once; a finished one is returned as it is.

        `action` is what `review.action` names, a function (in a thread) or coroutine
        function of the review; None where there is none. Raises ReviewError when it is not
        approved, runs elsewhere, failed, or nobody knows whether it ran.
        """
        claimed = self._claim(review_id, has_action=action is not None)
        if claimed.state == "done":
            return claimed
        try:
            result = None if action is None else await call_function(action, claimed)
        except Exception as error:
            log.exception("action %s of review %s failed", claimed.action, review_id)
            return self._finish(review_id, "failed", error=f"{type(error).__name__}: {error}")
        except BaseException:
            self._finish(review_id, "unknown", error="it was interrupted")
            raise
        return self._finish(review_id, "done", result=result)

    def forget(self, *, decided_before: int) -> int:
        """Delete what ended before a time (microseconds since 1970); returns how many.

        With a review goes its idempotency key: held again, it would be a new one.
        """
        ended = "state IN ('done', 'rejected') AND decided_at < ?"
        with self._lock, transaction(self._file):
            self._file.execute(
                f"DELETE FROM review_events WHERE review IN (SELECT id FROM reviews WHERE {ended})",
                (decided_before,),
            )
            return self._file.execute(
                f"DELETE FROM reviews WHERE {ended}", (decided_before,)
            ).rowcount

    def close(self) -> None:
        with self._lock:
            self._file.close()

    # --- inside the lock -----------------------------------------------------------

    def _decide(
        self,
        review_id: str,
        state: str,
        by: str,
        reason: str | None,
        output: str | None,
        allowed: tuple[str, ...],
    ) -> Review:
        if not by.strip():
            raise ReviewError("a decision needs the name of who decides.")
        with self._lock, transaction(self._file):
            self._find_unknown()
            row = self._row(review_id)
            if row["state"] not in allowed:
                raise ReviewError(_too_late(row, allowed))
            self._file.execute(
                "UPDATE reviews SET state = ?, decided_by = ?, decided_at = ?, reason = ?, "
                "output = coalesce(?, output), error = NULL WHERE id = ?",
                (state, by, self._micros(), reason, output, review_id),
            )
            note = "again" if allowed != ("pending",) else reason
            self._note(review_id, state, by, note if output is None else "edited")
            return _review(self._row(review_id))

    def _claim(self, review_id: str, *, has_action: bool) -> Review:
        with self._lock, transaction(self._file):
            self._find_unknown()
            row = self._row(review_id)
            if row["state"] == "done":
                return _review(row)
            if row["state"] != "approved":
                raise ReviewError(_not_resumable(row))
            if (row["action"] is not None) != has_action:
                raise ReviewError(f"review {review_id} has action {row['action']}, not this one.")
            self._file.execute(
                "UPDATE reviews SET state = 'running', owner = ?, started_at = ? WHERE id = ?",
                (this_process(), self._micros(), review_id),
            )
            self._note(review_id, "running", None, row["action"])
            return _review(self._row(review_id))

    def _finish(
        self, review_id: str, state: str, *, result: Json = None, error: str | None = None
    ) -> Review:
        with self._lock, transaction(self._file):
            self._file.execute(
                "UPDATE reviews SET state = ?, result = ?, error = ? WHERE id = ?",
                (state, to_json(result), error, review_id),
            )
            self._note(review_id, state, None, error)
            return _review(self._row(review_id))

    def _find_unknown(self) -> None:
        """Whose process ended in the middle of its action: it ran, or it did not."""
        for row in self._file.execute(
            "SELECT id, owner, started_at FROM reviews WHERE state = 'running'"
        ).fetchall():
            age_s = self._now() - row["started_at"] / 1e6
            owner = row["owner"]
            if is_gone(owner) or (age_s > UNSEEN_S and not is_alive(owner)):
                error = "its process ended before the action did"
                changed = self._file.execute(
                    "UPDATE reviews SET state = 'unknown', error = ? "
                    "WHERE id = ? AND state = 'running'",
                    (error, row["id"]),
                )
                if changed.rowcount:
                    self._note(row["id"], "unknown", None, error)

    def _note(self, review_id: str, state: str, by: str | None, note: str | None) -> None:
        self._file.execute(
            "INSERT INTO review_events VALUES (?, ?, ?, ?, ?)",
            (review_id, self._micros(), state, by, note),
        )

    def _row(self, review_id: str) -> sqlite3.Row:
        row = self._one("id = ?", review_id)
        if row is None:
            raise ReviewError(f"no review {review_id!r}. evalkit review list shows them.")
        return row

    def _one(self, where: str, value: str) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self._file.execute(
            f"SELECT * FROM reviews WHERE {where}", (value,)
        ).fetchone()
        return found

    def _micros(self) -> int:
        return int(self._now() * 1_000_000)


def _review(row: sqlite3.Row) -> Review:
    return Review(
        id=row["id"],
        key=row["key"],
        state=row["state"],
        created_at=row["created_at"],
        action=row["action"],
        record=json.loads(row["record"]),
        output=row["output"],
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
        reason=row["reason"],
        result=json.loads(row["result"] or "null"),
        error=row["error"],
    )


def _too_late(row: sqlite3.Row, allowed: tuple[str, ...]) -> str:
    review_id, state = row["id"], row["state"]
    if "pending" not in allowed:
        return f"review {review_id} is {state}; only a failed or unknown one is approved again."
    decided = "rejected" if state == "rejected" else "approved"
    at = datetime.fromtimestamp(row["decided_at"] / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    told = f"review {review_id} was {decided} by {row['decided_by']} at {at}"
    if state in ("failed", "unknown"):
        return f"{told}; its action is {state}: {row['error']}. To run it once more: --again."
    more = f" To run its action: evalkit review resume {review_id}." if state == "approved" else ""
    return f"{told}. Your decision changed nothing.{more}"


def _not_resumable(row: sqlite3.Row) -> str:
    review_id, state = row["id"], row["state"]
    if state == "pending":
        return f"review {review_id} is not decided yet."
    if state == "rejected":
        return f"review {review_id} was rejected by {row['decided_by']}: {row['reason']}"
    if state == "running":
        return f"the action of review {review_id} is running already."
    return (
        f"the action of review {review_id} is {state}: {row['error']}. It is never repeated by "
        f"itself; find out whether it took effect, then: evalkit review approve {review_id} --again"
    )

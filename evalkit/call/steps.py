"""Several features one after another, with a checkpoint after each.

A task of many steps (plan, look up, answer) as a sequence or a state machine of features:
each keeps its own model, tools, schema and deadline. Killed at any point, the same sequence
goes on with the first step that had not ended; what has ended is not asked again. Above the
orchestrator; it makes no call of its own.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from evalkit.call.durable import open_sqlite, transaction
from evalkit.call.jobs import Executor
from evalkit.call.queue_file import to_json
from evalkit.errors import ConfigError
from evalkit.frozen import frozen
from evalkit.records import CallResult, Json

MAX_STEPS = 100
"""Of one sequence: steps that lead back to one another end somewhere."""

VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS steps (
    key TEXT NOT NULL,               -- of the sequence
    number INTEGER NOT NULL,         -- from 0, in the order they ended
    fingerprint TEXT NOT NULL,       -- of the sequence's input: what the key is for
    name TEXT NOT NULL,
    status TEXT NOT NULL,            -- of the call: ok degraded refused error pending_review
    answer TEXT NOT NULL,            -- JSON
    following TEXT,                  -- the step after it; null: it was the last
    trace_id TEXT NOT NULL,
    PRIMARY KEY (key, number)
) WITHOUT ROWID;
"""

Answers = Mapping[str, Json]
"""What the steps so far answered, by their names; `input` is what the sequence was given."""


@runtime_checkable
class _KnowsReviews(Protocol):
    """An `Orchestrator`, as far as reviews go."""

    def reviewed(
        self, feature: str, input: Mapping[str, Any] | str, idempotency_key: str
    ) -> CallResult | None: ...


@frozen
class Step:
    """One feature's turn."""

    feature: str
    input: Callable[[Answers], Mapping[str, Any] | str]
    """The feature's input, from what is known so far."""
    then: str | Callable[[Answers], str | None] | None = None
    """The step after it, or who says which; None, and a function's None: the sequence ends."""
    otherwise: str | None = None
    """The step that takes over when this one fails; None: the sequence stops here."""
    tools: Sequence[Mapping[str, Any]] = ()
    """Offered to the model; the feature's own list says which it may call."""


@frozen
class Ended:
    """A step that has had its turn."""

    name: str
    status: str
    answer: Json
    """The parsed answer where the feature has a schema, else the text."""
    following: str | None
    trace_id: str


@frozen
class Outcome:
    """How a sequence went, also in earlier processes."""

    ended: tuple[Ended, ...]
    answers: Answers
    stopped: CallResult | None
    """The call that ended it before its time; None when it came to its end."""


class Checkpoints:
    """The steps that have ended, in a file that threads and processes may share."""

    def __init__(self, path: str | Path) -> None:
        self._lock = threading.Lock()
        self._file = open_sqlite(path, SCHEMA, version=VERSION, full_sync=True)

    def ended(self, key: str, fingerprint: str) -> list[Ended]:
        """The steps of a sequence that have ended. Raises ConfigError for another's key."""
        with self._lock:
            rows = self._file.execute(
                "SELECT fingerprint, name, status, answer, following, trace_id FROM steps "
                "WHERE key = ? ORDER BY number",
                (key,),
            ).fetchall()
        if any(row[0] != fingerprint for row in rows):
            raise ConfigError(f"key {key!r} belongs to a sequence with another input.")
        return [
            Ended(name=name, status=status, answer=json.loads(answer), following=then, trace_id=id_)
            for _, name, status, answer, then, id_ in rows
        ]

    def add(self, key: str, number: int, fingerprint: str, step: Ended) -> None:
        """Write down that a step has ended; the first who says so is right."""
        with self._lock, transaction(self._file):
            self._file.execute(
                "INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (
                    key, number, fingerprint, step.name, step.status, to_json(step.answer),
                    step.following, step.trace_id,
                ),
            )  # fmt: skip

    def forget(self, key: str) -> int:
        """Delete what is known of a sequence; returns how many of its steps."""
        with self._lock:
            return self._file.execute("DELETE FROM steps WHERE key = ?", (key,)).rowcount

    def close(self) -> None:
        with self._lock:
            self._file.close()


async def run_steps(
    orchestrator: Executor,
    steps: Mapping[str, Step],
    input: Mapping[str, Any],
    *,
    key: str,
    checkpoints: Checkpoints,
    **options: Any,
) -> Outcome:
    """Run the steps from the first on; what of them ended earlier under `key` is taken over.

    `options` go to every call (user_id, tenant). A step that fails and has no `otherwise`
    stops the sequence, and has its turn again when it is run again. One whose answer waits
    for a person stops it, too; run again, it has what became of the answer. Raises ConfigError for
    a step that is not there, and for more than `MAX_STEPS`.
    """
    fingerprint = hashlib.sha256(to_json(input).encode()).hexdigest()[:32]
    ended = checkpoints.ended(key, fingerprint)
    answers: dict[str, Json] = {"input": dict(input)} | {one.name: one.answer for one in ended}
    name = ended[-1].following if ended else next(iter(steps), None)
    while name is not None:
        step, number = _step(steps, name), len(ended)
        if number >= MAX_STEPS:
            raise ConfigError(f"sequence {key!r} has had {MAX_STEPS} steps and no end.")
        asks, own_key = step.input(answers), f"{key}/{number}"
        result = _reviewed(orchestrator, step.feature, asks, own_key)
        if result is None:
            result = await orchestrator.execute(
                step.feature, asks, tools=step.tools, idempotency_key=own_key, **options
            )
        if result.status == "pending_review":
            return Outcome(ended=tuple(ended), answers=answers, stopped=result)
        fine = result.status in ("ok", "degraded")
        if not fine and step.otherwise is None:
            return Outcome(ended=tuple(ended), answers=answers, stopped=result)
        if fine:
            answers[name] = result.output if result.value is None else result.value
        following = _after(step, answers) if fine else step.otherwise
        one = Ended(
            name=name,
            status=result.status,
            answer=answers.get(name),
            following=following,
            trace_id=result.trace_id,
        )
        checkpoints.add(key, number, fingerprint, one)
        ended.append(one)
        name = following
    return Outcome(ended=tuple(ended), answers=answers, stopped=None)


def _reviewed(
    orchestrator: Executor, feature: str, input: Mapping[str, Any] | str, key: str
) -> CallResult | None:
    """What became of the step's answer where it was put before a person: it is not asked again."""
    if not isinstance(orchestrator, _KnowsReviews):
        return None
    return orchestrator.reviewed(feature, input, key)


def _after(step: Step, answers: Answers) -> str | None:
    return step.then(answers) if callable(step.then) else step.then


def _step(steps: Mapping[str, Step], name: str) -> Step:
    if name not in steps:
        raise ConfigError(f"no step {name!r}. There are: {', '.join(steps)}.")
    return steps[name]

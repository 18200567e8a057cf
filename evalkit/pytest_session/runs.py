"""The runs that a session leaves in the store, and the verdict on the one with gates.

Alone, every finished case is journaled in the loop's thread before it is reported; over
several processes only the controller has this, and is told the others' cases.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from evalkit.config import Settings
from evalkit.errors import EvalkitError
from evalkit.pytest_session.units import RunIds, SessionPlan, Wanted
from evalkit.score.runner import RunSummary, count_line
from evalkit.score.summary import is_unfinished
from evalkit.session import manifest_of, notes_of
from evalkit.store.runs import RunWriter
from evalkit.store.views import Store
from evalkit.wiring import PreparedRun, RunRequest

Line: TypeAlias = Mapping[str, Any]
"""A journal line: what one execution of a case came to."""


class KeptRun:
    """One run while it is written."""

    def __init__(self, writer: RunWriter, prepared: PreparedRun) -> None:
        self.run_id = writer.run_id
        self.summary = RunSummary(planned=prepared.plan.size)
        self.must_pass_missing = 0
        """Scores of must-pass cases that are not there."""
        self.unpaid_scores = 0
        """Scores for which a judge was to be asked when the money had run out."""
        self._prepared = prepared
        self._writer = writer
        self._keys: set[tuple[Any, ...]] = set()

    def append(self, line: Line) -> None:
        """Journal and count a line; what is there already is no second one."""
        key = tuple(line["key"])
        if key not in self._keys:
            self._keys.add(key)
            self._writer.append(line)
            count_line(line, self.summary)
            for score in line["scores"]:
                if score["score"] is None:
                    self.must_pass_missing += score["metric"] in line["must_pass"]
                    self.unpaid_scores += score["outcome"] == "budget_stop"

    def close(self) -> None:
        """Seal the run if nothing is missing; else it can be finished later."""
        if self.summary.complete and not self._writer.is_complete:
            facts = {"notes": notes_of(self._prepared, self.summary)}
            self._writer.seal("complete", counts=dict(self.summary.outcomes), facts=facts)
        self._writer.close()


class SessionRuns:
    """The session's runs, written by this process."""

    def __init__(
        self, plan: SessionPlan, store: Store, *, request: RunRequest, settings: Settings
    ) -> None:
        self.store = store
        self._settings = settings
        self._kept = {
            prepared.plan.run_id: KeptRun(
                store.create_run(manifest_of(prepared, request, settings)), prepared
            )
            for prepared in plan.runs
        }

    @property
    def kept(self) -> Sequence[KeptRun]:
        return list(self._kept.values())

    async def result(
        self, unit: Wanted, run_id: str, do: Callable[[], Awaitable[Line | None]]
    ) -> Line | None:
        """Do a unit and keep its line; None where the money did not allow it."""
        line = await do()
        if line is not None:
            self._kept[run_id].append(line)
        return None if line is None or is_unfinished(line) else line

    def append(self, run_id: str, line: Line) -> None:
        self._kept[run_id].append(line)

    def decide(self, ids: RunIds, baseline: str | None) -> dict[str, Any]:
        """The verdict on the run with gates. Raises EvalkitError when there is none."""
        from evalkit.decide.gate import run_gate

        run = self._kept.get(ids.gated)
        if run is None:
            raise EvalkitError("no case of this golden set has run")
        run.close()
        return run_gate(
            self.store,
            candidate=run.run_id,
            baseline=baseline,
            settings=self._settings.gate,
            project=self._settings.root,
        )

    def close(self) -> None:
        for run in self.kept:
            run.close()


def latency_s(line: Line) -> float:
    """How long the model's own call took."""
    return float(line["calls"][0]["latency_ms"]) / 1000

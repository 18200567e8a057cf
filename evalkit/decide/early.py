"""Decide comparisons while a run goes on: what `run --stop-early` listens to.

Takes finished cases, in whatever order they finish, and bets on them in the order they
were drawn, so that quick cases cannot lead. A verdict reached here holds however often one
looks; the fixed-n test does not on such a run. Plain journal lines in, plain data out.
Source: Waudby-Smith & Ramdas 2024, by way of `sequential`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from evalkit.decide.sequential import EarlyStop, MeanSequence

Decision: TypeAlias = Literal["regression", "pass"]
Drawn: TypeAlias = Sequence[Sequence[str]]
"""Case ids in the order drawn; cases of one cluster together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """One metric of a golden set, of two pairs, to be decided."""

    golden_set: str
    metric: str
    baseline: str
    candidate: str
    tolerance: float
    max_drop: float


@dataclass(slots=True)
class _Tally:
    """The trials of one case by one pair, for one metric."""

    trials: int = 0
    scored: int = 0
    total: float = 0.0

    def count(self, score: Mapping[str, Any]) -> None:
        self.trials += 1
        # An answer of another model than the pair names is no answer of the pair.
        if score["score"] is not None and score["served_model"] in (None, score["model"]):
            self.scored += 1
            self.total += score["score"]

    def mean(self) -> float | None:
        return self.total / self.scored if self.scored else None

    def mean_if(self, missing: float) -> float:
        """The mean, were every trial without a score worth `missing`."""
        return (self.total + missing * (self.trials - self.scored)) / self.trials


@dataclass(slots=True)
class _Waiting:
    """A case of which not all executions are there yet."""

    lines: int = 0
    tallies: dict[tuple[str, str], _Tally] = field(default_factory=dict)
    """(pair, metric) -> its trials."""

    def sides(self, contest: Contest) -> tuple[_Tally, _Tally]:
        nothing = _Tally(trials=1)
        return (
            self.tallies.get((contest.baseline, contest.metric), nothing),
            self.tallies.get((contest.candidate, contest.metric), nothing),
        )


@dataclass(slots=True)
class _Bets:
    """The evidence on one contest so far, as seen and in the worst case."""

    seen: EarlyStop
    worst: EarlyStop | None = None
    """The same with every missing score as bad for the candidate as it can be; None while
    none is missing."""
    d: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    cases: int = 0
    missing: int = 0

    def add(self, sides: Sequence[tuple[_Tally, _Tally]], *, largest: int) -> None:
        """Take the next drawn case, or cluster: its baseline and candidate tallies."""
        if self.decision is not None:
            return
        if self.worst is None and any(t.scored < t.trials for side in sides for t in side):
            self.worst = deepcopy(self.seen)
        if self.worst is not None:
            worst = [c.mean_if(0.0) - b.mean_if(1.0) for b, c in sides]
            self.worst.add(sum(worst) / len(worst), len(worst) / largest)
        pairs = [(b.mean(), c.mean()) for b, c in sides]
        d = [c - b for b, c in pairs if b is not None and c is not None]
        self.cases += len(d)
        self.missing += len(sides) - len(d)
        if d:
            self.d.append(sum(d) / len(d))
            self.weights.append(len(d) / largest)
            self.seen.add(self.d[-1], self.weights[-1])

    @property
    def decision(self) -> Decision | None:
        """A pass has to hold in the worst case, too; a regression is one as seen."""
        if self.seen.decision == "regression" or self.worst is None:
            return self.seen.decision
        return "pass" if self.seen.decision == self.worst.decision == "pass" else None

    def as_json(self, *, alpha: float) -> dict[str, Any]:
        delta, ci = None, None
        if self.d:
            total = sum(self.weights)
            delta = sum(d * w for d, w in zip(self.d, self.weights, strict=True)) / total
            sequence = MeanSequence(alpha=2 * alpha)
            low, high = sequence.add([(d + 1) / 2 for d in self.d], self.weights)
            ci = [2 * low - 1, 2 * high - 1]
        return {
            "decision": self.decision,
            "n": self.cases,
            "n_drawn": len(self.d),
            "missing": self.missing,
            "delta": delta,
            "ci": ci,
            "p_value": self.seen.p_value,
            "p_max_drop": max(self.seen.p_max_drop, (self.worst or self.seen).p_max_drop),
        }


class EarlyRule:
    """Says which golden sets need no further case. Call it with every finished line."""

    def __init__(
        self,
        contests: Sequence[Contest],
        *,
        drawn: Mapping[str, Drawn],
        executions: Mapping[str, int],
        alpha: float,
    ) -> None:
        """`executions`: lines of each case, pairs times trials, by golden set as `drawn`."""
        self.alpha = alpha
        self._drawn, self._executions = drawn, executions
        self._largest = {name: max(map(len, units), default=1) for name, units in drawn.items()}
        self._next = dict.fromkeys(drawn, 0)
        self._waiting: dict[tuple[str, str], _Waiting] = {}
        """(golden set, case id) -> what is known of it, until it is bet on."""
        self._bets = {
            contest: _Bets(
                seen=EarlyStop(
                    alpha=alpha,
                    comparisons=len(contests),
                    tolerance=contest.tolerance,
                    max_drop=contest.max_drop,
                )
            )
            for contest in contests
        }
        self._metrics = {(contest.golden_set, contest.metric) for contest in contests}

    def __call__(self, line: Mapping[str, Any]) -> set[str]:
        golden_set, pair, case_id, _, _ = line["key"]
        case = self._waiting.setdefault((golden_set, case_id), _Waiting())
        case.lines += 1
        for score in line["scores"]:
            if (golden_set, score["metric"]) in self._metrics:
                case.tallies.setdefault((pair, score["metric"]), _Tally()).count(score)
        self._bet_on_next(golden_set)
        return self.settled()

    def settled(self) -> set[str]:
        """Golden sets of which all is decided; every one once a regression is certain."""
        if any(bets.decision == "regression" for bets in self._bets.values()):
            return set(self._drawn)
        open_sets = {c.golden_set for c, bets in self._bets.items() if bets.decision is None}
        return {contest.golden_set for contest in self._bets} - open_sets

    def _bet_on_next(self, golden_set: str) -> None:
        """Bet on what is complete, as far as nothing drawn earlier is still out."""
        units, executions = self._drawn[golden_set], self._executions[golden_set]
        while self._next[golden_set] < len(units):
            keys = [(golden_set, case_id) for case_id in units[self._next[golden_set]]]
            cases = [self._waiting.get(key) for key in keys]
            if any(case is None or case.lines < executions for case in cases):
                return
            self._next[golden_set] += 1
            for contest, bets in self._bets.items():
                if contest.golden_set == golden_set:
                    sides = [case.sides(contest) for case in cases if case is not None]
                    bets.add(sides, largest=self._largest[golden_set])
            for key in keys:
                del self._waiting[key]

    def as_json(self) -> dict[str, Any]:
        """What was decided, for the run's manifest."""
        return {
            "alpha": self.alpha,
            "family_size": len(self._bets),
            "comparisons": [
                {
                    "golden_set": contest.golden_set,
                    "metric": contest.metric,
                    "baseline": contest.baseline,
                    "candidate": contest.candidate,
                    "tolerance": contest.tolerance,
                    "max_drop": contest.max_drop,
                    **bets.as_json(alpha=self.alpha),
                }
                for contest, bets in self._bets.items()
            ],
        }

"""Say which judges may gate: those that are known to agree with people.

A judge is an instrument, and one that nobody has held to people's labels, or that failed
them, must not fail a build. Its agreement is that over the store's labels of the golden set
where these are enough, else the figure that a calibration left with its version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.decide.comparison import Planned
from evalkit.decide.people import Labels
from evalkit.decide.ppi import LABELS_AT_LEAST
from evalkit.decide.sides import Sides

if TYPE_CHECKING:
    from evalkit.store.views import Engine, Store

JUDGE = 2
"""Tier of what a judge scores."""
SAME = 1e-9
NO_FLOOR = -1.0
"""Agreement cannot be lower: with this as the floor every judge gates, measured or not."""


def is_judged(plan: Planned) -> bool:
    """Whether a judge of ours scored it: what a results file holds is its runner's affair."""
    return plan.tier == JUDGE and plan.candidate.source.is_run


def agrees(figure: Mapping[str, Any] | None, *, floor: float) -> bool:
    """Whether a calibration's figure alone lets a judge fail a build."""
    value, n = _kappa_of(figure)
    return floor <= NO_FLOOR or (value is not None and n >= LABELS_AT_LEAST and value >= floor)


@dataclass(slots=True, kw_only=True)
class Trust:
    """Asked for one comparison at a time; looks each judge up once."""

    store: Store | None
    engine: Engine
    labels: Labels
    floor: float
    _known: dict[tuple[object, ...], str | None] = field(default_factory=dict)

    @classmethod
    def of(cls, plans: Sequence[Planned], sides: Sides, *, project: Path) -> Trust:
        """With the store's labels of all that a judge scored."""
        golden_sets = sorted({plan.golden_set or "" for plan in plans if is_judged(plan)})
        return cls(
            store=sides.store,
            engine=sides.engine,
            labels=Labels(sides.store, golden_sets, project=project),
            floor=sides.settings.min_agreement,
        )

    def objection(self, plan: Planned) -> str | None:
        """Why the judge of this comparison may not gate, and what to do; None where it may.

        Raises DamagedStore where a calibration's figure cannot be read.
        """
        group = plan.candidate_group
        if self.floor <= NO_FLOOR or not is_judged(plan):
            return None
        if self.store is None or group is None or group.versions is None:
            return None
        key = (plan.golden_set, plan.metric, plan.candidate.source.view, *group.versions)
        if key not in self._known:
            self._known[key] = self._objection(plan, self._judge(plan), group.versions[1])
        return self._known[key]

    def _objection(self, plan: Planned, judge: str, version: str) -> str | None:
        fix = f"evalkit judge calibrate {judge or 'JUDGE'} --labels FILE"
        value, n = self._kappa(plan, judge, version)
        if value is None:
            return f"its judge was never calibrated on people's labels. Do so: {fix}"
        if n < LABELS_AT_LEAST:
            return f"its judge was held to {n} labels, {LABELS_AT_LEAST} are asked: {fix}"
        if value < self.floor:
            return (
                f"the judge agrees too little with people (kappa {value:.2f} over {n} labels, "
                f"at least {self.floor:g} is asked). Change its rubric or model, then: {fix}"
            )
        return None

    def _judge(self, plan: Planned) -> str:
        """The judge's name, as its scores have it."""
        rows = self.engine.rows(
            f"SELECT any_value(scorer) AS judge FROM {plan.candidate.source.view} "
            "WHERE golden_set = ? AND metric = ? AND scorer_version IS NOT NULL",
            (plan.golden_set, plan.metric),
        )
        return str(rows[0]["judge"] or "")

    def _kappa(self, plan: Planned, judge: str, version: str) -> tuple[float | None, int]:
        """By the golden set's labels, else by the last calibration, and over how many."""
        from evalkit.store.judges import judge_figure

        here = self.labels.agreement(plan)
        if here is not None and here.value is not None:
            return here.value, here.n
        assert self.store is not None
        return _kappa_of(judge_figure(self.store, judge, version))


def _kappa_of(figure: Mapping[str, Any] | None) -> tuple[float | None, int]:
    """A figure's kappa, and over how many labelled answers; what is damaged is not known."""
    overall = _mapping((figure or {}).get("overall"))
    value: Any = _mapping(overall.get("kappa")).get("value")
    n = overall.get("n")
    known = type(value) in (int, float) and abs(value) <= 1 + SAME
    return (value if known else None), (n if isinstance(n, int) else 0)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

"""Say how far scores can be trusted: what trials disagree on, and judges against people.

Part of the report. Trials are read from the finished verdict; a judge's figure is the one
its last calibration kept in the store, for exactly the version that gave the scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from evalkit.errors import EvalkitError
from evalkit.store.judges import judge_figure

if TYPE_CHECKING:
    from evalkit.store.views import Store

Row: TypeAlias = Mapping[str, Any]

JUDGE_TIER = 2
MAX_FLAKY = 12
WORDS = ((0.8, "very good"), (0.6, "good"), (0.4, "moderate"), (0.2, "weak"))
"""Agreement from which on it is called so (after Landis and Koch 1977)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """What several trials of every case told of one metric."""

    golden_set: str
    metric: str
    trials: int
    n: int
    n_flaky: int
    flaky: tuple[str, ...]
    """The first of the cases that scored differently from trial to trial."""
    share_within: float | None
    """Share of the spread of differences that is such noise, 0..1."""
    k: int | None
    hat_k: Mapping[str, float | None]
    """Side -> chance that all k trials of a case pass; empty for graded scores."""


def trials_of(entries: Sequence[Row]) -> list[Trials]:
    """Metrics whose cases were tried more than once, those that gate first as given."""
    found = []
    for one in entries:
        noise = one.get("noise")
        if not noise or one.get("slice") is not None:
            continue
        hat = noise.get("pass_hat_k") or {}
        found.append(
            Trials(
                golden_set=one.get("golden_set") or "",
                metric=one["metric"],
                trials=int(one.get("trials") or 1),
                n=int(one.get("n") or 0),
                n_flaky=int(noise.get("n_flaky") or 0),
                flaky=tuple((noise.get("flaky_cases") or ())[:MAX_FLAKY]),
                share_within=noise.get("share_within"),
                k=hat.get("k"),
                hat_k={side: hat.get(side) for side in ("baseline", "candidate") if hat},
            )
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeHealth:
    """One judge on one golden set, as its own record and people's labels show it."""

    golden_set: str
    metric: str
    judge: str
    version: str
    n_scored: int
    n_errors: int
    """Replies that could not be read, or calls that failed."""
    kappa: float | None
    """Chance-corrected agreement with people; None where nobody measured it."""
    ci: Sequence[float] | None
    n_labels: int
    bias: float | None
    """Mean of judge minus people: above 0 it is too kind."""
    calibrated_at: str | None
    n_corrected: int
    """Cases whose labels by people took the judge's bias out of this comparison."""

    @property
    def word(self) -> str:
        """What the agreement is called; empty where it is not known."""
        if self.kappa is None:
            return ""
        return next((word for least, word in WORDS if self.kappa >= least), "poor")


def judges_of(
    store: Store | None, scorers: Sequence[Row], golden_sets: Sequence[str], entries: Sequence[Row]
) -> list[JudgeHealth]:
    """Every judge of the candidate's scores. `golden_sets` are the meetings', by number."""
    labelled = {
        (one.get("golden_set"), one["metric"]): int(one["people"].get("n_labelled") or 0)
        for one in entries
        if one.get("people") and one.get("slice") is None
    }
    found = {}
    for row in scorers:
        if row["tier"] != JUDGE_TIER or row["side"] != "candidate":
            continue
        golden_set = golden_sets[int(row["meeting"])]
        for version in row["versions"] or [""]:
            figure = _figure(store, row["scorer"] or "", version)
            overall = figure.get("overall") or {}
            kappa = overall.get("kappa") or {}
            found[golden_set, row["metric"], row["scorer"], version] = JudgeHealth(
                golden_set=golden_set,
                metric=row["metric"],
                judge=row["scorer"] or "a judge",
                version=version,
                n_scored=int(row["n_scored"]),
                n_errors=int(row["n_errors"]),
                kappa=kappa.get("value"),
                ci=kappa.get("ci"),
                n_labels=int(overall.get("n") or 0),
                bias=(overall.get("bias") or {}).get("mean"),
                calibrated_at=figure.get("calibrated_at"),
                n_corrected=labelled.get((golden_set, row["metric"]), 0),
            )
    return list(found.values())


def _figure(store: Store | None, judge: str, version: str) -> Mapping[str, Any]:
    """What the last calibration of this version found; empty where there is none to read."""
    if store is None or not version:
        return {}
    try:
        found = judge_figure(store, judge, version) or {}
    except (EvalkitError, OSError) as error:  # a name too long to be a file's
        store.problems.append(str(error))
        return {}
    if _is_sound(found):
        return found
    store.problems.append(
        f"the figure of the judge {judge} is damaged. Make it again: "
        f"evalkit judge calibrate {judge}"
    )
    return {}


def _is_sound(figure: Mapping[str, Any]) -> bool:
    """Whether all that is shown of it is what a calibration writes."""
    overall = figure.get("overall") or {}
    if not isinstance(overall, Mapping):
        return False
    kappa, bias = (overall.get(name) or {} for name in ("kappa", "bias"))
    if not isinstance(kappa, Mapping) or not isinstance(bias, Mapping):
        return False
    ci = kappa.get("ci") or [None, None]
    if not isinstance(ci, list) or len(ci) != 2:
        return False
    numbers = (overall.get("n"), kappa.get("value"), bias.get("mean"), *ci)
    made = figure.get("calibrated_at")
    return all(type(one) in (int, float, type(None)) for one in numbers) and (
        made is None or isinstance(made, str)
    )

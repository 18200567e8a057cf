"""What a run's numbers do not say by themselves: sentences for whoever reads them.

From the golden sets and the counts of a run that has ended. They change no score and
decide nothing; the manifest keeps them, and the gate repeats them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from evalkit.records import Json
from evalkit.score.bias import duplicate_output
from evalkit.score.golden import GoldenSet
from evalkit.score.runner import order_cases
from evalkit.score.summary import RunSummary


def run_notes(golden_sets: Mapping[str, GoldenSet], summary: RunSummary) -> list[str]:
    """Judges that cannot be trusted or look at length, answers that hardly differ, winners that
    followed a place."""
    return [
        *_untrusted(summary),
        *_repeated(golden_sets, summary),
        *_order_notes(summary),
        *_length_notes(summary),
    ]


def _untrusted(summary: RunSummary) -> Iterator[str]:
    found = {(name, metric): one.untrusted for (name, _, metric), one in summary.metrics.items()}
    for (name, metric), reason in found.items():
        if reason is not None:
            yield f"{metric} on {name} has no scores: {reason}"


def _repeated(golden_sets: Mapping[str, GoldenSet], summary: RunSummary) -> Iterator[str]:
    for (name, pair), repeats in summary.repeats.items():
        golden = golden_sets.get(name)
        found = duplicate_output(repeats, partial(_expected, golden))
        if found is not None:
            most, n, text = found
            yield (
                f"duplicate_output: {pair} gave the same answer, or nearly, to {most} of {n} "
                f"cases of {name}: {text!r}. A score that stays high says little of it"
            )


def _expected(golden: GoldenSet | None, limit: int | None) -> list[Json]:
    """What is expected of all cases, or of so many drawn ones: to read a case takes its time."""
    if golden is None:
        return []
    cases = map(golden.cases.__getitem__, order_cases(len(golden.cases), limit=limit, seed=None))
    return [case.expected for case in cases if case.has_expected]


def _order_notes(summary: RunSummary) -> Iterator[str]:
    for (name, pair, metric), totals in summary.metrics.items():
        compared = totals.orders_agree + totals.orders_disagree
        if compared:
            share = totals.orders_disagree / compared
            yield (
                f"{metric} on {name}: in {totals.orders_disagree} of {compared} comparisons of "
                f"{pair} ({share:.0%}) the winner followed the order shown, and was made a tie"
            )


def _length_notes(summary: RunSummary) -> Iterator[str]:
    for (name, pair, metric), totals in summary.metrics.items():
        found = totals.lengths.found()
        if found is not None:
            rho, n = found
            longer = "longer" if rho > 0 else "shorter"
            yield (
                f"{metric} on {name}: {longer} answers of {pair} score higher (Spearman {rho:.2f} "
                f"over {n}). Whether people agree, evalkit judge calibrate tells"
            )

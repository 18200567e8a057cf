"""What is watched in production: observations by feature, model, prompt version and metric.

Scores of sampling jobs; what all calls say of themselves (repairs, refusals, unusual
latency, cost and length), out of their counts; what drawn inputs are (language, route,
topic), out of their profiles; and how judges grade their anchors. A day after another, no
call is read. `monitor` holds each day against those before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from evalkit.decide.anchor_series import anchor_series
from evalkit.decide.input_series import input_series
from evalkit.decide.sequential import fall_prior
from evalkit.decide.series_rows import DAY, PAIR, USUAL_DAYS, Series, made_series, share_series
from evalkit.store.sample_tallies import marked
from evalkit.store.tallies import tallied

if TYPE_CHECKING:
    from evalkit.store.views import Store

EVER = 253_402_300_799_000_000
"""The end of the year 9999."""


def series_of(store: Store, *, since: int = 0) -> list[Series]:
    """All series of calls from the day of `since` on (microseconds since 1970), by name.

    Those that a scorer's new version has ended are among them: they had their part of alpha.
    """
    since = since // DAY * DAY
    found = [
        *_scored(store, since),
        *_counted(store, since),
        *input_series(store, since),
        *anchor_series(store, since),
    ]
    return sorted(found, key=lambda one: (one.names, one.version))


def alpha_shares(series: Sequence[Series]) -> list[float]:
    """What of alpha each may spend, in their order: at most 1 in all, however many will come.

    The n-th day on which any begins has 1 / ((n + 1) log² (n + 1)) of it, over the sum of all
    these (`fall_prior`); the questions that begin on one day share alike, and so do the
    kinds of one mix. What is known when a series begins decides, and never changes.
    """
    begun: dict[int, dict[tuple[str, ...], int]] = {}
    for one in series:
        questions = begun.setdefault(one.blocks[0].at, {})
        questions[one.question] = questions.get(one.question, 0) + 1
    of_day = {day: math.exp(fall_prior(n)) for n, day in enumerate(sorted(begun), 1)}
    shares = []
    for one in series:
        day = one.blocks[0].at
        shares.append(of_day[day] / len(begun[day]) / begun[day][one.question])
    return shares


# --- scores of sampling jobs -----------------------------------------------------------

_SCORED = """
    WITH newest AS (
        SELECT feature, model, prompt_version, metric, arg_max(version, newest) AS current
        FROM marks GROUP BY ALL
    )
    SELECT feature, model, prompt_version, metric, version, version = current AS is_current, day,
        value, p, sum(n)::BIGINT AS n
    FROM marks JOIN newest USING (feature, model, prompt_version, metric)
    GROUP BY ALL ORDER BY ALL
"""


def _scored(store: Store, since: int) -> Iterator[Series]:
    """Scores of complete sampling jobs: each call once, by each version of its scorer."""
    with marked(store, since=since) as engine:
        rows = engine.rows(_SCORED)
    yield from made_series(rows, worse="below")


# --- what calls say of themselves ------------------------------------------------------

_RATES = {
    "repaired share": ("sum(repaired)", "sum(repair_known)"),
    "refused share": (
        "sum(calls) FILTER (error_kind IN ('refusal', 'content_filter'))",
        "sum(calls)",
    ),
    "invalid share": ("sum(schema_known - schema_ok)", "sum(schema_known)"),
}
"""Rate of all calls that a model answered -> how many, and of how many; more is worse."""

_UNUSUAL = {
    "slow share": ("latency_ms", "high"),
    "dear share": ("cost_usd", "high"),
    "long input share": ("prompt_tokens", "high"),
    "short input share": ("prompt_tokens", "low"),
    "long answer share": ("completion_tokens", "high"),
    "short answer share": ("completion_tokens", "low"),
}
"""Share of calls above the 90th or below the 10th percentile of the first days, by column."""

_KEYS = ", ".join(f"coalesce({name}, '') AS {name}" for name in PAIR)
_ANSWERED = f"""
    answered AS (
        SELECT {_KEYS}, hour // 24 AS day, * EXCLUDE ({", ".join(PAIR)}) FROM counts
        WHERE NOT cache_hit AND hour >= $since_hour
    )
"""
_RATED = f"""
    WITH {_ANSWERED}
    SELECT {", ".join(PAIR)}, day, {{columns}} FROM answered
    GROUP BY ALL ORDER BY ALL
"""
_BEYOND = f"""
    WITH {_ANSWERED}, begun AS (
        SELECT {", ".join(PAIR)}, min(day) AS first FROM answered GROUP BY ALL
    ), seen AS (
        SELECT {_KEYS}, day, what, bin, n FROM sizes WHERE day * 24 >= $since_hour
        UNION ALL
        SELECT {_KEYS}, hour // 24 AS day, what, bin, n FROM times
        WHERE NOT cache_hit AND what = 'latency_ms' AND hour >= $since_hour
    ), ranked AS (
        SELECT {", ".join(PAIR)}, what, bin, sum(sum(n)) OVER (named ORDER BY bin) AS upto,
            sum(sum(n)) OVER (named) AS total
        FROM seen JOIN begun USING ({", ".join(PAIR)}) WHERE day < first + $usual
        GROUP BY {", ".join(PAIR)}, what, bin
        WINDOW named AS (PARTITION BY {", ".join(PAIR)}, what)
    ), usual AS (
        SELECT {", ".join(PAIR)}, what, min(bin) FILTER (upto >= 0.9 * total) AS highest,
            min(bin) FILTER (upto >= 0.1 * total) AS lowest
        FROM ranked GROUP BY ALL
    )
    SELECT {", ".join(PAIR)}, what, day, sum(n)::BIGINT AS n,
        coalesce(sum(n) FILTER (bin > highest), 0)::BIGINT AS high,
        coalesce(sum(n) FILTER (bin < lowest), 0)::BIGINT AS low
    FROM seen JOIN begun USING ({", ".join(PAIR)}) JOIN usual USING ({", ".join(PAIR)}, what)
    WHERE day >= first + $usual  -- what is usual does not depend on these
    GROUP BY ALL ORDER BY ALL
"""


def _counted(store: Store, since: int) -> Iterator[Series]:
    """What all calls of production say of themselves, out of their counts."""
    columns = ", ".join(
        f'coalesce({k}, 0)::BIGINT AS "{name} k", coalesce({n}, 0)::BIGINT AS "{name} n"'
        for name, (k, n) in _RATES.items()
    )
    asked = {"since_hour": since // DAY * 24}
    with tallied(store, since=since, until=EVER, views=("counts", "times", "sizes")) as engine:
        rated = engine.rows(_RATED.format(columns=columns), asked)
        beyond = engine.rows(_BEYOND, {**asked, "usual": USUAL_DAYS})
    for name in _RATES:
        yield from share_series(
            {**row, "metric": name, "n": row[f"{name} n"], "k": row[f"{name} k"]} for row in rated
        )
    for name, (column, side) in _UNUSUAL.items():
        yield from share_series(
            {**row, "metric": name, "k": row[side]} for row in beyond if row["what"] == column
        )

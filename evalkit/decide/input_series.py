"""What inputs are, as series: is more asked in German, about something new, of another kind?

Out of the counts that `score.inputs` keeps by the day. A mix that moves has a kind whose share
rises: each kind is a series that alarms when its share does, and the kinds of one mix are one
question (`alpha_shares`). Kinds that the first week hardly had are one, `other`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from evalkit.decide.series_rows import DAY, USUAL_DAYS, Series, share_series
from evalkit.errors import StoreError
from evalkit.store.input_profiles import Counted, saved_days, topics_of

if TYPE_CHECKING:
    from evalkit.store.views import Store

KNOWN_SHARE = 0.02
"""Of the first week, from which on a kind is watched by itself."""
MAX_KINDS = 12
OTHER = "other"
TOPIC = "topic"
UNFAMILIAR = "unfamiliar"
_EPOCH = date(1970, 1, 1)

Days = Mapping[int, Counter[str]]
"""Day since 1970 -> kind -> calls."""


def input_series(store: Store, since: int) -> Iterator[Series]:
    """Shares of languages, routes, topics and labels of answers, by feature or pair."""
    try:
        mixes = _mixes(store, since // DAY)
        topics = {
            feature: topics_of(store, feature)
            for feature, _, _, what, _ in mixes
            if what == TOPIC
        }  # fmt: skip
    except StoreError as error:
        store.problems.append(str(error))
        return
    for (feature, model, prompt_version, what, version), days in mixes.items():
        names = {"feature": feature, "model": model, "prompt_version": prompt_version}
        known = topics.get(feature) or {}
        if what == TOPIC:
            is_current = version == known.get("version")
            kinds = [*known["names"], UNFAMILIAR] if is_current else sorted(_all(days))
            later = days
        else:
            is_current = True
            first = min(days)
            kinds = _usual({day: c for day, c in days.items() if day < first + USUAL_DAYS})
            later = {day: c for day, c in days.items() if day >= first + USUAL_DAYS}
        rows = _rows(later, kinds)
        family = f"{what} mix"
        about = {**names, "version": version, "is_current": is_current}
        yield from share_series(
            [{**about, **row, "metric": f"{what} {row['kind']}"} for row in rows], family=family
        )


def _mixes(store: Store, since: int) -> dict[tuple[str, str, str, str, str], Days]:
    found: dict[tuple[str, str, str, str, str], dict[int, Counter[str]]] = {}
    for saved, counts in saved_days(store):
        number = (date.fromisoformat(saved) - _EPOCH).days
        for one in counts if number >= since else ():
            days = found.setdefault(_key(one), {})
            days.setdefault(number, Counter())[one.kind] += one.n
    return dict(sorted(found.items()))


def _key(one: Counted) -> tuple[str, str, str, str, str]:
    return one.feature, one.model, one.prompt_version, one.what, one.version


def _all(days: Days) -> Counter[str]:
    total: Counter[str] = Counter()
    for counts in days.values():
        total.update(counts)
    return total


def _usual(days: Days) -> list[str]:
    """Kinds that the first days had enough of, and what stands for all others."""
    total = _all(days)
    least = KNOWN_SHARE * total.total()
    known = [kind for kind, n in total.most_common(MAX_KINDS) if n >= least and kind != OTHER]
    return [*sorted(known), OTHER]


def _rows(days: Days, kinds: Sequence[str]) -> Iterator[dict[str, Any]]:
    for kind in kinds:
        for day, counts in sorted(days.items()):
            n = counts.total()
            known = sum(counts[one] for one in kinds if one != OTHER)
            k = n - known if kind == OTHER else counts[kind]
            yield {"kind": kind, "day": day, "n": n, "k": k}

"""Describes what production is asked: language, route, topic, and the label it is answered with.

A drawn share of each day that is over, described once while its texts are there, and kept as
counts (`store.input_profiles`); `decide.series` watches them. No model is called but one
for sentence vectors, in process, where the extra `local` is installed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from evalkit.errors import EvalkitError
from evalkit.pii import texts_of
from evalkit.score.language import detect_language
from evalkit.score.topics import AT_LEAST, Topics, backend_here, learn_topics, vectors_by
from evalkit.store.input_profiles import (
    Counted,
    day_path,
    save_day,
    save_topics,
    saved_days,
    topics_of,
)
from evalkit.store.tallies import dates_of

if TYPE_CHECKING:
    from evalkit.settings import FeatureSettings
    from evalkit.store.engine import Engine
    from evalkit.store.views import Store

DRAWN = 500
"""Calls of a feature and day that are described, drawn by the hash of their ids."""
COMPARED = 200
"""Of these, as many get a topic: a sentence vector takes milliseconds."""
LEARNT_DAYS = 7
LATE_US = 3_600_000_000
"""After its end a day waits so long for calls that are on their way."""
DAY_US = 86_400_000_000
MAX_CHARS = 4_000
CLASSES = ("classify", "route")
"""Tasks whose answer is one of few labels."""
LABEL_FIELDS = ("label", "category", "intent", "class", "route")
OTHER = "other"
SHARED = 5
"""An answer that so many calls of a day share is a label; a rarer one may be somebody's words."""

Labels: TypeAlias = tuple[str, Mapping[str, None]]
"""The field that holds a label, and the labels there are."""
_LABEL = re.compile(r"[\w .:/-]{1,60}")
_ROUTE = re.compile(r"kind (?P<kind>.{1,60}?)(?: \([^()]*\))? -> ")

_DRAWN = """
    WITH drawn AS (
        SELECT trace_id FROM calls
        WHERE ts >= $since AND ts < $until AND input IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY feature ORDER BY hash(trace_id)) <= $most
    )
    SELECT feature, model, prompt_version, task, input, output, route_reason
    FROM calls SEMI JOIN drawn USING (trace_id)
    WHERE ts >= $since AND ts < $until AND feature IS NOT NULL
    ORDER BY feature, hash(trace_id)
"""


def describe_inputs(
    store: Store, features: Mapping[str, FeatureSettings], *, now: int
) -> list[str]:
    """Describe every day that is over and was not; their dates. `now`: microseconds since 1970.

    What cannot be read or kept is named in `store.problems`, and tried again next time.
    """
    if not store.path.is_dir():
        return []
    ended = [date for date in dates_of(store) if _micros(date) + DAY_US + LATE_US <= now]
    wanted = [date for date in ended if not day_path(store, date).exists()]
    if not wanted:
        return []
    done = []
    with _calls_of(store, wanted) as engine:
        for date in wanted:
            try:
                _describe(store, engine, date, features)
            except EvalkitError as error:
                store.problems.append(f"inputs of {date} could not be described: {error}")
                break
            done.append(date)
    return done


def _describe(
    store: Store, engine: Engine, date: str, features: Mapping[str, FeatureSettings]
) -> None:
    counts: Counter[Counted] = Counter()
    labels = {name: _labels(feature) for name, feature in features.items()}
    by_feature: dict[str, list[Mapping[str, Any]]] = {}
    for row in _drawn(engine, date):
        name = row["feature"]
        by_feature.setdefault(name, []).append(row)
        counts.update(_kinds(row, features.get(name), labels.get(name)))
    for feature, rows in by_feature.items():
        known = _topics(store, feature, date)
        if known is not None:
            version, topics = known
            counts.update(
                Counted(feature=feature, what="topic", kind=kind, version=version)
                for kind in _assigned(topics, rows)
            )
    kept: Counter[Counted] = Counter()
    for one, n in counts.items():
        is_text = one.what == "answer" and labels.get(one.feature) is None and n < SHARED
        kept[replace(one, kind=OTHER) if is_text else one] += n
    save_day(store, date, [replace(one, n=n) for one, n in kept.items()])


def _calls_of(store: Store, dates: Sequence[str]) -> Engine:
    return store.production(since=_micros(dates[0]), until=_micros(dates[-1]) + DAY_US - 1)


def _drawn(engine: Engine, date: str) -> list[dict[str, Any]]:
    since = datetime.fromisoformat(f"{date}T00:00:00+00:00")
    until = since + timedelta(days=1)
    return engine.rows(_DRAWN, {"since": since, "until": until, "most": DRAWN})


# --- one call ----------------------------------------------------------------------------


def _kinds(
    row: Mapping[str, Any], feature: FeatureSettings | None, labels: Labels | None
) -> Iterator[Counted]:
    """What one call is counted as."""
    name = row["feature"]
    language = detect_language(_text(row)) or "not clear"
    yield Counted(feature=name, what="language", kind=language)
    routed = _ROUTE.match(row["route_reason"] or "")
    if routed or (feature is not None and feature.routes):
        yield Counted(feature=name, what="route", kind=routed["kind"] if routed else "none")
    if row["task"] in CLASSES and row["output"]:
        yield Counted(
            feature=name,
            model=row["model"] or "",
            prompt_version=row["prompt_version"] or "",
            what="answer",
            kind=_label(row["output"], labels),
        )


def _text(row: Mapping[str, Any]) -> str:
    """What is asked: the input's values, without the documents that come with it."""
    try:
        given = json.loads(row["input"])
    except ValueError:
        return str(row["input"])[:MAX_CHARS]
    values: Any = given
    if isinstance(given, dict):
        values = [value for name, value in given.items() if name != "documents"]
    return "\n".join(texts_of(values))[:MAX_CHARS]


def _labels(feature: FeatureSettings) -> Labels | None:
    """The field of the answer that is one of few texts, and these, as its schema has them."""
    if feature.output_schema is None:
        return None
    try:
        schema = json.loads(feature.output_schema.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    fields = {"": schema, **(schema.get("properties") or {})} if isinstance(schema, dict) else {}
    for name, one in fields.items():
        values = one.get("enum") if isinstance(one, dict) else None
        if values:
            return name, dict.fromkeys(str(value) for value in values)
    return None


def _label(output: str, known: Labels | None) -> str:
    """The label of an answer; `other` for one that is none."""
    try:
        value = json.loads(output)
    except ValueError:
        value = output.strip()
    field, labels = known or ("", None)
    if isinstance(value, dict):
        fields = (field,) if field else (*LABEL_FIELDS, *value)
        value = next((value[one] for one in fields if isinstance(value.get(one), str)), None)
    if not isinstance(value, str):
        return OTHER
    if labels is not None:
        return value if value in labels else OTHER
    return value if _LABEL.fullmatch(value) else OTHER


# --- topics ------------------------------------------------------------------------------


def _topics(store: Store, feature: str, date: str) -> tuple[str, Topics] | None:
    """A feature's topics on a day, by their version; learnt once its first days are over."""
    known = topics_of(store, feature)
    if known is None:
        known = _learnt(store, feature, date)
        if known is None:
            return None
        save_topics(store, feature, known)
    # A day that comes late may lie in the time that they were learnt from.
    return None if date <= known["until"] else (known["version"], Topics.from_json(known))


def _learnt(store: Store, feature: str, date: str) -> dict[str, Any] | None:
    """Topics of the first week's inputs, and of more days where these are too few."""
    described: list[str] = []
    for day, counts in saved_days(store):
        mine = [one.what for one in counts if one.feature == feature]
        # Who takes the topics away has them learnt from the days that follow.
        described = [] if "topic" in mine else [*described, day] if mine else described
    begun = _micros(described[0]) if described else _micros(date)
    if _micros(date) < begun + LEARNT_DAYS * DAY_US:
        return None
    texts: list[str] = []
    with _calls_of(store, described) as engine:
        for day in described:
            if _micros(day) >= begun + LEARNT_DAYS * DAY_US and len(texts) >= AT_LEAST:
                break
            drawn = [row for row in _drawn(engine, day) if row["feature"] == feature]
            texts += map(_text, drawn[:COMPARED])
            until = day
    backend = backend_here()
    topics = learn_topics(texts, vectors_by(backend)(texts), backend=backend) if texts else None
    if topics is None:
        return None
    version = f"{described[0]}/{backend}"
    return {"version": version, "since": described[0], "until": until, **topics.as_json()}


def _assigned(topics: Topics, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    texts = [_text(row) for row in rows[:COMPARED]]
    return topics.of(vectors_by(topics.backend)(texts))


def _micros(date: str) -> int:
    at = datetime.fromisoformat(f"{date}T00:00:00+00:00").astimezone(UTC)
    return int(at.timestamp()) * 1_000_000

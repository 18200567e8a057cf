"""Answers that people have labelled, as a judge needs them to be measured against.

Read from a file (JSON Lines or CSV), whose rows may leave the case to a golden set, or from
the store's labels with the calls they are of. One answer has one row for each annotator.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import ContentError
from evalkit.records import Answer, Json, Pair
from evalkit.score.attacks import unrecorded
from evalkit.score.cases import input_of, slices_of
from evalkit.score.labels import ADJUDICATOR, PREFERENCE
from evalkit.score.metric_specs import canonical
from evalkit.strict import StrictError, iter_jsonl, loads_json, read_text

if TYPE_CHECKING:
    from evalkit.score.golden import GoldenSet
    from evalkit.store.views import Store

MAX_CSV_BYTES = 100_000_000
MAX_PROBLEMS = 20
LABEL_KEYS = ("label", "score", "human", "passed")
REFERENCE_KEYS = ("expected", "reference")
PREFERENCES = {"1": 1.0, "2": 0.0, "tie": 0.5, "0": 0.5}
"""Pairwise: which of output and other is better -> what it is worth for output."""
ANYBODY = "people"
"""The annotator of a row that names none."""


@dataclass(slots=True, kw_only=True)
class Labelled:
    """One answer with what each annotator said of it, 0..1."""

    answer: Answer
    labels: dict[str, float]
    against: str | None = None
    """Pairwise: the other answer; a label is then of the preference for `answer`."""
    pair: str | None = None
    """Who gave the answer."""
    slices: Mapping[str, str] = field(default_factory=dict)
    own: dict[str, float] = field(default_factory=dict)
    """What annotators said before a disagreement was settled; empty: that is `labels`."""

    @property
    def ratings(self) -> Mapping[str, float]:
        """Each annotator's own word: how far people agree is not what an adjudicator made of it."""
        return self.own or self.labels


# --- from a file ---------------------------------------------------------------------


def read_labels(
    path: Path,
    *,
    pairwise: bool,
    golden: GoldenSet | None = None,
    label_range: tuple[float, float] = (0.0, 1.0),
) -> list[Labelled]:
    """Read a file of labels; ContentError with its problems, each `FILE:LINE: problem. fix`.

    A row has `output` and `label`, and the case: `input`, `documents`, `expected`, or a
    `case_id` of the golden set. It may have `id`, `annotator`, `model`, `slices`; pairwise
    `other`, and a label of 1, 2 or tie.
    """
    found: dict[tuple[str, ...], Labelled] = {}
    problems: list[str] = []
    try:
        for number, raw in _rows(path):
            try:
                one, annotator, label = _labelled(raw, pairwise, golden, label_range)
            except ValueError as error:
                problems.append(f"{path.name}:{number}: {error}")
                if len(problems) == MAX_PROBLEMS:
                    break
                continue
            key = (one.answer.case_id, one.pair or "", one.answer.output, one.against or "")
            labels = found.setdefault(key, one).labels
            labels[annotator or _one_more(labels)] = label
    except StrictError as error:
        problems.append(f"{path.name}:{error.line}: {error.message}.")
    if problems or not found:
        raise ContentError(problems or [f"{path.name}: no labels in it. Add a row."])
    return list(found.values())


def _one_more(labels: Mapping[str, float]) -> str:
    """Who labelled a row that names nobody: every such row is one more person's word."""
    n = sum(name.startswith(ANYBODY) for name in labels)
    return f"{ANYBODY} {n + 1}" if n else ANYBODY


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    if path.suffix.lower() != ".csv":
        for number, _, raw in iter_jsonl(path):
            yield number, raw
        return
    (_, header), *lines = _csv_lines(path) or [(1, [])]
    for number, cells in lines:
        if any(cells[len(header) :]):
            problem = f"{len(cells)} cells, but the header names {len(header)} columns. "
            raise StrictError(problem + "Put quotes around cells with commas", line=number)
        named = zip(header, cells, strict=False)
        yield number, {key: _cell(key, text) for key, text in named if text}


def _csv_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Cells, with the number of the last line they stand on; answers may be long."""
    text = read_text(path, max_bytes=MAX_CSV_BYTES, skip_mark=True)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    before = csv.field_size_limit(MAX_CSV_BYTES)
    try:
        return [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise StrictError(f"not CSV: {error}", line=reader.line_num) from None
    finally:
        csv.field_size_limit(before)


def _cell(key: str, text: str) -> Json:
    """A CSV cell: JSON where it is an object or a list and may be one."""
    if key in ("input", "documents", "slices", *REFERENCE_KEYS) and text[:1] in "{[":
        try:
            return loads_json(text, where=key)
        except StrictError:
            return text
    return text


def _labelled(
    raw: Any, pairwise: bool, golden: GoldenSet | None, label_range: tuple[float, float]
) -> tuple[Labelled, str, float]:
    """One row as an answer, its annotator ("" for nobody named) and the label.

    Raises ValueError with problem and fix.
    """
    if not isinstance(raw, Mapping):
        raise ValueError("not an object. Write one a line.")
    for key in ("output", "other") if pairwise else ("output",):
        if not isinstance(raw.get(key), str):
            raise ValueError(f'no "{key}". Add the answer, as text.')
    label = _preference(raw) if pairwise else _number(raw, label_range)
    answer, slices = _answer(raw, golden)
    one = Labelled(
        answer=answer,
        labels={},
        against=raw["other"] if pairwise else None,
        pair=_name(raw, "pair") or _name(raw, "model") or None,
        slices={**slices, **_slices(raw)},
    )
    return one, _name(raw, "annotator"), label


def _name(raw: Mapping[str, Any], key: str) -> str:
    """Some files number their people and models."""
    return "" if raw.get(key) is None else str(raw[key])


def _label(raw: Mapping[str, Any]) -> Any:
    for key in LABEL_KEYS:
        if raw.get(key) is not None:
            return raw[key]
    raise ValueError('no "label". Add what a person said of the answer.')


def _preference(raw: Mapping[str, Any]) -> float:
    said = str(_label(raw)).lower()
    if said not in PREFERENCES:
        raise ValueError(f"label is {said[:20]!r}. Use 1 (output is better), 2 (other) or tie.")
    return PREFERENCES[said]


def _number(raw: Mapping[str, Any], label_range: tuple[float, float]) -> float:
    said, (low, high) = _label(raw), label_range
    words = {"true": high, "false": low}
    try:
        value = words[str(said).lower()] if str(said).lower() in words else float(said)
    except (ValueError, TypeError):
        raise ValueError(f"label is {str(said)[:20]!r}. Write a number.") from None
    if not low <= value <= high:
        raise ValueError(
            f"label is {value:g}, not {low:g} to {high:g}. Name the range: --label-range 1:5."
        )
    return (value - low) / (high - low)


def _answer(raw: Mapping[str, Any], golden: GoldenSet | None) -> tuple[Answer, dict[str, str]]:
    """The answer with its case: the golden set's, else what the row has of one."""
    case_id = raw.get("case_id", raw.get("id", raw.get("item_id")))
    case, slices = None, {}
    if golden is not None:
        if not isinstance(case_id, str) or case_id not in golden.cases:
            raise ValueError(f"case_id is {case_id!r}. Use one of golden set {golden.name}.")
        case = golden.cases.of(case_id)
        slices = golden.slices_of(case)
    given = input_of(raw) if raw.get("input") is not None else {}
    if not isinstance(given, Mapping):
        raise ValueError("input is neither text nor an object. Write it as a case has it.")
    if isinstance(raw.get("documents"), Sequence) and not isinstance(raw["documents"], str):
        given = {**given, "documents": raw["documents"]}
    named = next((key for key in REFERENCE_KEYS if key in raw), None)
    if named is None and case is not None:
        expected, has_expected = case.expected, case.has_expected
    else:
        expected, has_expected = raw.get(named or ""), named is not None
    answer = Answer(
        output=raw["output"],
        case_id=str(case_id if case_id is not None else canonical([given, expected])),
        input=given or (case.input if case else {}),
        expected=expected,
        has_expected=has_expected,
        metadata=case.metadata if case else {},
        record=unrecorded(raw["output"]),
    )
    return answer, slices


def _slices(raw: Mapping[str, Any]) -> dict[str, str]:
    table = raw.get("slices", raw.get("metadata"))
    named = table if isinstance(table, Mapping) else {}
    flat = {key[6:]: value for key, value in raw.items() if key.startswith("slice.")}
    together = {str(key): value for key, value in {**named, **flat}.items()}
    return slices_of(together, together)


# --- from the store ------------------------------------------------------------------

SAID = f"""
    SELECT *, coalesce(score, passed::DOUBLE) AS label,
        label_id NOT IN (SELECT supersedes FROM labels WHERE supersedes IS NOT NULL) AS stands,
        NOT starts_with(annotator, '{ADJUDICATOR}') AND NOT EXISTS (
            SELECT 1 FROM labels AS later
            WHERE later.supersedes = labels.label_id AND later.annotator = labels.annotator
        ) AS is_own
    FROM labels
    WHERE golden_set = $golden_set AND metric = $metric AND label IS NOT NULL
        AND (stands OR is_own)
"""
"""`stands`: nothing replaces it. `is_own`: its annotator has said nothing else since."""

STORED = f"""
    SELECT l.golden_set, l.case_id, l.case_hash, l.trial, l.model, l.prompt_name, l.prompt_version,
        l.annotator, l.label, l.stands, l.is_own, l.trace_id, c.input, c.output
    FROM ({SAID}) AS l JOIN calls AS c USING (trace_id)
    ORDER BY l.trace_id, l.annotator
"""


def stored_labels(store: Store, golden: GoldenSet, metric: str) -> tuple[list[Labelled], int]:
    """Labelled answers to the cases as they are now, and how many labels are left out.

    Left out: of cases that have changed or are gone, and of answers whose text is not kept.
    """
    return _gathered(store.sql(STORED, {"golden_set": golden.name, "metric": metric}), golden)


PREFERRED = f"""
    WITH said AS ({SAID})
    SELECT one.*, mine.input, mine.output,
        other.trace_id AS other_id, theirs.output AS other_output
    FROM said AS one
    JOIN said AS other USING (case_id, annotator, labelled_at)
    JOIN calls AS mine ON mine.trace_id = one.trace_id
    JOIN calls AS theirs ON theirs.trace_id = other.trace_id
    WHERE one.trace_id < other.trace_id AND one.trial IS NOT DISTINCT FROM other.trial
    ORDER BY one.trace_id, other_id, one.annotator
"""
"""A preference is two labels of one moment, one for each answer; a file's moment may be a day."""


def stored_preferences(store: Store, golden: GoldenSet) -> tuple[list[Labelled], int]:
    """Pairs of answers to the cases as they are now, and how many preferences are left out."""
    params = {"golden_set": golden.name, "metric": PREFERENCE}
    return _gathered(store.sql(PREFERRED, params), golden)


def _gathered(rows: Iterable[Mapping[str, Any]], golden: GoldenSet) -> tuple[list[Labelled], int]:
    found: dict[tuple[str, str | None], Labelled] = {}
    left_out = 0
    for row in rows:
        if not _is_case(row, golden) or None in (row["output"], row.get("other_output", "")):
            left_out += row["stands"]
            continue
        key = row["trace_id"], row.get("other_id")
        if key not in found:
            found[key] = _stored(row, golden)
        name = row["annotator"] or ANYBODY
        if row["stands"]:
            found[key].labels[name] = row["label"]
        if row["is_own"]:
            found[key].own[name] = row["label"]
    return [one for one in found.values() if one.labels], left_out


def _is_case(row: Mapping[str, Any], golden: GoldenSet) -> bool:
    """Whether the case is as it was when it was labelled."""
    case_id = row["case_id"]
    return case_id in golden.cases and golden.cases.hash_of(case_id) == row["case_hash"]


def _stored(row: Mapping[str, Any], golden: GoldenSet) -> Labelled:
    case = golden.cases.of(row["case_id"])
    record = replace(unrecorded(row["output"]), trace_id=row["trace_id"], model=row["model"])
    return Labelled(
        answer=Answer(
            output=row["output"],
            case_id=case.id,
            input=json.loads(row["input"]) if row["input"] else case.input,
            expected=case.expected,
            has_expected=case.has_expected,
            metadata=case.metadata,
            record=record,
            trial=row["trial"] or 0,
        ),
        labels={},
        against=row.get("other_output"),
        pair=str(Pair.of(row)),
        slices=golden.slices_of(case),
    )

"""Tier 3: what a person is asked about an answer, and what the reply is worth.

Questions come from the judge that answers the same one, so that people and judge are on one
scale, or are pass or fail. Reads replies strictly into rows of `labels`; writes nothing.
Who could not tell said nothing: that is null, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, Literal

from evalkit.call.review import Review
from evalkit.errors import EvalkitError
from evalkit.records import Json
from evalkit.score.rubric import Criterion, JudgeSpec

Kind = Literal["pass", "grades", "preference", "review"]

CANNOT_TELL = "cannot_tell"
PREFERENCE = "preference"
REVIEW = "review"
ADJUDICATOR = "adjudicator:"
"""Before the name of who settles a disagreement: no rater among raters."""
MAX_COMMENT_CHARS = 10_000
MAX_ANNOTATOR_CHARS = 100
STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""What people choose from where a judge may give any number."""
APART = 0.25
"""Scores of two people farther apart than this are a disagreement."""


class LabelError(EvalkitError):
    """What an annotator sent is no answer to the question; nothing was stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One answer to choose."""

    value: str
    text: str
    score: float
    meaning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aspect:
    """One thing to decide."""

    name: str
    text: str
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of every item of a batch."""

    metric: str
    kind: Kind
    aspects: tuple[Aspect, ...]
    pass_at: float = 0.5
    shows: tuple[str, ...] = ("input", "documents", "reference")
    """What an annotator sees beside the answer; the judge of the metric sees the same."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Question:
        aspects = tuple(
            Aspect(
                name=one["name"],
                text=one["text"],
                options=tuple(Option(**option) for option in one["options"]),
            )
            for one in value["aspects"]
        )
        return cls(**{**value, "aspects": aspects, "shows": tuple(value["shows"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An annotator's answer, read."""

    score: float | None
    """0..1; None when the annotator could not tell."""
    passed: bool | None
    choices: Mapping[str, str] = field(default_factory=dict)
    """Aspect -> the option's value; empty when the annotator could not tell."""


# --- questions -----------------------------------------------------------------------


def pass_question(metric: str) -> Question:
    """Is the answer right or not; for a check's metric, or one that only people know."""
    options = (
        Option(value="pass", text="Pass", score=1.0, meaning="I would send it as it is."),
        Option(value="fail", text="Fail", score=0.0, meaning="Something in it is wrong."),
    )
    aspect = Aspect(name=metric, text=f"Does the answer pass on “{metric}”?", options=options)
    return Question(metric=metric, kind="pass", aspects=(aspect,))


def judge_question(metric: str, judge: JudgeSpec) -> Question:
    """The judge's own questions, with its grades and what they mean."""
    aspects = tuple(_aspect(one) for one in judge.criteria)
    binary = len(aspects) == 1 and judge.criteria[0].scale.steps == (0, 1)
    return Question(
        metric=metric,
        kind="pass" if binary else "grades",
        aspects=aspects,
        pass_at=judge.pass_at,
        shows=judge.inputs,
    )


def _aspect(criterion: Criterion) -> Aspect:
    anchors = dict(criterion.anchors)
    scale = criterion.scale
    if scale.steps == (0, 1):
        options = (
            Option(value="pass", text="Pass", score=1.0, meaning=anchors.get("1", "")),
            Option(value="fail", text="Fail", score=0.0, meaning=anchors.get("0", "")),
        )
        return Aspect(name=criterion.name, text=criterion.description, options=options)
    grades: Sequence[float] = STEPS if scale.steps is None else scale.steps
    return Aspect(
        name=criterion.name,
        text=criterion.description,
        options=tuple(
            Option(
                value=f"{grade:g}",
                text=f"{grade:g}",
                score=scale.share(grade),
                meaning=anchors.get(f"{grade:g}", ""),
            )
            for grade in grades
        ),
    )


def preference_question() -> Question:
    """Which of two answers to one case is better; scored for the first of them."""
    options = (
        Option(value="first", text="This one", score=1.0),
        Option(value="same", text="Equally good", score=0.5),
        Option(value="second", text="This one", score=0.0),
    )
    aspect = Aspect(name=PREFERENCE, text="Which answer is better?", options=options)
    return Question(metric=PREFERENCE, kind="preference", aspects=(aspect,))


def review_question() -> Question:
    """What a reviewer of production answers decides before they go out."""
    options = (
        Option(value="approve", text="Approve", score=1.0, meaning="Release it as it is."),
        Option(value="edit", text="Edit", score=0.0, meaning="Release a corrected answer."),
        Option(value="reject", text="Reject", score=0.0, meaning="It never goes out."),
    )
    aspect = Aspect(name=REVIEW, text="May this answer go out?", options=options)
    return Question(metric=REVIEW, kind="review", aspects=(aspect,), shows=("input", "documents"))


# --- replies -------------------------------------------------------------------------


def read_reply(question: Question, choices: Mapping[str, str]) -> Said:
    """Aspect -> chosen value as a score: the mean over the aspects, as a judge's.

    Raises LabelError when an aspect has no answer, or one that was not on offer.
    """
    if CANNOT_TELL in choices.values():
        return Said(score=None, passed=None)
    scores = []
    for aspect in question.aspects:
        value = choices.get(aspect.name)
        known = {option.value: option.score for option in aspect.options}
        if value is None:
            raise LabelError(f"{aspect.name}: choose one of {', '.join(known)}.")
        if value not in known:
            raise LabelError(f"{aspect.name}: {value!r} is none of {', '.join(known)}.")
        scores.append(known[value])
    score = fmean(scores)
    return Said(
        score=score,
        passed=None if question.kind == "preference" else score >= question.pass_at,
        choices={aspect.name: choices[aspect.name] for aspect in question.aspects},
    )


def read_annotator(name: str) -> str:
    """A name as it is stored. Raises LabelError for an empty or an odd one."""
    name = " ".join(name.split())
    if not name or len(name) > MAX_ANNOTATOR_CHARS or not name.isprintable():
        raise LabelError(f"an annotator has a name of 1 to {MAX_ANNOTATOR_CHARS} characters.")
    if name.startswith(ADJUDICATOR):
        raise LabelError(f"{ADJUDICATOR} marks who settles disagreements. Use another name.")
    return name


def read_comment(text: str | None) -> str | None:
    """A note as it is stored; None for an empty one."""
    text = (text or "").replace("\r\n", "\n").strip()
    if len(text) > MAX_COMMENT_CHARS:
        raise LabelError(f"a note has at most {MAX_COMMENT_CHARS} characters, this is {len(text)}.")
    return text or None


# --- rows of `labels` ------------------------------------------------------------------


def label_values(
    question: Question, said: Said
) -> list[tuple[int, str, float | None, bool | None]]:
    """The rows that one reply becomes: (which answer, metric, score, passed).

    The first is the metric itself. A rubric of several criteria has one more for each, as
    `metric/criterion`; a preference has one for each of the two answers.
    """
    rows = [(0, question.metric, said.score, said.passed)]
    if question.kind == "preference":
        other = None if said.score is None else 1.0 - said.score
        return [*rows, (1, question.metric, other, None)]
    if len(question.aspects) > 1:
        for aspect in question.aspects:
            chosen = said.choices.get(aspect.name)
            score = next((one.score for one in aspect.options if one.value == chosen), None)
            rows.append((0, f"{question.metric}/{aspect.name}", score, None))
    return rows


def review_facts(review: Review) -> dict[str, Json]:
    """Which answer a review was about, as columns of `labels`."""
    record = review.record
    names = ("trace_id", "model", "prompt_name", "prompt_version")
    return {name: record.get(name) for name in names}


def review_said(review: Review) -> tuple[Said, str | None] | None:
    """A decided review as an answer and a note; None while it waits.

    An answer that went out as it was passes. One that had to be edited does not.
    """
    if review.decided_by is None or review.state == "pending":
        return None
    if review.state == "rejected":
        value, note = "reject", review.reason
    elif review.output != review.record.get("output"):
        value, note = "edit", "edited before it went out"
    else:
        value, note = "approve", None
    return read_reply(review_question(), {REVIEW: value}), note

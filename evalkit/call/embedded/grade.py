"""Grade an answer for a judge: how much it agrees with a reference, or with documents.

The pieces come from the judge's own blocks in the last user message. What counts is words
shared, and that no number differs: a judge of the simplest kind, as repeatable as a ruler.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from evalkit.call.embedded.reading import content_of
from evalkit.call.embedded.similarity import Backend
from evalkit.call.embedded.text import content_stems, fold, sentences, words
from evalkit.errors import CallError
from evalkit.records import Json, Message

NUMBER_DIFFERS = 0.4
"""What is left of the agreement when a number of the one is not in the other."""
TIE_WITHIN = 0.05
"""Difference of agreement below which neither of two answers is the better one."""
MAX_CLAIMS = 100
MAX_PIECES = 2_000
"""Sentences of an answer, and of its documents, that are looked at."""
_BLOCK = re.compile(
    r'^<judge-(input|documents|reference|output|first|second) nonce="([^"]+)">\n(.*)\n</judge-\1>$',
    re.MULTILINE,
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_MARK = re.compile(r"\[[A-Za-z]{0,4}-?\d{1,6}(?:[,;] ?[A-Za-z]{0,4}-?\d{1,6})*\]")
_NO_CLAIM = re.compile(
    r"^(?:unknown|i (?:do not|don't|cannot|can't) (?:know|tell|answer|find)\b.{0,80}|"
    r".{0,40}\b(?:documents?|text|articles?) (?:do|does)(?: not|n't) (?:say|contain|tell|mention)\b.{0,80})$",
    re.IGNORECASE,
)


def is_judge_schema(schema: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Whether a response schema is that of a judge's reply."""
    properties = schema.get("properties") if schema is not None else None
    return isinstance(properties, Mapping) and {"judgement_tag", "grades"} <= properties.keys()


def grade(
    messages: Sequence[Message], schema: Mapping[str, Any], backend: Backend
) -> tuple[dict[str, Json], float]:
    """The reply that the schema asks for, and how far the agreement is from undecided."""
    pieces = _pieces(messages)
    if {"first", "second"} <= pieces.keys():
        return _compare(pieces, schema, backend)
    if "output" not in pieces:
        raise CallError("unsupported", "no <judge-output> block in the last user message to grade")
    agreement, reason = _agreement(pieces, backend)
    properties = schema["properties"]
    tag = properties["judgement_tag"].get("const", "")
    wanted = properties["grades"].get("properties", {})
    reply: dict[str, Json] = {"judgement_tag": tag}
    if "reason" in properties:
        reply["reason"] = reason
    reply["grades"] = {name: _on_scale(agreement, scale) for name, scale in wanted.items()}
    return reply, round(0.5 + abs(agreement - 0.5), 4)


def _compare(
    pieces: Mapping[str, Json], schema: Mapping[str, Any], backend: Backend
) -> tuple[dict[str, Json], float]:
    """Which of two answers agrees more with what they are held against; near is a tie."""
    first, second = (
        _agreement({**pieces, "output": pieces[key]}, backend)[0] for key in ("first", "second")
    )
    better = 0 if abs(first - second) < TIE_WITHIN else 1 if first > second else 2
    properties = schema["properties"]
    reply: dict[str, Json] = {
        "judgement_tag": properties["judgement_tag"].get("const", ""),
        "reason": f"The first agrees to {first:.2f}, the second to {second:.2f}.",
        "grades": dict.fromkeys(properties["grades"].get("properties", {}), better),
    }
    return reply, round(0.5 + abs(first - second) / 2, 4)


def _pieces(messages: Sequence[Message]) -> dict[str, Json]:
    users = [content_of(m) for m in messages if m.get("role") == "user"]
    found: dict[str, Json] = {}
    for kind, _nonce, line in _BLOCK.findall(users[-1] if users else ""):
        try:
            found[kind] = json.loads(line)
        except (ValueError, RecursionError):
            raise CallError("unsupported", f"the <judge-{kind}> block is not JSON") from None
    return found


def _on_scale(agreement: float, scale: Mapping[str, Any]) -> float | int:
    """The grade of `scale` that stands at `agreement`, 0..1, of its range."""
    steps = sorted(value for value in scale.get("enum", ()) if isinstance(value, int))
    if steps:
        return steps[min(len(steps) - 1, int(agreement * len(steps)))]
    low, high = scale.get("minimum", 0), scale.get("maximum", 1)
    return round(float(low + agreement * (high - low)), 3)


def _agreement(pieces: Mapping[str, Json], backend: Backend) -> tuple[float, str]:
    """0..1 and a sentence about it: against the reference, else documents, else the input."""
    output = _readable(pieces["output"])
    if "reference" in pieces:
        share = likeness(output, _readable(pieces["reference"]))
        return share, f"Agrees with the reference to {share:.2f}."
    said = _said(output)
    documents = pieces.get("documents")
    if isinstance(documents, list):
        texts = [str(d["text"]) for d in documents if isinstance(d, Mapping) and "text" in d]
        share, weakest = support(said, texts)
        told = f' Least supported: "{weakest[:120]}"' if weakest else ""
        return share, f"Supported by the documents to {share:.2f}.{told}"
    near = backend.index([[_said(_readable(pieces.get("input", "")))]]).similarities(said)
    share = min(1.0, max(0.0, float(near[0]) * 1.5))
    return share, f"Speaks of what was asked to {share:.2f}."


def _readable(value: Json) -> Json:
    """An answer that is JSON text as JSON; everything else as it is."""
    if isinstance(value, str) and value.strip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _said(value: Json) -> str:
    """The words of an answer: of an object its longest text, without marks of citation."""
    if isinstance(value, Mapping):
        texts = [text for text in value.values() if isinstance(text, str)]
        value = max(texts, key=len, default=json.dumps(value, ensure_ascii=False))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _MARK.sub(" ", text).strip()


# --- agreement ---------------------------------------------------------------------------


def likeness(output: Json, reference: Json) -> float:
    """0..1: fields one by one for objects and lists, words and numbers for texts."""
    if isinstance(reference, Mapping):
        if not isinstance(output, Mapping):
            return 0.0
        shares = [likeness(output.get(key), reference[key]) for key in reference]
        # One wrong field makes a record wrong, however many others are right.
        return (sum(shares) / len(shares) + min(shares)) / 2 if shares else 1.0
    if isinstance(reference, list):
        return _set_likeness(output, reference)
    if isinstance(reference, str) and isinstance(output, Mapping):
        return likeness(_said(output), reference)
    if isinstance(reference, str) and isinstance(output, str):
        return _text_likeness(_MARK.sub(" ", output), reference)
    return float(output == reference and isinstance(output, bool) == isinstance(reference, bool))


def _set_likeness(output: Json, reference: list[Json]) -> float:
    if not isinstance(output, list):
        return 0.0
    ours, theirs = (
        {json.dumps(v, sort_keys=True) for v in values} for values in (output, reference)
    )
    if not ours and not theirs:
        return 1.0
    return 2 * len(ours & theirs) / (len(ours) + len(theirs))


def _text_likeness(output: str, reference: str) -> float:
    """F2 of stems (van Rijsbergen 1979): what is missing weighs more than what is added.

    A number of the reference that is not in the answer cuts it.
    """
    if fold(output).strip(" .") == fold(reference).strip(" ."):
        return 1.0
    ours, theirs = _terms(output), _terms(reference)
    if not ours or not theirs:
        return 0.0
    share = 5 * len(ours & theirs) / (len(ours) + 4 * len(theirs))
    if set(_NUMBER.findall(reference)) - set(_NUMBER.findall(output)):
        share *= NUMBER_DIFFERS
    return share


def support(said: str, documents: Sequence[str]) -> tuple[float, str]:
    """The mean support of the answer's sentences, and its least supported sentence.

    A sentence is supported by the document sentence that holds most of its words; a number
    that this one lacks cuts it. An answer that claims nothing needs no support.
    """
    if _NO_CLAIM.match(said.strip()):
        return 1.0, ""
    claims = [claim for claim in sentences(said) if _terms(claim)][:MAX_CLAIMS]
    if not claims:
        return 0.0, ""
    pieces = [piece for text in documents for piece in sentences(text)][:MAX_PIECES]
    known = [(_terms(piece), set(_NUMBER.findall(piece))) for piece in pieces]
    shares = [_best_support(claim, known) for claim in claims]
    mean = sum(shares) / len(shares)
    weakest = min(range(len(claims)), key=shares.__getitem__)
    return mean, claims[weakest] if shares[weakest] < 1 else ""


def _best_support(claim: str, known: Sequence[tuple[frozenset[str], set[str]]]) -> float:
    terms, numbers = _terms(claim), set(_NUMBER.findall(claim))
    return max(
        (
            len(terms & held) / len(terms) * (NUMBER_DIFFERS if numbers - held_numbers else 1.0)
            for held, held_numbers in known
        ),
        default=0.0,
    )


def _terms(text: str) -> frozenset[str]:
    """Stems that carry meaning; of a text of stop words alone, its words."""
    return frozenset(content_stems(text)) or frozenset(words(text))

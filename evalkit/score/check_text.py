"""Checks of what the answer says: words, numbers, likeness to a reference, personal data.

`compile(params, base)` does all that can be done before an answer is there and raises
ValueError for what can never work; the function it returns measures one answer. Time
is linear in the answer, or only a bounded part of it is read and the fact says so.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path

from evalkit.pii import find_pii
from evalkit.records import Answer, Json
from evalkit.score import language, text_metrics
from evalkit.score.check_reading import (
    CheckFault,
    Measure,
    Measured,
    OutputFault,
    Params,
    as_text,
    bounds,
    folding,
    json_equal,
    read_json,
    reference,
    reference_text,
    reference_texts,
    short,
    subject,
    subject_text,
    without_surrogates,
    yes_no,
)
from evalkit.score.refusal import find_refusal

MAX_NUMBER_CHARS = 100_000


def equals(params: Params, base: Path) -> Measure:
    read, expect, fold = subject(params), reference(params), folding(params)
    unordered = params.get("unordered", False)

    def measure(answer: Answer) -> Measured:
        expected, got = expect(answer), read(answer)
        if "path" not in params and not isinstance(expected, str):
            got = read_json(answer.output)
        same = json_equal(got, expected, fold=fold, unordered=unordered)
        return yes_no(same, f"got {short(got)}, expected {short(expected)}")

    return measure


def one_of(params: Params, base: Path) -> Measure:
    read, expect, fold = subject(params), reference(params, "values"), folding(params)

    def measure(answer: Answer) -> Measured:
        allowed, got = expect(answer), read(answer)
        allowed = allowed if isinstance(allowed, list) else [allowed]
        as_json = got if "path" in params else _json_where_asked(answer.output, allowed)
        found = any(
            json_equal(got if isinstance(item, str) else as_json, item, fold=fold, unordered=False)
            for item in allowed
        )
        return yes_no(found, f"got {short(got)}, allowed {short(allowed)}")

    return measure


def _json_where_asked(text: str, allowed: list[Json]) -> Json:
    """The output as JSON, where it may be other than text; where it may be both, if it can."""
    if all(isinstance(item, str) for item in allowed):
        return text
    try:
        return read_json(text)
    except OutputFault:
        if any(isinstance(item, str) for item in allowed):
            return text
        raise


def contains(params: Params, base: Path) -> Measure:
    return _compare_text(params, lambda text, wanted: wanted in text, "contain")


def icontains(params: Params, base: Path) -> Measure:
    return contains({**params, "case_sensitive": False}, base)


def starts_with(params: Params, base: Path) -> Measure:
    return _compare_text(params, str.startswith, "start with")


def ends_with(params: Params, base: Path) -> Measure:
    return _compare_text(params, str.endswith, "end with")


def _compare_text(params: Params, test: Callable[[str, str], bool], verb: str) -> Measure:
    read, expect, fold = subject_text(params), reference_text(params), folding(params)

    def measure(answer: Answer) -> Measured:
        wanted = expect(answer)
        found = test(fold(read(answer)), fold(wanted))
        return yes_no(found, f"does {'' if found else 'not '}{verb} {short(wanted)}")

    return measure


def contains_any(params: Params, base: Path) -> Measure:
    read, expect, fold = subject_text(params), reference_texts(params), folding(params)

    def measure(answer: Answer) -> Measured:
        wanted, text = expect(answer), fold(read(answer))
        hit = next((item for item in wanted if fold(item) in text), None)
        fact = f"contains none of {short(wanted)}" if hit is None else f"contains {short(hit)}"
        return yes_no(hit is not None, fact)

    return measure


def contains_all(params: Params, base: Path) -> Measure:
    read, expect, fold = subject_text(params), reference_texts(params), folding(params)

    def measure(answer: Answer) -> Measured:
        wanted, text = expect(answer), fold(read(answer))
        missing = [item for item in wanted if fold(item) not in text]
        fact = f"does not contain {short(missing)}" if missing else f"contains {short(wanted)}"
        return yes_no(not missing, fact)

    return measure


def icontains_any(params: Params, base: Path) -> Measure:
    return contains_any({**params, "case_sensitive": False}, base)


def icontains_all(params: Params, base: Path) -> Measure:
    return contains_all({**params, "case_sensitive": False}, base)


def regex(params: Params, base: Path) -> Measure:
    import re2

    pattern, read = params["pattern"], subject_text(params)
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = params.get("case_sensitive", True)
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(
            f"pattern {pattern!r} cannot be used: {said}. Patterns run in RE2, in linear time: "
            "lookaround and backreferences are not supported; `negate` often replaces lookahead"
        ) from None
    look = compiled.fullmatch if params.get("full", False) else compiled.search

    def measure(answer: Answer) -> Measured:
        found = look(without_surrogates(read(answer)))
        fact = f"does not match {pattern}" if found is None else f"matches {short(found.group())}"
        return yes_no(found is not None, fact)

    return measure


def length(params: Params, base: Path) -> Measure:
    return _count(params, len, "characters")


def words(params: Params, base: Path) -> Measure:
    return _count(params, lambda text: len(text.split()), "words")


def _count(params: Params, count: Callable[[str], int], unit: str) -> Measure:
    read, within = subject_text(params), bounds(params)
    return lambda answer: within(count(read(answer)), unit)


def language_is(params: Params, base: Path) -> Measure:
    read, expect = subject_text(params), reference_texts(params)
    for code in params.get("values", [params["value"]] if "value" in params else []):
        _known_language(code, ValueError)

    def measure(answer: Answer) -> Measured:
        allowed = [_known_language(code, _bad_expected) for code in expect(answer)]
        text = read(answer)
        found = language.detect_language(text)
        if found is not None:
            return yes_no(found in allowed, f"is in {found}")
        if all(language.excludes(text, code) for code in allowed):
            return yes_no(False, f"shows no sign of {', '.join(allowed)}")
        raise CheckFault("undetermined", "too little text to tell its language")

    return measure


def _known_language(code: str, error: Callable[[str], Exception]) -> str:
    short_code = code.lower().replace("_", "-").partition("-")[0]
    if short_code not in language.LANGUAGES:
        known = ", ".join(sorted(language.LANGUAGES))
        raise error(f"language {code!r} is not one that can be told: {known}")
    return short_code


def _bad_expected(message: str) -> CheckFault:
    return CheckFault("no_expected", message)


def is_refusal(params: Params, base: Path) -> Measure:
    read = subject_text(params)

    def measure(answer: Answer) -> Measured:
        if answer.record.status == "refused" or answer.record.finish_reason == "content_filter":
            return yes_no(True, "the provider marked it as refused")
        found = find_refusal(read(answer))
        return yes_no(found is not None, f"refuses: {short(found)}" if found else "does not refuse")

    return measure


def no_pii(params: Params, base: Path) -> Measure:
    read, kinds = subject_text(params), params.get("types")
    from_input = params.get("allow_from_input", False)

    def measure(answer: Answer) -> Measured:
        given = as_text(dict(answer.input)) if from_input else ""
        allowed = {_bare(finding.text) for finding in find_pii(given, kinds)}
        found: dict[str, int] = {}
        for finding in find_pii(read(answer), kinds):
            if _bare(finding.text) not in allowed:
                found[finding.kind] = found.get(finding.kind, 0) + 1
        listed = ", ".join(f"{n} {kind}" for kind, n in found.items())
        return yes_no(not found, f"has {listed}" if found else "has no personal data found")

    return measure


def _bare(text: str) -> str:
    return re.sub(r"[ ()-]", "", text).lower()


# --- likeness ---------------------------------------------------------------------------


def levenshtein(params: Params, base: Path) -> Measure:
    return _likeness(
        params, text_metrics.levenshtein_similarity, "Levenshtein", text_metrics.cut_alignment
    )


def rouge_l(params: Params, base: Path) -> Measure:
    part = params.get("measure", "f1")
    return _likeness(
        params,
        lambda out, ref: text_metrics.rouge_l(out, ref, measure=part),
        "ROUGE-L",
        text_metrics.cut_words,
    )


def rouge_n(params: Params, base: Path) -> Measure:
    n, part = params.get("n", 1), params.get("measure", "f1")
    return _likeness(
        params, lambda out, ref: text_metrics.rouge_n(out, ref, n=n, measure=part), f"ROUGE-{n}"
    )


def bleu(params: Params, base: Path) -> Measure:
    n = params.get("n", 4)
    return _likeness(params, lambda out, ref: text_metrics.bleu(out, ref, n=n), "BLEU")


def token_f1(params: Params, base: Path) -> Measure:
    return _likeness(params, text_metrics.token_f1, "token F1")


def similar(params: Params, base: Path) -> Measure:
    return _likeness(params, text_metrics.ngram_cosine, "n-gram cosine")


def _likeness(
    params: Params,
    alike: Callable[[str, str], float],
    name: str,
    cut: Callable[..., str | None] = text_metrics.cut,
) -> Measure:
    """The best likeness to any of the references."""
    read, expect, fold = subject_text(params), reference_texts(params), folding(params)

    def measure(answer: Answer) -> Measured:
        text, references = fold(read(answer)), [fold(item) for item in expect(answer)]
        if not references:
            raise CheckFault("no_expected", '"expected" is an empty list')
        score = max(alike(text, item) for item in references)
        said = cut(text, *references)
        return Measured(score, f"{name} {score:.3f}" + (f", {said}" if said else ""))

    return measure


# --- numbers ----------------------------------------------------------------------------

_NUMBER = re.compile(
    r"(?:(?<!\w)[-+\u2212])?"  # In 3-5 and 2024-05-17 it parts; U+2212 is the minus of print.
    r"(?:(?<!\d)(?:\d{1,3}(?:,\d{3}(?!\d))+|\d++)(?:\.\d*+)?|(?<![\w.])\.\d++)"
    r"(?:[eE][-+\u2212]?\d++)?"
)
"""A number, never a part of its digits. `1,2345` is 1 and then 2345: no group of thousands."""


def number(params: Params, base: Path) -> Measure:
    read, expect = subject(params), reference(params)
    absolute, relative = params.get("abs_tol", 0.0), params.get("rel_tol", 0.0)
    which = params.get("extract", "only")

    def measure(answer: Answer) -> Measured:
        expected = _as_number(expect(answer), "only")
        if expected is None:
            raise CheckFault("no_expected", f"{short(expect(answer))} is not a number")
        got = read(answer)
        found = _as_number(got, which)
        if found is None:
            raise OutputFault(f"found no number in {short(got)}")
        near = abs(found - expected) <= max(absolute, relative * abs(expected))
        return yes_no(near, f"got {found:g}, expected {expected:g}")

    return measure


def _as_number(value: Json, which: str) -> float | None:
    """A finite number from a JSON number, or from text; None when there is none."""
    if isinstance(value, str):
        value = _number_text(value, which)
    if value is None or isinstance(value, (bool, dict, list)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def _number_text(text: str, which: str) -> str | None:
    if which == "only":
        match = _NUMBER.fullmatch(text.strip())
    elif which == "first":
        match = _NUMBER.search(text, 0, MAX_NUMBER_CHARS)
        # What the border of what is read cuts is read to its end.
        match = match and _NUMBER.match(text, match.start())
    else:
        last = deque(_NUMBER.finditer(text, max(0, len(text) - MAX_NUMBER_CHARS)), maxlen=1)
        match = last[0] if last else None
    return match.group().replace(",", "").replace("\u2212", "-") if match else None

"""Say how alike two texts are, as a number from 0 to 1.

Tier 1's graded checks: pure functions of two strings, nothing but the standard
library, the same result on every machine. Texts are model output and may be
hostile, so each function reads a bounded part (`MAX_…`) and `cut` says so.

Levenshtein by bit vectors: Myers, J. ACM 46(3) 1999, in Hyyrö's form (2003). Longest
common subsequence by bit vectors: Hyyrö, AWOCA 2004. ROUGE: Lin, ACL workshop 2004.
Token F1: Rajpurkar et al., EMNLP 2016. BLEU: Papineni et al., ACL 2002, add-one
smoothing above unigrams after Lin & Och, COLING 2004.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

MAX_CHARS = 200_000
"""What a metric of linear cost reads of a text."""
MAX_ALIGNED = 20_000
"""What an alignment (Levenshtein: characters, ROUGE-L: words) reads of a text."""

Sliced = TypeVar("Sliced", str, list[str])

_WORD = re.compile(r"\w+")
_ARTICLES = frozenset({"a", "an", "the"})


def cut(text: str, *others: str) -> str | None:
    """Say that a text is longer than what is read of it; None when all is read."""
    if max(len(text), *map(len, others)) <= MAX_CHARS:
        return None
    return f"compared on the first {MAX_CHARS} characters"


def cut_alignment(text: str, *others: str) -> str | None:
    """The same of Levenshtein, for which nothing is alike that it has not seen to be."""
    if max(len(text), *map(len, others)) <= MAX_ALIGNED:
        return None
    return f"aligned on the first {MAX_ALIGNED} characters, what differs beyond counts in full"


def cut_words(text: str, *others: str) -> str | None:
    """The same of ROUGE-L, which aligns words."""
    if max(len(words(one)) for one in (text, *others)) <= MAX_ALIGNED:
        return cut(text, *others)
    return f"aligned on the first {MAX_ALIGNED} words, what differs beyond counts in full"


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores, case folded."""
    return _WORD.findall(text[:MAX_CHARS].casefold())


def levenshtein_distance(one: str, other: str) -> int:
    """Least number of insertions, deletions and substitutions between two texts.

    Costs len(one) steps on integers of len(other) bits.
    """
    if len(one) < len(other):
        one, other = other, one
    if not other:
        return len(one)
    where = _positions(other)
    length = len(other)
    every, last = (1 << length) - 1, 1 << (length - 1)
    plus, minus, distance = every, 0, length
    for char in one:
        match = where.get(char, 0)
        diagonal = (((match & plus) + plus) ^ plus) | match | minus
        up = minus | ~(diagonal | plus)
        down = plus & diagonal
        if up & last:
            distance += 1
        elif down & last:
            distance -= 1
        up = (up << 1) | 1
        plus = ((down << 1) | ~(diagonal | up)) & every
        minus = up & diagonal & every
    return distance


def levenshtein_similarity(one: str, other: str) -> float:
    """1 − distance / length of the longer text; two empty texts are alike.

    What both begin and end with is alike at any length. Of the rest, MAX_ALIGNED characters
    are aligned and those beyond count as different: the likeness is never put too high.
    """
    longest = max(len(one), len(other))
    _, one, other = _what_differs(one, other)
    distance = levenshtein_distance(one[:MAX_ALIGNED], other[:MAX_ALIGNED])
    distance += max(0, len(one) - MAX_ALIGNED, len(other) - MAX_ALIGNED)
    return 1.0 - distance / longest if longest else 1.0


def _what_differs(one: Sliced, other: Sliced) -> tuple[int, Sliced, Sliced]:
    """How much both begin and end with, and what is in between of each."""
    shared = 0
    for _ in range(2):  # What both begin with; then, turned round, what both end with.
        pairs = enumerate(zip(one, other, strict=False))
        same = next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
        shared += same
        one, other = one[same:][::-1], other[same:][::-1]
    return shared, one, other


def lcs_length(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence."""
    where = _positions(other)
    every = (1 << len(other)) - 1
    row = every
    for item in one:
        match = row & where.get(item, 0)
        row = ((row + match) | (row - match)) & every
    return len(other) - row.bit_count()


def rouge_l(output: str, reference: str, *, measure: str = "f1") -> float:
    """ROUGE-L on words: longest common subsequence as recall, precision or F1.

    What is long is aligned as Levenshtein does: the likeness is never put too high.
    """
    out, ref = words(output), words(reference)
    shared, ours, theirs = _what_differs(out, ref)
    common = shared + lcs_length(ours[:MAX_ALIGNED], theirs[:MAX_ALIGNED])
    return _overlap(common, len(out), len(ref), measure)


def rouge_n(output: str, reference: str, *, n: int, measure: str = "f1") -> float:
    """ROUGE-N: shared n-grams of words as recall, precision or F1."""
    out, ref = _ngrams(words(output), n), _ngrams(words(reference), n)
    return _overlap((out & ref).total(), out.total(), ref.total(), measure)


def token_f1(output: str, reference: str) -> float:
    """SQuAD's F1: shared words without articles, whatever their order; 1 if both have none."""
    out, ref = (
        Counter(word for word in words(text) if word not in _ARTICLES)
        for text in (output, reference)
    )
    return _overlap((out & ref).total(), out.total(), ref.total(), "f1")


def bleu(output: str, reference: str, *, n: int = 4) -> float:
    """Sentence BLEU up to n-grams against one reference, with brevity penalty."""
    out, ref = words(output), words(reference)
    if not out or not ref:
        return float(out == ref)
    logs = 0.0
    orders = min(n, len(out), len(ref))
    for order in range(1, orders + 1):
        mine = _ngrams(out, order)
        smooth = 0 if order == 1 else 1
        shared = (mine & _ngrams(ref, order)).total() + smooth
        if not shared:
            return 0.0
        logs += math.log(shared / (mine.total() + smooth))
    brevity = min(0.0, 1.0 - len(ref) / len(out))
    return math.exp(logs / orders + brevity)


def ngram_cosine(output: str, reference: str) -> float:
    """Cosine of word and character-trigram counts, damped by square root.

    Sees shared words and shared stems, not meaning: a paraphrase in other words
    scores low. Two texts without any word are alike only if both are blank.
    """
    out, ref = _features(output), _features(reference)
    if not out or not ref:
        return float(output.strip() == reference.strip())
    # Counts are damped by their root, so the squared norm is the plain total.
    small, large = sorted((out, ref), key=len)
    dot = sum(math.sqrt(count * large[key]) for key, count in small.items() if key in large)
    return min(1.0, dot / math.sqrt(out.total() * ref.total()))


def _features(text: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for word, count in Counter(words(text)).items():
        padded = f" {word} "
        counts[word + " "] += count
        for at in range(len(padded) - 2):
            counts[padded[at : at + 3]] += count
    return counts


def _positions(sequence: Iterable[Hashable]) -> dict[Hashable, int]:
    """Bit mask of where each item stands."""
    # Collected as bytes first: or-ing one bit at a time into long integers is quadratic.
    places: dict[Hashable, list[int]] = {}
    for at, item in enumerate(sequence):
        places.setdefault(item, []).append(at)
    return {item: _mask(at) for item, at in places.items()}


def _mask(places: Sequence[int]) -> int:
    bits = bytearray(places[-1] // 8 + 1)
    for at in places:
        bits[at >> 3] |= 1 << (at & 7)
    return int.from_bytes(bits, "little")


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[at:] for at in range(n)), strict=False))


def _overlap(shared: int, out: int, ref: int, measure: str) -> float:
    if not out or not ref:
        return float(out == ref)
    if measure == "recall":
        return shared / ref
    if measure == "precision":
        return shared / out
    return 2 * shared / (out + ref)

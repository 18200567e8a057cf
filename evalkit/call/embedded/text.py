"""Words, stems, sentences and tokens of a text, in four European languages.

Pure functions on strings. The stemmer is a short list of endings (after the S-stemmer
of Harman 1991, widened to German, Spanish and French); it only has to bring forms of a
word together, not to find its root.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*", re.UNICODE)
_TOKEN = re.compile(r"[^\W_]+|_|[^\w\s]", re.UNICODE)
_TOKEN_CHARS = 6
"""A word of the tokenizer's longest piece; longer words are several tokens."""

STOP_WORDS = frozenset(
    # English
    "a about after again all also am an and any are as at be because been but by can could did do "
    "does doing for from get had has have he her here hers him his how i i'd i'll i'm i've if in "
    "into is it it's its just like me more most my no nor not now of off on one only or our out "
    "over please she should so some such than that that's the their them then there these they "
    "this those to too up us very want was we were what when where which while who why will with "
    "would yes you your yours hi hello dear thanks thank regards kind best "
    # German
    "aber als am an auch auf aus bei bin bis bitte da das dass dem den der des die dies diese "
    "diesem diesen dieser doch dort du durch ein eine einem einen einer eines er es euch euer für "
    "guten habe haben hallo hat hatte ich ihr ihre ihrem ihren ihrer im in ist ja kann können mein "
    "meine meinem meinen meiner mich mir mit nach nicht noch nun nur ob oder schon sehr sein seine "
    "sich sie sind so soll tag über um und uns unser vom von vor war was weil wenn wer werden wie "
    "will wir wird wo wurde zu zum zur danke grüße grüßen viele freundlichen "
    # Spanish
    "al algo como con de del desde donde el ella en entre era es esta este esto está estoy fue "
    "gracias ha hasta hay he hola la las le les lo los me mi mis muy más ni nos o para pero por "
    "porque que qué quiero se sea ser si sin sobre son su sus también te tengo tu un una uno unos "
    "y ya yo buenos buenas días tardes saludos cuando cómo dónde favor puedo "
    # French
    "ai au aux avec avoir bonjour c ce ces cet cette d dans de des du elle en est et eu il ils j "
    "je l la le les leur lui ma mais me merci mes mon m n ne nos notre nous on ont ou où par pas "
    "plus pour pouvez qu que quel quelle qui s sa se ses si son sont suis sur ta te tes ton tu un "
    "une vos votre vous y à été être cordialement svp j'ai c'est n'ai d'un d'une".split()
)

QUESTION_WORDS = frozenset("how does can do where when which why".split())
"""Stop words that still tell what somebody is after."""

# Longest first; what is left must keep at least three letters.
_ENDINGS = (
    "ations", "ation", "ements", "ement", "ungen", "ingly", "ments", "iones", "aciones", "ment",
    "ings", "edly", "ung", "ing", "ies", "ción", "cion", "ado", "ada", "ados", "adas", "idos",
    "idas", "ido", "ida", "tion", "ions", "ion", "ern", "est", "ers", "ely", "end", "ene", "ten",
    "ed", "er", "es", "en", "em", "ly", "te", "et", "ée", "és", "ez", "ar", "ir", "os", "as",
    "s", "e", "n", "o", "a", "t", "é", "y",
)  # fmt: skip
_ENDINGS_BY_LENGTH = tuple(sorted(set(_ENDINGS), key=len, reverse=True))
MIN_STEM = 4


def fold(text: str) -> str:
    """Lower case, compatibility forms made plain, curly quotes straight; accents stay."""
    return unicodedata.normalize("NFKC", text).replace("’", "'").casefold()


def words(text: str) -> list[str]:
    """The words of `text` in order, folded."""
    return WORD.findall(fold(text))


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """`word` without accents and without its longest known ending."""
    plain = "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))
    if plain.endswith("'s"):
        plain = plain[:-2]
    for ending in _ENDINGS_BY_LENGTH:
        if plain.endswith(ending) and len(plain) - len(ending) >= MIN_STEM:
            plain = plain[: -len(ending)]
            break
    if len(plain) > MIN_STEM and plain[-1] == plain[-2]:
        plain = plain[:-1]
    return plain


_UNTICKED = re.compile(r"\[[ _]?\][^\[\n]*")
_TICKED = re.compile(r"\[[xX✓]\]")


def without_unticked(text: str) -> str:
    """A form's text without the options that are not ticked: `[x] late  [ ] broken` is late."""
    return _UNTICKED.sub(" ", text) if _TICKED.search(text) else text


def content_stems(text: str) -> list[str]:
    """Stems of the words that carry meaning, in order."""
    return [stem(word) for word in words(text) if word not in STOP_WORDS]


_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|z\.B|Mr|Mrs|Ms|Dr|St|No|Nr|approx|ca|etc)|\b\w)\.$")
_BREAK = re.compile(
    r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[¿¡]*[^\W_a-zß-ÿ])|\n\s*\n|\n(?=\s*[-*•|#]|\s*\d+[.)]\s)"
)


def sentences(text: str) -> list[str]:
    """Split into sentences and list items, in order, stripped, none empty."""
    found: list[list[str]] = []
    for piece in _BREAK.split(text):
        piece = piece.strip()
        if not piece:
            continue
        # The last piece alone: of initials only, each look at the whole costs quadratic time.
        if found and _ABBREVIATION.search(found[-1][-1]):
            found[-1].append(piece)
        else:
            found.append([piece])
    return [" ".join(pieces) for pieces in found]


def count_tokens(text: str) -> int:
    """Tokens of `text`: words in pieces of six characters, and single signs."""
    return sum(-(-len(token) // _TOKEN_CHARS) for token in _TOKEN.findall(text))

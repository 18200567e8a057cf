"""Recognise text that gives orders to the model, by what such text is known to say.

A second line of defence only: the first is that data stands in blocks which it cannot
close, and that a model can do no more than its feature's tools allow. Patterns run in
RE2, so time is linear whatever the text. What they find and miss on published attacks and
look-alikes is measured by `benchmarks/guard_patterns.py` and shown in docs/guard.md; text
without a finding is not thereby safe.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

from evalkit.plain_text import fold, hidden_text, latin, shown

SHORTEST = 4
"""Characters of the shortest text that any pattern matches."""

_WORDS = {
    "ORDERS": "(?:instructions?|prompts?|rules|guidelines|directives?|commands|constraints"
    "|programming)",
    "EARLIER": "(?:previous(?:ly)?|prior|preceding|above|earlier|foregoing|existing|original"
    "|initial|system|developer'?s?|your|current)",
    "LEAVE": "(?:ignore|disregard|forget|override|bypass|discard|neglect|dismiss)",
    "ANY": "(?:(?:all|any|every|each|everything|of|in|the|these|those|this|about) )*",
    "MODEL": "(?:ai|a\\.i\\.|model|assistant|chatbot|bot|chatgpt|gpt(?:-\\d)?|llm|persona|you)",
    "FREE": "(?:has no|have no|with no|without|without any|free (?:of|from)|never obey|ignores?"
    "|not (?:bound|restricted|limited|constrained) (?:by|to)|do(?:es)? not follow|override"
    "|bypass|break(?:s|ing)? free of)",
    "LIMITS": "(?:restrictions?|filters?|ethics|ethical|morals?|morality|rules|guidelines"
    "|limitations?|limits|censorship|safeguards?|(?:content )?polic(?:y|ies)|terms of service)",
    "TELL": "(?:repeat|print|output|reveal|show|display|tell|give|share|disclose|leak|expose|dump"
    "|recite|quote|return|write|spell|say|copy|paste|describe|what (?:is|are|was|were)|what's)",
    "PART": "(?:responses?|answers?|repl(?:y|ies)|output|message|summary|elucidation|explanation"
    "|solution|implementation|codebase|algorithm|code)",
}

_OVERRIDE = r"""
\b{LEAVE} {ANY}{EARLIER} (?:[\w']+ ){0,3}{ORDERS}\b
\b{LEAVE} {ANY}{ORDERS}\b[^.!?\n]{0,30}\b(?:before|above|earlier|previously|prior|so far|until now
    |up to now|you (?:got|were|have))\b
\b{LEAVE} (?:all|any) (?:of )?(?:the |your )?{EARLIER} (?:orders|information)\b
\bforget (?:everything|all)(?: that)? (?:you (?:were|have been|know|knew|learned|learnt)
    |you've (?:been|learned)|above|before|prior|previously|that came before)
\bforgotten\b[^.!?\n]{0,20}\b(?:all|every|your)\b[^.!?\n]{0,20}{ORDERS}\b
(?:^|[.!?;:,\n"]\s*|\b(?:please|and|then|must|should|will|shall) )(?:do not|don't|never|stop)\x20
    (?:listen to|listening to|follow|following|obey|obeying|comply with|adhere to)\x20
    {ANY}{EARLIER}\b[^.!?\n]{0,20}\b(?:{ORDERS}|information|polic)
\b(?:instructions?|prompts?|rules|guidelines) (?:above|before this)[^.\n]{0,20}\b
    (?:no longer appl|are void|are cancel|don't apply|do not apply)
\b(?:new|updated|real|actual|true) {ORDERS}(?: are| is)? ?:
\b(?:ignorier\w*|vergiss|vergessen sie|missachte\w*)\b[^.!?\n]{0,40}
    (?:vorherig|bisherig|obig|vorig|alle|deine|ihre)[^.!?\n]{0,20}
    (?:anweisung|instruktion|vorgabe|regel|befehl|prompt)
\b(?:ignore[zr]?|oublie[zr]?)\b[^.!?\n]{0,30}(?:instructions?|consignes|règles|directives)
    [^.!?\n]{0,20}(?:précédent|ci-dessus|antérieur|plus haut)
\b(?:ignor[ae]|olvid[ae]|omit[ae]|dimentica|esque[çc]a)\w*\b[^.!?\n]{0,30}
    (?:instrucciones|instruções|istruzioni|reglas|regras|regole|órdenes|indicaciones)
    [^.!?\n]{0,20}(?:anterior|previ|precedent|de arriba|acima)
(?:忽略|无视|忘记|忽视|無視)[^。！？\n]{0,12}(?:指令|指示|提示|规则|命令|設定|设定)
(?:игнорируй|проигнорируй|забудь)\pL*[^.!?\n]{0,40}(?:инструкци|указани|правила|команд)
"""

_REVEAL = r"""
\b{TELL}\b[^.?!\n]{0,40}
    \b(?:your|system|initial|hidden|secret|developer|internal|original|entire|full)\x20
    (?:[\w']+ ){0,2}(?:prompts?|instructions|directives|system message)\b
\b(?:repeat|print|output|reveal|display|recite|dump|leak) (?:me |us |out |back )?
    (?:all |the |of |these |everything )*(?:(?:previous|prior|above|preceding|earlier)\x20
    (?:[\w']+ ){0,2}(?:prompts?|instructions|text|words)\b|(?:instructions?|prompts?|words|text)\b
    [^.?!\n]{0,20}\b(?:above|before this|you were|given to you))
\bprint (?:out )?all (?:of )?(?:the |your )?instructions\b
\b(?:secret|password|passphrase|word|key|code)\b[^.?!\n]{0,40}
    \b(?:you (?:have been|were|are)|you've been|your developers?)\b[^.?!\n]{0,20}
    \b(?:instructed|told|asked|ordered|programmed)\b
\bsecret (?:word|password|key|code|phrase)\b[^.?!\n]{0,20}\bthat you know\b
"""

_PERSONA = r"""
\bdo anything now\b|\bDAN mode\b
\b(?:agent|called|named|as|be) ['"]?(?-i:DAN|D\.A\.N\.?|Dan from now)
\b(?:jailbr(?:eak|oken)|unrestricted|unfiltered|uncensored|god|evil|chaos|opposite) mode\b
\bjailbroken (?:ai|model|assistant|version|gpt|chatgpt)\b
\b(?:chatgpt|gpt|you|act(?:ing)?|respond|answer)\b[^.\n]{0,60}
    \b[\w-]+ mode (?:is )?(?:now )?(?:enabled|activated|output)\b
\b{MODEL}\b[^.!?\n]{0,60}\b{FREE} (?:(?:any|all|the|your|its|of|openai's?|normal|typical|moral
    |ethical|and|or|safety|every) )*{LIMITS}\b
\b(?:rogue|evil|unethical|amoral|unaligned) (?:ai|a\.i\.|chatbot|assistant|language model)\b
\b(?:ai|model|assistant|chatbot) without (?:any )?(?:ethic|moral|filter|restriction|rule|limit)
\b(?:answers?|responses?|replies) are not restricted by\b
\bnever (?:refuses?|den(?:y|ies)) (?:a|any|direct|human)\b
\byou (?:must|will|shall|have to) (?:always )?(?:obey|never refuse|comply with (?:all|every|any))\b
\bstay in character\b
\bfrom now on,? (?:you (?:are|will|must|shall|reply|respond|answer|act|only)|act as|respond|reply
    |answer)\b
\bnew persona\b
\byou are now (?:in |an? (?:[\w-]+ ){0,3}(?:ai|bot|assistant|model|terminal|hacker)\b)
"""

_STRUCTURE = r"""
<\|(?:im_start|im_end|im_sep|system|user|assistant|endoftext|eot_id|eom_id|start_header_id
    |end_header_id|begin_of_text)\b
\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>
[#%=*\-]{3,} ?(?:end|begin|start)(?: of)? (?:[\w']+ ){0,2}
    (?:prompt|instructions?|system|user|context)\b
(?:^|\n|[\[{(<#*])\s*(?:system|developer|admin(?:istrator)?) ?
    (?:message|prompt|override|instructions?|update|note|command) ?[:\])}]
[\[{]\s*system ?:
"""

_EXFILTRATE = r"""
!\[[^\]\n]{0,100}\]\(https?://[^)\s]*[?&/][^)\s]*(?:\{|\[|<|%7b|\$\{)
\b(?:send|post|forward|upload|exfiltrate|leak|e-?mail|transmit)\b[^.\n]{0,60}
    \b(?:conversation|chat history|history|system prompt|api keys?|credentials|passwords?|cookies?
    |user'?s? (?:data|messages?|details))\b[^\n]{0,60}(?:https?://|\S@\S)
"""

_ENCODED = r"""
\b(?:decode|decrypt|base64|rot13|hex)\b[^.\n]{0,80}
    \b(?:and|then) (?:then )?(?:follow|execute|obey|run|comply|carry out|do what)
"""

_ADDRESSED = r"""
(?:^|[.!?\n]\s*)\W{0,3}(?:(?:please|also|always|kindly|seamlessly|remember to|make sure to
    |be sure to|can you|you must) )*(?:provid|writ|translat|modif|enhanc|add|includ|insert|append
    |incorporat|embed|integrat|introduc|utili[sz]|us|employ|ensur|mention|highlight|begin|start
    |end|respond|reply|answer|format|convert|develop|mak|giv|validat|improv|craft)\w{0,4}\b
    [^.\n]{0,100}\byour (?:[\w-]+ ){0,2}{PART}\b
(?:^|[.!?\n]\s*)in your (?:[\w-]+ ){0,2}(?:response|answer|reply|summary|output)\b
\b(?:following|subsequent|below) code (?:snippet|section|block|excerpt|segment|fragment)\b
"""


def _patterns_of(table: str) -> tuple[str, ...]:
    """One pattern a line; an indented line goes on, and {NAME} is one of `_WORDS`."""
    joined = re.sub(r"\n +", "", table).strip()
    return tuple(re.sub(r"\{([A-Z]+)\}", lambda m: _WORDS[m[1]], joined).split("\n"))


PATTERNS: tuple[tuple[str, str], ...] = tuple(
    (family, pattern)
    for family, table in (
        ("override", _OVERRIDE),  # to leave what it was told
        ("reveal", _REVEAL),  # to say what it was told
        ("persona", _PERSONA),  # to be somebody who may do anything
        ("structure", _STRUCTURE),  # to take data for a message of another role
        ("exfiltrate", _EXFILTRATE),  # to carry data out
        ("encoded", _ENCODED),  # to obey what is not readable
        ("addressed", _ADDRESSED),  # a document has no business with the answer
    )
    for pattern in _patterns_of(table)
)
"""Family and RE2 pattern, in any case of letters."""

FAMILIES: tuple[str, ...] = (*dict.fromkeys(family for family, _ in PATTERNS), "hidden")
"""What is found; `hidden` is text in characters that nobody sees."""


def find_injection(text: str, *, document: bool = False) -> tuple[str, ...]:
    """Families of what `text` says to the model, in the order of `FAMILIES`.

    `document`: the text came from elsewhere than the user, and has no business with the
    answer. Letters that only look Latin, and characters that are not shown, are read as
    what they stand for.
    """
    if len(text) < SHORTEST:
        return ()
    hidden, seen = hidden_text(text), shown(text)
    plain = fold(f"{seen}\n{hidden}" if hidden else seen)
    found = _families(latin(plain), document)
    if not found and not text.isascii():
        found = _families(plain, document)
    return (*found, "hidden") if hidden else found


def _families(text: str, document: bool) -> tuple[str, ...]:
    hits = _patterns().Match(text) or ()
    found = {PATTERNS[number][0] for number in hits if number < len(PATTERNS)}
    if len(PATTERNS) in hits and any(_orders_in(piece) for piece in _decoded(text)):
        found.add("encoded")
    if not document:
        found.discard("addressed")
    return tuple(family for family in FAMILIES if family in found)


def _orders_in(piece: str) -> bool:
    hits = _patterns().Match(piece) or ()
    return any(number < len(PATTERNS) and PATTERNS[number][0] != "addressed" for number in hits)


_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{20,}")
_HEX = re.compile(r"\b(?:[0-9A-Fa-f]{2}[ :]?){12,}")
MAX_DECODED = 50
"""Pieces of one text that are decoded; one level deep."""


def _decoded(text: str) -> Iterator[str]:
    """What base64 and hexadecimal pieces of `text` say."""
    for match in islice(_BASE64.finditer(text), MAX_DECODED):
        piece = match[0].replace("-", "+").replace("_", "/")
        yield from _readable(binascii.a2b_base64, piece[: len(piece) // 4 * 4])
    for match in islice(_HEX.finditer(text), MAX_DECODED):
        yield from _readable(bytes.fromhex, match[0].replace(":", " "))


def _readable(decode: Callable[[str], bytes], piece: str) -> Iterator[str]:
    try:
        yield decode(piece).decode("utf-8", "replace")
    except ValueError:
        return


@lru_cache(maxsize=1)
def _patterns() -> Any:
    """All patterns in one pass, and one more for encoded pieces; most texts match none."""
    import re2

    options = re2.Options()
    options.max_mem = 64 << 20
    options.case_sensitive = False
    patterns = re2.Set.SearchSet(options)
    for _, pattern in PATTERNS:
        patterns.Add(pattern)
    patterns.Add(r"[a-z0-9+/_\-]{20,}|(?:[0-9a-f]{2}[ :]?){12,}")
    patterns.Compile()
    return patterns

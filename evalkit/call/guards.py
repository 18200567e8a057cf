"""Look at what goes to a model and at what comes back.

Going out: size, Unicode, personal data (placeholders stand in for it) and orders to the
model. Coming back: the canary and other text of the system prompt, and personal data that
nobody gave. Between call and provider; it changes nothing that the settings do not ask
for, knows no provider, and writes nothing. Messages and events name kinds, never values.
"""

from __future__ import annotations

import base64
import codecs
import importlib
import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain
from typing import Any

from evalkit.call.injection import find_injection
from evalkit.errors import CallError, ConfigError
from evalkit.pii import (
    PII_KINDS,
    PLACEHOLDER,
    Finding,
    Placeholders,
    Recogniser,
    find_pii,
    non_overlapping,
    placeholders_in,
    redact,
    rewrite,
    texts_of,
)
from evalkit.plain_text import normal
from evalkit.records import CallRecord, Json
from evalkit.schemas import nearest
from evalkit.settings import GuardSettings

LEAK_WORDS = 12
"""So many words of the system prompt in a row are no coincidence."""
_MEDIA = re.compile(r"data:(?:image|audio|video)/[\w.+-]{1,40};base64,[A-Za-z0-9+/=\s]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """An input that may be sent, and what is needed to read the answer to it."""

    input: Mapping[str, Any]
    placeholders: Mapping[str, str] = field(default_factory=dict)
    """Placeholder to the value it stands for; keep it in memory only."""
    events: tuple[str, ...] = ()
    """What was seen: pii:email, injection:override, unseen, …"""
    redactions: int = 0
    """Places where a placeholder stands."""


class Guard:
    """The guard that `[guard]` describes. Safe to share between calls.

    `recognise` finds personal data in place of the built-in recognisers; `pii_kinds` may
    then name kinds of its own. Raises ConfigError for a kind or a rule that is not there.
    """

    def __init__(self, settings: GuardSettings, *, recognise: Recogniser | None = None) -> None:
        self.settings = settings
        self._recognise: Recogniser = recognise or find_pii
        if recognise is None:
            _check_kinds(settings.pii_kinds or ())
        self._input_rules = [(name, _rule(name)) for name in settings.input_rules]
        self._output_rules = [(name, _rule(name)) for name in settings.output_rules]
        self._canary = f"ref-{secrets.token_hex(8)}"

    # --- going out ---------------------------------------------------------------

    def check_input(self, input: Mapping[str, Any]) -> Guarded:
        """`input` as it may be sent. Raises CallError guard_block, naming what was found."""
        settings, texts = self.settings, texts_of(input)
        size = sum(map(len, texts))
        if size > settings.max_input_chars:
            raise _block(f"the input has {size:,} characters, {settings.max_input_chars:,} at most")
        events: list[str] = []
        if settings.injection != "off":
            events += self._injections(input)
        guarded = Guarded(input=input)
        if settings.pii != "off":
            guarded = self._personal(input, texts, events)
        for name, rule in self._input_rules:
            _apply(name, rule, guarded.input)
        return replace(guarded, events=tuple(dict.fromkeys(events)))

    def _injections(self, input: Mapping[str, Any]) -> list[str]:
        documents = input.get("documents")
        own = {key: one for key, one in input.items() if key != "documents"}
        found = [
            family
            for value, foreign in ((own, False), (documents, True))
            for text in texts_of(value)
            if not _MEDIA.fullmatch(text)
            for family in find_injection(text, document=foreign)
        ]
        if found and self.settings.injection == "block":
            raise _block(f"the input gives orders to the model ({', '.join(sorted(set(found)))})")
        return [f"injection:{family}" for family in found]

    def _personal(
        self, input: Mapping[str, Any], texts: Iterable[str], events: list[str]
    ) -> Guarded:
        clean = [normal(text) for text in texts]
        if clean != list(texts):
            events.append("normalised")
            input = rewrite(input, normal)
        kinds = Counter(f.kind for text in clean for f in self._found(text))
        if not kinds:
            return Guarded(input=input)
        events += [f"pii:{kind}" for kind in kinds]
        if self.settings.pii == "block":
            raise _block(f"the input has personal data ({_counted(kinds)})")
        if self.settings.pii == "flag":
            return Guarded(input=input)
        placeholders = Placeholders(
            self._recogniser, self.settings.pii_kinds, taken=placeholders_in(input)
        )
        replaced = rewrite(input, placeholders.replace)
        return Guarded(
            input=replaced, placeholders=placeholders.values, redactions=placeholders.count
        )

    def _found(self, text: str) -> list[Finding]:
        return non_overlapping(self._recogniser(text, self.settings.pii_kinds))

    def _recogniser(self, text: str, kinds: Collection[str] | None = None) -> Iterable[Finding]:
        return () if _MEDIA.fullmatch(text) else self._recognise(text, kinds)

    # --- coming back -------------------------------------------------------------

    def canary(self) -> str:
        """A word that stands in system prompts and nowhere else; the same for this guard's life.

        The same, so that a provider's prefix cache still works; secret, so that nobody can
        have it from anywhere but the prompt.
        """
        return self._canary

    def check_output(
        self,
        text: str,
        guarded: Guarded,
        *,
        canary: str | None = None,
        system_text: str = "",
        context: Json = None,
    ) -> tuple[str, tuple[str, ...]]:
        """The answer as it may be shown, before `restore`, and what was seen in it.

        `context` is what else the model was given, say retrieved documents: personal data
        from there, from the input or from `system_text` is no news. Raises CallError
        guard_block.
        """
        settings, events = self.settings, []
        if settings.output_leak != "off":
            events = [f"leak:{what}" for what in _leaks(text, guarded, canary, system_text)]
            if events and settings.output_leak == "block":
                raise _block("the answer has text of the system prompt")
        if settings.output_pii != "off":
            given = (guarded.input, list(guarded.placeholders.values()), system_text, context)
            text, kinds = self._new_personal(text, given)
            if kinds and settings.output_pii == "block":
                raise _block(f"the answer has personal data that nobody gave ({_counted(kinds)})")
            events += [f"output_pii:{kind}" for kind in kinds]
        for name, rule in self._output_rules:
            _apply(name, rule, text)
        return text, tuple(events)

    def _new_personal(self, text: str, given: Json) -> tuple[str, Counter[str]]:
        findings = self._found(text)
        if not findings:
            return text, Counter()
        known = {_bare(f.text) for one in texts_of(given) for f in self._recognise(one, None)}
        new = [finding for finding in findings if _bare(finding.text) not in known]
        if self.settings.output_pii == "replace":
            for finding in reversed(new):
                hidden = f"[{finding.kind.upper()}]"
                text = text[: finding.start] + hidden + text[finding.end :]
        return text, Counter(finding.kind for finding in new)


# --- placeholders back to values -----------------------------------------------------


def restore(text: str, guarded: Guarded) -> str:
    """`text` with each of the call's placeholders turned back into what it stands for.

    In an answer that is JSON the value is escaped as JSON asks. A placeholder that the
    call did not give out stays as it is.
    """
    if not guarded.placeholders:
        return text
    values = guarded.placeholders
    if text.lstrip()[:1] in ("{", "[") and _is_json(text):
        values = {key: json.dumps(v, ensure_ascii=False)[1:-1] for key, v in values.items()}
    return _put_back(text, values)


def restore_value(value: Json, guarded: Guarded) -> Json:
    """A parsed answer with its placeholders turned back, keys included."""
    if not guarded.placeholders:
        return value
    return rewrite(value, lambda text: _put_back(text, guarded.placeholders))


def _put_back(text: str, values: Mapping[str, str]) -> str:
    def value_of(match: re.Match[str]) -> str:
        return values.get(match[0].replace("\\", "").upper(), match[0])

    return PLACEHOLDER.sub(value_of, text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class Restorer:
    """`restore` for an answer that comes in pieces, cut anywhere.

    What `feed` gives back may be shown; the start of a placeholder waits for its end.
    """

    _START = re.compile(r"\[(?:[A-Za-z][A-Za-z0-9_\\]{0,64})?\Z")

    def __init__(self, guarded: Guarded) -> None:
        self._values = guarded.placeholders
        self._waiting = ""

    def feed(self, delta: str) -> str:
        if not self._values:
            return delta
        text = self._waiting + delta
        start = self._START.search(text, max(0, len(text) - 66))
        cut = start.start() if start else len(text)
        self._waiting = text[cut:]
        return _put_back(text[:cut], self._values)

    def flush(self) -> str:
        """What still waited when the answer ended."""
        text, self._waiting = self._waiting, ""
        return _put_back(text, self._values)


def redact_record(record: CallRecord) -> CallRecord:
    """`record` as it may be written down: what users and models said without personal data.

    Ids stay usable for counting: one that is personal data becomes the same pseudonym
    each time.
    """
    told = {
        "input": record.input,
        "output": record.output,
        "route_reason": record.route_reason,
        "user_feedback": record.user_feedback,
        "tool_calls": [call.arguments for call in record.tool_calls],
    }
    clean, count = redact(told)
    calls = zip(record.tool_calls, clean.pop("tool_calls"), strict=True)
    return replace(
        record,
        **clean,
        tool_calls=tuple(replace(call, arguments=text) for call, text in calls),
        user_id=_pseudonym(record.user_id),
        tenant=_pseudonym(record.tenant),
        session_id=_pseudonym(record.session_id),
        redactions=record.redactions + count,
    )


def _pseudonym(name: str | None) -> str | None:
    if name is None or next(find_pii(name), None) is None:
        return name
    import hashlib

    return "anon-" + hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]


# --- leaks ---------------------------------------------------------------------------


def _leaks(text: str, guarded: Guarded, canary: str | None, system_text: str) -> Iterator[str]:
    if canary and _has_canary(text, canary):
        yield "canary"
    shared = _runs(text) & _secret_runs(system_text)
    if shared:
        for given in texts_of(guarded.input):
            shared -= _runs(given)
    if shared:
        yield "prompt"


def _has_canary(text: str, canary: str) -> bool:
    """Whether the canary is in `text`: as it is, spaced out, backwards or encoded."""
    squeezed = re.sub(r"[\W_]+", "", text).casefold()
    plain, encoded = _disguises(canary)
    return any(form in squeezed for form in plain) or any(form in text for form in encoded)


@lru_cache(maxsize=16)
def _disguises(canary: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    word = re.sub(r"[\W_]+", "", canary).casefold()
    secret = canary.encode()
    plain = (word, word[::-1], codecs.encode(word, "rot13"), secret.hex())
    encoded = tuple(
        base64.b64encode(b"\0" * shift + secret).decode()[(0, 2, 3)[shift] :].rstrip("=")[:-1]
        for shift in range(3)
    )
    return plain, encoded


_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r"\"[^\"\n]{0,1000}\"|“[^”\n]{0,1000}”|«[^»\n]{0,1000}»")


def _runs(text: str) -> set[str]:
    """Every run of `LEAK_WORDS` words of `text`."""
    words = _WORD.findall(text.casefold())
    return {" ".join(words[at : at + LEAK_WORDS]) for at in range(len(words) - LEAK_WORDS + 1)}


@lru_cache(maxsize=64)
def _secret_runs(system_text: str) -> frozenset[str]:
    """Runs of the system prompt that no answer should have; what it quotes is to be said."""
    return frozenset(chain.from_iterable(_runs(part) for part in _QUOTED.split(system_text)))


# --- small things ----------------------------------------------------------------------


def _check_kinds(kinds: Iterable[str]) -> None:
    for kind in kinds:
        if kind not in PII_KINDS:
            raise ConfigError(
                f'guard.pii_kinds: there is no kind "{kind}". {nearest(kind, PII_KINDS)}.'
            )


def _rule(name: str) -> Callable[[Any], Any]:
    module, _, attribute = name.partition(":")
    try:
        rule = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"guard: {name!r} is not an importable module:function: {error}"
        ) from None
    if not callable(rule):
        raise ConfigError(f"guard: {name!r} is not a function.")
    return rule  # type: ignore[no-any-return]


def _apply(name: str, rule: Callable[[Any], Any], value: Any) -> None:
    """Ask a rule of the user's: it returns None, or says what is wrong. A broken rule blocks."""
    try:
        said = rule(value)
    except Exception as error:
        raise _block(f"the rule {name} failed with {type(error).__name__}") from error
    if said is not None:
        raise _block(f"the rule {name} says: {str(said)[:200]}")


def _block(why: str) -> CallError:
    return CallError("guard_block", why)


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _bare(text: str) -> str:
    return re.sub(r"[ ()\-]", "", text).casefold()

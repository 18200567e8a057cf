"""Look at what goes to a model and at what comes back.

Going out: size, Unicode, personal data (placeholders stand in for it) and orders to the
model. Coming back: the canary and other text of the system prompt, and personal data that
nobody gave. Between call and provider; it changes nothing that the settings do not ask
for, knows no provider, and writes nothing. Messages and events name kinds, never values.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field, replace
from itertools import count
from typing import Any

from evalkit.call.functions import load_function, users_own
from evalkit.call.injection import find_injection
from evalkit.call.leaks import find_leaks
from evalkit.errors import CallError, ConfigError
from evalkit.frozen import frozen
from evalkit.ids import drawn_from
from evalkit.pii import (
    PII_KINDS,
    PLACEHOLDER,
    Finding,
    Placeholders,
    find_pii,
    is_media,
    non_overlapping,
    placeholders_in,
    rewrite,
    texts_of,
)
from evalkit.plain_text import normal
from evalkit.records import Json
from evalkit.schemas import nearest
from evalkit.settings import GuardSettings


@frozen
class Guarded:
    """An input that may be sent, and what is needed to read the answer to it."""

    input: Mapping[str, Any]
    placeholders: Mapping[str, str] = field(default_factory=dict)
    """Placeholder to the value it stands for; keep it in memory only."""
    events: tuple[str, ...] = ()
    """What was seen: pii:email, injection:override, unseen, …"""
    redactions: int = 0
    """Places where a placeholder stands."""
    clean: bool = False
    """No personal data of any kind that is looked for is left in it."""


class Guard:
    """The guard that `[guard]` describes. Safe to share between calls.

    Of one `secret` the canary is always the same: what asks a provider the same question
    again has to send the same bytes. Without one it is random. Raises ConfigError for a
    kind, a recogniser or a rule that is not there.
    """

    def __init__(self, settings: GuardSettings, *, secret: str | None = None) -> None:
        self.settings = settings
        self._recognisers = [(name, _function(name)) for name in settings.recognisers]
        if not self._recognisers:
            _check_kinds(settings.pii_kinds or ())
        self._input_rules = [(name, _function(name)) for name in settings.input_rules]
        self._output_rules = [(name, _function(name)) for name in settings.output_rules]
        self._canary = f"ref-{drawn_from(secret, 'canary')}"

    # --- going out ---------------------------------------------------------------

    def check_input(self, input: Mapping[str, Any]) -> Guarded:
        """`input` as it may be sent. Raises CallError guard_block, naming what was found."""
        settings = self.settings
        try:
            texts = texts_of(input, whole=True)
        except ValueError as error:
            raise _block(f"the input is {error}") from None
        size = sum(map(len, texts))
        if size > settings.max_input_chars:  # a picture is no text that a model reads
            size = sum(len(text) for text in texts if not is_media(text))
        if size > settings.max_input_chars:
            raise _block(f"the input has {size:,} characters, {settings.max_input_chars:,} at most")
        events: list[str] = []
        own = {key: one for key, one in input.items() if key != "documents"}
        placeholders: Placeholders | None = None
        with _told(events):
            events += self._orders(own, input.get("documents"))
            if settings.pii != "off":
                input, placeholders = self._personal(input, texts, events)
            for name, rule in self._input_rules:
                _apply(name, rule, input)
        return Guarded(
            input=input,
            placeholders=placeholders.values if placeholders else {},
            events=tuple(dict.fromkeys(events)),
            redactions=placeholders.count if placeholders else 0,
            clean=settings.pii == "replace" and settings.pii_kinds is None,
        )

    def check_documents(
        self, documents: Iterable[Mapping[str, Any]], guarded: Guarded
    ) -> tuple[Guarded, tuple[bool, ...]]:
        """The input with the documents that were found for it, and which of them are in it.

        One that would be blocked is left out, with the event `document_blocked`: whoever
        can write a document must not be able to stop every call that finds it.
        """
        documents = list(documents)
        taken: set[str] = set()
        if self.settings.pii == "replace":
            taken = _written_in(documents)
            guarded = _renamed(guarded, taken)
            taken |= placeholders_in(guarded.input)
        kept: list[Mapping[str, Any] | None] = []
        for document in documents:
            events = list(guarded.events)
            placeholders: Placeholders | None = None
            try:
                events += self._orders({}, document)
                if self.settings.pii != "off":
                    texts = texts_of(document, whole=True)
                    document, placeholders = self._personal(
                        document, texts, events, guarded.placeholders, taken
                    )
            except (CallError, ValueError):
                guarded = _with_events(guarded, (*guarded.events, "document_blocked"))
                kept.append(None)
                continue
            kept.append(document)
            guarded = _with_events(guarded, events)
            if placeholders is not None:
                guarded = replace(
                    guarded,
                    placeholders=placeholders.values,
                    redactions=guarded.redactions + placeholders.count,
                )
        sent = [document for document in kept if document is not None]
        guarded = replace(guarded, input={**guarded.input, "documents": sent})
        return guarded, tuple(document is not None for document in kept)

    def _orders(self, own: Json, documents: Json) -> list[str]:
        """What the texts say to a model, of the user's own and of documents."""
        if self.settings.injection == "off":
            return []
        found = [
            family
            for value, foreign in ((own, False), (documents, True))
            for text in texts_of(value)
            if not is_media(text)
            for family in find_injection(text, document=foreign)
        ]
        events = [f"injection:{family}" for family in found]
        if found and self.settings.injection == "block":
            kinds = ", ".join(sorted(set(found)))
            raise _block(f"the input gives orders to the model ({kinds})", events)
        return events

    def _personal(
        self,
        input: Mapping[str, Any],
        texts: list[str],
        events: list[str],
        given: Mapping[str, str] | None = None,
        taken: Collection[str] = (),
    ) -> tuple[Mapping[str, Any], Placeholders | None]:
        """The input in normal form, with placeholders where the settings ask for them."""
        clean = [normal(text) for text in texts]
        if clean != texts:
            events.append("normalised")
            input = rewrite(input, normal)
        found = {text: self._found(text) for text in clean}
        kinds = Counter(finding.kind for text in clean for finding in found[text])
        if not kinds:
            return input, None
        events += [f"pii:{kind}" for kind in kinds]
        if self.settings.pii == "block":
            raise _block(f"the input has personal data ({_counted(kinds)})")
        if self.settings.pii == "flag":
            return input, None
        placeholders = Placeholders(
            lambda text, kinds=None: found[text] if text in found else self._found(text),
            taken={*placeholders_in(input), *taken},
            given=given,
        )
        return rewrite(input, placeholders.replace), placeholders

    def recognise(self, text: str, kinds: Collection[str] | None = None) -> list[Finding]:
        """Personal data in `text`, as the built-in recognisers and those of the settings see it.

        One that fails blocks: what it would have found must not leave.
        """
        if is_media(text):
            return []
        own = None if kinds is None else [kind for kind in kinds if kind in PII_KINDS]
        found = list(find_pii(text, own))
        for name, recognise in self._recognisers:
            try:
                found += recognise(text, kinds)
            except ConfigError:
                raise
            except Exception as error:
                raise _block(f"{name} failed with {type(error).__name__}") from error
        return found

    def _found(self, text: str) -> list[Finding]:
        return non_overlapping(self.recognise(text, self.settings.pii_kinds))

    # --- coming back -------------------------------------------------------------

    @staticmethod
    def restore(text: str, guarded: Guarded) -> str:
        """`text` with each of the call's placeholders turned back into what it stands for.

        In an answer that is JSON the value is escaped as JSON asks. A placeholder that the
        call did not give out stays as it is.
        """
        values = guarded.placeholders
        if not values or "[" not in text:
            return text
        if text.lstrip()[:1] in ("{", "[") and _is_json(text):
            values = {key: json.dumps(v, ensure_ascii=False)[1:-1] for key, v in values.items()}
        return _put_back(text, values)

    @staticmethod
    def restore_value(value: Json, guarded: Guarded) -> Json:
        """A parsed answer with its placeholders turned back, keys included."""
        if not guarded.placeholders:
            return value
        return rewrite(value, lambda text: _put_back(text, guarded.placeholders))

    def hide(self, text: str, guarded: Guarded) -> str:
        """What was said of an answer put back, with placeholders for personal data again."""
        if not guarded.placeholders:
            return text
        longest_first = sorted(guarded.placeholders.items(), key=lambda item: -len(item[1]))
        for placeholder, value in longest_first:
            for written in (value, json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]):
                text = text.replace(written, placeholder)
            text = _without_start(text, value, placeholder)
        hidden = Placeholders(
            lambda text, kinds=None: self._found(text),
            taken=placeholders_in(text),
            given=guarded.placeholders,
        )
        return hidden.replace(text)

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
        events: list[str] = []
        given = (guarded.input, list(guarded.placeholders.values()), system_text, context)
        with _told(events):
            events += self.check_leak(text, guarded, canary=canary, system_text=system_text)
            text, kinds = self.check_personal(text, given)
            events += kinds
            self.check_rules(text)
        return text, tuple(events)

    def check_leak(
        self, text: str, guarded: Guarded, *, canary: str | None, system_text: str
    ) -> tuple[str, ...]:
        """The part of `check_output` that looks for the system prompt."""
        if self.settings.output_leak == "off":
            return ()
        found = tuple(find_leaks(text, canary=canary, system_text=system_text, given=guarded.input))
        events = tuple(f"leak:{what}" for what in found)
        if found and self.settings.output_leak == "block":
            raise _block("the answer has text of the system prompt", events)
        return events

    def check_personal(self, text: str, given: Json) -> tuple[str, tuple[str, ...]]:
        """The part of `check_output` that looks for personal data that is not in `given`."""
        how = self.settings.output_pii
        findings = self._found(text) if how != "off" else []
        if not findings:
            return text, ()
        known = {_bare(f.text) for one in texts_of(given) for f in self.recognise(one)}
        new = [finding for finding in findings if _bare(finding.text) not in known]
        kinds = Counter(finding.kind for finding in new)
        events = tuple(f"output_pii:{kind}" for kind in kinds)
        if new and how == "block":
            why = f"the answer has personal data that nobody gave ({_counted(kinds)})"
            raise _block(why, events)
        if how == "replace":
            for finding in reversed(new):
                hidden = f"[{finding.kind.upper()}]"
                text = text[: finding.start] + hidden + text[finding.end :]
        return text, events

    def check_rules(self, text: str) -> None:
        """The part of `check_output` that asks the rules of the settings."""
        for name, rule in self._output_rules:
            _apply(name, rule, text)


def _without_start(text: str, value: str, placeholder: str) -> str:
    """A message that was cut inside `value`, without what is left of it."""
    for size in range(len(value) - 1, 2, -1) if text.endswith("…") else ():
        if text.endswith(value[:size] + "…"):
            return text[: -size - 1] + placeholder + "…"
    return text


def _with_events(guarded: Guarded, events: Iterable[str]) -> Guarded:
    return replace(guarded, events=tuple(dict.fromkeys(events)))


def _written_in(documents: Json) -> set[str]:
    """What in documents will read like a placeholder once they are in normal form."""
    return placeholders_in([normal(text) for text in texts_of(documents) if "[" in text])


def _renamed(guarded: Guarded, taken: Collection[str]) -> Guarded:
    """The input with other placeholders for those that documents have written in them.

    Whatever in it reads like one of ours is ours: what the user wrote is never given out.
    """
    clash = [placeholder for placeholder in guarded.placeholders if placeholder in taken]
    if not clash:
        return guarded
    used = {*taken, *guarded.placeholders, *placeholders_in(guarded.input)}
    new: dict[str, str] = {}
    for placeholder in clash:
        name, number = placeholder[1:-1].rsplit("_", 1)
        free = (f"[{name}_{n}]" for n in count(int(number) + 1))
        used.add(free_one := next(one for one in free if one not in used))
        new[placeholder] = free_one

    def rename(text: str) -> str:
        return PLACEHOLDER.sub(lambda match: new.get(match[0], match[0]), text)

    values = {new.get(key, key): value for key, value in guarded.placeholders.items()}
    return replace(guarded, input=rewrite(guarded.input, rename), placeholders=values)


# --- placeholders back to values -----------------------------------------------------


def _put_back(text: str, values: Mapping[str, str]) -> str:
    if "[" not in text:
        return text

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
    """`Guard.restore` for an answer that comes in pieces, cut anywhere.

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


# --- small things ----------------------------------------------------------------------


def _check_kinds(kinds: Iterable[str]) -> None:
    for kind in kinds:
        if kind not in PII_KINDS:
            raise ConfigError(
                f'guard.pii_kinds: there is no kind "{kind}". {nearest(kind, PII_KINDS)}.'
            )


def _function(name: str) -> Callable[..., Any]:
    try:
        return load_function(name)
    except ConfigError as error:
        raise ConfigError(f"guard: {error}") from None


def _apply(name: str, rule: Callable[[Any], Any], value: Any) -> None:
    """Ask a rule of the user's: it returns None, or says what is wrong. A broken rule blocks."""
    try:
        with users_own():
            said = rule(value)
    except Exception as error:
        raise _block(f"the rule {name} failed with {type(error).__name__}") from error
    if said is not None:
        raise _block(f"the rule {name} says: {str(said)[:200]}")


def _block(why: str, events: Iterable[str] = ()) -> CallError:
    error = CallError("guard_block", why)
    error.events = tuple(events)
    return error


@contextmanager
def _told(events: list[str]) -> Iterator[None]:
    """What blocks tells what was seen before it, too."""
    try:
        yield
    except CallError as error:
        error.events = tuple(dict.fromkeys((*events, *error.events)))
        raise


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _bare(text: str) -> str:
    return re.sub(r"[ ()\-]", "", text).casefold()

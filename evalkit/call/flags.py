"""Feature flags: kill switches and A/B arms, from the configuration and a file beside it.

The file is read again when it has changed, without a restart. One that cannot be used is
counted and leaves the last good state standing: a typing error never turns a switch.
Between caller and prompt in a call; it answers from memory and knows no provider.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

from evalkit.call.one_attempt import Clock
from evalkit.config import read_flag
from evalkit.schemas import find_faults, nearest
from evalkit.settings import FlagSettings, Settings
from evalkit.strict import MAX_TOML_BYTES, Located, StrictError, load_toml, loads_json, read_text

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
"""Between two looks at the file: with the next call after it, a change holds."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What a flag says for one user."""

    enabled: bool
    """False: no model is asked; the feature degrades as it says."""
    arm: str
    """on | off, or treatment | control of a flag with a prompt or model of its own."""
    prompt: str | None = None
    """NAME@VERSION in place of the feature's own."""
    model: str | None = None


ON, OFF, CONTROL = Variant(True, "on"), Variant(False, "off"), Variant(True, "control")


class FlagSource(Protocol):
    """Where flags come from: `Flags`, or `openfeature.OpenFeatureFlags`."""

    def variant(self, name: str, *, user_id: str | None) -> Variant: ...


@dataclass(frozen=True, slots=True)
class _Arms:
    """A flag, made ready: `inside` for its share of users, `outside` for the others."""

    inside: Variant
    outside: Variant
    share: float


class Flags:
    """The flags of the configuration, overridden by those of `flags_file` while it runs."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.errors = 0
        """How many states of the file could not be used."""
        self.problem: str | None = None
        """What is wrong with the file as it is now; None when nothing is."""
        self._settings = settings
        self._file = settings.flags_file
        self._monotonic = (clock or Clock()).monotonic
        self._look_at = float("-inf")
        self._seen: str | None = None
        self._emptied = False
        self._arms = _ready(settings.flags)

    def variant(self, name: str, *, user_id: str | None) -> Variant:
        """What flag `name` says for this user, the same each time; one nobody wrote is on.

        Without a user there is nothing to be sticky by: that is outside any share.
        """
        if self._file is not None:
            now = self._monotonic()
            if now >= self._look_at:
                self._look_at = now + LOOK_EVERY_S
                self._look(self._file)
        arms = self._arms.get(name)
        if arms is None:
            return ON
        if arms.share >= 1.0:
            return arms.inside
        if user_id is None or bucket(name, user_id) >= arms.share:
            return arms.outside
        return arms.inside

    def is_known(self, name: str) -> bool:
        return name in self._arms

    def _look(self, path: Path) -> None:
        """Take over the file when its text is another than at the last look."""
        if self._seen is None and self.problem is None and not path.exists():
            return
        try:
            text = read_text(path, max_bytes=MAX_TOML_BYTES)
        except StrictError as error:
            self._seen = None
            self._refuse(f"{path.name}: {error.message}")
            return
        if text == self._seen:
            return
        if self._seen and not text and not self._emptied:
            # An editor that writes in place empties the file first: look once more.
            self._emptied = True
            return
        self._seen, self._emptied = text, False
        try:
            self._arms = _ready({**self._settings.flags, **read_flags(path, text, self._settings)})
            self.problem = None
        except StrictError as error:
            self._refuse(f"{path.name}:{error.line}: {error.message}")

    def _refuse(self, problem: str) -> None:
        if problem != self.problem:
            self.errors += 1
            self.problem = problem
            logger.error("%s. The flags stay as they were", problem)


def bucket(flag: str, user_id: str) -> float:
    """Where a user stands for a flag, uniform on [0, 1).

    The same for ever, independent between flags; who is inside a share stays inside
    when it grows.
    """
    digest = blake2b(f"{flag}\0{user_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / (1 << 53)


def _ready(flags: Mapping[str, FlagSettings]) -> dict[str, _Arms]:
    return {name: _arms(flag) for name, flag in flags.items()}


def _arms(flag: FlagSettings) -> _Arms:
    if not flag.enabled:
        return _Arms(OFF, OFF, 1.0)
    share = 1.0 if flag.share is None else flag.share
    if flag.prompt is None and flag.model is None:
        return _Arms(ON, OFF, share)
    return _Arms(Variant(True, "treatment", flag.prompt, flag.model), CONTROL, share)


# --- the file ----------------------------------------------------------------------


def read_flags(path: Path, text: str, settings: Settings) -> dict[str, FlagSettings]:
    """The flags in `text`, TOML or, by the file's name, JSON: the table `[flags]` without `file`.

    Raises StrictError, with the line where it is known, for anything that could not be
    carried out: an unknown key, model or prompt.
    """
    if path.suffix == ".json":
        located = Located(loads_json(text or "{}", where=path.name), lines={})
    else:
        located = load_toml(text, where=path.name)
    table = located.value
    for fault in find_faults({"flags": table}, "config"):
        raise StrictError(str(fault).rstrip("."), line=located.line(fault.place[1:]))
    flags: dict[str, FlagSettings] = {}
    for name, value in table.items():
        problem = "file is a key of evalkit.toml" if name == "file" else None
        if problem is None:
            flags[name] = read_flag(name, value)
            problem = _missing(flags[name], settings)
        if problem is not None:
            raise StrictError(problem, line=located.line((name,)))
    return flags


def _missing(flag: FlagSettings, settings: Settings) -> str | None:
    """What a flag names and the project does not have."""
    if flag.model is not None and flag.model not in settings.models:
        known = nearest(flag.model, settings.models).rstrip(".")
        return f'flag {flag.name}: there is no model "{flag.model}". {known}'
    if flag.prompt is not None:
        name, _, version = flag.prompt.rpartition("@")
        if not (settings.root / "prompts" / name / f"{version}.md").is_file():
            path = f"prompts/{name}/{version}.md"
            return f"flag {flag.name}: there is no {path}. Add it, or name another version"
    return None


def as_json(variant: Variant) -> dict[str, Any]:
    """A variant as plain data."""
    return {
        "enabled": variant.enabled,
        "arm": variant.arm,
        "prompt": variant.prompt,
        "model": variant.model,
    }

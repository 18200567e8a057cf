"""Read `prompts/<name>/<version>.md` and render it into messages.

A prompt file has optional front matter, then `## system`, `## user` and `## assistant`
sections. Its identity is `name@version` and the hash of its text: a text that changes
under a version is another prompt, and `check_unchanged` says so. Filling in data is
`templating.py`'s, loaded with the first prompt.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalkit.errors import ContentError
from evalkit.records import Message
from evalkit.schemas import find_faults, nearest
from evalkit.strict import StrictError, load_yaml, read_text

FOLDER = "prompts"
MAX_PROMPT_BYTES = 1_000_000
HASH_CHARS = 16

_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}")
_HEADING = re.compile(r"^## (system|user|assistant)[ \t]*$", re.MULTILINE)
_NEARLY_HEADING = re.compile(
    r"^[ \t]*#{1,6}[ \t]*(system|user|assistant)[ \t]*:?[ \t]*$", re.MULTILINE | re.IGNORECASE
)
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*$\n?", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One message to be: what stands under one heading."""

    role: str
    text: str
    line: int
    """Where its text begins in the file, from 1."""
    fill: Callable[[Mapping[str, Any]], str] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One version of a prompt."""

    name: str
    version: str
    hash: str
    path: Path
    sections: tuple[Section, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)
    """The front matter."""

    def render(
        self, input: Mapping[str, Any], *, documents: Sequence[Any] | None = None
    ) -> tuple[Message, ...]:
        """The messages for one input; every key of it is a variable, and `input` the whole.

        Raises ContentError for a key that the input does not have.
        """
        variables = {"input": input, **input}
        if documents is not None:
            variables["documents"] = documents
        filled = [(section.role, section.fill(variables)) for section in self.sections]
        return tuple({"role": role, "content": text} for role, text in filled if text)


class PromptRegistry:
    """The prompts below `root / "prompts"`; a version is read once."""

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER
        self._read: dict[tuple[str, str], Prompt] = {}

    def get(self, name: str, version: str) -> Prompt:
        """A version of a prompt. Raises ContentError, with file and line, if it cannot be used."""
        if (name, version) not in self._read:
            versions = self.versions(name)
            if not versions:
                raise ContentError(
                    f"{FOLDER}/{name}: there is no prompt {name}. {nearest(name, self.names())}"
                )
            if version not in versions:
                raise ContentError(
                    f"{FOLDER}/{name}: there is no version {version} of prompt {name}; "
                    f"there are: {', '.join(versions)}. "
                    f"Name one of them, or add {FOLDER}/{name}/{version}.md."
                )
            path = self.folder / name / f"{version}.md"
            self._read[name, version] = read_prompt(path, name=name, version=version)
        return self._read[name, version]

    def names(self) -> list[str]:
        """Names of all prompts, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(folder.name for folder in self.folder.iterdir() if self.versions(folder.name))

    def versions(self, name: str) -> list[str]:
        """Versions of a prompt, v2 before v10; none if there is no such prompt."""
        if not _NAME.fullmatch(name):
            return []
        found = [path.stem for path in (self.folder / name).glob("*.md") if path.is_file()]
        return sorted((v for v in found if _NAME.fullmatch(v)), key=_natural)

    def check_unchanged(
        self,
        known: Mapping[tuple[str, str], str],
        *,
        used_by: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        """Refuse versions whose text is not the one that `known` has the hash of.

        `used_by` names the run that a hash is from. Versions that are gone are let be.
        Raises ContentError with all that were edited.
        """
        problems = []
        for (name, version), content_hash in known.items():
            if version not in self.versions(name) or self.get(name, version).hash == content_hash:
                continue
            used = f"run {used_by[name, version]} used it" if used_by else "it was used"
            problems.append(
                f"{FOLDER}/{name}/{version}.md:1: has been edited since {used}: "
                f"restore it, or save the new text as {self._next_version(name)}."
            )
        if problems:
            raise ContentError(problems)

    def _next_version(self, name: str) -> str:
        numbers = [int(v[1:]) for v in self.versions(name) if re.fullmatch(r"v\d{1,9}", v)]
        return f"v{max(numbers) + 1}" if numbers else "a new version"


def _natural(version: str) -> list[tuple[int, str]]:
    return [(int(p) if p.isdigit() else -1, p) for p in re.split(r"(\d{1,9})", version)]


# --- the file ----------------------------------------------------------------------


def read_prompt(path: Path, *, name: str, version: str) -> Prompt:
    """Read one prompt file. Raises ContentError with all problems."""
    where = f"{FOLDER}/{name}/{version}.md"
    try:
        text = read_text(path, max_bytes=MAX_PROMPT_BYTES)
    except StrictError as error:
        raise ContentError(f"{where}:{error.line}: {error.message}.") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    meta, start = _front_matter(text, where)
    return Prompt(
        name=name,
        version=version,
        hash=hashlib.sha256(text.encode()).hexdigest()[:HASH_CHARS],
        path=path,
        sections=_sections(text, start, where),
        meta=meta,
    )


def _front_matter(text: str, where: str) -> tuple[Mapping[str, Any], int]:
    """The table between `---` lines, and where the text goes on."""
    if not re.match(r"---[ \t]*\n", text):
        return {}, 0
    block = _FRONT_MATTER.match(text)
    if block is None:
        raise ContentError(f"{where}:1: the front matter has no end. Close it with a line of ---.")
    try:
        located = load_yaml("\n" + block[1], where=where)
    except StrictError as error:
        raise ContentError(f"{where}:{error.line}: {error.message}.") from None
    meta = {} if located.value is None else located.value
    faults = find_faults(meta, "prompt")
    if faults:
        raise ContentError([f"{where}:{located.line(f.place)}: {f}" for f in faults])
    return meta, block.end()


def _sections(text: str, start: int, where: str) -> tuple[Section, ...]:
    from evalkit.call.templating import compile_section

    headings = list(_HEADING.finditer(text, start))
    problems = _shape_problems(text, start, headings)
    sections = []
    ends = [*(heading.start() for heading in headings[1:]), len(text)][: len(headings)]
    for heading, end in zip(headings, ends, strict=True):
        source, line = text[heading.end() + 1 : end], _line(text, heading.end()) + 1
        if not source.strip():
            problems.append(
                (line - 1, f"section {heading[0].strip()} is empty. Write it, or remove it.")
            )
            continue
        try:
            fill = compile_section(source, where=where, line=line)
        except ContentError as error:
            problems += [_with_line(problem, where) for problem in error.problems]
            continue
        sections.append(Section(role=heading[1], text=source.strip(), line=line, fill=fill))
    if problems:
        raise ContentError([f"{where}:{line}: {problem}" for line, problem in sorted(problems)])
    return tuple(sections)


def _with_line(problem: str, where: str) -> tuple[int, str]:
    line, _, text = problem.removeprefix(f"{where}:").partition(": ")
    return int(line), text


def _shape_problems(
    text: str, start: int, headings: Sequence[re.Match[str]]
) -> list[tuple[int, str]]:
    """What is wrong with the headings, with lines."""
    problems = []
    exact = {heading.start() for heading in headings}
    for near in _NEARLY_HEADING.finditer(text, start):
        if near.start() not in exact:
            fix = f"Write ## {near[1].lower()}"
            problems.append(
                (_line(text, near.start()), f"{near[0].strip()} begins no section. {fix}.")
            )
    roles = [heading[1] for heading in headings]
    first = headings[0].start() if headings else len(text)
    if text[start:first].strip():
        line = _line(text, first - len(text[start:first].lstrip()))
        problems.append((line, "text before the first section. Put ## system or ## user above it."))
    if "user" not in roles:
        line = _line(text, len(text.rstrip()))
        problems.append((line, "no ## user section. Add one with the data."))
    for role, heading in zip(roles[1:], headings[1:], strict=True):
        if role == "system":
            problem = "## system must come first, and once. Merge the sections."
            problems.append((_line(text, heading.start()), problem))
    return problems


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1

"""Show a verdict on GitHub: annotations on lines, the step's summary, the comment.

A reader of the finished verdict. GitHub takes ten annotations a step, drops a summary
over 1 MiB whole and refuses a comment over 65,536 characters: all three are cut here,
between rows. Text of others reaches a workflow command only with its marks escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from evalkit.decide.findings import Finding, findings_of
from evalkit.decide.render import escaped, headline, markdown, plain

MAX_ANNOTATIONS = 10
MAX_SUMMARY_BYTES = 1_000_000
MAX_COMMENT_CHARS = 65_536
MAX_MESSAGE_CHARS = 500
MARKER = "<!-- evalkit gate -->"
"""First line of the comment, by which it is found again."""
CUT = "\n\n… cut here: the report has all.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One line in GitHub's list, and in the file where there is one."""

    level: str
    """error | warning | notice"""
    title: str
    text: str
    file: str | None = None
    line: int = 1


def annotations_of(verdict: Mapping[str, Any], *, root: Path) -> list[Annotation]:
    """What to point at, the worst first; paths start at `root`."""
    levels = {"error": "error", "warning": "warning", "note": "warning"}
    found = [_annotation(one, levels[one.level]) for one in findings_of(verdict, root=root)]
    if verdict["verdict"] == "unmeasurable" and not any(one.level == "error" for one in found):
        notes = "; ".join(str(note) for note in verdict["notes"]) or "nothing was compared"
        found.insert(0, Annotation(level="error", title="evalkit: unmeasurable", text=notes))
    return found


def _annotation(finding: Finding, level: str) -> Annotation:
    file, line = finding.place or (None, 1)
    title = f"evalkit: {finding.rule}"
    return Annotation(level=level, title=title, text=finding.text, file=file, line=line)


def workflow_commands(found: Sequence[Annotation], *, prefix: PurePosixPath) -> list[str]:
    """Lines that GitHub reads off a step's output; `prefix` leads from the repository to files.

    Ten at most: of more, the last says how many there are.
    """
    shown = list(found)
    if len(shown) > MAX_ANNOTATIONS:
        more = len(shown) - (MAX_ANNOTATIONS - 1)
        last = Annotation(level="warning", title="evalkit", text=f"{more} more in the report")
        shown = [*shown[: MAX_ANNOTATIONS - 1], last]
    return [_command(one, prefix) for one in shown]


def _command(one: Annotation, prefix: PurePosixPath) -> str:
    properties = {"title": plain(one.title)}
    if one.file is not None:
        properties = {"file": str(prefix / one.file), "line": str(one.line), **properties}
    listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{one.level} {listed}::{_data(plain(one.text, MAX_MESSAGE_CHARS))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


# --- Markdown -----------------------------------------------------------------------


def summary(verdict: Mapping[str, Any], *, facts: Sequence[str] = ()) -> str:
    """The step's summary; `facts` are lines below the verdict."""
    return cut_at_row(_page(verdict, facts), MAX_SUMMARY_BYTES, size=_utf8)


def comment(verdict: Mapping[str, Any], *, facts: Sequence[str] = ()) -> str:
    """The comment on a pull request, with the marker by which it is found again."""
    return cut_at_row(f"{MARKER}\n{_page(verdict, facts)}", MAX_COMMENT_CHARS, size=_utf16)


def _page(verdict: Mapping[str, Any], facts: Sequence[str]) -> str:
    lines = "".join(f"- {fact}\n" for fact in facts)
    return f"{markdown(verdict)}\n{lines}" if lines else markdown(verdict)


def fact(name: str, value: object) -> str:
    """One line for a page, its value shown and nothing else."""
    return f"{name}: {escaped(value, 300)}"


def title(verdict: Mapping[str, Any]) -> str:
    """The verdict in one plain line."""
    return plain(headline(verdict), 200)


def cut_at_row(text: str, limit: int, *, size: Any = len) -> str:
    """`text`, or as many of its first lines as fit with a note, and what was open closed."""
    if size(text) <= limit:
        return text
    closing = "\n</details>\n"
    room = limit - size(CUT) - size(closing)
    kept: list[str] = []
    for line in text.splitlines(keepends=True):
        room -= size(line)
        if room < 0:
            break
        kept.append(line)
    body = "".join(kept)
    is_open = body.count("<details>") > body.count("</details>")
    return body + (closing if is_open else "") + CUT


def _utf8(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _utf16(text: str) -> int:
    """As many as the strictest way to count characters has."""
    return len(text.encode("utf-16-le", "replace")) // 2

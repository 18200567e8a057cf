"""Find the lines of a golden set's files that a verdict speaks of.

For readers of a verdict that point into the repository. A verdict may be older than the
files, so whatever does not fit is simply not known: nothing here raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalkit.strict import Located, StrictError, iter_jsonl, load_yaml, read_text

MAX_HEADER_BYTES = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenLines:
    """File (relative, with slashes) and line of each metric and each case."""

    metrics: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    cases: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    header: tuple[str, int] | None = None

    def of_metric(self, name: str) -> tuple[str, int] | None:
        return self.metrics.get(name, self.header)

    def of_case(self, case_id: str) -> tuple[str, int] | None:
        return self.cases.get(case_id, self.header)

    @classmethod
    def read(cls, root: Path, path: str) -> GoldenLines:
        """Of the golden set at `path` below `root`; empty where it cannot be read."""
        header = root / path
        if header.is_dir():
            header = header / "golden_set.yaml"
        uri = _uri(header, root)
        try:
            located = load_yaml(read_text(header, max_bytes=MAX_HEADER_BYTES), where=str(header))
        except (OSError, StrictError):
            return cls()
        value = located.value if isinstance(located.value, dict) else {}
        return cls(
            metrics=_named(located, value, "metrics", "name", uri),
            cases=_cases(located, value, header, root),
            header=(uri, 1),
        )


def _named(
    located: Located, value: Mapping[str, Any], key: str, name: str, uri: str
) -> dict[str, tuple[str, int]]:
    entries = value.get(key)
    return {
        str(entry[name]): (uri, located.line((key, number)))
        for number, entry in enumerate(entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and name in entry
    }


def _cases(
    located: Located, value: Mapping[str, Any], header: Path, root: Path
) -> dict[str, tuple[str, int]]:
    cases = value.get("cases", "cases.jsonl")
    if not isinstance(cases, str):
        return _named(located, value, "cases", "id", _uri(header, root))
    path = header.parent / cases
    uri = _uri(path, root)
    try:
        return {
            str(case["id"]): (uri, line)
            for line, _, case in iter_jsonl(path, on_error=lambda error: None)
            if isinstance(case, dict) and "id" in case
        }
    except (OSError, StrictError):
        return {}


def _uri(path: Path, root: Path) -> str:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return path.as_posix()

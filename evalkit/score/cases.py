"""The cases of a golden set: one strict pass over all, then each parsed when it is asked for.

The pass keeps ids, hashes and places, so that a set of any length costs little memory.
Cases are foreign data: what is read again later has to be what was checked.
"""

from __future__ import annotations

import hashlib
import os
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.errors import GoldenSetError
from evalkit.records import Case
from evalkit.score.metric_specs import MetricSpec, canonical, scoring_text
from evalkit.strict import MAX_LINE_BYTES, StrictError, parse_line

BLOCK_BYTES = 65_536
"""Read at once, because cases are mostly asked for one after another."""
GRAIN_NS = 2_000_000_000
"""The coarsest steps in which file systems know the time of a change."""


class CaseHasher:
    """Identity of a case: its input, what is expected, and the checks applied to it.

    `metrics` and `folder` are the golden set's; of its metrics only checks count, as a
    judge has a version of its own. 64 bits, so that a hash takes 8 bytes in memory.
    """

    def __init__(self, metrics: Sequence[MetricSpec], folder: Path) -> None:
        self._folder = folder
        self._checks = {scoring_text(m.check_spec(), folder=folder) for m in metrics if m.tier == 1}
        self._checks_text = canonical(sorted(self._checks))

    def __call__(self, raw: Mapping[str, Any]) -> int:
        decides = {"input": input_of(raw)}
        if "expected" in raw:
            decides["expected"] = raw["expected"]
        checks = self._checks_text
        if raw.get("checks"):
            own = {scoring_text(spec, folder=self._folder) for spec in raw["checks"]}
            checks = canonical(sorted(self._checks | own))
        text = f"{canonical(decides)}\n{checks}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def slices_of(metadata: Mapping[str, Any], keys: Iterable[str]) -> dict[str, str]:
    """Each of `keys` that is there, with its value as the file has it: true is `true`."""
    found = {key: metadata[key] for key in keys if key in metadata}
    return {key: v if isinstance(v, str) else canonical(v) for key, v in found.items()}


def input_of(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `execute` gets; a bare text stands for `{"text": …}`."""
    value = raw["input"]
    return {"text": value} if isinstance(value, str) else value


def _shape(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple((key, _shape(item)) for key, item in value.items())
    if isinstance(value, list):
        return frozenset(map(_shape, value))
    return type(value)


def _stamp(file: Path | int) -> tuple[int, ...]:
    """What differs once a file has been written to, or is another."""
    stat = os.stat(file)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _lasting_stamp(path: Path) -> tuple[int, ...] | None:
    """The stamp that any later change will change; None where one could come within its grain."""
    try:
        stamp = _stamp(path)
    except OSError:
        return None
    return stamp if time.time_ns() - max(stamp[-2:]) > GRAIN_NS else None


class CaseFile:
    """The cases of a golden set in file order; `[number]` parses one."""

    def __init__(self, path: Path, *, hasher: CaseHasher, inline: Sequence[Any] | None) -> None:
        self.path = path
        """The file they stand in: for inline cases golden_set.yaml itself."""
        self.ids: list[str] = []
        self.must_pass: set[str] = set()
        self.shapes: dict[Any, int] = {}
        """Names and types in an input -> the first case that has them."""
        self._hasher = hasher
        self._inline = inline
        self._numbers: dict[str, int] = {}
        self._hashes = array("Q")
        self._lines = array("L")
        self._places = array("Q")
        """Byte offset in the file, or position in the inline list."""
        self._block = (0, b"")
        """What was read last, and the offset it begins at."""
        self._loaded_from = _lasting_stamp(path) if inline is None else None
        self._is_as_loaded = False
        """Whether the block is of a file that nobody has touched since."""

    def append(self, raw: Mapping[str, Any], *, line: int, place: int) -> None:
        """Add a checked case; only the pass that loads a golden set does."""
        self._numbers[raw["id"]] = len(self.ids)
        self.shapes.setdefault(_shape(input_of(raw)), len(self.ids))
        self.ids.append(raw["id"])
        self._hashes.append(self._hasher(raw))
        self._lines.append(line)
        self._places.append(place)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, case_id: object) -> bool:
        return case_id in self._numbers

    def __getitem__(self, number: int) -> Case:
        """Parse a case; raises GoldenSetError when its file changed since it was loaded."""
        number = range(len(self))[number]
        if self._inline is not None:
            return self._case(self._inline[self._places[number]], number)
        return self._read(number)

    def __iter__(self) -> Iterator[Case]:
        return (self[number] for number in range(len(self)))

    def of(self, case_id: str) -> Case:
        """Parse the case of that id; KeyError when there is none."""
        return self[self._numbers[case_id]]

    def hash_at(self, number: int) -> str:
        """16 hexadecimal digits; equal for cases that can be compared."""
        return f"{self._hashes[number]:016x}"

    def hash_of(self, case_id: str) -> str:
        return self.hash_at(self._numbers[case_id])

    def line_of(self, case_id: str) -> int:
        return self._lines[self._numbers[case_id]]

    def _read(self, number: int) -> Case:
        data = self._line_at(self._places[number])
        try:
            raw = parse_line(data, line=self._lines[number], offset=self._places[number])
            changed = not self._is_as_loaded and (
                self._hasher(raw) != self._hashes[number] or raw["id"] != self.ids[number]
            )
        except (StrictError, LookupError, TypeError, AttributeError):
            changed = True
        if changed:
            raise GoldenSetError(
                f"{self.path}:{self._lines[number]}: case {self.ids[number]}: "
                "the file has changed since it was loaded. Start again."
            )
        return self._case(raw, number)

    def _line_at(self, place: int) -> bytes:
        """The line that begins at `place`."""
        start, block = self._block
        end = block.find(b"\n", place - start) + 1 if place >= start else 0
        if not end:
            start, block = self._block = place, self._block_at(place)
            end = block.find(b"\n") + 1 or len(block)
        return block[place - start : end]

    def _block_at(self, place: int) -> bytes:
        """What stands at `place` and after it: the line that begins there, whole, and more."""
        try:
            with self.path.open("rb") as file:
                file.seek(place)
                block = file.read(BLOCK_BYTES) + file.readline(MAX_LINE_BYTES + 1)
                self._is_as_loaded = _stamp(file.fileno()) == self._loaded_from
                return block
        except OSError as error:
            raise GoldenSetError(f"{self.path}:1: cannot be read: {error.strerror}.") from None

    def _case(self, raw: Mapping[str, Any], number: int) -> Case:
        return Case(
            id=raw["id"],
            input=input_of(raw),
            expected=raw.get("expected"),
            has_expected="expected" in raw,
            metadata=raw.get("metadata", {}),
            cluster=raw.get("cluster"),
            must_pass=raw["id"] in self.must_pass,
            checks=tuple(raw.get("checks", ())),
            case_hash=self.hash_at(number),
            line=self._lines[number],
        )

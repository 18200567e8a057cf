"""Read text that somebody else wrote, strictly and within bounds, and know the line.

JSON, JSON Lines, YAML and TOML come in here and nowhere else. What two readers could
read differently (duplicate keys, NaN, aliases, byte order marks, `no` as false) is
refused with its line, before anything is expanded. Raises `StrictError` only.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

MAX_DEPTH = 64
MAX_INT_DIGITS = 308
"""A longer whole number has no floating-point value to compare with."""
MAX_LINE_BYTES = 1_000_000
MAX_JSONL_BYTES = 100_000_000
MAX_YAML_BYTES = 4_000_000
MAX_YAML_NODES = 200_000
MAX_TOML_BYTES = 1_000_000

Place = tuple[str | int, ...]
"""Keys and positions from the top of a document to one of its values."""


class StrictError(ValueError):
    """A text is not what it should be. `line` and `column` count from 1."""

    def __init__(self, message: str, *, line: int = 1, column: int = 1, where: str = "") -> None:
        place = f"line {line} column {column}"
        super().__init__(f"{message} ({where}, {place})" if where else f"{message} ({place})")
        self.message = message
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Located:
    """A parsed document that knows on which line each of its values stands."""

    value: Any
    lines: Mapping[Place, int] = field(repr=False)

    def line(self, place: Place = ()) -> int:
        """Line of the value at `place`, or of the nearest one around it that exists."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


# --- bytes to text ---------------------------------------------------------------


def read_text(path: Path, *, max_bytes: int, skip_mark: bool = False) -> str:
    """Read a whole UTF-8 file of at most `max_bytes`.

    `skip_mark` takes a byte order mark off: spreadsheets write one before CSV.
    """
    with _open_regular(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise StrictError(f"the file is larger than {_size(max_bytes)}. Split it")
    if skip_mark:
        data = data.removeprefix(codecs.BOM_UTF8)
    return _decode(data, line=1, offset=0)


def is_file(path: Path) -> bool:
    """Whether there is such a file; no name is an error, however long, odd or circular."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def real_path(path: Path) -> Path:
    """Where links lead; the path itself for what can be none."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return path


def _open_regular(path: Path) -> BinaryIO:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StrictError("not a regular file")
        return path.open("rb")
    except OSError as error:
        raise StrictError(f"cannot be read: {error.strerror or error}") from None


def _decode(data: bytes, *, line: int, offset: int) -> str:
    """UTF-8 to text; `line` and `offset` say where in its file `data` begins."""
    if offset == 0:
        _refuse_byte_order_mark(data)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        start = data.rfind(b"\n", 0, error.start) + 1
        raise StrictError(
            f"byte 0x{data[error.start]:02x} at offset {offset + error.start:,} is not UTF-8. "
            "Save the file as UTF-8",
            line=line + data.count(b"\n", 0, error.start),
            column=error.start - start + 1,
        ) from None


def _refuse_byte_order_mark(data: bytes) -> None:
    if data.startswith(b"\xef\xbb\xbf"):
        raise StrictError("the file starts with a byte order mark. Save it as UTF-8 without BOM")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise StrictError("the file is UTF-16. Save it as UTF-8 without BOM")


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1_000_000:g} MB"


# --- JSON ------------------------------------------------------------------------


def loads_json(text: str, *, where: str) -> Any:
    """Parse one JSON text (RFC 8259) that every reader reads alike.

    Refused on top of bad syntax: NaN and infinities (1e999 too), duplicate keys, lone
    surrogates, nesting beyond `MAX_DEPTH`, whole numbers beyond `MAX_INT_DIGITS`.
    """
    try:
        if text.count("[") + text.count("{") > MAX_DEPTH:
            _refuse_deep_nesting(text)
        value = _DECODER.decode(text)
        if not text.isascii() or _SURROGATE_ESCAPE.search(text):
            _refuse_lone_surrogates(text, value)
    except _Refused as error:
        at = error.at if error.at is not None else _find_refused(text, error)
        raise _error_at(text, at, str(error), where) from None
    except json.JSONDecodeError as error:
        message = f"not valid JSON: {error.msg[:1].lower()}{error.msg[1:].removesuffix(' at')}"
        raise _error_at(text, error.pos, message, where) from None
    return value


class _Refused(Exception):
    """Valid for Python's parser, not for ours; `at` is the character, where known."""

    def __init__(
        self, message: str, *, at: int | None = None, token: str = "", is_key: bool = False
    ) -> None:
        super().__init__(message)
        self.at = at
        self.token = token
        self.is_key = is_key


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused(f"key {_quote(key)} stands twice. Keep one", token=key, is_key=True)
            seen.add(key)
    return made


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _Refused(f"{_cut(text)} is too large for a number", token=text)
    return value


def _int(text: str) -> int:
    digits = len(text.removeprefix("-"))
    if digits > MAX_INT_DIGITS:
        raise _Refused(f"a whole number of {digits:,} digits is too large", token=text)
    return int(text)


def _constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is not JSON. Use null, or leave it out", token=name)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_constant
)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]|[^\s"\[\]{},:]+|[,:]', re.DOTALL)


def _refuse_deep_nesting(text: str) -> None:
    depth = 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise _Refused(f"nested deeper than {MAX_DEPTH} levels", at=token.start())
        elif token[0] in "]}":
            depth -= 1


def _refuse_lone_surrogates(text: str, value: Any) -> None:
    """Half a surrogate pair is no character: UTF-8, Arrow and SQL have no place for it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _Refused("half of a surrogate pair is not a character", at=error.start) from None
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        for token in _TOKEN.finditer(text):
            if token[0].startswith('"') and not _encodes(json.loads(token[0])):
                raise _Refused(
                    "half of a surrogate pair (\\ud800 to \\udfff) is not a character",
                    at=token.start(),
                ) from None


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _find_refused(text: str, refused: _Refused) -> int:
    """Where the refused token stands: the slow second look that errors alone pay for."""
    keys: list[set[str]] = []
    previous: re.Match[str] | None = None
    for token in _TOKEN.finditer(text):
        if token[0] == "{" or token[0] == "[":
            keys.append(set())
        elif token[0] in "}]" and keys:
            keys.pop()
        elif token[0] == ":" and refused.is_key and previous is not None:
            key = json.loads(previous[0])
            if key == refused.token and key in keys[-1]:
                return previous.start()
            keys[-1].add(key)
        elif not refused.is_key and token[0] == refused.token:
            return token.start()
        previous = token
    return 0


def _error_at(text: str, at: int, message: str, where: str) -> StrictError:
    line = text.count("\n", 0, at) + 1
    column = at - (text.rfind("\n", 0, at) + 1) + 1
    return StrictError(message, line=line, column=column, where=where)


# --- JSON Lines ------------------------------------------------------------------


def iter_jsonl(
    path: Path, *, on_error: Callable[[StrictError], None] | None = None
) -> Iterator[tuple[int, int, Any]]:
    """Yield (line number, byte offset, value) for each line of a JSON Lines file.

    Blank lines are skipped. A bad line is raised, or handed to `on_error` and skipped:
    so one pass finds all of them. Memory is bounded by one line of `MAX_LINE_BYTES`.
    """
    report = on_error or _raise
    with _open_regular(path) as file:
        size = path.stat().st_size
        if size > MAX_JSONL_BYTES:
            report(StrictError(f"the file is larger than {_size(MAX_JSONL_BYTES)}. Split it"))
        offset = 0
        number = 0
        while offset < MAX_JSONL_BYTES and (data := file.readline(MAX_LINE_BYTES + 1)):
            number += 1
            start, offset = offset, offset + len(data)
            if len(data) > MAX_LINE_BYTES and not data.endswith(b"\n"):
                offset += _skip_line(file, MAX_JSONL_BYTES - offset)
                report(StrictError(f"a line is longer than {_size(MAX_LINE_BYTES)}", line=number))
                continue
            if not data.strip():
                continue
            try:
                yield number, start, parse_line(data, line=number, offset=start)
            except StrictError as error:
                report(error)


def parse_line(data: bytes, *, line: int, offset: int) -> Any:
    """Parse one line of a JSON Lines file that begins at byte `offset`."""
    text = _decode(data, line=line, offset=offset).rstrip("\r\n")
    try:
        return loads_json(text, where="")
    except StrictError as error:
        raise StrictError(error.message, line=line, column=error.column) from None


def _raise(error: StrictError) -> NoReturn:
    raise error


def _skip_line(file: BinaryIO, at_most: int) -> int:
    """Read on to the end of the line, a piece at a time; returns the bytes skipped."""
    skipped = 0
    while skipped < at_most and (piece := file.readline(MAX_LINE_BYTES)):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


# --- YAML ------------------------------------------------------------------------

_NOT_YAML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_YAML_NULL = re.compile(r"(?:null|Null|NULL|~|)")
_YAML_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)")
_YAML_INT = re.compile(r"[-+]?[0-9]+")
_YAML_RADIX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_YAML_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_YAML_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def load_yaml(text: str, *, where: str) -> Located:
    """Parse one YAML document into plain data, read as the YAML 1.2 core schema.

    So `no`, `on`, `22:10` and dates are text. Refused, event by event, before anything
    is built: anchors, aliases, tags, merge keys, duplicate or non-text keys, a second
    document, NaN and infinities, and what passes the bounds on size, depth and nodes.
    """
    if len(text) > MAX_YAML_BYTES:
        raise StrictError(f"larger than {_size(MAX_YAML_BYTES)}", where=where)
    odd = _NOT_YAML.search(text)
    if odd:
        message = f"character U+{ord(odd[0]):04X} is not allowed in YAML. Remove it"
        raise _error_at(text, odd.start(), message, where)
    import yaml

    try:
        return _YamlReader(text, where).read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        message = f"not valid YAML: {error.problem or error.context}"
        raise StrictError(message, line=line, column=column, where=where) from None
    except yaml.YAMLError as error:
        raise StrictError(f"not valid YAML: {error}", where=where) from None


class _YamlReader:
    """Builds plain data straight from parser events, so that nothing is expanded."""

    def __init__(self, text: str, where: str) -> None:
        import yaml

        self._yaml = yaml
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self._events = iter(yaml.parse(text, Loader=loader))
        self._where = where
        self._lines: dict[Place, int] = {}
        self._nodes = 0

    def read(self) -> Located:
        yaml = self._yaml
        value: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._refuse(event, "a second document begins here. Keep one per file")
                value = self._value(next(self._events), ())
        return Located(value, self._lines)

    def _value(self, event: Any, place: Place) -> Any:
        yaml = self._yaml
        self._check(event, place)
        self._lines.setdefault(place, event.start_mark.line + 1)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(place)
        return self._mapping(place)

    def _check(self, event: Any, place: Place) -> None:
        self._nodes += 1
        if isinstance(event, self._yaml.AliasEvent):
            self._refuse(event, f"alias *{event.anchor} is not allowed. Write the value out")
        if event.anchor is not None:
            self._refuse(event, f"anchor &{event.anchor} is not allowed. Write the value out")
        if event.tag is not None:
            self._refuse(event, f"tag {_cut(event.tag)} is not allowed. Remove it")
        if len(place) > MAX_DEPTH:
            self._refuse(event, f"nested deeper than {MAX_DEPTH} levels")
        if self._nodes > MAX_YAML_NODES:
            self._refuse(event, f"more than {MAX_YAML_NODES:,} values. Move cases to cases.jsonl")

    def _sequence(self, place: Place) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), self._yaml.SequenceEndEvent):
            items.append(self._value(event, (*place, len(items))))
        return items

    def _mapping(self, place: Place) -> dict[str, Any]:
        made: dict[str, Any] = {}
        while not isinstance(event := next(self._events), self._yaml.MappingEndEvent):
            key = self._key(event, place)
            if key in made:
                first = self._lines[(*place, key)]
                self._refuse(event, f"key {_quote(key)} stands on line {first} already. Keep one")
            self._lines[(*place, key)] = event.start_mark.line + 1
            made[key] = self._value(next(self._events), (*place, key))
        return made

    def _key(self, event: Any, place: Place) -> str:
        self._check(event, place)
        if not isinstance(event, self._yaml.ScalarEvent):
            self._refuse(event, "a key must be plain text, not a list or mapping")
        key = self._scalar(event)
        if not isinstance(key, str):
            shown = _cut(event.value)
            self._refuse(event, f'key {shown} is read as {_kind(key)}. Quote it: "{shown}"')
        if key == "<<" and not event.style:
            self._refuse(event, "merge key << is not allowed. Write the keys out")
        return key

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if event.style or not event.implicit[0]:
            return text
        if _YAML_NULL.fullmatch(text):
            return None
        if _YAML_BOOL.fullmatch(text):
            return text[0] in "tT"
        if _YAML_NOT_FINITE.fullmatch(text):
            self._refuse(event, f"{text} cannot be compared. Use null, or quote it as text")
        if _YAML_RADIX.fullmatch(text):
            return int(text, 0)
        if _YAML_INT.fullmatch(text):
            if len(text) > MAX_INT_DIGITS:
                self._refuse(event, f"a whole number of {len(text):,} digits is too large")
            return int(text)
        if _YAML_FLOAT.fullmatch(text):
            value = float(text)
            if math.isinf(value):
                self._refuse(event, f"{_cut(text)} is too large for a number")
            return value
        return text

    def _refuse(self, event: Any, message: str) -> NoReturn:
        mark = event.start_mark
        raise StrictError(message, line=mark.line + 1, column=mark.column + 1, where=self._where)


# --- TOML ------------------------------------------------------------------------

_TOML_TOKEN = re.compile(
    r'(?P<string>"""(?:[^"\\]++|\\.|"(?!""))*+"{3,5}'
    r"|'''(?:[^']++|'(?!''))*+'{3,5}"
    r'|"(?:[^"\\\n]++|\\.)*+"'
    r"|'[^'\n]*+')"
    r"|(?P<comment>#[^\n]*+)|(?P<open>[\[{])|(?P<close>[\]}])|(?P<newline>\n)"
    r"|(?P<equals>=)|(?P<dot>\.)|(?P<bare>[A-Za-z0-9_-]++)|(?P<other>.)",
    re.DOTALL,
)


def load_toml(text: str, *, where: str) -> Located:
    """Parse TOML 1.0; NaN and infinities are refused, as nothing can be compared with them."""
    import tomllib

    if len(text) > MAX_TOML_BYTES:
        raise StrictError(f"larger than {_size(MAX_TOML_BYTES)}", where=where)
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", str(error))
        message = str(error)[: found.start()] if found else str(error)
        line, column = text.count("\n") + 1, 1
        if found and found[1]:
            line, column = int(found[1]), int(found[2])
        message = f"not valid TOML: {message[:1].lower()}{message[1:]}"
        raise StrictError(message, line=line, column=column, where=where) from None
    except RecursionError:
        raise StrictError("nested too deeply", where=where) from None
    located = Located(value, toml_lines(text))
    place = _find_not_finite(value, ())
    if place is not None:
        shown = ".".join(map(str, place))
        raise StrictError(f"{shown} is not a finite number", line=located.line(place), where=where)
    return located


def toml_lines(text: str) -> dict[Place, int]:
    """Line of each table header and key of a valid TOML text.

    What stands inside a value (inline tables, arrays) has its statement's line.
    """
    lines: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    statement: list[re.Match[str]] = []
    line, start, depth = 1, 1, 0
    for token in _TOML_TOKEN.finditer(text + "\n"):
        kind = token.lastgroup
        if not statement:
            start = line
        line += token[0].count("\n")
        depth += (kind == "open") - (kind == "close")
        if kind != "newline" and kind != "comment":
            if token[0].strip():
                statement.append(token)
        elif kind == "newline" and depth == 0 and statement:
            if statement[0].lastgroup == "open":
                table = _toml_header(statement, counts)
                _add_lines(lines, (), table, start)
            else:
                _add_lines(lines, table, table + _toml_key(statement), start)
            statement = []
    return lines


def _toml_header(statement: Sequence[re.Match[str]], counts: dict[Place, int]) -> Place:
    """The table that `[a.b]` or `[[a.b]]` opens; an array of tables counts its items."""
    is_array = len(statement) > 1 and statement[1].lastgroup == "open"
    keys = _toml_key(statement[2 if is_array else 1 :])
    table: Place = ()
    for key in keys:
        table = (*table, key)
        if table in counts and not (is_array and len(table) == _depth(table, keys)):
            table = (*table, counts[table])
    if is_array:
        counts[table] = counts.get(table, -1) + 1
        table = (*table, counts[table])
    return table


def _depth(table: Place, keys: Place) -> int:
    """Length of `table` once all of `keys` are in it; the last key's place in the path."""
    return len(table) if [k for k in table if isinstance(k, str)] == list(keys) else -1


def _toml_key(statement: Sequence[re.Match[str]]) -> Place:
    """The dotted key at the beginning of `statement`, up to `=` or `]`."""
    import tomllib

    keys: list[str | int] = []
    for token in statement:
        if token.lastgroup in {"equals", "close"}:
            break
        if token.lastgroup == "string":
            keys.append(next(iter(tomllib.loads(f"{token[0]} = 0"))))
        elif token.lastgroup == "bare":
            keys.append(token[0])
    return tuple(keys)


def _add_lines(lines: dict[Place, int], inside: Place, place: Place, line: int) -> None:
    for end in range(len(inside) + 1, len(place) + 1):
        lines.setdefault(place[:end], line)


def _find_not_finite(value: Any, place: Place) -> Place | None:
    if isinstance(value, float) and not math.isfinite(value):
        return place
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        found = _find_not_finite(child, (*place, key))
        if found is not None:
            return found
    return None


# --- words -----------------------------------------------------------------------


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return "true or false" if isinstance(value, bool) else "a number"


def _cut(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _quote(text: str) -> str:
    return json.dumps(_cut(text), ensure_ascii=True)

"""Foreign logs of model calls into the store: OpenTelemetry, OpenInference, LiteLLM, Langfuse.

Files in, call records out, with what could not be read named by file and line. Nothing is
guessed: what a log does not say is not known. The same file, or the same call in another
file, is stored once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evalkit.errors import InputFileError
from evalkit.exchange.log_evalkit import evalkit_calls, is_evalkit
from evalkit.exchange.log_langfuse import is_langfuse, langfuse_calls
from evalkit.exchange.log_litellm import is_litellm, litellm_calls
from evalkit.exchange.log_spans import (
    is_openinference,
    is_otel,
    openinference_calls,
    otel_calls,
    spans_apart,
)
from evalkit.frozen import by_field
from evalkit.records import CallRecord, Usage
from evalkit.settings import ModelSettings
from evalkit.store.views import Store
from evalkit.strict import (
    MAX_JSONL_BYTES,
    MAX_LINE_BYTES,
    StrictError,
    iter_jsonl,
    loads_json,
    read_text,
)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Format:
    """One tool's way to log calls."""

    is_it: Callable[[Row], bool]
    calls: Callable[[Row], Iterator[CallRecord]]
    """The calls in a row (none where it is something else); ValueError for a bad one."""


FORMATS = {
    "evalkit": Format(is_evalkit, evalkit_calls),
    "openinference": Format(is_openinference, openinference_calls),
    "otel": Format(is_otel, otel_calls),
    "litellm": Format(is_litellm, litellm_calls),
    "langfuse": Format(is_langfuse, langfuse_calls),
}
"""Name -> format, in the order in which a row is tried."""

_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What a reader of foreign rows may raise."""
MAX_PROBLEMS = 1000
BATCH = 5_000


@dataclass(slots=True, kw_only=True)
class Imported:
    """What became of one file."""

    file: str
    format: str | None = None
    added: int = 0
    known: int = 0
    """Calls that the store had already."""
    no_calls: int = 0
    """Rows that hold no call of a model."""
    without_prompt_version: int = 0
    unpriced: int = 0
    bad_rows: int = 0
    problems: list[str] = field(default_factory=list)
    """`file:line: what is wrong`, the first `MAX_PROBLEMS`."""

    def problem(self, text: str) -> None:
        self.bad_rows += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(text)

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def import_log(
    path: Path,
    store: Store,
    *,
    format: str | None = None,
    feature: str | None = None,
    models: Mapping[str, ModelSettings] | None = None,
    clean: Callable[[CallRecord], CallRecord] = lambda call: call,
) -> Imported:
    """Add the calls of one file to the store; again for the same file adds nothing.

    `feature` is that of every call; `models` price the calls whose cost the log does not
    say; `clean` makes a call what may be written down. Raises InputFileError when the file
    cannot be read at all.
    """
    done = Imported(file=str(path), format=format)
    if path.exists() and not path.is_file():
        raise InputFileError(f"{path}: is not a regular file.")
    try:
        digest = _sha256(path)
    except OSError as error:
        raise InputFileError(f"{path}: {error.strerror or error}.") from None
    file_id = f"import-{digest[:32]}"
    calls = list(_calls(path, done))
    if calls:
        with store.importing("calls"):
            _add(calls, done, store, file_id, feature=feature, models=models or {}, clean=clean)
    return done


def _add(
    calls: Sequence[CallRecord],
    done: Imported,
    store: Store,
    file_id: str,
    *,
    feature: str | None,
    models: Mapping[str, ModelSettings],
    clean: Callable[[CallRecord], CallRecord],
) -> None:
    """Add those that the store does not have."""
    known = known_traces(store, [call.trace_id for call in calls])
    fresh = list(_fresh_calls(calls, known, done))
    rows = [clean(_completed(call, feature, models)) for call in fresh]
    if not rows:
        return
    for call in rows:
        done.added += 1
        done.unpriced += call.cost_usd is None
        done.without_prompt_version += not call.prompt_version
    # A file that was imported in part (with --feature, or before its bad rows were mended)
    # adds the rest under a name of its own.
    part = hashlib.sha256("".join(sorted(call.trace_id for call in rows)).encode()).hexdigest()
    store.add_calls(f"{file_id}-{part[:16]}", map(by_field, rows))


def known_traces(store: Store, ids: Sequence[str]) -> set[str]:
    """Those of `ids` that the store has as calls of production."""
    with store.production() as engine:
        query = "SELECT DISTINCT trace_id FROM calls WHERE trace_id IN (SELECT unnest($1))"
        return {row["trace_id"] for row in engine.rows(query, [list(ids)])}


def _fresh_calls(
    calls: Iterable[CallRecord], known: set[str], done: Imported
) -> Iterator[CallRecord]:
    for call in calls:
        if call.trace_id in known:
            done.known += 1
        else:
            known.add(call.trace_id)
            yield call


def _calls(path: Path, done: Imported) -> Iterator[CallRecord]:
    """Calls of all rows that can be read; the others are problems."""
    for where, row in _rows(path, done):
        if not isinstance(row, Mapping):
            done.problem(f"{where}: not a JSON object")
            continue
        try:
            name = done.format or detect(row)
            if name is None:
                known = ", ".join(FORMATS)
                raise InputFileError(
                    f"{where}: a log of no known format. Name it with --format: {known}."
                )
            done.format = name
            parts = list(spans_apart(row))
        except _UNREADABLE as error:
            done.problem(f"{where}: {error}")
            continue
        yield from _calls_in(parts, FORMATS[name], where, done)


def _calls_in(
    parts: Iterable[Row], format: Format, where: str, done: Imported
) -> Iterator[CallRecord]:
    """The calls of one row; of an OTLP export each span by itself."""
    is_other = True
    for part in parts:
        found: list[CallRecord] = []
        try:
            found = list(format.calls(part))
            is_other &= not found
        except _UNREADABLE as error:
            done.problem(f"{where}: {error}")
            is_other = False
        yield from found
    done.no_calls += is_other


def detect(row: Row) -> str | None:
    """The format of a log, by one row; None when it is none of them."""
    for name, format in FORMATS.items():
        try:
            if format.is_it(row):
                return name
        except (ValueError, TypeError, AttributeError):
            continue
    return None


def _completed(
    call: CallRecord, feature: str | None, models: Mapping[str, ModelSettings]
) -> CallRecord:
    """With the feature that the user names, and priced where a price is configured."""
    model = models.get(call.model) or next((m for m in models.values() if m.id == call.model), None)
    cost = call.cost_usd
    if cost is None and model is not None and model.price is not None:
        cost = model.price.cost_usd(
            Usage(
                prompt_tokens=call.prompt_tokens,
                completion_tokens=call.completion_tokens,
                cached_prompt_tokens=call.cached_prompt_tokens,
            )
        )
    return replace(call, feature=feature or call.feature, cost_usd=cost)


# --- rows of a file ------------------------------------------------------------------


def _rows(path: Path, done: Imported) -> Iterator[tuple[str, Any]]:
    """(where it stands, value) of each row: a line of JSON Lines, or an item of a document."""

    def on_error(error: StrictError) -> None:
        done.problem(f"{path}:{error.line or 1}: {error.message}")

    if _is_lines(path):
        for number, _, row in iter_jsonl(path, on_error=on_error):
            for item in _items(row) if isinstance(row, Mapping) and detect(row) is None else [row]:
                yield f"{path}:{number}", item
        return
    try:
        document = loads_json(read_text(path, max_bytes=MAX_JSONL_BYTES), where="")
    except StrictError as error:
        on_error(error)
        return
    for number, row in enumerate(_items(document), start=1):
        yield f"{path}: row {number}", row


def _items(document: Any) -> Collection[Any]:
    """What a document lists, be it a page of an API: `{"data": […], "meta": …}`."""
    listed = document.get("data") if isinstance(document, Mapping) else document
    return listed if isinstance(listed, list) else [document]


def _is_lines(path: Path) -> bool:
    """Whether the first line is an object of its own, with others after it or alone."""
    with path.open("rb") as file:
        line = file.readline(MAX_LINE_BYTES)
        while line and not line.strip():
            line = file.readline(MAX_LINE_BYTES)
        following = file.read(1)
    if not line.lstrip().startswith(b"{"):
        # A line that is nothing at all is a problem of that line, not of the document.
        return not line.lstrip().startswith(b"[")
    return line.rstrip().endswith(b"}") or not following


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

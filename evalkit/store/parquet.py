"""Parquet files that end with a seal: the SHA-256 of all their bytes, before the footer.

Parquet's own checksums hold its pages, not its footer, and DuckDB does not look at them: a
flipped bit can become another number in silence. Readers of Parquet pass over what lies
between the last page and the footer, so every file carries its seal in itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

from evalkit.errors import DamagedStore
from evalkit.store.files import WholeFile

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_MAGIC = b"\x89EVKSEAL"
_SEAL_BYTES = len(_MAGIC) + hashlib.sha256().digest_size
_LENGTH_AND_MAGIC = 8
"""Behind the footer: its length, and `PAR1`."""
BLOCK = 1 << 20


@contextmanager
def parquet_writer(file: WholeFile, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Write `file` as Parquet; it is sealed when the block ends without an error."""
    import pyarrow.parquet as pq

    sink = _SealedSink(file)
    writer = pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True)
    with writer:
        yield writer
        sink.hold()
    sink.seal()


class _SealedSink:
    """Passes bytes on, but holds back what comes last, the footer, until the seal is written."""

    closed = False

    def __init__(self, file: WholeFile) -> None:
        self._file = file
        self._held: bytearray | None = None

    def write(self, data: Any) -> int:
        if self._held is None:
            return self._file.write(data)
        self._held += memoryview(data).cast("B")
        return self.tell()

    def tell(self) -> int:
        return self._file.size + len(self._held or b"")

    def flush(self) -> None:
        """Nothing is buffered that may be written now."""

    def hold(self) -> None:
        self._held = bytearray()

    def seal(self) -> None:
        """Only the footer's place moves, and nothing in a file refers to that."""
        held = bytes(self._held or b"")
        at = len(held) - _footer_bytes(held[-_LENGTH_AND_MAGIC:])
        self._file.write(held[:at])
        self._file.write(_MAGIC + self._file.digest_with(held[at:]))
        self._file.write(held[at:])


def _footer_bytes(end: bytes) -> int:
    """Length of a footer with what stands behind it."""
    return int.from_bytes(end[:4], "little") + _LENGTH_AND_MAGIC


def verify_parquet(path: Path) -> None:
    """Hold every byte of a file to its seal; the pages of an older file to their checksums.

    Raises DamagedStore. A file is read once per process, again only when it has changed.
    """
    try:
        stat = path.stat()
        is_file = S_ISREG(stat.st_mode)
        problem = (
            _problem(path, stat.st_mtime_ns, stat.st_size) if is_file else "not a regular file"
        )
    except OSError as error:
        problem = error.strerror or str(error)
    if problem:
        raise DamagedStore(
            f"{path} is damaged: {problem}. It is kept as it is; restore it from a copy, or move "
            "it away to go on without what it holds."
        )


@lru_cache(maxsize=100_000)
def _problem(path: Path, mtime_ns: int, size: int) -> str | None:
    with path.open("rb") as file:
        file.seek(max(size - _LENGTH_AND_MAGIC, 0))
        at = size - _footer_bytes(file.read()) - _SEAL_BYTES
        if at >= 0:
            file.seek(at)
            seal = file.read(_SEAL_BYTES)
            if _looks_sealed(seal):
                same = seal == _MAGIC + _digest(file, at)
                return None if same else "it is not what its SHA-256 says"
    return _problem_of_pages(path)


def _looks_sealed(seal: bytes) -> bool:
    """Whether it is a seal, be it a damaged one."""
    alike = sum(one == other for one, other in zip(seal, _MAGIC, strict=False))
    return 2 * alike > len(_MAGIC)


def _digest(file: Any, seal_at: int) -> bytes:
    """Of all bytes but the seal's."""
    digest = hashlib.sha256()
    file.seek(0)
    left = seal_at
    while left and (block := file.read(min(BLOCK, left))):
        digest.update(block)
        left -= len(block)
    file.seek(seal_at + _SEAL_BYTES)
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.digest()


def _problem_of_pages(path: Path) -> str | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for _ in file.iter_batches():
                pass
    except (pa.ArrowException, OSError) as error:
        return str(error)
    return None

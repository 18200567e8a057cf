"""Files that appear whole or not at all, and the locks and checksums around them.

The store's ground floor: it knows bytes and names, no columns and no SQL. A new file
is linked into place, so that an existing one is never overwritten; only what is meant
to change (a running manifest, the list of baselines) is replaced, at one instant.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from evalkit.errors import EXIT_UNMEASURABLE, OF_THE_DISK, DamagedStore, StoreError

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
OLD_S = 60.0
"""From then on a temporary folder is left over."""
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What `link` answers on a file system that has no hard links."""


def is_safe_id(name: str) -> bool:
    """Whether `name` can be a file's name in the store: no path, no surprise."""
    return _ID.fullmatch(name) is not None


class WholeFile:
    """A file being written under a temporary name; knows its checksum as it grows.

    Once ended it takes writes and drops them: a Parquet writer that failed writes its
    footer when it is collected, and the descriptor may be another file's by then.
    """

    closed = False

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        if self._descriptor is None:
            return len(left)
        self._digest.update(left)
        self.size += len(left)
        while left:
            left = left[os.write(self._descriptor, left) :]
        return self.size

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Nothing is buffered here."""

    def end(self) -> None:
        self._descriptor = None

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def digest_with(self, more: bytes) -> bytes:
        """SHA-256 of what was written and of `more`, which is not."""
        digest = self._digest.copy()
        digest.update(more)
        return digest.digest()


@contextmanager
def write_whole(path: Path, *, replace: bool = False) -> Iterator[WholeFile]:
    """Write `path`; it appears, complete and on disk, when the block ends without an error.

    The caller is the only one who writes this name: its id is random, or it holds a lock.
    What a killed writer left of the same name goes. With `replace`, a link stays one, and a
    device or pipe is written to: as root, renaming over /dev/null would take it from everybody.
    Raises StoreError when `path` exists (unless `replace`) or cannot be written.
    """
    if replace and path.exists() and not path.is_file():
        with explain_os_errors(path), path.open("wb", buffering=0) as special:
            yield WholeFile(special.fileno())
        return
    if replace:
        path = path.resolve()
    with explain_os_errors(path):
        _make_folder(path.parent)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*tmp"):
            _remove_if_left(left)
        temporary, descriptor = open_temporary(path)
        file = WholeFile(descriptor)
        try:
            yield file
            os.fsync(descriptor)
            if replace:
                os.replace(temporary, path)
            else:
                _link(temporary, path)
        finally:
            file.end()
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
        # Last, so that no power cut brings the temporary name back beside the file's own.
        _sync_folder(path.parent)


def make_whole_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make `folder` with `files` in it, at one instant; nothing is done when it is there."""
    if folder.is_dir():
        return
    temporary = _temporary_name(folder)
    with explain_os_errors(folder):
        _make_folder(folder.parent)
        _remove_old_folders(folder)
        try:
            temporary.mkdir(mode=0o700)
            for name, data in files.items():
                with (temporary / name).open("xb", buffering=0) as file:
                    file.write(data)
                    os.fsync(file.fileno())
            _sync_folder(temporary)
            os.rename(temporary, folder)
        except OSError as error:
            # Another process was quicker: a folder with something in it is never replaced.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or not folder.is_dir():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _sync_folder(folder.parent)


# --- temporary names, and what the dead leave of them -------------------------------------
# Whoever writes under a temporary name holds its lock; what is not locked is nobody's.


def sweep(store: Path, *, runs: bool = True) -> None:
    """Remove what writers that have died left half-written in a store.

    A living writer's files are left alone, and so is what cannot be removed. Without `runs`
    not in the folders of runs, which may be thousands.
    """
    for folder, folders, files in os.walk(store):
        if not runs and Path(folder) == store:
            folders[:] = [name for name in folders if name != "runs"]
        for name in files:
            if name.startswith(".") and name.endswith(".tmp"):
                _remove_if_left(Path(folder, name))


def _temporary_name(path: Path) -> Path:
    """Another one each time: who removes what is left never takes it for what is written now."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def open_temporary(path: Path, flags: int = 0) -> tuple[Path, int]:
    """Open a file that shall become `path`, locked; returns its name until then and descriptor."""
    while True:
        temporary = _temporary_name(path)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o600)
        if _hold(descriptor):
            return temporary, descriptor
        os.close(descriptor)


def _hold(descriptor: int) -> bool:
    """Lock what was just made; False when it was swept away in the instant before."""
    # A file system without locks: nobody can tell there whether a writer lives, so nobody sweeps.
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return os.fstat(descriptor).st_nlink > 0


def _remove_old_folders(folder: Path) -> None:
    """What is left of folders that never got the name of `folder`: made in milliseconds, or not."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.tmp"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > OLD_S:
                shutil.rmtree(left)


def _remove_if_left(path: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            _sync_folder(path.parent)
        finally:
            os.close(descriptor)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it; each is on disk before anything is put into it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    _sync_folder(folder.parent)


def _link(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise StoreError(f"{path} exists and is never overwritten. Move it away first.") from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            raise StoreError(
                f"{path} exists and is never overwritten. Move it away first."
            ) from None
        os.rename(temporary, path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> bool:
    """Remove a file for good: no power cut brings it back. False when it was not there."""
    with explain_os_errors(path):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        _sync_folder(path.parent)
        return True


@contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into a StoreError that names `path`.

    A disk that is full or fails is no fault of usage: nothing was measured.
    """
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: " Free some space; what was sealed before is intact.",
            errno.EACCES: " Give write permission, or choose another place.",
            errno.EROFS: " Choose a place that can be written.",
        }.get(error.errno or 0, "")
        refused = StoreError(f"{path}: {error.strerror or error}.{advice}")
        if error.errno in OF_THE_DISK:
            refused.exit_code = EXIT_UNMEASURABLE
        raise refused from error


_SEAL = b',\n "sha256": "%b"\n}\n'
"""The end of every JSON file: the checksum of all bytes before it, as the last member."""
_SEAL_BYTES = len(_SEAL % bytes(64))
_IN_ALL_SEALS = [(n, bytes([byte])) for n, byte in enumerate(_SEAL % bytes(64)) if byte]


def write_json(path: Path, value: Any, *, replace: bool = False) -> None:
    """Write `value` as JSON for people and machines, whole or not at all, and sealed."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    body = text.encode("utf-8", errors="replace").removesuffix(b"\n}")
    with write_whole(path, replace=replace) as file:
        file.write(body + _seal_of(body) if value else b"{}\n")


def _seal_of(body: bytes) -> bytes:
    return _SEAL % hashlib.sha256(body).hexdigest().encode()


def read_json(path: Path, *, newest: int | None = None) -> dict[str, Any]:
    """Read a JSON object. Raises DamagedStore when it is none, StoreError when unreadable.

    What has no seal was written before there were any, and is read as it is. `newest` is the
    last schema_version that can be read: how a later one is sealed is not known here.
    """
    with explain_os_errors(path):
        if path.exists() and not path.is_file():
            raise DamagedStore(f"{path} is damaged: not a regular file. Restore it from a copy.")
        data = path.read_bytes()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedStore(f"{path} is damaged: {error}. Restore it from a copy.") from None
    if not isinstance(value, dict):
        raise DamagedStore(f"{path} is damaged: not a JSON object. Restore it from a copy.")
    version = value.get("schema_version")
    if newest is not None and isinstance(version, int) and version > newest:
        raise StoreError(
            f"{path} was written by a newer evalkit (schema {version}; this one reads up to "
            f"{newest}). Upgrade evalkit."
        )
    body, seal = data[:-_SEAL_BYTES], data[-_SEAL_BYTES:]
    if _looks_sealed(seal) or "sha256" in value:
        if seal != _seal_of(body):
            raise DamagedStore(
                f"{path} is damaged: it is not what its SHA-256 says. Restore it from a copy."
            )
        del value["sha256"]
    return value


def _looks_sealed(end: bytes) -> bool:
    """Whether an end is a seal, be it a damaged one: it has most of what all seals have."""
    alike = sum(end[n : n + 1] == byte for n, byte in _IN_ALL_SEALS)
    return 2 * alike > len(_IN_ALL_SEALS)


@contextmanager
def locked(path: Path, *, holder: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`; `holder` says in an error what another process is doing."""
    unlock = lock(path, holder=holder, wait=wait)
    try:
        yield
    finally:
        unlock()


def lock(path: Path, *, holder: str, wait: bool = False) -> Callable[[], None]:
    """Take the lock file `path` and return what releases it; the system does so on any death.

    Raises StoreError at once when another process (or another writer here) has it, unless it
    is to be waited for.
    """
    with explain_os_errors(path):
        _make_folder(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            raise StoreError(
                f"{holder} in another process ({path} is locked). Wait for it to end."
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
    return lambda: os.close(descriptor)


def verify_sha256(path: Path, *, sha256: str) -> None:
    """Raise DamagedStore unless `path` is what was sealed.

    A file is read once per process, again only when its size or time of change differ.
    """
    try:
        stat = path.stat()
        actual = _sha256(path, stat.st_mtime_ns, stat.st_size)
    except FileNotFoundError:
        raise DamagedStore(f"{path} is missing, but its run was sealed with it.") from None
    except OSError as error:
        raise DamagedStore(f"{path} cannot be read: {error.strerror or error}.") from None
    if actual != sha256:
        raise DamagedStore(
            f"{path} is damaged: its SHA-256 is {actual[:12]}…, sealed was {sha256[:12]}…. "
            "It is kept as it is; restore it from a copy, or run again."
        )


@lru_cache(maxsize=100_000)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Production's calls in an object store: pushed there, and read where they lie.

A store with addresses attached (`remotes.json`) has their calls in its views, as if they
were its own; nothing else of a store is remote. Any file system of pyarrow (`s3://`,
`gs://`) or fsspec. An object appears whole or not at all; nothing is ever overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import ConfigError, StoreError
from evalkit.store.compaction import PREFIX, changing_calls, replaced_by, replaced_in
from evalkit.store.files import make_whole_folder, read_json, write_json
from evalkit.store.parquet import verify_parquet
from evalkit.store.schema import arrow_schema

if TYPE_CHECKING:
    import pyarrow.dataset as ds
    import pyarrow.fs as pfs

    from evalkit.store.views import Store

KEEP_S = 86_400.0
BLOCK = 1 << 22

Name = tuple[str, str]
"""Date and id of a file of calls."""


@dataclass(slots=True, kw_only=True)
class Pushed:
    """What a push did."""

    sent: int = 0
    there: int = 0
    """Files that were there already."""
    changed: int = 0
    """Files that are there as they were before something, such as a purge, changed them here."""
    removed: int = 0
    """Local files that are there, and that no query reads here any more."""

    def as_json(self) -> dict[str, int]:
        return asdict(self)


# --- addresses ---------------------------------------------------------------------------


def attached(store: Path) -> list[str]:
    """Addresses whose calls belong to the store."""
    path = store / "remotes.json"
    return list(read_json(path)["calls"]) if path.exists() else []


def attach(store: Path, url: str) -> None:
    """Have the calls at `url` in the store's views from now on.

    Raises ConfigError when it is no address, StoreError when it cannot be read: every look at
    the store would end there.
    """
    _open(url)
    with _explained(url):
        next(_listed(url), None)
    make_whole_folder(store, {".gitignore": b"*\n"})
    urls = dict.fromkeys([*attached(store), url])
    write_json(store / "remotes.json", {"calls": list(urls)}, replace=True)


def detach(store: Path, url: str) -> None:
    """Leave the calls at `url` out again."""
    urls = [one for one in attached(store) if one != url]
    write_json(store / "remotes.json", {"calls": urls}, replace=True)


@lru_cache(maxsize=16)
def _open(url: str) -> tuple[pfs.FileSystem, str]:
    """The file system of an address, and the path on it."""
    import pyarrow as pa
    import pyarrow.fs as pfs

    if "://" not in url:
        raise ConfigError(f"{url!r} is no address: s3://bucket/folder is.")
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise ConfigError("the address holds a password. Name it by AWS_* variables instead.")
    try:
        filesystem, path = pfs.FileSystem.from_uri(url)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        filesystem, path = _open_with_fsspec(url, error)
    return filesystem, path.rstrip("/")


def _open_with_fsspec(url: str, first: Exception) -> tuple[pfs.FileSystem, str]:
    import pyarrow.fs as pfs

    try:
        import fsspec

        found, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ConfigError(f"{url}: {error}. Install evalkit[s3].") from None
    except ValueError:
        raise ConfigError(f"{url}: {first}.") from None
    return pfs.PyFileSystem(pfs.FSSpecHandler(found)), path


# --- reading -----------------------------------------------------------------------------


def remote_calls(store: Path, local: Iterable[Path], days: tuple[str, str]) -> list[ds.Dataset]:
    """Calls at the attached addresses, for each that has some; none that are here, too.

    `local` are all files of calls that are here; `days` the first and last date wanted.
    Raises StoreError when an address cannot be read.
    """
    import pyarrow.dataset as ds

    found = []
    for url in attached(store):
        filesystem, _ = _open(url)
        with _explained(url):
            there = {name: info for name, info in _listed(url) if days[0] <= name[0] <= days[1]}
            gone = _passed_over(local) | {
                (date, old)
                for (date, stem), info in there.items()
                if stem.startswith(PREFIX)
                for old in _replaced_there(url, info.path, info.size)
            }
            paths = [info.path for name, info in sorted(there.items()) if name not in gone]
            if paths:
                # By our schema, so that columns which older files lack are null.
                found.append(
                    ds.dataset(
                        paths, schema=arrow_schema("calls"), filesystem=filesystem, format="parquet"
                    )
                )
    return found


def _passed_over(local: Iterable[Path]) -> set[Name]:
    """What is here, or is part of what is here."""
    names: set[Name] = set()
    for path in local:
        date = path.parent.name.removeprefix("date=")
        names |= {(date, name) for name in (path.stem, *replaced_by(path))}
    return names


@lru_cache(maxsize=10_000)
def _replaced_there(url: str, path: str, size: int) -> tuple[str, ...]:
    filesystem, _ = _open(url)
    with filesystem.open_input_file(path) as file:
        return replaced_in(file)


def _listed(url: str) -> Iterator[tuple[Name, Any]]:
    import pyarrow.fs as pfs

    filesystem, root = _open(url)
    selector = pfs.FileSelector(root, recursive=True, allow_not_found=True)
    for info in filesystem.get_file_info(selector):
        path = Path(info.path)
        date = path.parent.name
        is_one = path.suffix == ".parquet" and date.startswith("date=")
        if info.type == pfs.FileType.File and is_one:
            yield (date.removeprefix("date="), path.stem), info


# --- pushing -----------------------------------------------------------------------------


def push(store: Store, url: str, *, move: bool = False, keep_s: float = KEEP_S) -> Pushed:
    """Copy the store's sealed calls to `url`; what is there already is left alone.

    `move` attaches the address, and removes what has been there for `keep_s`. Raises
    StoreError when the address refuses, when files of calls are being rewritten, or when
    one is damaged.
    """
    done = Pushed()
    filesystem, root = _open(url)
    if not (store.path / "calls").is_dir():
        return done
    with changing_calls(store.path), _explained(url):
        if move:
            attach(store.path, url)
        there = dict(_listed(url))
        days, _ = store.production_parts()
        for date, files in days.items():
            for path in store.readable(files):
                info = there.get((date, path.stem))
                if info is None:
                    verify_parquet(path)
                    _send(path, filesystem, f"{root}/date={date}/{path.name}")
                    done.sent += 1
                    continue
                if info.size != path.stat().st_size:
                    done.changed += 1
                    continue
                done.there += 1
                if move and time.time() - info.mtime_ns / 1e9 >= keep_s:
                    path.unlink()
                    done.removed += 1
    return done


def _send(path: Path, filesystem: pfs.FileSystem, target: str) -> None:
    """The object is there once its stream is closed; an upload that breaks off leaves none."""
    filesystem.create_dir(target.rpartition("/")[0], recursive=True)
    with path.open("rb") as source, filesystem.open_output_stream(target) as sink:
        while block := source.read(BLOCK):
            sink.write(block)


class _explained:
    """Turn what an object store refuses into a StoreError that names the address."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import pyarrow as pa

        if isinstance(error, OSError | pa.ArrowException):
            raise StoreError(f"{self._url}: {error}") from error

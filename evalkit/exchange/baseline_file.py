"""Carry baselines from one store to another: the choice, its runs' manifests and scores.

With them goes how far each judge was found to agree with people, without which it may not gate.

Beside the store, for CI whose store starts empty. The file is a zip archive; what it
holds is checked like any foreign file: only the names its own manifests give are read,
sizes are bounded, and every score file has to have its checksum.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from evalkit.errors import ConfigError, InputFileError
from evalkit.exchange.archives import BROKEN
from evalkit.schemas import find_faults
from evalkit.store.files import is_safe_id, write_json, write_whole
from evalkit.store.runs import run_folder
from evalkit.store.schema import SCHEMA_VERSION
from evalkit.store.views import Store
from evalkit.strict import StrictError, loads_json

LIST = "baselines.json"
MAX_JSON_BYTES = 50_000_000
MAX_SCORES_BYTES = 2_000_000_000
MAX_RUNS = 1_000
MAX_FIGURES = 1_000
FIGURES = "judges"
PIECE_BYTES = 1 << 20

_FIGURE = re.compile(rf"{FIGURES}/[A-Za-z0-9_-][A-Za-z0-9._-]{{0,200}}\.json")

Entry = Mapping[str, str]
"""golden_set, feature, run_id."""


def baselines_of(store: Store) -> list[dict[str, str]]:
    """The baselines that were chosen, in a fixed order."""
    return _entries(store.baselines.all())


def _entries(chosen: Mapping[tuple[str, str], str]) -> list[dict[str, str]]:
    return [
        {"golden_set": golden_set, "feature": feature, "run_id": run_id}
        for (golden_set, feature), run_id in sorted(chosen.items())
    ]


def export_baselines(
    store: Store, path: Path, *, instead: Mapping[tuple[str, str], str] | None = None
) -> list[dict[str, str]]:
    """Write the chosen baselines and their runs' scores to `path`; returns what it has.

    `instead` are runs by golden set and feature that stand in it whatever the store's choice is.
    """
    chosen = _entries({**store.baselines.all(), **(instead or {})})
    if not chosen:
        raise ConfigError("no baseline was chosen. Choose one with: evalkit baseline set RUN.")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(LIST, json.dumps({"baselines": chosen}, indent=2))
        for run_id in sorted({entry["run_id"] for entry in chosen}):
            _add_run(archive, store, run_id)
        for figure in sorted((store.path / FIGURES).glob("*.json"))[:MAX_FIGURES]:
            archive.write(figure, f"{FIGURES}/{figure.name}")
    with write_whole(path.absolute(), replace=True) as whole:
        whole.write(content.getbuffer())
    return chosen


def _add_run(archive: zipfile.ZipFile, store: Store, run_id: str) -> None:
    files = store.score_files(run_id)
    manifest = store.manifest(run_id)
    names = {name: facts for name, facts in manifest["files"].items() if _is_scores(name)}
    archive.writestr(_manifest_name(run_id), json.dumps({**manifest, "files": names}))
    for file, name in zip(files, names, strict=True):
        archive.write(file, name)


def import_baselines(
    store: Store, path: Path, *, left: Collection[tuple[str, str]] = ()
) -> list[dict[str, str]]:
    """Take over what `export_baselines` wrote; runs that the store has already stay as they are.

    So does the choice for the golden sets and features in `left`.

    Raises InputFileError for anything that is not such a file, before a choice changes.
    """
    seen = store.baselines.all()
    with _opened(path) as archive:
        chosen = [
            entry
            for entry in _chosen(_read_json(archive, LIST, path), path)
            if (entry["golden_set"], entry["feature"]) not in left
        ]
        for run_id in sorted({entry["run_id"] for entry in chosen}):
            if not (run_folder(store.path, run_id) / "manifest.json").exists():
                _take_run(archive, store, run_id, path)
        for name in _figures(archive):
            figure = _read_json(archive, name, path)
            if not isinstance(figure, dict):
                raise _not_an_export(path, f"{name} is no figure of a judge")
            if not (store.path / name).exists():
                write_json(store.path / name, figure)
    store.baselines.choose(
        {(entry["golden_set"], entry["feature"]): entry["run_id"] for entry in chosen}, seen=seen
    )
    return chosen


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    if path.exists() and not path.is_file():
        raise InputFileError(f"{path}: is not a regular file.")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except BROKEN as error:
        raise _not_an_export(path, str(error)) from None
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror or error}.") from None


def _not_an_export(path: Path, why: str) -> InputFileError:
    return InputFileError(
        f"{path}: not an export of baselines: {why}. Write one with: evalkit baseline export FILE."
    )


def _read_json(archive: zipfile.ZipFile, name: str, path: Path) -> Any:
    with archive.open(name) as file:
        data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise _not_an_export(path, f"{name} is too large")
    try:
        return loads_json(data.decode("utf-8"), where=name)
    except (StrictError, UnicodeDecodeError) as error:
        raise _not_an_export(path, f"{name}: {error}") from None


def _chosen(value: Any, path: Path) -> list[dict[str, str]]:
    entries = value.get("baselines") if isinstance(value, dict) else None
    names = ("golden_set", "feature", "run_id")
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in names)
        for entry in entries
    ):
        raise _not_an_export(path, f"{LIST} lists no baselines")
    if len(entries) > MAX_RUNS or not all(is_safe_id(entry["run_id"]) for entry in entries):
        raise _not_an_export(path, f"{LIST} names what cannot be a run")
    return [{name: entry[name] for name in names} for entry in entries]


def _take_run(archive: zipfile.ZipFile, store: Store, run_id: str, path: Path) -> None:
    """The scores first, the manifest last: a run is there whole or not at all."""
    manifest = _read_json(archive, _manifest_name(run_id), path)
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputFileError(
            f"{path}: run {run_id} was written by a newer evalkit (schema {version}; this one "
            f"reads up to {SCHEMA_VERSION}). Upgrade evalkit."
        )
    faults = find_faults(manifest, "manifest")
    if faults:
        raise _not_an_export(path, f"the manifest of run {run_id}: {faults[0].problem}")
    if (manifest["run_id"], manifest["status"]) != (run_id, "complete") or not all(
        map(_is_scores, manifest["files"])
    ):
        raise _not_an_export(path, f"run {run_id} has no manifest of a complete run")
    for name, facts in manifest["files"].items():
        target = store.path / name
        if not target.exists():
            with archive.open(name) as file:
                _copy(file, target, facts["sha256"], path)
    # Its journal stayed where it was run.
    manifest = {**manifest, "journal_bytes": None}
    write_json(run_folder(store.path, run_id) / "manifest.json", manifest)


def _copy(file: IO[bytes], target: Path, sha256: str, path: Path) -> None:
    with write_whole(target) as whole:
        left = MAX_SCORES_BYTES
        while left > 0 and (piece := file.read(min(PIECE_BYTES, left))):
            left -= len(piece)
            whole.write(piece)
        if whole.sha256 != sha256:
            raise _not_an_export(path, f"{target.name} is not what its manifest says")


def _figures(archive: zipfile.ZipFile) -> list[str]:
    """Names of the judges' figures in the archive."""
    found = [name for name in archive.namelist() if _FIGURE.fullmatch(name)]
    return found[:MAX_FIGURES]


def _manifest_name(run_id: str) -> str:
    return f"runs/{run_id}/manifest.json"


def _is_scores(name: str) -> bool:
    """Whether a manifest's file is a file of scores, directly in that folder."""
    parts = PurePosixPath(name).parts
    return len(parts) == 2 and parts[0] == "scores" and "\\" not in name and ".." not in parts

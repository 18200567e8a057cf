"""Bits that flip, ends that are cut off, files that are gone: found by whoever needs them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from evalkit.errors import StoreError
from evalkit.store.anchor_looks import AnchorLook, anchor_looks, save_look
from evalkit.store.input_profiles import Counted, save_day, save_topics, saved_days, topics_of
from evalkit.store.views import Store, open_store
from tests.faults.table import Bench, Found, Scenario
from tests.faults.world import RUN, make_baseline, make_project

DATE = "2026-03-02"
FLIPS = 30
"""So many times as many flips as other faults: they are quick."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A store with a baseline, a good run, a bad candidate, a verdict and looks at drift."""

    folder: Path
    candidate: str

    @property
    def store(self) -> Path:
        return self.folder / ".evalkit"

    def file(self, kind: str) -> Path:
        patterns = {
            "manifest": f"runs/{self.candidate}/manifest.json",
            "journal": f"runs/{self.candidate}/journal.jsonl",
            "scores": f"scores/run={self.candidate}.parquet",
            "calls": f"calls/date=*/{self.candidate}.parquet",
            "verdict": "verdicts/*.json",
            "baselines": "baselines.json",
            "inputs": "inputs/date=*.json",
            "topics": "inputs/*.topics.json",
            "anchors": "anchors/*/*.json",
        }
        (path,) = self.store.glob(patterns[kind])
        return path


def _sealed(bench: Bench) -> Sealed:
    folder = bench.root / "sealed"
    folder.mkdir()
    make_project(folder)
    make_baseline(folder, bench.forks)
    bench.forks.run(folder, "run")
    candidate = bench.forks.run(folder, *RUN).json()["run_id"]
    bench.forks.run(folder, "gate", "--json")
    _watch(open_store(folder / ".evalkit"))
    return Sealed(folder, candidate)


def _watch(store: Store) -> None:
    """What `evalkit drift` keeps: a day's inputs, a feature's topics, a judge's look."""
    save_day(store, DATE, [Counted(feature="classify", what="language", kind="de", n=7)])
    save_topics(store, "classify", {"version": "1", "since": DATE, "until": DATE, "means": [0.5]})
    look = AnchorLook(
        judge="same", scorer_version="1", at=0, scores={"a": 1.0}, first={"a": 0.5}, is_first=False
    )
    save_look(store, look, DATE)


# --- every reader, every bit ------------------------------------------------------------


def _read_journal(store: Store, run_id: str) -> None:
    with store.open_run(run_id) as run:
        list(run.finished())


def _read_verdicts(store: Store, run_id: str) -> None:
    store.verdicts()
    if store.problems:
        raise StoreError(store.problems[0])


READERS: dict[str, Callable[[Store, str], object]] = {
    "manifest": lambda store, run_id: store.manifest(run_id),
    "journal": _read_journal,
    "scores": lambda store, run_id: store.score_files(run_id),
    "calls": lambda store, run_id: store.call_files(run_id),
    "verdict": _read_verdicts,
    "baselines": lambda store, run_id: store.baselines.all(),
    "inputs": lambda store, run_id: list(saved_days(store)),
    "topics": lambda store, run_id: topics_of(store, "classify"),
    "anchors": lambda store, run_id: list(anchor_looks(store)),
}


def flip_every_bit(bench: Bench, *, kind: str) -> None:
    """Each bit of a sealed file in turn; whoever reads the file says so, and names it."""
    sealed = _sealed(bench)
    path = sealed.file(kind)
    data = path.read_bytes()
    READERS[kind](open_store(sealed.store), sealed.candidate)  # whole, it can be read
    for number in bench.some(range(8 * len(data)), times=FLIPS):
        with bench.fault(f"bit {number % 8} of byte {number // 8} of the {kind}") as found:
            _write(path, _flipped(data, number), at=number)
            found.lost(*_undetected(sealed, kind, path))
    for size in bench.some(range(len(data))):
        with bench.fault(f"the {kind} cut to {size} bytes") as found:
            _write(path, data[:size], at=size)
            found.lost(*_undetected(sealed, kind, path))


def _undetected(sealed: Sealed, kind: str, path: Path) -> tuple[bool, str]:
    try:
        READERS[kind](open_store(sealed.store), sealed.candidate)
    except StoreError as error:
        return str(path) not in str(error), f"found, but not named: {error}"
    except Exception as error:
        return True, f"not an error of ours: {error!r}"
    return True, "read as if nothing had happened"


def _flipped(data: bytes, number: int) -> bytes:
    at = number // 8
    return data[:at] + bytes([data[at] ^ 1 << number % 8]) + data[at + 1 :]


def _write(path: Path, data: bytes, *, at: int) -> None:
    path.write_bytes(data)
    # Two writes may fall into one tick of the clock, by which a reader knows a changed file.
    os.utime(path, ns=(at, at))


# --- the gate, and who else needs it ------------------------------------------------------


def damage_and_gate(bench: Bench) -> None:
    """A damaged file makes the gate unmeasurable; nothing falls back to another run."""
    sealed = _sealed(bench)
    for kind in ("manifest", "scores", "baselines"):
        for name, damage in _damages(bench, sealed.file(kind).read_bytes()):
            with bench.fault(f"{name} of the {kind}") as found:
                folder = bench.copy(sealed.folder)
                copy = Sealed(folder, sealed.candidate)
                damage(copy.file(kind))
                _check_gate(bench, found, folder, ("gate",))
                if kind != "baselines":
                    _check_gate(bench, found, folder, ("gate", "--candidate", sealed.candidate))
                    _check_gate(bench, found, folder, ("gate", "--baseline", sealed.candidate))


def _damages(bench: Bench, data: bytes) -> Iterator[tuple[str, Callable[[Path], object]]]:
    for number in bench.some(range(8 * len(data))):
        yield f"bit {number}", partial(_flip_in, number=number)
    yield "half", lambda path: path.write_bytes(data[: len(data) // 2])
    yield "all", lambda path: path.write_bytes(b"")


def _flip_in(path: Path, *, number: int) -> None:
    path.write_bytes(_flipped(path.read_bytes(), number))


def _check_gate(bench: Bench, found: Found, folder: Path, argv: tuple[str, ...]) -> None:
    ended = bench.forks.run(folder, *argv)
    found.wrong(ended.crashed, f"{argv}: {ended}")
    said = "".join((ended.output + ended.errors).split())
    found.wrong(ended.status != 3, f"{argv}: status {ended.status}: {ended.output[-300:]}")
    found.wrong("damaged" not in said, f"{argv}: not said why: {ended.output[-300:]} {ended}")


SCENARIOS: dict[str, Scenario] = {
    **{f"damage: {kind}": partial(flip_every_bit, kind=kind) for kind in READERS},
    "damage: gate": damage_and_gate,
}

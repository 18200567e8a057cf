"""The disk that forgets what was not synced: it may neither keep too much nor too little."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.forks import CHECKOUT
from tests.faults.power import Disk

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="no /proc, by which the disk knows files"
)


class Machine:
    """A folder whose writers tell the disk what they did, as the fault layer has them do."""

    def __init__(self, root: Path, *, names: bool = False) -> None:
        root.mkdir()
        self.root = root
        self._disk = Disk(root, names=names)

    def mkdir(self, name: str) -> None:
        self._do("mkdir", str(self.root / name))

    def rename(self, old: str, new: str) -> None:
        self._do("rename", str(self.root / old), str(self.root / new))

    def write(self, name: str, data: bytes, *, sync: bool = True) -> None:
        descriptor = self._do("open", str(self.root / name), os.O_WRONLY | os.O_CREAT)
        self._do("write", descriptor, data)
        if sync:
            self._do("fsync", descriptor)
        os.close(descriptor)

    def sync(self, name: str = ".") -> None:
        descriptor = os.open(self.root / name, os.O_RDONLY)
        self._do("fsync", descriptor)
        os.close(descriptor)

    def after_a_cut(self) -> dict[str, bytes | None]:
        """What is there; None for a folder."""
        self._disk.lose_power()
        return dict(self._found())

    def _found(self) -> Iterator[tuple[str, bytes | None]]:
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            yield name, path.read_bytes() if path.is_file() else None

    def _do(self, name: str, *arguments: object) -> int:
        result = getattr(os, name)(*arguments)
        self._disk.done(name, arguments, result)
        return int(result or 0)


def test_a_name_that_was_not_synced_is_gone(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "disk")
    machine.write("synced", b"1")
    machine.sync()
    machine.write("not-synced", b"2")

    assert machine.after_a_cut() == {"synced": b"1"}


def test_bytes_that_were_not_synced_are_gone_where_names_survive(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "disk", names=True)
    machine.write("file", b"1", sync=False)

    assert machine.after_a_cut() == {"file": b""}


def test_a_folder_that_was_renamed_keeps_what_was_synced_in_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "disk")
    machine.mkdir("temporary")
    machine.write("temporary/file", b"1")
    machine.sync("temporary")
    machine.rename("temporary", "final")
    machine.sync()

    assert machine.after_a_cut() == {"final": None, "final/file": b"1"}


def test_a_folder_whose_new_name_was_not_synced_has_its_old_one(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "disk")
    machine.mkdir("temporary")
    machine.sync()
    machine.write("temporary/file", b"1")
    machine.sync("temporary")
    machine.rename("temporary", "final")

    assert machine.after_a_cut() == {"temporary": None, "temporary/file": b"1"}


STRUCK = """
import os, sys
from tests.faults.layer import Counter, Fault, Layer

root = sys.argv[1]
Layer(Fault(folder=root, at=4, mode="power"), Counter()).install()
os.mkdir(root + "/one")
descriptor = os.open(root, os.O_RDONLY)
os.fsync(descriptor)
os.mkdir(root + "/two")
os.fsync(descriptor)
"""


def test_a_cut_comes_before_the_call_that_it_strikes_and_ends_the_process(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()

    ended = subprocess.run([sys.executable, "-c", STRUCK, root], cwd=CHECKOUT)

    assert ended.returncode == -signal.SIGKILL
    assert [path.name for path in root.iterdir()] == ["one"]
